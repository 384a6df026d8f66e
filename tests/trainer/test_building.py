"""Stages start from what users hold: the authors' checkpoints, by file or address."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from s2d_hf import S2DConfig
from s2d_hf.data import LabelledSamples, Sample
from s2d_hf.labels import LABELS
from s2d_hf.trainer.building import build_dataset, build_model, find_start, load_landmark_encoder
from s2d_hf.trainer.recipes import ModelArguments, StageArguments, read_recipe


def stage(name: str, start: Path | str, *options: str) -> StageArguments:
    arguments = ["--stage", name, "--model_name_or_path", str(start), "--train_data", "train", *options]
    return read_recipe([*arguments, "--output_dir", "out"], default="").stages[0]


def test_augmentation_is_as_the_recipe_says(tmp_path):
    samples = LabelledSamples((Sample("a", 0, tmp_path),), ("happy",))

    def augmentation(*options: str):
        return build_dataset(samples, "train", stage("dynamic", "model", *options), S2DConfig(), None).augmentation

    ours = augmentation()
    assert (ours.order, ours.interpolation, ours.fill) == ("crop_first", "bilinear", (124, 116, 104))
    theirs = augmentation(
        "--augmentation_order", "rand_augment_first", "--augmentation_interpolation", "bicubic",
        "--augmentation_fill", "128", "127", "126",
    )  # fmt: skip
    assert (theirs.order, theirs.interpolation, theirs.fill) == ("rand_augment_first", "bicubic", (128, 127, 126))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], False),
        (["--anchor_distillation"], True),
        (["--anchor_distillation", "--anchor_update", "after"], False),
    ],
)
def test_unaugmented_clips_are_read_only_for_anchors_that_take_them(options, wanted, tmp_path):
    samples = LabelledSamples((Sample("a", 0, tmp_path),), ("happy",))
    built = {
        purpose: build_dataset(samples, purpose, stage("dynamic", "model", *options), S2DConfig(), None)
        for purpose in ("train", "validation")
    }
    assert built["train"].with_clean_view is wanted and not built["validation"].with_clean_view


@pytest.fixture
def image_checkpoint(shared, tmp_path) -> Path:
    return Path(shutil.copy(shared / "golden" / "pretrain-image.pth", tmp_path / "Pretrain-AffectNet-7.pth"))


def test_a_video_model_starts_from_the_authors_image_checkpoint(image_checkpoint):
    """As their own recipe does; the landmark encoder is the one in it."""
    dynamic = stage("dynamic", image_checkpoint)
    official = torch.load(image_checkpoint, weights_only=False)["model_state_dict"]  # a file of ours
    encoder = load_landmark_encoder(dynamic.model)
    name = "conv_4.model.5.project.conv.weight"
    torch.testing.assert_close(encoder.state_dict()[name], official[f"landmark.backbone.{name}"].float())
    same = build_model(dynamic, LABELS["AffectNet-7"], encoder)
    assert same.config.temporal_adapters and torch.equal(same.classifier.weight, official["head.weight"])
    assert torch.equal(same.s2d.layers[2].mlp.fc1.weight, official["blocks.2.mlp.fc1.weight"])
    other = build_model(dynamic, LABELS["DFEW"], encoder)
    assert not torch.equal(other.classifier.weight, official["head.weight"])


def test_landmark_encoders_by_file_and_of_a_checkpoint(image_checkpoint, landmark_weights, landmark_state, converted):
    for source in (image_checkpoint, landmark_weights, converted):
        encoder = load_landmark_encoder(ModelArguments(landmark_encoder=str(source)))
        torch.testing.assert_close(
            encoder.state_dict()["conv1.conv.weight"], landmark_state["conv1.conv.weight"].float(), msg=str(source)
        )


def test_a_named_landmark_encoder_serves_the_conversion(shared, landmark_weights, converted):
    """Whose detector the checkpoint lacks; nothing is downloaded."""
    checkpoint = str(shared / "golden" / "split01_checkpoint-best.pth")
    for source in (landmark_weights, converted):
        start = find_start(ModelArguments(checkpoint, landmark_encoder=str(source), checkpoint_dataset="DFEW"))
        assert Path(start, "landmark_encoder.safetensors").is_file()


def test_labels_of_a_checkpoint_are_asked_for_where_they_count(shared, converted):
    checkpoint = str(shared / "golden" / "split01_checkpoint-best.pth")
    silent = ModelArguments(checkpoint, landmark_encoder=str(converted))
    with pytest.raises(ValueError, match=r"name the `checkpoint_dataset` on which it was trained \(DFEW, FERV39k"):
        find_start(silent, needs_labels=True)
    assert find_start(silent)  # to train on, they don't
    named = ModelArguments(checkpoint, landmark_encoder=str(converted), checkpoint_dataset="FERV39k")
    assert AutoConfig.from_pretrained(find_start(named, needs_labels=True)).id2label[0] == "angry"
