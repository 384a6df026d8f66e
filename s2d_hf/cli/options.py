"""The options of every command that takes a model, and what the library takes for them."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from ..labels import LABELS
from ..precision import PRECISIONS

MODEL_VARIABLE = "S2D_HF_MODEL"
DETECTORS = "retinaface (default), yunet, sfd, blazeface or scrfd"


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """What an authors' checkpoint doesn't say of itself."""
    group = parser.add_argument_group("of a checkpoint of the paper's authors")
    names = group.add_mutually_exclusive_group()
    names.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"the data set it was trained on, for its labels, if its name doesn't say so: {', '.join(LABELS)}",
    )
    names.add_argument("--labels", metavar="A,B,...", help="the labels in the order of the classes")
    group.add_argument(
        "--landmark-weights",
        metavar="FILE",
        help="the landmark detector, a file or an address, if the checkpoint carries none (default: the authors', "
        "downloaded once)",
    )
    group.add_argument(
        "--num-heads", type=int, metavar="N", help="attention heads of the ViT (default: its width / 64)"
    )


def checkpoint_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    What [`find_model`] takes beside the model, of the options that were given.

    Raises:
        FileNotFoundError: if there is no such file of weights.
    """
    weights = arguments.landmark_weights
    if weights is not None and "://" not in weights and not os.path.isfile(os.path.expanduser(weights)):
        raise FileNotFoundError(f"--landmark-weights: there is no file {weights}.")
    labels = arguments.labels
    settings = {
        "dataset": arguments.dataset,
        "labels": None if labels is None else [label.strip() for label in labels.split(",")],
        "landmark_weights": arguments.landmark_weights,
        "num_attention_heads": arguments.num_heads,
    }
    return {name: value for name, value in settings.items() if value is not None}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of everything that finds faces: model, detector, device and windows."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="a model's folder or its name on the Hub, or a checkpoint of the paper's authors: a file or "
        f"hf://OWNER/REPOSITORY/FILE (default: the environment's {MODEL_VARIABLE}, or else the authors' image model "
        "of AffectNet-7)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--dtype",
        choices=PRECISIONS,
        help="what the model computes in (default: auto, which is bfloat16 where the device multiplies it, else "
        "float32); float16 is for GPUs, int8 for CPUs",
    )
    precision.add_argument("--int8", dest="dtype", action="store_const", const="int8", help="short for --dtype int8")
    parser.add_argument("--face-detector", metavar="NAME", help=DETECTORS)
    parser.add_argument(
        "--face-detector-weights", metavar="FILE", help="the detector's weights (default: downloaded once)"
    )
    parser.add_argument("--fps", type=float, default=8.0, help="frames a second that are looked at (default: 8)")
    parser.add_argument(
        "--window-stride",
        type=int,
        metavar="N",
        help="frames from window to window (default: half of the model's, which are 16 as a rule)",
    )
    parser.add_argument(
        "--detect-every", type=int, default=2, metavar="N", help="look for faces in every N-th frame (default: 2)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows at a time (default: 8 on a GPU, else 1)")
    add_checkpoint_arguments(parser)


def model_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    What [`S2DTimeline.from_pretrained`] takes beside the model, of the options that were given.

    Raises:
        FileNotFoundError: if there is no such file of weights.
        ValueError: if a number is out of range.
    """
    names = (
        "device", "dtype", "face_detector", "face_detector_weights", "fps", "window_stride", "detect_every",
        "batch_size",
    )  # fmt: skip
    _check_numbers(arguments)
    weights = arguments.face_detector_weights
    if weights is not None and not os.path.isfile(os.path.expanduser(weights)):
        raise FileNotFoundError(f"--face-detector-weights: there is no file {weights}.")
    settings = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return settings | checkpoint_settings(arguments)


def _check_numbers(arguments: argparse.Namespace) -> None:
    """
    What the library would refuse as well, after some seconds of loading.

    Raises:
        ValueError: if a number is out of range.
    """
    if not 0 < arguments.fps <= 1000:  # nor if it is not a number
        raise ValueError(f"--fps must be positive, 1000 at most, got {arguments.fps}.")
    for name in ("window_stride", "detect_every", "batch_size", "num_heads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")


def chosen_model(arguments: argparse.Namespace) -> str | None:
    """
    The model that is named by the option or the environment; `None` for the default one.

    Raises:
        FileNotFoundError: if it is written as a path, and there is nothing.
        ValueError: if the option is empty, as an unset variable of a shell is.
    """
    if arguments.model == "":
        raise ValueError("--model is empty: name a model, or leave it out for the default one.")
    name = arguments.model or os.environ.get(MODEL_VARIABLE)
    if name:
        check_model_path(name, "--model" if arguments.model else MODEL_VARIABLE)
    return name or None


def check_model_path(name: str, option: str) -> None:
    """
    Refuses, before anything is loaded, a path to nothing.

    Raises:
        FileNotFoundError: if `name` can only be a path, and there is nothing.
    """
    path = os.path.expanduser(name)
    is_path = "://" not in name and (
        os.path.isabs(path)
        or name.startswith(".")
        or name.count("/") > 1
        or path.endswith((".pth", ".tar", ".pt", ".bin", ".ckpt", ".safetensors"))
    )
    if is_path and not os.path.exists(path):
        raise FileNotFoundError(f"{option}: there is no file or folder {name}.")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return number

    parse.__name__ = "whole number"  # what argparse calls it in its message
    return parse


__all__ = [
    "MODEL_VARIABLE",
    "add_checkpoint_arguments",
    "add_model_arguments",
    "check_model_path",
    "checkpoint_settings",
    "chosen_model",
    "model_settings",
    "whole_number",
]
