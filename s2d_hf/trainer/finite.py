"""Stops a training in which something became NaN or infinite, before it is saved or taken for a result."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..texts_s2d import listed

_LISTED = 8
# What a GradScaler lowers its scale to where no gradient was finite for many steps.
_LOWEST_SCALE = 1e-3


class NotFiniteError(ValueError):
    """A loss, score, gradient or weight is NaN or infinite; the message says where and what of."""


def check_batch(loss: torch.Tensor, logits: torch.Tensor, names: Sequence[str] | None, where: str) -> None:
    """
    Args:
        loss (`torch.Tensor` of shape `()`): The loss of a batch.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Its scores.
        names (`Sequence[str]`, *optional*): The files of the batch.
        where (`str`): Where in the training this is, for the message.

    Raises:
        NotFiniteError: if the loss or a score is not finite; the message names the files whose scores aren't, or all
            of the batch if only the loss is wrong.
    """
    whole = torch.isfinite(logits.detach()).flatten(1).all(dim=1)
    if whole.all() & torch.isfinite(loss.detach()):  # one number, and so one wait for the device
        return
    broken = (~whole).tolist()
    what = "scores are NaN or infinite" if any(broken) else f"the loss is {loss.item()}"
    files = [] if names is None else [name for name, bad in zip(names, broken, strict=True) if bad or not any(broken)]
    raise NotFiniteError(f"{where}: {what}{_say_files(files)}. {_ADVICE}")


def check_weights(named: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """
    Args:
        named (`Iterable[tuple[str, torch.Tensor]]`): Weights by their names.
        where (`str`): Where they are, for the message.

    Raises:
        NotFiniteError: if there is a NaN or an infinity in them; the message names them.
    """
    broken = [name for name, tensor in named if not is_finite(tensor)]
    if broken:
        raise NotFiniteError(
            f"{where}: weights are NaN or infinite, {listed(broken, _LISTED)}: nothing of them is used."
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether there is neither NaN nor infinity in a tensor; of one that is sharded, in this process's part."""
    tensor = _own_part(tensor.detach())
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    if tensor.element_size() == 1:  # PyTorch has no isfinite of 8-bit floats
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def _own_part(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class FiniteCallback(TrainerCallback):
    """
    Stops before an optimizer step whose gradients are not finite, unless a GradScaler (`fp16`) will leave it out.

    Args:
        trainer ([`~transformers.Trainer`]): Whose training it is.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: Any,
    ) -> None:
        """Raises [`NotFiniteError`]."""
        where = f"Step {state.global_step + 1} (epoch {state.epoch or 0:.2f})"
        scaler = getattr(self.trainer.accelerator, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            if scaler.get_scale() < _LOWEST_SCALE:
                raise NotFiniteError(
                    f"{where}: gradients are NaN or infinite, however small the loss is scaled for fp16. {_ADVICE}"
                )
            return
        # one number, and so one wait for the device
        norm = nn.utils.get_total_norm([_own_part(p.grad) for p in model.parameters() if p.grad is not None])
        if not torch.isfinite(norm):  # which ones were can't be told: clipping has multiplied all of them by it
            files = getattr(self.trainer, "names_of_step", [])
            raise NotFiniteError(f"{where}: gradients are NaN or infinite{_say_files(files)}. {_ADVICE}")


_ADVICE = (
    "The training has diverged, or its input is broken: look at these files, lower `learning_rate`, set "
    "`max_grad_norm`, or train without `fp16`. Checkpoints that were saved before can be resumed."
)


def _say_files(files: Sequence[str]) -> str:
    return f"; the files: {listed(files, _LISTED)}" if files else ""


__all__ = ["FiniteCallback", "NotFiniteError", "check_batch", "check_weights", "is_finite"]
