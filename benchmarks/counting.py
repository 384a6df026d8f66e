"""Floating-point operations of a call, and the bytes that it keeps for the backward pass."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _linear_flop(inputs: torch.Size, weight: torch.Size, *args, out_shape: torch.Size | None = None, **kwargs) -> int:
    return 2 * prod(inputs) * weight[0]


def _attention_flop(query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flop(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# Operations of a CPU that PyTorch's counter doesn't know.
def _unknown_operations() -> dict[Any, Callable]:
    known: dict[Any, Callable] = {}
    operations = (
        (torch.ops.mkldnn, "_linear_pointwise", _linear_flop),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention_flop),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward_flop),
    )
    for namespace, name, formula in operations:
        if hasattr(namespace, name):
            known[getattr(namespace, name)] = formula
    return known


def count_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions of a call; a multiply-add counts as two."""
    with FlopCounterMode(display=False, custom_mapping=_unknown_operations()) as counter:
        call()
    return counter.get_total_flops()


def count_saved_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, without the model's parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    alive = []  # so that no storage takes another one's address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())


__all__ = ["count_flops", "count_saved_bytes"]
