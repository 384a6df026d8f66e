"""A training in which something becomes NaN or infinite stops there, and leaves nothing of it behind."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s2d_hf import S2DForImageClassification, S2DForVideoClassification
from s2d_hf.trainer import NotFiniteError, find_last_checkpoint

from .frames_dataset import FramesDataset, make_trainer, small_model


class NamedFrames(FramesDataset):
    def __getitem__(self, index: int) -> dict:
        return super().__getitem__(index) | {"name": f"clip{index}.mp4"}


def collate(items: list[dict]) -> dict:
    batch = {key: torch.stack([item[key] for item in items]) for key in ("frames", "clean_frames")}
    return batch | {"labels": torch.tensor([item["labels"] for item in items]), "name": [i["name"] for i in items]}


def make(folder: Path, **arguments):
    trainer = make_trainer(folder, dataset=NamedFrames([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]), **arguments)
    trainer.data_collator = collate
    return trainer


def spoil_step(trainer, step: int, spoil) -> None:
    """Calls `spoil` before the training step of that number, counted from 1."""
    original = trainer.training_step

    def training_step(model, inputs, *args, **kwargs):
        if trainer.state.global_step + 1 == step:
            spoil(trainer.model)
        return original(model, inputs, *args, **kwargs)

    trainer.training_step = training_step


def break_a_weight(value: float):
    def spoil(model) -> None:
        with torch.no_grad():
            model.s2d.layers[1].mlp.fc1.weight[0, 0] = value

    return spoil


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_stop_the_training(tmp_path, value):
    trainer = make(tmp_path, save_strategy="steps", save_steps=1, logging_steps=1)
    spoil_step(trainer, 3, break_a_weight(value))
    with pytest.raises(
        NotFiniteError, match=r"^Step 3 \(epoch 0\.67\): scores are NaN or infinite; the files: clip"
    ) as e:
        trainer.train()
    assert str(e.value).count(".mp4") == 4
    assert find_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert not (tmp_path / "checkpoint-3").exists()
    assert all(entry["loss"] > 0.1 for entry in trainer.state.log_history)


def test_of_a_batch_only_the_files_with_broken_scores_are_named(tmp_path):
    trainer = make(tmp_path)
    prepare = trainer.model_inputs

    def model_inputs(pixels, features=None):
        inputs = prepare(pixels, features)
        inputs["landmark_features"][2] = math.nan
        return inputs

    trainer.model_inputs = model_inputs
    names = [f"clip{i}.mp4" for i in trainer._get_train_sampler()]
    torch.manual_seed(trainer.args.seed)
    with pytest.raises(NotFiniteError) as error:
        trainer.train()
    assert str(error.value).count(".mp4") == 1 and any(name in str(error.value) for name in names)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, monkeypatch):
    trainer = make(tmp_path)
    monkeypatch.setattr("s2d_hf.trainer.trainer.classification_loss", lambda logits, *_: logits.sum() * math.inf)
    with pytest.raises(
        NotFiniteError, match=r"^Step 1 \(epoch 0\.00\): the loss is -?inf; the files: clip.*learning_rate"
    ):
        trainer.train()


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_stop_the_training_before_the_step(tmp_path, value, max_grad_norm):
    trainer = make(
        tmp_path, save_strategy="steps", save_steps=1, max_grad_norm=max_grad_norm, gradient_accumulation_steps=3
    )
    weight = trainer.model.s2d.layers[0].attention.qkv.weight
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(NotFiniteError, match=r"^Step 1 .*gradients are NaN or infinite; the files: clip") as e:
        trainer.train()
    assert str(e.value).count(".mp4") == 8 and "and 4 more" in str(e.value)  # of all three batches
    assert torch.equal(weight, before) and find_last_checkpoint(tmp_path) is None


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = make(tmp_path, save_strategy="steps", save_steps=2)

    # between the last step and its checkpoint: nothing else would see it
    def spoil_and_save(*args) -> None:
        break_a_weight(math.nan)(trainer.model)
        save(*args)

    save, trainer._save_checkpoint = trainer._save_checkpoint, spoil_and_save
    with pytest.raises(
        NotFiniteError, match=r"After step 2: weights are NaN or infinite, s2d\.layers\.1\.mlp\.fc1\.weight"
    ):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))
    with pytest.raises(NotFiniteError):
        trainer.save_model(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_an_average_that_is_not_finite_is_not_saved(tmp_path):
    trainer = make(tmp_path, ema_decay=0.5)
    trainer.train()
    trainer.weight_average.weights["classifier.bias"][0] = math.inf
    with pytest.raises(NotFiniteError, match=r"classifier\.bias"):
        trainer.save_model(str(tmp_path / "model"))


@pytest.mark.parametrize("kept", ["emotion anchors", "averaged weights"])
def test_a_checkpoint_is_not_written_with_what_could_never_be_resumed(tmp_path, kept):
    trainer = make(tmp_path, ema_decay=0.5, anchor_distillation=True, save_strategy="steps", save_steps=2)

    def spoil(model) -> None:
        if kept == "emotion anchors":
            trainer.anchors.features[0, 0, 0] = math.nan
        else:
            trainer.weight_average.weights["classifier.bias"][0] = math.nan

    spoil_step(trainer, 2, spoil)
    with pytest.raises(NotFiniteError, match=rf"^After step 2, {kept}: weights are NaN or infinite"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("num_views", [None, 2])
def test_scores_that_are_not_finite_are_no_result(tmp_path, num_views):
    dataset = NamedFrames([0, 1, 2], num_views=num_views)
    trainer = make(tmp_path)
    break_a_weight(math.nan)(trainer.model)
    with pytest.raises(NotFiniteError, match=r"^Evaluation: scores are NaN or infinite; the files: clip0\.mp4, clip1"):
        trainer.predict(dataset)


def test_views_whose_score_underflows_are_no_error(tmp_path):
    """The softmax of a class may be 0 in float32 for a model that is very sure."""
    trainer = make(tmp_path)
    with torch.no_grad():
        trainer.model.classifier.bias[0] = 1e4
    scores = trainer.predict(NamedFrames([0, 1], num_views=2)).predictions
    assert (scores.argmax(-1) == 0).all() and torch.isfinite(torch.as_tensor(scores)).all()


def test_models_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path / "whole")
    with torch.no_grad():
        model.s2d.prompt_layers[0].prompter.output_proj.bias[1] = math.nan
    with pytest.raises(
        ValueError, match=r"Nothing is saved to .*: weights are NaN or infinite, s2d\.prompt_layers\.0"
    ):
        model.save_pretrained(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    path = tmp_path / "whole" / "model.safetensors"
    weights = load_file(path)
    weights["classifier.weight"][0, 0] = -math.inf
    save_file(weights, path, metadata={"format": "pt"})
    for kind in (S2DForVideoClassification, S2DForImageClassification):
        with pytest.raises(
            ValueError, match=r"whole can't be used: weights are NaN or infinite, classifier\.weight\."
        ):
            kind.from_pretrained(tmp_path / "whole", temporal_adapters=kind is S2DForVideoClassification)


def test_fp16_stops_where_no_scale_is_small_enough(tmp_path):
    """A GradScaler leaves steps out whose gradients overflow; that must not go on for ever."""

    trainer = make(tmp_path, num_train_epochs=5)
    weight = trainer.model.s2d.layers[0].attention.qkv.weight
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    # which accelerate makes on a GPU
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2**-7)
    with pytest.raises(NotFiniteError, match=r"^Step 4 .*however small the loss is scaled for fp16"):
        trainer.train()
    assert torch.equal(weight, before)
