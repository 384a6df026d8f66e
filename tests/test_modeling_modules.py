"""Every layer is called through its own module, and the models give what a plain computation gives."""

import copy

import pytest
import torch
from torch import nn

from benchmarks.plain_model import plain_logits
from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification

from .reference import reference_logits
from .small_models import TINY, random_inputs, randomise

SQUARE = {"landmark_size": 4}  # landmark features on the patches' grid, as the plain model takes them


def make_model(**changes) -> S2DForVideoClassification:
    model = randomise(S2DForVideoClassification(S2DConfig(**(TINY | SQUARE | changes)))).eval()
    model.dropout.p = 0.0
    return model


class Passing(nn.Module):
    """A layer around another one, as LoRA puts it, that adds nothing."""

    def __init__(self, inner: nn.Linear):
        super().__init__()
        self.inner = inner
        self.weight = nn.Parameter(torch.zeros_like(inner.weight))  # not what is computed with
        self.bias = inner.bias
        self.out_features = inner.out_features
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(inputs)


def wrap_linears(model: nn.Module) -> list[Passing]:
    wrapped = []
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                wrapped.append(Passing(child))
                setattr(module, name, wrapped[-1])
    return wrapped


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("prompt_type", ["deep", "shallow", "none"])
def test_class_tokens_alone_of_the_last_block(attention, qkv_bias, prompt_type):
    model = make_model(qkv_bias=qkv_bias, prompt_type=prompt_type)
    model.set_attn_implementation(attention)
    inputs = random_inputs(model.config, batch_size=2)
    with torch.no_grad():
        short = model.s2d(**inputs, pooled_only=True)
        assert short.last_hidden_state is None
        whole = model.s2d(**inputs)
        torch.testing.assert_close(short.pooler_output, whole.pooler_output, atol=1e-5, rtol=1e-5)
        if qkv_bias:  # which the reference has
            logits, _ = reference_logits(model.state_dict(), model.config, **inputs)
            torch.testing.assert_close(model(**inputs).logits, logits, atol=1e-5, rtol=1e-5)


