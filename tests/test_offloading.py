"""Models whose weights lie elsewhere, in memory or on the disk, until a module is called."""

import copy

import accelerate
import pytest
import torch

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification

from .small_models import TINY, random_inputs, randomise

Model = S2DForVideoClassification | S2DForImageClassification


@pytest.fixture(params=["deep", "shallow", "none"])
def prompt_type(request) -> str:
    return request.param


@pytest.fixture(params=["video", "image"])
def model(request, prompt_type) -> Model:
    video = request.param == "video"
    model_class = S2DForVideoClassification if video else S2DForImageClassification
    config = S2DConfig(**(TINY | {"temporal_adapters": video, "prompt_type": prompt_type}))
    return randomise(model_class(config)).eval()


def check_scores(moved: Model, model: Model) -> None:
    """Also of a second call, of another batch size."""
    for batch_size in (2, 3):
        inputs = random_inputs(model.config, batch_size, video=isinstance(model, S2DForVideoClassification))
        with torch.no_grad():
            expected = model(**inputs).logits
            torch.testing.assert_close(moved(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part_in_memory", [0.5, 0.7, 0.9])
def test_automatic_map_over_memory_and_disk(model, part_in_memory, tmp_path):
    model.save_pretrained(tmp_path / "model")
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    moved = type(model).from_pretrained(
        tmp_path / "model",
        device_map="auto",
        max_memory={"cpu": int(part_in_memory * size)},
        offload_folder=tmp_path / "offload",
    )
    assert "disk" in moved.hf_device_map.values()
    assert any(parameter.is_meta for parameter in moved.parameters())
    check_scores(moved, model)


def test_cpu_offload(model):
    moved = accelerate.cpu_offload(copy.deepcopy(model))
    assert all(parameter.is_meta for parameter in moved.parameters())
    check_scores(moved, model)


def test_disk_offload(model, tmp_path):
    moved = accelerate.disk_offload(copy.deepcopy(model), tmp_path)
    assert all(parameter.is_meta for parameter in moved.parameters())
    check_scores(moved, model)


def test_map_that_splits_the_layers(model, tmp_path):
    """With what transformers does not split on a device of its own, and with every other one of the modules."""
    whole = (*model._no_split_modules, "LayerNorm", "Linear", "Dropout")
    names: list[str] = []
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in names)
        if type(module).__name__ in whole and not is_inside:
            names.append(name)
    parts = ("embeddings", "prompt_norms.0", "prompt_layers.0", "prompt_layers.1", "s2d.layers.1", "s2d.layernorm")
    on_disk = [{name for name in names if part in name} for part in parts]
    on_disk = [part for part in (*on_disk, set(names[::2]), set(names[1::2])) if part]
    assert len(on_disk) >= 5
    model.save_pretrained(tmp_path / "model")
    for i, part in enumerate(on_disk):
        device_map = {name: "disk" if name in part else "cpu" for name in names}
        moved = type(model).from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=tmp_path / f"offload{i}"
        )
        for name in names:
            assert all(parameter.is_meta == (name in part) for parameter in moved.get_submodule(name).parameters())
        check_scores(moved, model)
