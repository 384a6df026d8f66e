"""The `s2d-hf` command."""

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .conversion import convert_checkpoint
from .labels import LABELS, find_labels
from .prediction_command import add_predict_parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command and its subcommands."""
    parser = argparse.ArgumentParser(
        prog="s2d-hf", description="Facial expression recognition in videos with S2D (From Static to Dynamic)."
    )
    parser.add_argument("--version", action="version", version=f"s2d-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_predict_parser(commands)
    _add_convert(commands)
    return parser


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
    )
    print(report)
    print(f"Wrote {arguments.output}.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 after an error that the user can mend, or the command's own."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ImportError, OSError, ValueError) as error:
        print(f"s2d-hf: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("s2d-hf: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
