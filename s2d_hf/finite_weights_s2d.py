"""No model is loaded or saved whose weights are NaN or infinite."""

import torch
from torch import nn

from .texts_s2d import listed


def refuse_broken_weights(state_dict: dict[str, torch.Tensor], refusal: str) -> None:
    """
    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    broken = []
    for name, tensor in state_dict.items():
        # of other classes are quantised and sharded weights; PyTorch has no `isfinite` of 8-bit floats
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.is_meta or tensor.element_size() == 1:
            continue
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            broken.append(name)
    if broken:
        raise ValueError(f"{refusal}: weights are NaN or infinite, {listed(broken, 3)}.")


__all__ = ["refuse_broken_weights"]
