"""The `s2d-hf` command."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from . import __version__
from .conversion import convert_checkpoint
from .labels import LABELS, find_labels
from .prediction_command import FAILED, NO_FACE, add_model_arguments, add_predict_parser, model_settings


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command and its subcommands."""
    parser = argparse.ArgumentParser(
        prog="s2d-hf", description="Facial expression recognition in videos with S2D (From Static to Dynamic)."
    )
    parser.add_argument("--version", action="version", version=f"s2d-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_predict_parser(commands)
    _add_archive(commands)
    _add_demo(commands)
    _add_convert(commands)
    _add_export_onnx(commands)
    return parser


def _add_archive(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "archive",
        help="the same for thousands of videos, on many processes or machines",
        description=(
            "Analyse all videos of a folder, a table of paths or a dataset of the Hub into a folder of Parquet files. "
            "What is done is not done again: after a kill, the same command goes on. Videos that fail are listed with "
            "the reason in failures.csv. On the GPUs of one machine: accelerate launch -m s2d_hf.cli archive ...; on "
            f"a cluster: --ray. Exit code: 0, {NO_FACE} if there is no face in any video, {FAILED} if videos failed."
        ),
        epilog="example: s2d-hf archive interviews/ results/ --model dfew-set1 --ray --num-actors 8",
    )
    parser.add_argument("source", help="a folder, a .csv, .jsonl or .parquet file, or a dataset of the Hub")
    parser.add_argument("output", help="the folder to write, or to go on with")
    add_model_arguments(parser)
    parser.add_argument("--path-column", metavar="NAME", help="the column that holds the videos")
    parser.add_argument("--split", metavar="NAME", help="the split of a dataset of the Hub")
    parser.add_argument("--ray", action="store_true", help='run on Ray (pip install "s2d-hf[ray]")')
    parser.add_argument("--num-actors", type=int, metavar="N", help="with --ray (default: one per GPU, or per core)")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster, or auto (default: this machine)")
    parser.add_argument("--skip-failed", action="store_true", help="don't try videos again that failed before")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_archive)


def _archive(arguments: argparse.Namespace) -> int:
    settings = model_settings(arguments)
    try:
        from .archive import analyse_archive
    except ImportError as error:
        raise ImportError(f'archives need more libraries: pip install "s2d-hf[archive]". ({error})') from error
    summary = analyse_archive(
        arguments.source,
        arguments.output,
        arguments.model,
        ray=arguments.ray,
        num_actors=arguments.num_actors,
        ray_address=arguments.ray_address,
        path_column=arguments.path_column,
        split=arguments.split,
        retry_failed=not arguments.skip_failed,
        progress=not arguments.quiet,
        **settings,
    )
    if summary is None:  # in a process beside the main one
        return 0
    print(json.dumps({name: value for name, value in vars(summary).items() if name != "failures"}))
    if summary.num_failed:
        print(
            f"s2d-hf: {summary.num_failed} videos failed; {arguments.output}/failures.csv says why.", file=sys.stderr
        )
        return FAILED
    return NO_FACE if summary.num_without_face == summary.num_videos else 0


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "demo",
        help="a page in the browser: drop a video, see its faces and expressions",
        description='A page on this machine to try a model with videos and the webcam (pip install "s2d-hf[demo]").',
        epilog="example: s2d-hf demo --model dfew-set1",
    )
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="the port to listen at (default: 7860)")
    parser.add_argument("--share", action="store_true", help="also at a public address, through Gradio's servers")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    settings = model_settings(arguments)
    from .demo import launch_demo

    launch_demo(arguments.model, arguments.host, arguments.port, arguments.share, **settings)


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn a checkpoint of the paper's authors into a model folder",
        description=(
            "Turn a checkpoint of the paper's authors, a video or an image model, into a folder that transformers "
            "loads: weights, configuration, processors, landmark encoder and code. Prints what was mapped, and what "
            "was dropped and why. Files that hold more than tensors are refused."
        ),
        epilog=(
            "example: s2d-hf convert DFEW-set1.pth dfew-set1 --landmark-weights mobilefacenet.pth.tar --dataset DFEW"
        ),
    )
    parser.add_argument("checkpoint", help="the model's weights (.pth, .pt, .bin or .safetensors)")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument(
        "--landmark-weights",
        metavar="FILE",
        help="the MobileFaceNet landmark detector (.pth.tar or .safetensors); needed by models with prompters",
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--dataset", metavar="NAME", help=f"the data set it was trained on, for its labels: {', '.join(LABELS)}"
    )
    names.add_argument("--labels", metavar="A,B,...", help="the labels in the order of the classes")
    parser.add_argument(
        "--num-heads", type=int, metavar="N", help="attention heads of the ViT (default: its width / 64)"
    )
    parser.add_argument(
        "--adapter-heads", type=int, default=8, metavar="N", help="heads of the temporal adapters (default: 8)"
    )
    parser.add_argument(
        "--crop-faces",
        action="store_true",
        help="let the model's processors find and crop faces by default, for pipelines on raw videos and photographs",
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    labels = None
    if arguments.dataset is not None:
        labels = find_labels(arguments.dataset)
    elif arguments.labels is not None:
        labels = tuple(label.strip() for label in arguments.labels.split(","))
    report = convert_checkpoint(
        arguments.checkpoint,
        arguments.output,
        landmark_weights=arguments.landmark_weights,
        labels=labels,
        num_attention_heads=arguments.num_heads,
        adapter_num_heads=arguments.adapter_heads,
        overwrite=arguments.overwrite,
        crop_faces=arguments.crop_faces,
    )
    print(report)
    print(f"Wrote {arguments.output}.")


def _add_export_onnx(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export-onnx",
        help="write a model as an ONNX file",
        description=(
            "Write a video or image model as an ONNX file, for onnxruntime and other programs, with its configuration "
            "beside it. What was written is compared with PyTorch, and refused if it differs "
            '(pip install "s2d-hf[onnx]").'
        ),
        epilog="example: s2d-hf export-onnx dfew-set1 dfew-set1-onnx --int8",
    )
    parser.add_argument("model", help="the model's folder or its name on the Hub")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument(
        "--int8", action="store_true", help="a second file with int8 weights: smaller, faster, and less exact"
    )
    parser.add_argument(
        "--opset", type=int, default=20, metavar="N", help="the version of ONNX's operators (default: 20)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    parser.set_defaults(run=_export_onnx)


def _export_onnx(arguments: argparse.Namespace) -> None:
    from .onnx_export import export_onnx

    reports = export_onnx(
        arguments.model,
        arguments.output,
        int8=arguments.int8,
        opset=arguments.opset,
        overwrite=arguments.overwrite,
    )
    for report in reports:
        print(f"Wrote {report}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 after an error that the user can mend, or the command's own."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"s2d-hf: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("s2d-hf: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # with torch 2.11, gloo may abort a process that unloads: everything is written by now
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
