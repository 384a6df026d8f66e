"""What of a model a training can't take is listed, and never trained around in silence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s2d_hf import S2DConfig, S2DForVideoClassification
from s2d_hf.data import LabelledSamples, Sample
from s2d_hf.landmark_encoders_s2d import LandmarkEncoder
from s2d_hf.trainer import building, starting_weights
from s2d_hf.trainer.building import build_model, check_classes, load_for_evaluation, load_landmark_encoder
from s2d_hf.trainer.recipes import StageArguments, read_recipe

from .frames_dataset import make_trainer, small_model
from .small_image_model import write_image_model

LABELS = ("LABEL_0", "LABEL_1")


@pytest.fixture(scope="module")
def image_model(tmp_path_factory) -> Path:
    return write_image_model(tmp_path_factory.mktemp("image-model"))


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    texts: list[str] = []
    for module in (building, starting_weights):
        monkeypatch.setattr(module.logger, "warning", texts.append)
    return texts


def stage(name: str, start: Path, *options: str) -> StageArguments:
    arguments = ["--stage", name, "--model_name_or_path", str(start), "--train_data", "train", "--output_dir", "out"]
    return read_recipe([*arguments, *options], default="").stages[0]


def encoder(start: Path) -> LandmarkEncoder:
    return load_landmark_encoder(stage("static", start).model)


def build(name: str, start: Path, *options: str) -> torch.nn.Module:
    return build_model(stage(name, start, *options), LABELS, encoder(start))


def test_what_a_video_model_has_beside_its_image_model_is_no_surprise(image_model, warnings):
    model = build("dynamic", image_model, "--config_overrides", '{"num_frames": 6}')
    assert model.config.temporal_adapters and not warnings


def test_new_labels_are_told_of_in_one_line(image_model, warnings):
    build_model(stage("dynamic", image_model), ("a", "b", "c"), encoder(image_model))
    (warning,) = warnings
    assert warning.startswith("The classifier is new: ")


@pytest.mark.parametrize(
    ("overrides", "listed"),
    [
        ('{"image_size": 48}', ["s2d.embeddings.position_embeddings: (1, 17, 32) there, (1, 37, 32) here"]),
        ('{"num_hidden_layers": 5}', ["s2d.layers.*.mlp.fc1.weight: missing (2 layers)"]),
        (
            '{"hidden_size": 64, "intermediate_size": 48}',
            [
                "s2d.layers.*.attention.qkv.weight: (96, 32) there, (192, 64) here (3 layers)",
                "s2d.embeddings.cls_token",
            ],
        ),
    ],
)
def test_weights_that_would_be_random_and_frozen_are_refused(image_model, overrides, listed, warnings):
    with pytest.raises(ValueError, match=r"(?s)doesn't fit the model.*freeze_backbone: false") as error:
        build("dynamic", image_model, "--config_overrides", overrides)
    assert str(image_model) in str(error.value)
    for line in listed:
        assert line in str(error.value)
    # with all parameters trained, they are listed
    model = build("dynamic", image_model, "--config_overrides", overrides, "--freeze_backbone", "false")
    assert all(parameter.requires_grad for parameter in model.parameters())
    (warning,) = warnings
    assert warning.startswith(f"These weights start new, as {image_model} has none that fit:\n- ")
    for line in listed:
        assert line in warning


def test_weights_that_have_no_place_are_listed(image_model, warnings):
    build("static", image_model, "--config_overrides", '{"num_hidden_layers": 1}')
    (warning,) = warnings
    assert "have no place in the model" in warning and "- s2d.layers.*.mlp.fc1.weight: not used (2 layers)" in warning
    warnings.clear()
    build("static", image_model, "--config_overrides", '{"prompt_type": "none"}')  # as is asked for
    assert not warnings


def test_a_damaged_start_is_refused_or_listed(image_model, warnings, tmp_path):
    """A file in which weights are missing, as of another program or another version."""
    start = write_image_model(tmp_path / "model")
    weights = load_file(start / "model.safetensors")
    del weights["s2d.layers.1.mlp.fc2.weight"], weights["classifier.bias"]
    save_file(weights, start / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"s2d\.layers\.\*\.mlp\.fc2\.weight: missing"):
        build("dynamic", start)
    build("static", start)
    assert "- s2d.layers.*.mlp.fc2.weight: missing" in warnings[0]
    with pytest.raises(ValueError, match=r"(?s)lacks weights, which would be random:.*classifier\.bias: missing"):
        load_for_evaluation(stage("static", start))
    assert load_for_evaluation(stage("static", image_model)).config.num_labels == 2


def test_a_training_is_not_resumed_with_another_model(tmp_path):
    make_trainer(tmp_path, save_strategy="steps", save_steps=1).train()
    checkpoint = str(tmp_path / "checkpoint-1")
    other = make_trainer(tmp_path, small_model(num_hidden_layers=4))
    with pytest.raises(ValueError, match=r"(?s)is of another model.*- s2d\.layers\.\*\.mlp\.fc1\.weight: missing\n"):
        other.train(resume_from_checkpoint=checkpoint)
    other = make_trainer(tmp_path, small_model(intermediate_size=64))
    with pytest.raises(ValueError, match=r"fc1\.weight: \(48, 32\), expected \(64, 32\) \(3 layers\)"):
        other.train(resume_from_checkpoint=checkpoint)


def test_what_the_stage_leaves_out_is_listed_unless_it_was_asked_for(image_model, warnings, tmp_path):
    """A video model as the start of an image model, and a start that has no classifier."""
    S2DForVideoClassification.from_pretrained(image_model, temporal_adapters=True).save_pretrained(tmp_path)
    build_model(stage("static", tmp_path), LABELS, encoder(image_model))
    (warning,) = warnings
    assert (
        "- s2d.embeddings.temporal_embeddings: not used" in warning
        and "temporal_down.weight: not used (3 l" in warning
    )
    warnings.clear()
    wish = ("--config_overrides", '{"temporal_adapters": false}')
    build_model(stage("dynamic", tmp_path, *wish), LABELS, encoder(image_model))
    assert not warnings
    weights = load_file(tmp_path / "model.safetensors")
    del weights["classifier.weight"], weights["classifier.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    build_model(stage("dynamic", tmp_path), LABELS, encoder(image_model))
    (warning,) = warnings
    assert "- classifier.weight: missing" in warning


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "dynamic",
            '{"num_attention_heads": 4}',
            r"has `num_attention_heads` 4, and the weights of .* trained with 2",
        ),
        ("static", '{"hidden_act": "relu"}', "has `hidden_act` 'relu', and the weights of .* trained with 'gelu'"),
        (
            "static",
            '{"temporal_adapters": true}',
            "has `temporal_adapters`, and the static stage trains an image model",
        ),
        ("static", '{"id2label": {"0": "a"}}', "has id2label, which comes from the data"),
        ("static", '{"num_labels": 7}', "has num_labels, which comes from the data"),
        ("static", '{"problem_type": "regression"}', "has problem_type, which comes from the data"),
    ],
)
def test_overrides_that_make_nonsense_are_refused(image_model, name, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(name, image_model, "--config_overrides", overrides)


def test_an_activation_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"`hidden_act` must be one of gelu.*got 'nope'"):
        S2DConfig(hidden_act="nope")


def test_classes_without_samples_are_told_of(warnings):
    samples = [Sample(name=str(i), label=label, path=f"{i}.png") for i, label in enumerate((0, 2, 2))]
    check_classes(LabelledSamples(samples, ("a", "b", "c")))
    assert warnings == ["The training data have no samples of b: the model can't learn them."]
    with pytest.raises(ValueError, match="a single class, c: there is nothing to tell apart"):
        check_classes(LabelledSamples(samples[1:], ("a", "b", "c")))
