"""Products in int8 beside the same arithmetic written down with integers, and what they do to a model's scores."""

import numpy as np
import pytest
import torch
from torch import nn

from s2d_hf import S2DConfig, S2DForVideoClassification
from s2d_hf.int8_linear import Int8Linear, use_int8

from .small_models import TINY, random_inputs, randomise


def random_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def multiply_integers(linear: nn.Linear, tokens: torch.Tensor) -> np.ndarray:
    """Each row of weights and each token with 127 steps on either side, in whole numbers."""
    weight, rows = linear.weight.detach().double().numpy(), tokens.double().numpy()
    weight_step = np.abs(weight).max(axis=1) / 127
    row_step = np.abs(rows).max(axis=1) / 127
    whole_weight = np.rint(weight / weight_step[:, None]).astype(np.int64)
    whole_rows = np.rint(rows / row_step[:, None]).astype(np.int64)
    products = (whole_rows @ whole_weight.T) * row_step[:, None] * weight_step
    return products + (0 if linear.bias is None else linear.bias.detach().double().numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 7, 512, 1100])
def test_products_are_those_of_whole_numbers(tokens, bias):
    linear = random_linear(40, 24, bias)
    inputs = torch.randn(tokens, 40, generator=torch.Generator().manual_seed(1))
    found = Int8Linear(linear)(inputs)
    expected = multiply_integers(linear, inputs)
    # where a number lies at the middle between two steps, rounding in float32 may take the other one
    assert np.mean(np.abs(found.numpy() - expected) > 1e-5) < 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)
    exact = linear(inputs)
    assert 1e-3 < (found - exact).norm() / exact.norm() < 0.02


def test_a_token_does_not_depend_on_the_others():
    layer = Int8Linear(random_linear(48, 32))
    clips = torch.randn(3, 4, 17, 48, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 1e3, 1e-3]).view(
        3, 1, 1, 1
    )
    together = layer(clips)
    assert together.shape == (3, 4, 17, 32)
    for clip, found in zip(clips, together, strict=True):
        torch.testing.assert_close(layer(clip), found, rtol=0, atol=0)
    torch.testing.assert_close(layer(clips.transpose(1, 2)).transpose(1, 2), together, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_that_are_odd(dtype):
    linear = random_linear(16, 8).to(dtype)
    layer = Int8Linear(linear)
    rows = torch.zeros(5, 16, dtype=dtype)
    rows[1], rows[2, 3], rows[3, 3], rows[4] = 1e-7, float("nan"), float("inf"), 3e4
    found = layer(rows)
    assert found.dtype == dtype
    torch.testing.assert_close(found[0], linear.bias.detach(), rtol=0, atol=1e-3)
    torch.testing.assert_close(found[[1, 4]], linear(rows[[1, 4]]), rtol=0.05, atol=0.02)
    # never a number that looks like an answer
    assert not found[2].isfinite().any() and not found[3].isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_int8(dtype):
    model = randomise(S2DForVideoClassification(S2DConfig(**TINY))).eval()
    inputs = random_inputs(model.config, batch_size=6)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert use_int8(model.to(dtype)) is model
        inputs = {name: value.to(dtype) for name, value in inputs.items()}
        found = model(**inputs).logits
        alone = torch.cat(
            [model(**{name: value[i : i + 1] for name, value in inputs.items()}).logits for i in range(6)]
        )
    with pytest.raises(ValueError, match="can't be saved"):
        model.save_pretrained("nowhere")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    replaced = [name for name, module in model.named_modules() if isinstance(module, Int8Linear)]
    assert len(replaced) == 4 * TINY["num_hidden_layers"] and all(".layers." in name for name in replaced)
    difference = (found.float() - expected).abs().max() / expected.std()
    assert 1e-4 < difference < 0.15
    if dtype == torch.float32:  # in bfloat16, PyTorch's other products round otherwise in larger batches
        assert (found - alone).abs().max() < 1e-5


def test_where_it_cannot_be(monkeypatch):
    model = S2DForVideoClassification(S2DConfig(**TINY))
    with pytest.raises(ValueError, match="int8 is for CPUs, and the model is on meta"):
        use_int8(S2DForVideoClassification(S2DConfig(**TINY)).to("meta"))
    monkeypatch.setattr(torch, "_int_mm", lambda left, right: (left.int() @ right.int()).clamp(max=2**15))
    with pytest.raises(ValueError, match="multiplies wrongly in int8 on this CPU: choose another `dtype`"):
        use_int8(model)
    monkeypatch.delattr(torch, "_int_mm")
    with pytest.raises(ValueError, match=r"doesn't multiply in int8 on this .* CPU .*choose another `dtype`"):
        use_int8(model)
    assert not any(isinstance(module, Int8Linear) for module in model.modules())
