"""
Faster matrix products on CPUs, put into any PyTorch model from outside.

PyTorch hands linear layers in float32 to the library that it was built with, which is slower than oneDNN on some
processors. [`use_fast_cpu`] makes the layers of a model ask oneDNN, which PyTorch brings along, where that is faster.
Nothing else changes: weights keep their names and values, hooks their places, and whatever oneDNN is not asked for
(training, compilers, autocast, small products, other devices) is computed as before.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn
from transformers.utils import logging

logger = logging.get_logger(__name__)

# floating-point operations, below which the libraries are equally fast
_LARGE = 5e8

Model = TypeVar("Model", bound=nn.Module)


def use_fast_cpu(model: Model, on: bool = True) -> Model:
    """
    Makes the linear layers of a model ask oneDNN where it is faster: for large products on a CPU, without gradients.

    Args:
        model (`nn.Module`): S2D's or any other; it is changed in place. Subclasses of `nn.Linear`, as quantised layers
            are, stay as they are.
        on (`bool`): With False, the way back. So does the environment variable `S2D_FAST_CPU=0`, for a whole program.

    Returns:
        the model itself.
    """
    on = on and os.environ.get("S2D_FAST_CPU", "").strip().lower() not in ("0", "false", "no", "off")
    before, after = (nn.Linear, FastLinear) if on else (FastLinear, nn.Linear)
    for module in model.modules():
        if type(module) is before:
            module.__class__ = after
    return model


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """
    Within it, [`FastLinear`] layers put their weights into oneDNN's own order once, and not for every product. They
    take their memory twice, and must not change meanwhile: changes are noticed afterwards.
    """
    layers = [module for module in model.modules() if isinstance(module, FastLinear)]
    for layer in layers:
        layer.packs, layer.packed = True, None
    try:
        yield
    finally:
        for layer in layers:
            layer.packs, layer.packed = False, None


class FastLinear(nn.Linear):
    """`nn.Linear` that lets oneDNN compute large products on a CPU."""

    # see `packed_weights`
    packs = False
    packed: torch.Tensor | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self._suits_onednn(input):
            return super().forward(input)
        if not self.packs:
            return onednn_linear(input, self.weight, self.bias)
        weight = self.packed  # which another thread may take away
        if weight is None or weight.dtype != self.weight.dtype:
            weight = self.packed = onednn_order(self.weight, rows=input.numel() // self.in_features)
        return onednn_linear(input, weight, self.bias)

    def __getstate__(self) -> dict[str, Any]:
        """Without packed weights, which can be neither copied nor pickled."""
        return {name: value for name, value in self.__dict__.items() if name not in ("packs", "packed")}

    def _suits_onednn(self, input: torch.Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and input.device.type == "cpu"
            and type(input) is torch.Tensor
            and type(self.weight) is nn.Parameter  # not quantised or sharded
            and input.dtype == self.weight.dtype
            and 2 * input.numel() * self.out_features >= _LARGE
            and not (torch.is_grad_enabled() and any(x.requires_grad for x in (input, *self.parameters())))
            and input.shape[-1] == self.in_features
            and not torch.jit.is_tracing()
            and not torch.is_autocast_enabled("cpu")
            and bool(torch.backends.mkldnn.enabled)
            and onednn_is_faster(input.dtype)
        )


def onednn_linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`torch.nn.functional.linear` by oneDNN, without gradients: `(..., in)` to `(..., out)`."""
    # A private operation, which may go with any version of PyTorch: `onednn_is_faster` tries it first.
    if bias is not None:
        bias = bias.contiguous()  # it reads over the gaps of a bias that is a part of something larger
    return torch.ops.mkldnn._linear_pointwise(input.contiguous(), weight, bias, "none", [], "")


def onednn_order(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """A weight in the order that suits products with so many rows, in a form that only oneDNN reads."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)


@cache
def onednn_is_faster(dtype: torch.dtype) -> bool:
    """
    Whether oneDNN gives the linear layers' results on this CPU, and sooner: tried once, in about a tenth of a second.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    tokens, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((1024, 768), (768, 768), (768,))
    )
    with torch.no_grad():
        try:
            expected = nn.functional.linear(tokens, weight, bias)
            distance = 16 * torch.finfo(dtype).eps * float(expected.abs().max())
            for ordered in (weight, onednn_order(weight, rows=len(tokens))):
                torch.testing.assert_close(onednn_linear(tokens, ordered, bias), expected, rtol=0, atol=distance)
        except (AttributeError, RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            logger.warning(
                f"Linear layers in {str(dtype).removeprefix('torch.')} are computed without oneDNN, which fails in "
                f"PyTorch {torch.__version__} on this CPU: {str(error).splitlines()[0]}"
            )
            return False
        times: dict[str, float] = {}
        for _ in range(5):  # in turns, since other programs come and go
            for name, linear in (("onednn", onednn_linear), ("pytorch", nn.functional.linear)):
                start = time.perf_counter()
                linear(tokens, weight, bias)
                times[name] = min(times.get(name, float("inf")), time.perf_counter() - start)
    # Where both are about as fast, the choice must not hang on chance: results would differ in their last digits.
    return times["onednn"] < 1.1 * times["pytorch"]


__all__ = ["FastLinear", "onednn_is_faster", "onednn_linear", "onednn_order", "packed_weights", "use_fast_cpu"]
