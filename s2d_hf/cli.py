"""The `s2d-hf` command."""

import argparse
import io
import json
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from . import __version__
from .errors import NotDownloadedError
from .labels import LABELS, dataset_in_name, find_labels
from .model_options import (
    add_checkpoint_arguments,
    add_model_arguments,
    check_model_path,
    checkpoint_settings,
    chosen_model,
    hide_loading_bars,
    model_settings,
)
from .output_folder import check_output_folder
from .prediction_command import FAILED, NO_FACE, add_predict_parser
from .prediction_printing import count_of, visible


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
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="the traceback of an error, before its line")
        command.set_defaults(parser=command)
    return parser


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """
    The arguments of a command line. Mistakes end the program, with exit code 2 and the usage of the command that they
    were made in.
    """
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def _number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return number

    parse.__name__ = "whole number"  # what argparse calls it in its message
    return parse


def _host_name(text: str) -> str:
    """The type of an option that takes the name of a host, without a scheme, port or path."""
    if re.fullmatch(r"[A-Za-z0-9_.:-]+", text) is None or text.count(":") == 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a host, such as faces.example.org")
    return text


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
        epilog="example: s2d-hf archive interviews/ results/ --ray --num-actors 8",
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
    parser.add_argument(
        "--stall-limit",
        type=_number(1),
        default=600,
        metavar="SECONDS",
        help="give a video up after so long without progress (default: 600)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_archive)


def _archive(arguments: argparse.Namespace) -> int:
    settings, model = model_settings(arguments), chosen_model(arguments)
    source = _existing_source(arguments.source)
    try:
        from .archive import analyse_archive
        from .model_sources import DEFAULT_MODEL
    except ImportError as error:
        raise ImportError(f'archives need more libraries: pip install "s2d-hf[archive]". ({error})') from error
    hide_loading_bars()
    summary = analyse_archive(
        source,
        os.path.expanduser(arguments.output),
        model or DEFAULT_MODEL,
        ray=arguments.ray,
        num_actors=arguments.num_actors,
        ray_address=arguments.ray_address,
        path_column=arguments.path_column,
        split=arguments.split,
        retry_failed=not arguments.skip_failed,
        progress=not arguments.quiet,
        stall_limit=arguments.stall_limit,
        **settings,
    )
    if summary is None:  # in a process beside the main one
        return 0
    print(json.dumps({name: value for name, value in vars(summary).items() if name != "failures"}))
    if summary.num_failed:
        failed = count_of(summary.num_failed, "video")
        print(f"s2d-hf: {failed} failed; {arguments.output}/failures.csv says why.", file=sys.stderr)
        return FAILED
    return NO_FACE if summary.num_without_face == summary.num_videos else 0


def _existing_source(source: str) -> str:
    """
    Refuses, before anything is loaded, a path to nothing.

    Raises:
        FileNotFoundError: if `source` can only be a path, and there is nothing.
    """
    path = os.path.expanduser(source)
    is_path = os.path.isabs(path) or source.startswith(".") or source.endswith((".csv", ".jsonl", ".parquet", "/"))
    if is_path and not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder or table {source}.")
    return path if os.path.exists(path) else source


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "demo",
        help="a page in the browser: drop a video, see its faces and expressions",
        description='A page on this machine to try a model with videos and the webcam (pip install "s2d-hf[demo]").',
        epilog="example: s2d-hf demo --model affectnet7",
    )
    add_model_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine only)")
    parser.add_argument(
        "--port", type=_number(0, 65535), default=7860, metavar="N", help="the port to listen at (default: 7860)"
    )
    parser.add_argument("--share", action="store_true", help="also at a public address, through Gradio's servers")
    parser.add_argument(
        "--allowed-host",
        action="append",
        type=_host_name,
        metavar="NAME",
        help="another name under which the page is reached, as that of a proxy in front; may be repeated",
    )
    parser.add_argument("--max-upload", type=_number(1), metavar="MB", help="the size of a video (default: 200)")
    parser.add_argument(
        "--max-duration", type=_number(1), metavar="SECONDS", help="the length of a video (default: 600)"
    )
    parser.add_argument(
        "--max-wait",
        type=_number(1),
        metavar="SECONDS",
        help="how long one analysis may keep other visitors waiting before it is ended (default: 600)",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    settings, model = model_settings(arguments), chosen_model(arguments)
    from .demo import launch_demo
    from .demo.limits import PageLimits
    from .model_sources import DEFAULT_MODEL

    hide_loading_bars()
    given = {name: getattr(arguments, name) for name in ("max_upload", "max_duration", "max_wait")}
    launch_demo(
        model or DEFAULT_MODEL,
        arguments.host,
        arguments.port,
        arguments.share,
        PageLimits(**{name: value for name, value in given.items() if value is not None}),
        arguments.allowed_host or (),
        **settings,
    )


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn a checkpoint of the paper's authors into a model folder",
        description=(
            "Turn a checkpoint of the paper's authors, a video or an image model, into a folder that transformers "
            "loads: weights, configuration, processors, landmark encoder and code. Prints what was mapped, and what "
            "was dropped and why. Nothing that the checkpoint's pickle names is run."
        ),
        epilog="example: s2d-hf convert hf://cyinen/S2D/pretrain-AffectNet-7.pth affectnet7",
    )
    parser.add_argument(
        "checkpoint",
        help="the model's weights: a file (.pth, .pt, .bin or .safetensors) or hf://OWNER/REPOSITORY[@REVISION]/FILE",
    )
    parser.add_argument("output", help="the folder to write")
    add_checkpoint_arguments(parser)
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
    settings = checkpoint_settings(arguments)
    dataset = settings.pop("dataset", None)
    if dataset is not None:
        settings["labels"] = find_labels(dataset)
    source, output = os.path.expanduser(arguments.checkpoint), os.path.expanduser(arguments.output)
    if "://" not in source and not os.path.exists(source):
        raise FileNotFoundError(f"There is no checkpoint file {arguments.checkpoint}.")
    check_output_folder(Path(output), arguments.overwrite)
    from .conversion import convert_checkpoint
    from .model_sources import find_checkpoint

    hide_loading_bars()
    report = convert_checkpoint(
        find_checkpoint(source, arguments.landmark_weights),
        output,
        adapter_num_heads=arguments.adapter_heads,
        overwrite=arguments.overwrite,
        crop_faces=arguments.crop_faces,
        named=arguments.checkpoint,
        **settings,
    )
    print(_as_typed(str(report), arguments))
    print(f"Wrote {arguments.output}.")


