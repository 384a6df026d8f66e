"""Graphs of the models: exported, saved and loaded, and compiled for a training step."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch._inductor.compile_fx import compile_fx

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification

from .small_models import TINY, random_inputs, randomise

Model = S2DForVideoClassification | S2DForImageClassification


def make_model(video: bool, **changes) -> Model:
    model_class = S2DForVideoClassification if video else S2DForImageClassification
    return randomise(model_class(S2DConfig(**(TINY | {"temporal_adapters": video} | changes)))).eval()


@pytest.mark.parametrize(
    ("video", "strict", "prompt_type"),
    [
        (True, False, "deep"),
        (True, False, "none"),
        (True, True, "deep"),
        (False, False, "shallow"),
        (False, False, "none"),
        (False, True, "deep"),
    ],
)
def test_exported_program_takes_any_batch_size(video, strict, prompt_type, tmp_path):
    """Saved and loaded again."""
    model = make_model(video, prompt_type=prompt_type, num_hidden_layers=2)
    names = ["pixel_values"] if prompt_type == "none" else ["pixel_values", "landmark_features"]
    inputs = {name: random_inputs(model.config, 2, video=video)[name] for name in names}
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = {name: {0: batch} for name in names}
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=strict)
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for batch_size in (1, 5):
        other = random_inputs(model.config, batch_size, video=video, seed=7)
        other = {name: other[name] for name in names}
        with torch.no_grad():
            expected = model(**other)
            assert expected.logits.std(dim=1).min() > 0.01
            found = loaded(**other)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-5)


def compute_gradients(model: Model, compute, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    compute(**inputs, labels=torch.tensor([1, 3])).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def inductor_without_codegen(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
    """Everything that inductor does with the graphs but writing and compiling C++, which takes half a minute."""
    return compile_fx(graph, inputs, inner_compile=lambda graph, *args, **kwargs: graph.forward)


def check_compiled_training(model: Model, backend: str | Callable) -> None:
    """Against a model whose layers are not computed again."""
    plain = copy.deepcopy(model)
    plain.gradient_checkpointing_disable()
    inputs = random_inputs(model.config, 2, video=isinstance(model, S2DForVideoClassification))
    expected = compute_gradients(plain, plain, inputs)
    torch._dynamo.reset()
    found = compute_gradients(model, torch.compile(model, fullgraph=True, backend=backend), inputs)
    torch._dynamo.reset()
    assert found.keys() == expected.keys() and len(found) > 20
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm() / max(gradient.norm(), 1e-3 * total)
        assert error < 1e-4, name


@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize(("video", "frozen"), [(True, True), (False, False)])
def test_compiled_training_step_with_layers_computed_again(video, frozen):
    model = make_model(video, num_hidden_layers=2, classifier_dropout_prob=0.0).train()
    if frozen:
        model.freeze_for_video_tuning()
    else:
        model.gradient_checkpointing_enable()
    check_compiled_training(model, inductor_without_codegen)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("video", [True, False])
def test_training_step_compiled_by_inductor(video):
    model = make_model(video, num_hidden_layers=2, classifier_dropout_prob=0.0).train()
    check_compiled_training(model.freeze_for_video_tuning(), "inductor")
