"""Linear layers by oneDNN: the same answers, only where they may be, in any model, and there and back."""

import copy
import pickle

import pytest
import torch
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from s2d_hf import S2DConfig, S2DForVideoClassification, fast_cpu
from s2d_hf.fast_cpu import FastLinear, onednn_is_faster, packed_weights, use_fast_cpu

from .small_models import TINY, random_inputs, randomise

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this PyTorch has no oneDNN",
)


@pytest.fixture
def calls(monkeypatch) -> list[torch.Tensor]:
    """The inputs that oneDNN was asked for; also small ones, and on CPUs where it isn't faster."""
    seen, compute = [], fast_cpu.onednn_linear
    monkeypatch.setattr(fast_cpu, "_LARGE", 0)
    monkeypatch.setattr(fast_cpu, "onednn_is_faster", lambda dtype: dtype in (torch.float32, torch.bfloat16))
    monkeypatch.setattr(
        fast_cpu, "onednn_linear", lambda inputs, *weights: seen.append(inputs) or compute(inputs, *weights)
    )
    return seen


def video_mae() -> VideoMAEForVideoClassification:
    sizes = {key: TINY[key] for key in ("image_size", "patch_size", "hidden_size", "num_frames", "num_hidden_layers",
                                        "num_attention_heads", "intermediate_size")}  # fmt: skip
    return randomise(VideoMAEForVideoClassification(VideoMAEConfig(**sizes))).eval()


def s2d() -> S2DForVideoClassification:
    return randomise(S2DForVideoClassification(S2DConfig(**TINY))).eval()


