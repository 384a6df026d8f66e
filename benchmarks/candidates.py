"""The calls that a part of the benchmark compares, by name."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch

from s2d_hf import S2DForVideoClassification

from .models import Size, build_videomae, prepare_training, train_step
from .modes import MODES, Forward
from .plain_model import plain_logits

PLAIN, VIDEOMAE = "plain (a)", "VideoMAE (b)"
PLAIN_AUTOCAST = "plain (a), bfloat16 autocast"
OURS, OURS_AUTOCAST, OURS_CHECKPOINTED = "ours", "ours, bfloat16 autocast", "ours, gradient checkpointing"


@dataclass(frozen=True)
class TrainingWay:
    """
    How a training step is computed.

    Args:
        plain (`bool`): By the forward pass written down plainly.
        autocast (`bool`): In mixed precision, as the Trainer's `bf16` does.
        checkpointing (`bool`): With every block computed again for the gradient.
    """

    plain: bool = False
    autocast: bool = False
    checkpointing: bool = False


TRAINING = {
    PLAIN: TrainingWay(plain=True),
    PLAIN_AUTOCAST: TrainingWay(plain=True, autocast=True),
    OURS: TrainingWay(),
    OURS_AUTOCAST: TrainingWay(autocast=True),
    OURS_CHECKPOINTED: TrainingWay(checkpointing=True),
}


def prepare_forward(name: str, model: S2DForVideoClassification, size: Size) -> Forward:
    """
    What computes the logits `(batch_size, num_labels)` from pixels and landmark features; `name` is [`PLAIN`],
    [`VIDEOMAE`] (whose logits are its own, and which has no use for landmarks) or a mode's. The model stays as it is.

    Raises:
        KeyError: if there is no such mode.
        Exception: of any kind, where a mode's package or hardware is missing.
    """
    if name == PLAIN:
        return lambda pixels, landmarks: plain_logits(model, pixels, landmarks)
    if name == VIDEOMAE:
        videomae = build_videomae(size, model.device)
        return lambda pixels, landmarks: videomae(pixels).logits
    return MODES[name].prepare(copy.deepcopy(model))


def prepare_step(
    name: str, size: Size, device: str | torch.device
) -> tuple[S2DForVideoClassification, Forward, Callable[..., torch.Tensor]]:
    """The model, its forward pass and its training step, for a name of [`TRAINING`]."""
    way = TRAINING[name]
    model = prepare_training(size, device, way.checkpointing)

    def forward(pixels: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=way.autocast):
            logits = plain_logits(model, pixels, landmarks) if way.plain else model(pixels, landmarks).logits
        return logits.float()

    def step(pixels: torch.Tensor, landmarks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return train_step(model, forward, pixels, landmarks, labels)

    return model, forward, step


__all__ = [
    "OURS",
    "OURS_AUTOCAST",
    "OURS_CHECKPOINTED",
    "PLAIN",
    "PLAIN_AUTOCAST",
    "TRAINING",
    "VIDEOMAE",
    "Forward",
    "TrainingWay",
    "prepare_forward",
    "prepare_step",
]
