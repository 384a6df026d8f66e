"""Models for predictions are whole, or refused in one line."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s2d_hf import S2DConfig, S2DForVideoClassification
from s2d_hf.model_loading import load_whole_model

from .small_models import TINY, random_inputs, randomise


@pytest.fixture
def folder(tmp_path) -> Path:
    randomise(S2DForVideoClassification(S2DConfig(**TINY))).save_pretrained(tmp_path)
    return tmp_path


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_a_whole_model_is_that_of_from_pretrained(folder):
    expected = S2DForVideoClassification.from_pretrained(folder)
    model = load_whole_model(S2DForVideoClassification, folder)
    inputs = random_inputs(model.config, batch_size=1)
    assert torch.equal(model(**inputs).logits, expected(**inputs).logits)
    half = load_whole_model(S2DForVideoClassification, folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("classifier.weight"), r"missing: classifier\.weight\.$"),
        (lambda w: [w.pop(name) for name in list(w) if ".layers.1." in name], r"missing: s2d\.layers\.1\..* more\.$"),
        (lambda w: w.update({"s2d.more": torch.ones(1)}), r"of no use: s2d\.more\.$"),
        (lambda w: w.update({"classifier.bias": torch.ones(4)}), r"of another shape: classifier\.bias\.$"),
        (lambda w: w.update({"classifier.bias": torch.full((5,), torch.nan)}), r"NaN or infinite, classifier\.bias"),
    ],
)
def test_other_weights_are_refused(folder, change, message, capfd):
    change_weights(folder, change)
    with pytest.raises(ValueError, match=message) as error:
        load_whole_model(S2DForVideoClassification, folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert "MISSING" not in capfd.readouterr().err  # not transformers' report besides


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_file_that_breaks_off_is_refused(folder, share):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="can't be read, the file is damaged"):
        load_whole_model(S2DForVideoClassification, folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 10**9}, "`num_hidden_layers` must be a positive integer, 1024 at most, got 1000000000"),
        ({"hidden_size": 10**9}, "`hidden_size` must be a positive integer, 65536 at most"),
        ({"num_frames": 10**9}, "`num_frames` must be"),
        ({"image_size": 16 * 10**6}, "`image_size` must be"),
        ({"intermediate_size": 10**12}, "`intermediate_size` must be"),
        ({"hidden_size": None}, "'hidden_size'.*expected int, got NoneType"),
        ({"id2label": {str(i + 1): f"class {i}" for i in range(5)}}, "must name the classes 0 to 4, and names 1, 2,"),
        ({"id2label": {str(i): "same" for i in range(5)}}, "`id2label` gives several classes the same name: same"),
        ({"id2label": {"0": "a", "1": "b"}}, r"of another shape: classifier\.bias, classifier\.weight"),
    ],
)  # fmt: skip
def test_other_configurations_are_refused(folder, fields, message):
    change_config(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load_whole_model(S2DForVideoClassification, folder)


def test_a_class_with_a_head_needs_one(folder):
    S2DForVideoClassification.from_pretrained(folder).s2d.save_pretrained(folder / "backbone")
    assert os.listdir(folder / "backbone")
    with pytest.raises(ValueError, match=r"missing: classifier\.bias, classifier\.weight"):
        load_whole_model(S2DForVideoClassification, folder / "backbone")
