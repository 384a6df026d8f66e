"""Learning rates that differ by depth."""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def layer_of(name: str, num_layers: int) -> int:
    """
    The depth of a parameter of an S2D model: 0 for patch, class token and position embedding, `i + 1` for block `i` of
    the ViT, and `num_layers + 1` for all that a pretrained ViT doesn't have or that follows its blocks.
    """
    block = _BLOCK.search(name)
    if block is not None:
        return int(block.group(1)) + 1
    if "embeddings." in name and not name.endswith("temporal_embeddings") and "landmark_embeddings" not in name:
        return 0
    return num_layers + 1


def decay_by_layer(
    groups: Iterable[dict[str, Any]], model: nn.Module, num_layers: int, layer_decay: float
) -> list[dict[str, Any]]:
    """
    Splits an optimizer's parameter groups by depth: the learning rate shrinks by `layer_decay` from each layer to the
    one below it, as in the fine-tuning of ELECTRA (Clark et al. 2020) and BEiT (Bao et al., arXiv 2106.08254).

    Args:
        groups (`Iterable[dict]`): Parameter groups with `params` and `lr`.
        model (`torch.nn.Module`): Whose parameters they are.
        num_layers (`int`): Blocks of its ViT.
        layer_decay (`float`): The factor from layer to layer, over 0 and at most 1.

    Returns:
        `list[dict]`: the groups; what else stands in them is kept.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    split: dict[tuple[int, int], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            layer = layer_of(names[id(parameter)], num_layers)
            factor = layer_decay ** (num_layers + 1 - layer)
            new = split.setdefault((number, layer), group | {"params": [], "lr": group["lr"] * factor})
            new["params"].append(parameter)
    return list(split.values())


__all__ = ["decay_by_layer", "layer_of"]
