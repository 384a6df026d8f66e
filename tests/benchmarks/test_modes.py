import copy

import pytest
import torch
from torch import nn

from benchmarks.models import SIZES, build_s2d, make_clips
from benchmarks.modes import MODES, fast_path
from benchmarks.plain_model import plain_logits
from s2d_hf import fast_cpu


@pytest.fixture(scope="module")
def model():
    return build_s2d(SIZES["tiny"])


@pytest.mark.parametrize(
    ("name", "largest_error"),
    [("float32", 1e-5), ("float32-fast-path", 1e-5), ("bfloat16", 0.1), ("bfloat16-fast-path", 0.1)],
)
def test_eager_modes(model, name, largest_error):
    clips = make_clips(model.config, 3, seed=1)
    with torch.no_grad():
        logits = MODES[name].prepare(copy.deepcopy(model))(*clips)
        error = (logits.float() - plain_logits(model, *clips)).abs().max()
    assert logits.shape == (3, 7) and error < largest_error


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fast_path_asks_onednn(model, precision, monkeypatch):
    """Of every linear layer's product, where none is too small and oneDNN is the faster."""
    asked = []

    def multiply(tokens, weight, bias):
        asked.append(weight.dtype)
        return nn.functional.linear(tokens, weight, bias)

    monkeypatch.setattr(fast_cpu, "_LARGE", 0)
    monkeypatch.setattr(fast_cpu, "onednn_is_faster", lambda dtype: True)
    monkeypatch.setattr(fast_cpu, "onednn_linear", multiply)
    clips = make_clips(model.config, 1)
    MODES[precision].prepare(copy.deepcopy(model))(*clips)
    assert not asked
    MODES[f"{precision}-fast-path"].prepare(copy.deepcopy(model))(*clips)
    assert asked == [getattr(torch, precision)] * sum(type(module) is nn.Linear for module in model.modules())


def test_fast_path_is_for_cpus():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(RuntimeError, match="not on a CPU"):
        fast_path(model)
    assert MODES["float32-fast-path"].needs == MODES["bfloat16-fast-path"].needs == "a CPU"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "largest_error"),
    [
        ("float32-compiled-blocks", 1e-5),
        ("float32-compiled", 1e-5),
        ("onnx-float32", 1e-5),
        ("bfloat16-compiled-blocks", 0.1),
        ("bfloat16-compiled", 0.1),
        ("int8-torchao", 0.1),
        ("onnx-int8", 0.1),
    ],
)
def test_modes_that_take_long_to_prepare(model, name, largest_error):
    if name == "int8-torchao":
        pytest.importorskip("torchao")
    clips = make_clips(model.config, 3, seed=1)
    with torch.no_grad():
        forward = MODES[name].prepare(copy.deepcopy(model))
        error = (forward(*clips).float() - plain_logits(model, *clips)).abs().max()
    assert error < largest_error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["float16", "bfloat16-cuda-graphs"])
def test_modes_of_a_gpu_say_so(model, name):
    assert "CUDA" in MODES[name].needs
    with pytest.raises(RuntimeError, match="CUDA"):
        MODES[name].prepare(copy.deepcopy(model))


def test_modes_have_the_names_they_are_found_by():
    assert all(mode.name == name and mode.precision_note for name, mode in MODES.items())
