"""`s2d-hf export-onnx`: a model to ONNX files."""

import argparse
import os

from .options import add_checkpoint_arguments, check_model_path, checkpoint_settings, whole_number


def add_export_onnx_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand `export-onnx`."""
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
        "--opset", type=whole_number(18), default=20, metavar="N", help="the version of ONNX's operators (default: 20)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    parser.set_defaults(run=_export_onnx)


def _export_onnx(arguments: argparse.Namespace) -> None:
    check_model_path(arguments.model, "the model")
    from ..model_loading import hide_loading_bars
    from ..model_sources import find_model
    from ..onnx_export import export_onnx

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


__all__ = ["add_export_onnx_parser"]