def test_class_tokens_alone_of_an_image_model():
    config = S2DConfig(**(TINY | SQUARE | {"temporal_adapters": False}))
    model = randomise(S2DForImageClassification(config)).eval()
    inputs = random_inputs(config, batch_size=3, video=False)
    with torch.no_grad():
        whole = model(**inputs, output_hidden_states=True)
        torch.testing.assert_close(model(**inputs).logits, whole.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_layers_that_are_wrapped_are_called(train):
    model = make_model()
    if train:
        model.freeze_for_video_tuning()
    inputs = random_inputs(model.config, batch_size=2)
    with torch.set_grad_enabled(train):
        expected = model(**inputs).logits
        wrapped = wrap_linears(model)
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    assert wrapped and all(module.calls == 1 for module in wrapped)


def test_hooks_see_what_a_temporal_attention_gives():
    model = make_model()
    inputs = random_inputs(model.config, batch_size=2)
    attention = model.s2d.prompt_layers[1].temporal_adapter.temporal_attention
    seen = []
    attention.register_forward_hook(lambda _, arguments, output: seen.append((arguments[0], output[0])))
    with torch.no_grad():
        model(**inputs)
        ((tokens, output),) = seen
        assert tokens.shape == output.shape == (2, 16, 4, 8)  # clips, places, frames, width
        qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        attended = nn.functional.scaled_dot_product_attention(*qkv).transpose(2, 3).flatten(3)
        torch.testing.assert_close(output, attention.proj(attended), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_out_in_training(dtype):
    attention = make_model(attention_probs_dropout_prob=0.5).s2d.layers[0].attention.to(dtype)
    tokens = torch.randn(8, 17, 32, dtype=dtype)
    for train in (False, True):
        attention.train(train)
        with torch.no_grad():
            assert torch.equal(attention(tokens)[0], attention(tokens)[0]) is not train


@pytest.mark.parametrize("prompt_type", ["deep", "shallow", "none"])
def test_the_caller_keeps_its_inputs(prompt_type):
    model = make_model(prompt_type=prompt_type)
    inputs = random_inputs(model.config, batch_size=2)
    before = {name: x.clone() for name, x in inputs.items()}
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        first = model(**inputs).logits
        torch.testing.assert_close(model(**inputs).logits, first, atol=0, rtol=0)
    for name, x in inputs.items():
        torch.testing.assert_close(x, before[name], atol=0, rtol=0)
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, state[name], atol=0, rtol=0)


def test_shapes_without_data():
    """On PyTorch's meta device, where sizes and operations are counted before anything is loaded."""
    with torch.device("meta"):
        model = S2DForVideoClassification(S2DConfig(**(TINY | SQUARE))).eval()
    inputs = {name: x.to("meta") for name, x in random_inputs(model.config, batch_size=2).items()}
    with torch.no_grad():
        assert model(**inputs).logits.shape == (2, 5)


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_are_those_of_the_plain_model(frozen):
    """In double precision, which oneDNN has not (softmax and norms are float32 there), and in float32."""
    model = make_model()
    if frozen:
        model.freeze_for_video_tuning()
    model.train()
    inputs = random_inputs(model.config, batch_size=2)
    labels = torch.tensor([1, 3])
    plain = copy.deepcopy(model).double()
    nn.functional.cross_entropy(plain_logits(plain, *(x.double() for x in inputs.values())), labels).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 2e-4)):
        trained = copy.deepcopy(model).to(dtype)
        for parameter in trained.parameters():
            parameter.grad = None
        trained(**{name: x.to(dtype) for name, x in inputs.items()}, labels=labels).loss.backward()
        found = {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            error = (gradient.double() - expected[name]).norm() / max(expected[name].norm(), 1e-3 * total)
            assert error < tolerance, (dtype, name, error)


@pytest.mark.parametrize("prompt_type", ["deep", "none"])
def test_bfloat16_is_as_near_as_its_plain_computation(prompt_type):
    model = make_model(prompt_type=prompt_type, num_hidden_layers=6)
    inputs = random_inputs(model.config, batch_size=8)
    half = copy.deepcopy(model).bfloat16()
    halves = {name: x.bfloat16() for name, x in inputs.items()}
    with torch.no_grad():
        exact, _ = reference_logits(
            model.double().state_dict(), model.config, **{n: x.double() for n, x in inputs.items()}
        )
        plain, _ = reference_logits(half.state_dict(), half.config, **halves)
        error = (half(**halves).logits.double() - exact).square().mean().sqrt()
        plain_error = (plain.double() - exact).square().mean().sqrt()
    assert error < 1.5 * plain_error


@pytest.mark.parametrize("train", [False, True])
def test_autocast_is_as_near_as_its_plain_computation(train):
    """The sum that runs through the blocks stays in float32."""
    model = make_model(num_hidden_layers=6)
    inputs = random_inputs(model.config, batch_size=8)
    with torch.no_grad():
        double = copy.deepcopy(model).double()
        exact = plain_logits(double, *(x.double() for x in inputs.values()))
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(train):
        plain = plain_logits(model, *inputs.values())
        found = model(**inputs)
        hidden_states = model.s2d(**inputs, output_hidden_states=True).hidden_states
    assert all(states.dtype == torch.float32 for states in hidden_states)
    error, plain_error = ((x.double() - exact).square().mean().sqrt() for x in (found.logits, plain))
    assert error < 1.5 * plain_error


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_in_autocast_are_as_near_as_their_plain_computation(frozen):
    model = make_model(num_hidden_layers=6).train()
    if frozen:
        model.freeze_for_video_tuning()
    inputs = random_inputs(model.config, batch_size=8)
    labels = torch.arange(8) % 5

    def gradients(model: nn.Module, compute, autocast: bool = True) -> dict[str, torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = compute()
        nn.functional.cross_entropy(logits.to(model.dtype), labels).backward()
        found = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
        return found

    double = copy.deepcopy(model).double()
    exact = gradients(double, lambda: plain_logits(double, *(x.double() for x in inputs.values())), autocast=False)
    total = torch.stack([gradient.norm() for gradient in exact.values()]).norm()

    def error(found: dict[str, torch.Tensor]) -> float:
        assert found.keys() == exact.keys()
        return torch.stack([(found[name] - exact[name]).norm() for name in exact]).norm() / total

    plain_error = error(gradients(model, lambda: plain_logits(model, *inputs.values())))
    assert 1e-4 < plain_error < 0.2
    assert error(gradients(model, lambda: model(**inputs).logits)) < 1.5 * plain_error
