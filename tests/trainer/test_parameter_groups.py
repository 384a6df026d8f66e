import pytest
import torch

from s2d_hf.trainer.parameter_groups import layer_of

from .frames_dataset import make_trainer, small_model


def test_learning_rates_shrink_with_depth(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=1e-2, learning_rate_batch=2, layer_decay=0.5, weight_decay=0.1)
    optimizer = trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert found.keys() == set(names.values())
    rate = 1e-2 * 4 / 2  # a batch of 4
    expected = {
        "s2d.embeddings.patch_embeddings.weight": (rate / 16, 0.1),
        "s2d.embeddings.cls_token": (rate / 16, 0.0),
        "s2d.embeddings.position_embeddings": (rate / 16, 0.0),
        "s2d.layers.0.attention.qkv.weight": (rate / 8, 0.1),
        "s2d.layers.1.layernorm_before.weight": (rate / 4, 0.0),
        "s2d.layers.2.mlp.fc2.weight": (rate / 2, 0.1),
        "s2d.layernorm.weight": (rate, 0.0),
        "s2d.landmark_embeddings.weight": (rate, 0.1),
        "s2d.embeddings.temporal_embeddings": (rate, 0.0),
        "s2d.prompt_layers.0.prompter.output_proj.weight": (rate, 0.1),
        "s2d.prompt_layers.1.temporal_adapter.spatial_up.weight": (rate, 0.1),
        "classifier.weight": (rate, 0.1),
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name
    scheduler = trainer.create_scheduler(num_training_steps=10)
    assert sorted({round(lr / rate, 6) for lr in scheduler.base_lrs}) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_only_blocks_of_the_vit_have_a_depth():
    names = [name for name, _ in small_model().named_parameters()]
    layers = {name: layer_of(name, 3) for name in names}
    assert {layer for name, layer in layers.items() if ".prompt_" in name or "classifier" in name} == {4}
    assert [sum(layer == i for layer in layers.values()) for i in range(4)] == [4, 12, 12, 12]


@pytest.mark.parametrize("layer_decay", [0.0, 1.5])
def test_impossible_factors_are_refused(layer_decay, tmp_path):
    with pytest.raises(ValueError, match="`layer_decay`"):
        make_trainer(tmp_path, layer_decay=layer_decay)


def test_training_with_layer_decay_moves_upper_layers_more(tmp_path):
    model = small_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    make_trainer(tmp_path, model, layer_decay=0.1, learning_rate=1e-3, weight_decay=0.0).train()
    moved = [
        (dict(model.named_parameters())[name] - before[name]).abs().max()
        for name in (f"s2d.layers.{i}.mlp.fc1.weight" for i in range(3))
    ]
    assert torch.stack(moved).diff().min() > 0 and moved[2] / moved[1] > 5
