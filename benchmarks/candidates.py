"""The calls that a part of the benchmark compares, by name."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from s2d_hf import S2DForVideoClassification

from .commits import build_at
from .models import Checkpointing, Size, build_s2d, build_videomae, set_up_training, train_step
from .modes import MODES, Forward, eager, fast_path, precision_of
from .plain_model import plain_logits

PLAIN, VIDEOMAE, VIDEOMAE_FAST = "plain (a)", "VideoMAE (b)", "VideoMAE (b), fast path"
PLAIN_AUTOCAST = "plain (a), bfloat16 autocast"
OURS, OURS_AUTOCAST = "ours", "ours, bfloat16 autocast"
OURS_KEEPING, OURS_CHECKPOINTED = "ours, no checkpointing", "ours, all layers checkpointed"
_COMMIT, _BFLOAT16 = "commit ", ", bfloat16"


@dataclass(frozen=True)
class TrainingWay:
    """
    How a training step is computed.

    Args:
        plain (`bool`): By the forward pass written down plainly.
        autocast (`bool`): In mixed precision, as the Trainer's `bf16` does.
        checkpointing (`"prompt layers"`, `"no layers"` or `"all layers"`): What is computed again for the gradient;
            prompt layers are as `freeze_for_video_tuning` leaves a model. Nothing in the plain forward pass.
        commit (`str`, *optional*): Whose model it is.
    """

    plain: bool = False
    autocast: bool = False
    checkpointing: Checkpointing = "prompt layers"
    commit: str | None = None


TRAINING = {
    PLAIN: TrainingWay(plain=True),
    PLAIN_AUTOCAST: TrainingWay(plain=True, autocast=True),
    OURS: TrainingWay(),
    OURS_AUTOCAST: TrainingWay(autocast=True),
    OURS_KEEPING: TrainingWay(checkpointing="no layers"),
    OURS_CHECKPOINTED: TrainingWay(checkpointing="all layers"),
}


def commit_name(commit: str, precision: str = "float32") -> str:
    """The name of a commit's model: in the forward part in float32 or bfloat16, in the training part in float32."""
    return f"{_COMMIT}{commit}" + ("" if precision == "float32" else _BFLOAT16)


def commit_of(name: str) -> str | None:
    """The commit that a candidate's name tells, if it is a commit's model."""
    return name.removeprefix(_COMMIT).removesuffix(_BFLOAT16) if name.startswith(_COMMIT) else None


def forward_names(modes: Sequence[str], against: str | None) -> list[str]:
    """What the forward part compares: a commit's model in bfloat16, too, where a mode is."""
    names = [PLAIN, VIDEOMAE, VIDEOMAE_FAST, *modes]
    if against is not None:
        names.append(commit_name(against))
        if any(precision_of(mode) == "bfloat16" for mode in modes):
            names.append(commit_name(against, "bfloat16"))
    return names


def training_names(against: str | None) -> list[str]:
    """What the training part compares."""
    return [*TRAINING, *([] if against is None else [commit_name(against)])]


def training_way(name: str) -> TrainingWay:
    """How a candidate of [`training_names`] trains."""
    commit = commit_of(name)
    return TRAINING[name] if commit is None else TrainingWay(commit=commit)


def prepare_forward(name: str, model: S2DForVideoClassification, size: Size) -> Forward:
    """
    What computes the logits `(batch_size, num_labels)` from pixels and landmark features, for a name of
    [`forward_names`]; VideoMAE's logits are its own, and it has no use for landmarks. The model stays as it is.

    Raises:
        KeyError: if there is no such mode.
        ValueError: if a commit's model can't take the weights.
        Exception: of any kind, where a mode's package or hardware is missing.
    """
    if name == PLAIN:
        return lambda pixels, landmarks: plain_logits(model, pixels, landmarks)
    if name in (VIDEOMAE, VIDEOMAE_FAST):
        videomae = build_videomae(size, model.device)
        if name == VIDEOMAE_FAST:
            videomae = fast_path(videomae)
        return lambda pixels, landmarks: videomae(pixels).logits
    commit = commit_of(name)
    if commit is not None:
        return eager(build_at(commit, model), getattr(torch, precision_of(name)))
    return MODES[name].prepare(copy.deepcopy(model))


def prepare_step(
    name: str, size: Size, device: str | torch.device
) -> tuple[S2DForVideoClassification, Forward, Callable[..., torch.Tensor]]:
    """The model, its forward pass and its training step, for a name of [`training_names`]."""
    way = training_way(name)
    model = build_s2d(size, device)
    if way.commit is not None:
        model = build_at(way.commit, model)
    model = set_up_training(model, way.checkpointing)

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
    "OURS_KEEPING",
    "PLAIN",
    "PLAIN_AUTOCAST",
    "TRAINING",
    "VIDEOMAE",
    "VIDEOMAE_FAST",
    "Forward",
    "TrainingWay",
    "commit_name",
    "commit_of",
    "forward_names",
    "prepare_forward",
    "prepare_step",
    "training_names",
    "training_way",
]
