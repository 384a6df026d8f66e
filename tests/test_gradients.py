"""
Gradients of models with dropout, with and without gradient checkpointing, held against a numerical derivative: what is
computed again in the backward pass must drop what the forward pass dropped.
"""

import copy

import pytest
import torch
from torch import nn

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification, layers_s2d

from .small_models import TINY, random_inputs, randomise

LABELS = torch.tensor([1, 3])
DROPOUTS = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2, "classifier_dropout_prob": 0.3}


class LowRank(nn.Module):
    """What LoRA puts around a linear layer, with its dropout."""

    def __init__(self, inner: nn.Linear):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.down = nn.Linear(inner.in_features, 2, bias=False)
        self.up = nn.Linear(2, inner.out_features, bias=False)
        self.dropout = nn.Dropout(0.3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs) + self.up(self.down(self.dropout(inputs)))


def add_low_rank(model: nn.Module, parts: tuple[str, ...]) -> None:
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            if type(child) is nn.Linear and any(part in f"{name}.{child_name}" for part in parts):
                setattr(module, child_name, LowRank(child))
    randomise(model)


def make_model(tuning: str, video: bool = True) -> S2DForVideoClassification | S2DForImageClassification:
    model_class = S2DForVideoClassification if video else S2DForImageClassification
    model = randomise(model_class(S2DConfig(**(TINY | DROPOUTS | {"temporal_adapters": video}))))
    match tuning:
        case "frozen":
            model.freeze_for_video_tuning()
        case "LoRA in prompt layers":
            model.freeze_for_video_tuning()
            add_low_rank(model, ("appearance_proj", "landmark_proj", "output_proj", "spatial_down", "temporal_up"))
        case "LoRA everywhere":
            model.requires_grad_(False)
            add_low_rank(model, ("qkv", "fc1", "fc2", "proj", "spatial_", "temporal_"))
        case "dropout in activations":
            model.freeze_for_video_tuning()
            for module in model.modules():
                if hasattr(module, "activation"):
                    module.activation = nn.Sequential(nn.GELU(), nn.Dropout(0.3))
    return model.train()


def compute_loss(model: nn.Module, inputs: dict[str, torch.Tensor], seed: int = 5) -> torch.Tensor:
    torch.manual_seed(seed)  # the same is dropped each time
    return model(**inputs, labels=LABELS).loss


def check_gradient(model: nn.Module, inputs: dict[str, torch.Tensor], step: float, tolerance: float) -> None:
    model.zero_grad()
    loss = compute_loss(model, inputs)
    assert abs(loss.item() - compute_loss(model, inputs, seed=6).item()) > 1e-4  # dropout matters
    loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert len(trained) > 10
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in trained]
        expected = sum((p.grad * d).sum().item() for p, d in zip(trained, direction, strict=True))
        scale = sum(p.grad.square().sum().item() for p in trained) ** 0.5
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                places = [p for p, q in zip(moved.parameters(), model.parameters(), strict=True) if q.grad is not None]
                for parameter, d in zip(places, direction, strict=True):
                    parameter.add_(sign * step * d)
            losses.append(compute_loss(moved, inputs).item())
        assert abs((losses[0] - losses[1]) / (2 * step) - expected) < tolerance * scale


def set_checkpointing(model: nn.Module, checkpointing: str) -> None:
    if checkpointing == "all":
        model.gradient_checkpointing_enable()
    elif checkpointing == "none":
        model.gradient_checkpointing_disable()


TUNINGS = ("everything", "frozen", "LoRA in prompt layers", "LoRA everywhere", "dropout in activations")


@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", ["as it comes", "none", "all"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_gradient_with_dropout_is_the_derivative(tuning, checkpointing, attention):
    model = make_model(tuning).double()
    model.set_attn_implementation(attention)
    set_checkpointing(model, checkpointing)
    inputs = {name: x.double() for name, x in random_inputs(model.config, batch_size=2).items()}
    check_gradient(model, inputs, step=1e-4, tolerance=1e-2)


@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpointing", ["none", "all"])
@pytest.mark.parametrize("tuning", ["everything", "LoRA everywhere"])
def test_gradient_of_an_image_model_with_dropout_is_the_derivative(tuning, checkpointing):
    model = make_model(tuning, video=False).double()
    set_checkpointing(model, checkpointing)
    inputs = {name: x.double() for name, x in random_inputs(model.config, batch_size=2, video=False).items()}
    check_gradient(model, inputs, step=1e-4, tolerance=1e-2)


@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
def test_the_frozen_models_prompt_layers_alone_are_computed_again(monkeypatch):
    """And transformers' switches are the ones that decide."""
    model, calls = make_model("frozen"), []
    inputs = random_inputs(model.config, batch_size=2)
    for kind in (layers_s2d.S2DPrompter, layers_s2d.S2DMLP):  # one in each prompt layer and each block
        original = kind.forward

        def count(self, *args, kind=kind, original=original, **kwargs):
            calls.append(kind.__name__)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", count)

    def count_calls() -> tuple[int, int]:
        calls.clear()
        compute_loss(model, inputs).backward()
        return calls.count("S2DPrompter"), calls.count("S2DMLP")

    layers = model.config.num_hidden_layers
    assert count_calls() == (2 * layers, layers)
    model.gradient_checkpointing_enable()
    assert count_calls() == (2 * layers, 2 * layers)
    model.freeze_for_video_tuning()
    assert count_calls() == (2 * layers, 2 * layers)
    model.gradient_checkpointing_disable()
    assert count_calls() == (layers, layers)
