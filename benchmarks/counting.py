"""Floating-point operations of a call, the bytes that it keeps for the backward pass, and its page faults."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

resource: Any = None
with suppress(ImportError):  # Windows has none
    import resource


def _linear_flop(inputs: torch.Size, weight: torch.Size, *args, out_shape: torch.Size | None = None, **kwargs) -> int:
    return 2 * prod(inputs) * weight[0]


def _attention_flop(query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flop(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _addmm_flop(total: torch.Size, a: torch.Size, b: torch.Size, *args, **kwargs) -> int:
    return 2 * prod(a) * b[-1]


# Operations that PyTorch's counter doesn't know.
def _unknown_operations() -> dict[Any, Callable]:
    known: dict[Any, Callable] = {}
    operations = (
        (torch.ops.aten, "addmm_", _addmm_flop),
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


@contextmanager
def watch_saved_tensors(model: nn.Module) -> Iterator[dict[int, int]]:
    """
    Gives the bytes, by address, that forward passes within it keep for their backward passes, without the model's
    parameters and buffers; complete at its end.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    alive = []  # so that no storage takes another one's address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def count_page_faults(call: Callable[[], Any]) -> int | None:
    """
    How many pages of memory the system hands to the process during a call, which takes time; `None` where it doesn't
    tell. glibc's allocator asks for results of more than 32 MiB anew each time, unless its thresholds are raised.
    """
    if resource is None:
        return None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


__all__ = ["count_flops", "count_page_faults", "watch_saved_tensors"]