def run(model: nn.Module, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    inputs = {name: x.to(dtype) for name, x in random_inputs(S2DConfig(**TINY), batch_size=2).items()}
    if isinstance(model, VideoMAEForVideoClassification):
        del inputs["landmark_features"]
    return model(**inputs).logits


@needs_onednn
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("make_model", [s2d, video_mae])
def test_same_scores_and_the_way_back(make_model, dtype, tolerance, calls):
    model = make_model().to(dtype)
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    names = [*model.state_dict()]
    with torch.no_grad():
        expected = run(model, dtype)
        assert use_fast_cpu(model) is model and not calls
        torch.testing.assert_close(run(model, dtype), expected, atol=tolerance, rtol=tolerance)
        assert len(calls) == len(linears) and [*model.state_dict()] == names
        assert all(type(linear) is FastLinear for linear in linears)
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(run(copied, dtype), expected, atol=tolerance, rtol=tolerance)
        calls.clear()
        use_fast_cpu(model, on=False)
        assert torch.equal(run(model, dtype), expected) and not calls
    assert all(type(linear) is nn.Linear for linear in linears)


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_to_the_bit_and_are_dropped(dtype, calls, monkeypatch):
    orders: list[int] = []
    order = fast_cpu.onednn_order
    monkeypatch.setattr(fast_cpu, "onednn_order", lambda weight, rows: orders.append(rows) or order(weight, rows))
    model = use_fast_cpu(s2d()).to(dtype)
    linears = [module for module in model.modules() if isinstance(module, FastLinear)]
    with torch.no_grad():
        expected = run(model, dtype)
        assert not orders
        with packed_weights(model):
            for _ in range(2):
                assert torch.equal(run(model, dtype), expected)
            assert len(orders) == len(linears)
            for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                assert torch.equal(run(copied, dtype), expected)
            other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
            torch.testing.assert_close(run(model.to(other), other).to(dtype), expected, atol=0.1, rtol=0.1)
            assert torch.equal(run(model.to(dtype), dtype), expected) or other == torch.bfloat16
        assert all(linear.packed is None for linear in linears)
        for linear in linears:  # a change that PyTorch doesn't count
            linear.weight.data.mul_(1.5)
        changed = run(model, dtype)
        assert not torch.allclose(changed, expected)
        with pytest.raises(KeyError), packed_weights(model):
            assert torch.equal(run(model, dtype), changed)
            raise KeyError
    assert all(linear.packed is None and not linear.packs for linear in linears)
    assert [*model.state_dict()] == [*s2d().state_dict()] and pickle.loads(pickle.dumps(model))


@needs_onednn
def test_only_without_gradients(calls):
    plain, model = s2d(), use_fast_cpu(s2d())
    for each in (plain, model):
        run(each).square().sum().backward()
    assert not calls
    for expected, found in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    model.requires_grad_(False)
    run(model)
    assert calls


@needs_onednn
def test_not_where_something_else_decides(calls):
    model = use_fast_cpu(s2d())
    with torch.no_grad():
        expected = run(model)
        calls.clear()
        with torch.autocast("cpu", torch.bfloat16):
            assert run(model).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            torch.testing.assert_close(run(model), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            run(copy.deepcopy(model).double(), torch.float64).float(), expected, atol=1e-5, rtol=1e-5
        )
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(run(compiled), expected, atol=1e-5, rtol=1e-5)
        with torch.device("meta"):
            use_fast_cpu(nn.Linear(3, 4))(torch.empty(2, 3))
    assert not calls


@needs_onednn
def test_layers_of_other_classes_and_hooks_stay(calls):
    class Halved(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) / 2

    model, seen = nn.Sequential(Halved(8, 8), nn.Linear(8, 8)), []
    model[1].register_forward_hook(lambda *_: seen.append(1))
    inputs = torch.randn(3, 8)
    with torch.no_grad():
        expected = model(inputs)
        torch.testing.assert_close(use_fast_cpu(model)(inputs), expected)
    assert type(model[0]) is Halved and len(calls) == 1 and len(seen) == 2


@needs_onednn
def test_inputs_that_do_not_lie_in_order_and_without_bias(calls):
    linear = nn.Linear(6, 5, bias=False)
    inputs = torch.randn(6, 4, 3).transpose(0, 2)
    with torch.no_grad():
        expected = linear(inputs)
        torch.testing.assert_close(use_fast_cpu(linear)(inputs), expected)
        torch.testing.assert_close(linear(inputs[:0]), expected[:0])
    assert len(calls) == 2


@pytest.mark.parametrize(("value", "on"), [("0", False), ("False", False), ("off ", False), ("1", True), ("", True)])
def test_the_environment_turns_it_off(value, on, monkeypatch):
    monkeypatch.setenv("S2D_FAST_CPU", value)
    assert type(use_fast_cpu(nn.Linear(3, 4))) is (FastLinear if on else nn.Linear)


@pytest.mark.parametrize("fault", [RuntimeError("no primitive\nat all"), AttributeError("_linear_pointwise"), None])
def test_what_fails_is_left_out_aloud(fault, monkeypatch):
    def broken(inputs, weight, bias):
        if fault is not None:
            raise fault
        return nn.functional.linear(inputs, weight, bias) + 1

    warnings: list[str] = []
    monkeypatch.setattr(fast_cpu, "onednn_linear", broken)
    monkeypatch.setattr(fast_cpu.logger, "warning", warnings.append)
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster(torch.float32) is onednn_is_faster(torch.float32) is False
    finally:
        onednn_is_faster.cache_clear()
    (warning,) = warnings
    assert "float32 are computed without oneDNN" in warning and torch.__version__ in warning


@pytest.mark.parametrize("slow", ["onednn", "pytorch"])
def test_the_faster_one_is_taken(slow, monkeypatch):
    now = [0.0]

    def linear(name):
        def compute(inputs, weight, bias):
            now[0] += 2 if name == slow else 1
            return torch.zeros(len(inputs), len(weight), dtype=inputs.dtype)

        return compute

    monkeypatch.setattr(fast_cpu, "onednn_linear", linear("onednn"))
    monkeypatch.setattr(nn.functional, "linear", linear("pytorch"))
    monkeypatch.setattr(fast_cpu.time, "perf_counter", lambda: now[0])
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster(torch.bfloat16) is (slow == "pytorch")
    finally:
        onednn_is_faster.cache_clear()


@needs_onednn
def test_a_bias_that_is_a_part_of_something_larger_or_is_trained_alone(calls):
    linear = nn.Linear(64, 64).requires_grad_(False)
    linear.bias = nn.Parameter(torch.arange(128.0)[::2])
    use_fast_cpu(linear)
    with torch.no_grad():
        torch.testing.assert_close(linear(torch.zeros(3, 64))[0], torch.arange(0.0, 128, 2))
    assert len(calls) == 1
    linear(torch.zeros(3, 64)).sum().backward()
    assert len(calls) == 1 and torch.equal(linear.bias.grad, torch.full((64,), 3.0))
