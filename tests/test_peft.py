"""Low-rank adapters of PEFT around the linear layers: they train, are saved, loaded and merged."""

import copy
from pathlib import Path

import pytest
import torch

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification

from .small_models import TINY, random_inputs, randomise

peft = pytest.importorskip("peft")

LABELS = torch.tensor([1, 3])
Model = S2DForVideoClassification | S2DForImageClassification


def make_model(video: bool) -> Model:
    model_class = S2DForVideoClassification if video else S2DForImageClassification
    return randomise(model_class(S2DConfig(**(TINY | {"temporal_adapters": video})))).eval()


def add_lora(model: Model) -> "peft.PeftModel":
    """On a copy, with random values in place of the zeros that adapters start with."""
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        lora_dropout=0.3,
        target_modules="all-linear",
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    return peft.get_peft_model(copy.deepcopy(model), config)


def compute_loss(model: torch.nn.Module, inputs: dict[str, torch.Tensor], seed: int = 5) -> torch.Tensor:
    torch.manual_seed(seed)  # the same is dropped each time
    return model(**inputs, labels=LABELS).loss


def compute_gradients(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    compute_loss(model, inputs).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("video", [True, False])
def test_gradient_with_checkpointed_prompt_layers_is_the_derivative(video):
    model = make_model(video).double()
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    lora = add_lora(model.freeze_for_video_tuning()).train()
    inputs = {name: x.double() for name, x in random_inputs(model.config, 2, video=video).items()}
    calls: list[str] = []
    for name, module in lora.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    gradients = compute_gradients(lora, inputs)
    # the prompt layers are computed twice, and what else has an adapter once
    again = [name for name in set(calls) if calls.count(name) == 2]
    assert set(again) == {name for name in calls if ".prompt_layers." in name}
    assert len(set(calls)) == len(linears) - 1 and len(calls) == len(set(calls)) + len(again)
    # both low-rank matrices of every linear layer but the classifier, and this itself
    assert len(gradients) == 2 * (len(linears) - 1) + 2
    assert all(gradient.any() for gradient in gradients.values())

    lora.base_model.model.gradient_checkpointing_disable()
    plain = compute_gradients(lora, inputs)
    assert plain.keys() == gradients.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, msg=name)

    assert abs(compute_loss(lora, inputs) - compute_loss(lora, inputs, seed=6)) > 1e-4  # dropout matters
    trained = {name: p for name, p in lora.named_parameters() if name in gradients}
    step, generator, losses = 1e-4, torch.Generator().manual_seed(0), []
    direction = {name: torch.randn(p.shape, generator=generator).double() for name, p in trained.items()}
    for sign in (1, -2):
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.add_(sign * step * direction[name])
            losses.append(compute_loss(lora, inputs).item())
    expected = sum((gradients[name] * direction[name]).sum().item() for name in trained)
    scale = sum(gradient.square().sum().item() for gradient in gradients.values()) ** 0.5
    assert abs((losses[0] - losses[1]) / (2 * step) - expected) < 1e-2 * scale


@pytest.mark.parametrize("video", [True, False])
def test_adapters_are_trained_saved_loaded_and_merged(video, tmp_path):
    model = make_model(video)
    inputs = random_inputs(model.config, 2, video=video)
    lora = add_lora(model).train()
    optimizer = torch.optim.SGD([p for p in lora.parameters() if p.requires_grad], lr=0.1)
    before = compute_loss(lora.eval(), inputs).item()
    for _ in range(5):
        optimizer.zero_grad()
        compute_loss(lora.train(), inputs).backward()
        optimizer.step()
    assert compute_loss(lora.eval(), inputs).item() < before
    with torch.no_grad():
        trained = lora(**inputs).logits
        assert (trained - model(**inputs).logits).abs().max() > 0.1
        with lora.disable_adapter():
            torch.testing.assert_close(lora(**inputs).logits, model(**inputs).logits)
        lora.save_pretrained(tmp_path / "adapter")
        assert size_of(tmp_path / "adapter") < size_of_weights(model) / 2
        again = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "adapter").eval()
        torch.testing.assert_close(again(**inputs).logits, trained, atol=1e-6, rtol=1e-6)
        merged = again.merge_and_unload()
        assert type(merged) is type(model)
        assert merged.state_dict().keys() == model.state_dict().keys()
        torch.testing.assert_close(merged(**inputs).logits, trained, atol=1e-5, rtol=1e-5)
        merged.save_pretrained(tmp_path / "merged")
        loaded = type(model).from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(loaded(**inputs).logits, trained, atol=1e-5, rtol=1e-5)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def size_of_weights(model: Model) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