def _add_export_onnx(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export-onnx",
        help="write a model as ONNX files",
        description=(
            "Write a video or image model and its landmark encoder as ONNX files, for onnxruntime and other programs, "
            "with its configuration and its processor's settings beside them. What was written is compared "
            'with PyTorch, and refused if it differs (pip install "s2d-hf[onnx]").'
        ),
        epilog="example: s2d-hf export-onnx affectnet7 affectnet7-onnx --int8",
    )
    parser.add_argument(
        "model", help="the model's folder or its name on the Hub, or a checkpoint of the paper's authors"
    )
    parser.add_argument("output", help="the folder to write")
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--int8",
        action="store_true",
        help="a second file with int8 weights, for one clip at a time: smaller, faster, and less exact",
    )
    parser.add_argument(
        "--opset", type=_number(18), default=20, metavar="N", help="the version of ONNX's operators (default: 20)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    parser.set_defaults(run=_export_onnx)


def _export_onnx(arguments: argparse.Namespace) -> None:
    check_model_path(arguments.model, "the model")
    from .model_sources import find_model
    from .onnx_export import export_onnx

    hide_loading_bars()
    reports = export_onnx(
        find_model(arguments.model, **checkpoint_settings(arguments)),
        os.path.expanduser(arguments.output),
        int8=arguments.int8,
        opset=arguments.opset,
        overwrite=arguments.overwrite,
    )
    for report in reports:
        print(f"Wrote {report}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 after an error that the user can mend, or the command's own."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when PyTorch is loaded: its threads spin for some microseconds when they wait for each other, and then
        # sleep. By default they spin for milliseconds: beside a busy program, `predict` took 1.7 times as long.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what it can't write
            stream.reconfigure(errors="backslashreplace")
    arguments = parse_arguments(argv)
    notes = logging.getLogger(f"{__package__}.model_sources")
    notes.addFilter(as_typed := _AsTyped(arguments))
    try:
        return arguments.run(arguments) or 0
    except NotDownloadedError as error:
        return _end(_tell_what_to_fetch(error, argv, arguments), arguments)
    except BrokenPipeError:  # of what was printed, no more is wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return _end(_as_typed(str(error) or type(error).__name__, arguments), arguments)
    except Exception as error:
        # a file that is damaged in a way nobody thought of, or a mistake in this program
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _end(f"unexpected {visible(what)} (--debug shows where)", arguments)
    except KeyboardInterrupt:
        print("s2d-hf: interrupted.", file=sys.stderr)
        return 130
    finally:
        notes.removeFilter(as_typed)


def _open_closed_streams() -> None:
    """
    Where a caller has closed stderr (`2>&-`), messages would go to stdout, and what libraries print into the first
    file that is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def _end(message: str, arguments: argparse.Namespace) -> int:
    """Prints the error that is being handled, and returns the exit code."""
    if arguments.debug:
        traceback.print_exc()
    print(f"s2d-hf: error: {message}", file=sys.stderr)
    return 1


class _AsTyped(logging.Filter):
    """Notes of the library in the terms of the command line."""

    def __init__(self, arguments: argparse.Namespace):
        super().__init__()
        self.arguments = arguments

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _as_typed(record.getMessage(), self.arguments), ()
        return True


def _as_typed(message: str, arguments: argparse.Namespace) -> str:
    """A message of the library in which its arguments have the names of the command's options."""
    other_names = {"num_attention_heads": "num_heads", "adapter_num_heads": "adapter_heads"}

    def option(match: re.Match) -> str:
        name = other_names.get(match.group(1), match.group(1))
        return f"--{name.replace('_', '-')}" if hasattr(arguments, name) else match.group(0)

    return visible(re.sub(r"`(\w+)`", option, message))


def _tell_what_to_fetch(error: NotDownloadedError, argv: Sequence[str], arguments: argparse.Namespace) -> str:
    """What is missing, where it lies, and the command to run once it is here."""
    command = list(argv)
    for argument, address in error.files.items():
        file = unquote(urlsplit(address).path).rpartition("/")[2]
        option = f"--{argument.replace('_', '-')}"
        typed = getattr(arguments, argument, None) or getattr(arguments, "checkpoint", None)
        if argument == "model" and typed in command:
            command[command.index(typed)] = file
        elif argument == "model" and f"--model={typed}" in command:
            command[command.index(f"--model={typed}")] = f"--model={file}"
        else:
            command += [option, file]
        if argument == "model" and typed and not (arguments.dataset or arguments.labels):
            # what the address says may be more than the file's own name does
            said = {dataset_in_name(typed, len(labels)) for labels in LABELS.values()} - {None}
            said -= {dataset_in_name(file, len(labels)) for labels in LABELS.values()}
            command += ["--dataset", said.pop()] if len(said) == 1 else []
    return f"{error.missing}, and run\n  s2d-hf {shlex.join(command)}"


if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # with torch 2.11, gloo may abort a process that unloads: everything is written by now
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
