"""`s2d-hf convert`: a checkpoint of the authors to a model's folder."""

import argparse
import os
from pathlib import Path

from ..labels import find_labels
from ..output_folder import check_output_folder
from .options import add_checkpoint_arguments, checkpoint_settings
from .wording import as_typed


def add_convert_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand `convert`."""
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
    from ..conversion import convert_checkpoint
    from ..model_loading import hide_loading_bars
    from ..model_sources import find_checkpoint

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
    print(as_typed(str(report), arguments))
    print(f"Wrote {arguments.output}.")


__all__ = ["add_convert_parser"]
