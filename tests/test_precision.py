import pytest
import torch

from s2d_hf import precision
from s2d_hf.precision import PRECISIONS, bfloat16_is_faster, find_precision


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_auto_is_what_the_cpu_multiplies(monkeypatch, wanted):
    for is_faster, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "bfloat16_is_faster", lambda is_faster=is_faster: is_faster)
        assert find_precision(wanted, "cpu") == name
        assert find_precision(wanted, torch.device("cpu")) == name
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: True)
    assert find_precision(wanted, "mps") == "float32"  # which was not tried there


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_on_gpus(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert find_precision("auto", "cuda:1") == name
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_precision("auto", "cuda") == "float32"


def test_what_is_asked_for_is_taken():
    for name in set(PRECISIONS) - {"auto", "int8"}:
        assert find_precision(name, "cpu") == find_precision(getattr(torch, name), "cuda") == name
    assert find_precision("int8", "cpu") == "int8"
    with pytest.raises(ValueError, match="int8 is for CPUs"):
        find_precision("int8", "cuda:0")
    with pytest.raises(ValueError, match=r"`dtype` must be one of auto, float32.*got 'bf16'"):
        find_precision("bf16", "cpu")
    with pytest.raises(ValueError, match=r"got torch\.float64"):
        find_precision(torch.float64, "cpu")


def test_the_trial_agrees_with_the_processor():
    """Where the kernel names the instructions, a clear gain goes with them."""
    bfloat16_is_faster.cache_clear()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = set(next(line for line in file if line.startswith("flags")).split())
    except (OSError, StopIteration):
        pytest.skip("/proc/cpuinfo names no instructions here")
    assert bfloat16_is_faster() == bool(flags & {"avx512_bf16", "amx_bf16"})
