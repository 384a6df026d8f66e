"""What predictions are computed in: float32, bfloat16 where the hardware multiplies it, or int8."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")

# Where a CPU multiplies bfloat16 itself, it is twice as fast and more; where PyTorch converts, it is slower.
_CLEARLY = 1.4


def default_device() -> torch.device:
    """Where predictions run unless told otherwise: on a GPU, if there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_precision(wanted: str | torch.dtype | None, device: str | torch.device | None = None) -> str:
    """
    One of `PRECISIONS` but `"auto"`, for which, and for `None`, stands bfloat16 where the device (by default
    [`default_device`]) multiplies it, and float32 elsewhere.

    Raises:
        ValueError: if there is no such precision, or it is for other devices.
    """
    import torch

    name = "auto" if wanted is None else str(wanted).removeprefix("torch.")
    device = torch.device(device or default_device())
    if name not in PRECISIONS:
        raise ValueError(f"`dtype` must be one of {', '.join(PRECISIONS)}, got {wanted!r}.")
    if name == "int8" and device.type != "cpu":
        raise ValueError(f"`dtype` int8 is for CPUs, and the device is {device}: take bfloat16 there.")
    if name != "auto":
        return name
    return "bfloat16" if _multiplies_bfloat16(device) else "float32"


def _multiplies_bfloat16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        if not torch.cuda.is_available():  # whoever loads the model there says so
            return False
        # from compute capability 8.0 on; a ROCm device always does
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bfloat16_is_faster()


@cache
def bfloat16_is_faster() -> bool:
    """Whether this CPU's products are clearly faster in bfloat16: tried once, in less than a tenth of a second."""
    import torch

    generator = torch.Generator().manual_seed(0)
    tokens, weight = (torch.randn(shape, generator=generator) for shape in ((512, 768), (768, 768)))
    times: dict[torch.dtype, float] = {}
    with torch.no_grad():
        for _ in range(6):  # in turns, since other programs come and go; the first one makes ready
            for dtype in (torch.float32, torch.bfloat16):
                pair = tokens.to(dtype), weight.to(dtype)
                start = time.perf_counter()
                torch.nn.functional.linear(*pair)
                times[dtype] = min(times.get(dtype, float("inf")), time.perf_counter() - start)
    return times[torch.float32] > _CLEARLY * times[torch.bfloat16]


__all__ = ["bfloat16_is_faster", "default_device", "find_precision"]
