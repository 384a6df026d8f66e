"""What explains a score: gradients with respect to pixels, hidden states and attentions, held against differences."""

from collections.abc import Callable

import pytest
import torch

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification

from .small_models import TINY, random_inputs, randomise

Model = S2DForVideoClassification | S2DForImageClassification


@pytest.fixture(params=["video", "image"])
def model(request) -> Model:
    """In double precision, for differences; with the ViT frozen, as after a training."""
    video = request.param == "video"
    model_class = S2DForVideoClassification if video else S2DForImageClassification
    model = randomise(model_class(S2DConfig(**(TINY | {"temporal_adapters": video})))).double().eval()
    return model.freeze_for_video_tuning()


@pytest.fixture
def inputs(model) -> dict[str, torch.Tensor]:
    inputs = random_inputs(model.config, 2, video=isinstance(model, S2DForVideoClassification))
    return {name: x.double() for name, x in inputs.items()}


def score_of(model: Model, inputs: dict[str, torch.Tensor], **options) -> torch.Tensor:
    """The sum of both samples' scores of one class."""
    return model(**inputs, **options).logits[:, 1].sum()


def check_gradient(compute: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor) -> None:
    """`compute` gives the score after something is added to what the gradient is with respect to."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        direction = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
        step = 1e-3
        with torch.no_grad():
            difference = (compute(step * direction) - compute(-step * direction)).item() / (2 * step)
        assert abs(difference - (gradient * direction).sum().item()) < 2e-3 * gradient.norm()


@pytest.mark.parametrize("name", ["pixel_values", "landmark_features"])
def test_saliency(model, inputs, name):
    inputs[name].requires_grad_()
    (gradient,) = torch.autograd.grad(score_of(model, inputs), inputs[name])
    each = gradient.flatten(0, -4) if gradient.ndim > 4 else gradient
    assert each.abs().amax(dim=(1, 2, 3)).min() > 0  # of every frame
    check_gradient(lambda added: score_of(model, inputs | {name: inputs[name] + added}), gradient)


def test_integrated_gradients_add_up_to_the_difference_of_the_scores(model, inputs):
    pixels = inputs["pixel_values"]
    baseline, steps = torch.zeros_like(pixels), 64
    total = torch.zeros_like(pixels)
    for i in range(steps):
        between = (baseline + (i + 0.5) / steps * (pixels - baseline)).requires_grad_()
        total += torch.autograd.grad(score_of(model, inputs | {"pixel_values": between}), between)[0] / steps
    attributions = (total * (pixels - baseline)).flatten(1).sum(dim=1)
    with torch.no_grad():
        scores = [model(**(inputs | {"pixel_values": x})).logits[:, 1] for x in (pixels, baseline)]
    difference = scores[0] - scores[1]
    assert difference.abs().min() > 0.05
    torch.testing.assert_close(attributions, difference, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("kind", ["tensor", "module"])
def test_grad_cam_by_hooks_on_the_last_block(model, inputs, kind):
    """Of all tokens of all frames, by hooks of tensors or of modules."""
    layer = model.s2d.layers[-1].layernorm_before
    seen: dict[str, torch.Tensor] = {}

    def keep(module, arguments, output):
        seen["activations"] = output
        if kind == "tensor":
            output.register_hook(lambda gradient: seen.update(gradient=gradient))

    hooks = [layer.register_forward_hook(keep)]
    if kind == "module":
        hooks.append(layer.register_full_backward_hook(lambda module, _, outputs: seen.update(gradient=outputs[0])))
    score_of(model, inputs).backward()
    for hook in hooks:
        hook.remove()
    shape = (*inputs["pixel_values"].shape[:-3], 1 + model.config.num_patches, 32)
    assert seen["activations"].shape == seen["gradient"].shape == shape
    assert seen["gradient"][..., 1:, :].abs().amax(dim=-1).min() > 0

    def compute(added: torch.Tensor) -> torch.Tensor:
        hook = layer.register_forward_hook(lambda module, arguments, output: output + added)
        score = score_of(model, inputs)
        hook.remove()
        return score

    check_gradient(compute, seen["gradient"])


def test_gradients_reach_all_hidden_states_and_attentions(model, inputs):
    model.set_attn_implementation("eager")
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    for states in (*output.hidden_states, *output.attentions, output.pooler_output):
        states.retain_grad()
    output.logits[:, 1].sum().backward()
    for states in (*output.hidden_states, *output.attentions):
        assert states.grad.abs().flatten(1).amax(dim=1).min() > 0
    layers = model.s2d.layers
    for states, layer in zip(output.hidden_states[1:-1], layers[:-1], strict=True):

        def compute(added: torch.Tensor, layer=layer) -> torch.Tensor:
            def add(module, arguments, output):
                return (output[0] + added, *output[1:])

            hook = layer.register_forward_hook(add)
            score = score_of(model, inputs)
            hook.remove()
            return score

        check_gradient(compute, states.grad)
