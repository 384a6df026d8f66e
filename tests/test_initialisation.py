"""New weights, held against the statistics of a fresh model of the authors' code."""

import json
import math

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification
from s2d_hf.conversion import export_state_dict

from .small_models import TINY

NEW_AT_FIRST = ("temporal_embedding", ".S_Adapter.D_fc2.weight")


@pytest.fixture(scope="module")
def fresh() -> dict[str, torch.Tensor]:
    """A fresh model at the paper's size, under the authors' names."""
    torch.manual_seed(0)
    model = S2DForVideoClassification(S2DConfig(num_labels=7, adapter_init="random"))
    return export_state_dict(model.state_dict())


def test_fresh_weights_are_distributed_as_in_the_authors_code(shared, fresh):
    expected = json.loads((shared / "golden/init_statistics.json").read_text())["tensors"]
    assert len(expected) > 50 and set(expected) <= set(fresh)
    for name, wanted in expected.items():
        tensor, count = fresh[name].double(), fresh[name].numel()
        assert tensor.numel() == math.prod(wanted["shape"])
        mean, std, largest = tensor.mean().item(), tensor.std(correction=0).item(), tensor.abs().max().item()
        if wanted["std"] == 0:
            assert std == 0 and mean == wanted["mean"], name
            continue
        # two samples of one distribution: five standard errors, and 1 % for the extremes of what is bounded
        assert abs(mean - wanted["mean"]) <= 5 * math.sqrt(2 / count) * wanted["std"], name
        assert abs(std / wanted["std"] - 1) <= 5 * math.sqrt(1 / count), name
        is_uniform = wanted["max_abs"] < 2 * wanted["std"]
        if count > 1000 and is_uniform:
            assert abs(largest / wanted["max_abs"] - 1) < 0.01, name
        else:
            assert largest < (1.15 if is_uniform else 1.4) * wanted["max_abs"], name


def test_the_image_models_prompters_are_those_of_its_size():
    sizes = {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
    config = S2DConfig(**sizes, temporal_adapters=False, prompt_hidden_size=24, landmark_channels=50)
    model = S2DForImageClassification(config)
    for layer in model.s2d.prompt_layers:
        prompter = layer.prompter
        for linear in (prompter.appearance_proj, prompter.landmark_proj, prompter.output_proj):
            bound = math.sqrt(6 / (96 + 24))
            assert 0.97 * bound < linear.weight.abs().max() <= bound
            bound = 1 / math.sqrt(linear.in_features)
            assert 0.8 * bound < linear.bias.abs().max() <= bound
    bound = 1 / math.sqrt(50)
    assert 0.97 * bound < model.s2d.landmark_embeddings.weight.abs().max() <= bound
    assert 0.8 * bound < model.s2d.landmark_embeddings.bias.abs().max() <= bound


def test_what_a_vit_lacks_starts_as_in_a_new_model(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48,
             "image_size": 32, "patch_size": 8}  # fmt: skip
    # a spread of its own, which is no business of the new modules
    vit = ViTMAEForPreTraining(ViTMAEConfig(**sizes, initializer_range=0.5, decoder_hidden_size=16,
                                            decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
                                            decoder_intermediate_size=16))  # fmt: skip
    vit.save_pretrained(tmp_path)
    model = S2DForVideoClassification.from_vit_pretrained(
        str(tmp_path), num_labels=40, prompt_hidden_size=4, adapter_num_heads=2, adapter_init="random"
    )
    bound = math.sqrt(6 / 36)
    for layer in model.s2d.prompt_layers:
        assert 0.9 * bound < layer.prompter.appearance_proj.weight.abs().max() <= bound
        assert 0.015 < layer.temporal_adapter.spatial_up.weight.std() < 0.025
    assert 0.015 < model.classifier.weight.std() < 0.025 and not model.classifier.bias.any()
    assert 0.015 < model.s2d.embeddings.temporal_embeddings.std() < 0.025
    assert model.s2d.layers[0].mlp.fc1.weight.std() > 0.2  # the ViT's own


@pytest.mark.parametrize("changed", [{"num_labels": 30}, {"prompt_type": "deep"}])
def test_new_parts_beside_loaded_ones_start_as_in_a_new_model(tmp_path, changed):
    """A new head, and prompters beside a model that had none."""
    start = TINY | {"temporal_adapters": False, "prompt_type": "deep" if "num_labels" in changed else "none"}
    S2DForImageClassification(S2DConfig(**start)).save_pretrained(tmp_path)
    model = S2DForImageClassification.from_pretrained(tmp_path, **changed, ignore_mismatched_sizes=True)
    if "num_labels" in changed:
        assert 0.015 < model.classifier.weight.std() < 0.025 and not model.classifier.bias.any()
    else:
        bound = math.sqrt(6 / (TINY["hidden_size"] + TINY["prompt_hidden_size"]))
        for layer in model.s2d.prompt_layers:
            assert 0.9 * bound < layer.prompter.output_proj.weight.abs().max() <= bound
            assert layer.prompter.output_proj.bias.abs().max() > 0.1


def test_adapters_keep_out_at_first_unless_they_are_to_be_random(fresh):
    assert all(fresh[name].any() for name in fresh if name.endswith(NEW_AT_FIRST))
    model = S2DForVideoClassification(S2DConfig(**(TINY | {"adapter_init": "zero"})))
    zero = export_state_dict(model.state_dict())
    names = [name for name in zero if name.endswith(NEW_AT_FIRST)]
    assert len(names) == 1 + TINY["num_hidden_layers"] and not any(zero[name].any() for name in names)
