import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainerCallback

from s2d_hf import S2DForVideoClassification
from s2d_hf.publishing import FolderReport, PublishResult, UploadPlan
from s2d_hf.trainer import S2DTrainer
from s2d_hf.trainer.weight_average import WeightAverage

from .frames_dataset import FramesDataset, make_trainer, small_model

LABELS = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


class Weights(TrainerCallback):
    """Keeps the model's weights before the training and after each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.steps.append(weights_of(model))

    on_step_end = on_train_begin


def averaging_trainer(folder: Path, **arguments) -> S2DTrainer:
    """Trains fast, so that the averaged weights differ much from the raw ones."""
    return make_trainer(
        folder, model=small_model().freeze_for_video_tuning(), dataset=FramesDataset(LABELS),
        eval_dataset=FramesDataset(LABELS, seed=1), **({"ema_decay": 0.7, "learning_rate": 0.01} | arguments),
    )  # fmt: skip


def loss_with(trainer: S2DTrainer, weights: dict[str, torch.Tensor]) -> float:
    """The loss on the evaluation data of the trainer's model with other weights."""
    model = copy.deepcopy(trainer.model)
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    return make_trainer(Path(trainer.args.output_dir), model=model).evaluate(trainer.eval_dataset)["eval_loss"]


def test_the_decay_grows_to_its_full_value():
    model = nn.Linear(2, 1)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 20):
        nn.init.normal_(model.weight)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        assert (decay == 0.5) == (step >= 8)
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(average.state_dict()["weight"], expected)


def test_weights_are_exchanged_and_come_back():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    average = WeightAverage(model, 0.9)
    assert {name: weight.dtype for name, weight in average.state_dict().items()} == {
        "1.weight": torch.float32,
        "1.bias": torch.float32,
    }
    nn.init.normal_(model[1].weight)
    average.update(model, 1)
    raw = weights_of(model)
    mean = average.state_dict()["1.weight"]
    tensors = [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(KeyError, match="within"), average.applied_to(model):
        assert torch.equal(model[1].weight, mean.bfloat16()) and not torch.equal(model[1].weight, raw["1.weight"])
        with average.applied_to(model):
            assert torch.equal(model[1].weight, mean.bfloat16())
        assert torch.equal(model[1].weight, mean.bfloat16())
        raise KeyError("within")
    assert all(torch.equal(parameter, raw[name]) for name, parameter in weights_of(model).items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == tensors


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="`decay` must be between 0 and 1"):
        WeightAverage(nn.Linear(2, 2), 1.0)
    with pytest.raises(ValueError, match="nothing to average"):
        WeightAverage(nn.Linear(2, 2).requires_grad_(False), 0.9)
    average = WeightAverage(nn.Linear(2, 2), 0.9)
    for other in (nn.Linear(2, 3), nn.Linear(2, 2, bias=False)):
        with pytest.raises(ValueError, match="bias"):
            average.load_state_dict(WeightAverage(other, 0.9).state_dict())


def test_training_averages_the_weights_after_each_optimizer_step(tmp_path):
    trainer = averaging_trainer(tmp_path, num_train_epochs=5, gradient_accumulation_steps=2)  # 3 batches, 2 steps
    record = Weights()
    trainer.add_callback(record)
    trainer.train()
    assert len(record.steps) == 11
    expected = record.steps[0]
    for step, weights in enumerate(record.steps[1:], start=1):
        decay = min(0.7, (1 + step) / (10 + step))
        expected = {name: decay * mean + (1 - decay) * weights[name] for name, mean in expected.items()}
    average = trainer.weight_average.state_dict()
    assert average.keys() == expected.keys()
    for name, mean in expected.items():
        torch.testing.assert_close(average[name], mean, atol=1e-6, rtol=1e-5)
    trainer.train()  # a second training starts anew
    assert not torch.equal(trainer.weight_average.state_dict()["classifier.weight"], average["classifier.weight"])


def test_what_is_evaluated_predicted_and_saved_is_the_average(tmp_path):
    trainer = averaging_trainer(tmp_path, num_train_epochs=2, save_strategy="epoch", eval_strategy="epoch")
    trainer.train()
    raw, average = weights_of(trainer.model), trainer.weight_average.state_dict()
    loss = loss_with(trainer, average)
    assert abs(loss - loss_with(trainer, raw)) > 0.01
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated[-1] == pytest.approx(loss, abs=1e-5)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-5)
    assert trainer.predict(trainer.eval_dataset).metrics["test_loss"] == pytest.approx(loss, abs=1e-5)
    trainer.save_model(str(tmp_path / "final"))
    final = S2DForVideoClassification.from_pretrained(tmp_path / "final").state_dict()
    checkpoint = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    beside = load_file(tmp_path / "checkpoint-6" / "ema.safetensors")
    after = weights_of(trainer.model)
    assert beside.keys() == average.keys()
    for name in average:
        assert torch.equal(final[name], average[name]) and torch.equal(beside[name], average[name]), name
        assert torch.equal(checkpoint[name], raw[name]) and torch.equal(after[name], raw[name]), name


def test_what_is_pushed_is_the_average(tmp_path, monkeypatch):
    uploaded = {}

    def publish(folder: Path, *args, **kwargs) -> PublishResult:
        uploaded.update(load_file(folder / "model.safetensors"))
        return PublishResult(FolderReport(folder), UploadPlan("somebody/something"))

    monkeypatch.setattr("s2d_hf.trainer.pushing.publish_folder", publish)
    monkeypatch.setattr(Trainer, "create_model_card", lambda self, **kwargs: None)
    trainer = averaging_trainer(tmp_path)
    trainer.hub_model_id = "somebody/something"
    trainer.train()
    raw = weights_of(trainer.model)
    trainer.push_to_hub()
    for name, mean in trainer.weight_average.state_dict().items():
        assert torch.equal(uploaded[name], mean), name
        assert torch.equal(trainer.model.state_dict()[name], raw[name]), name


def test_the_best_checkpoint_brings_its_average(tmp_path):
    # so fast that the loss rises at first; its height is called the best, which the last checkpoint then isn't
    trainer = averaging_trainer(
        tmp_path, num_train_epochs=3, learning_rate=0.3, save_strategy="steps", save_steps=1, eval_strategy="steps",
        eval_steps=1, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert max(losses) > losses[-1] + 1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), abs=1e-5)
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == f"checkpoint-{1 + losses.index(max(losses))}"
    raw, average = load_file(best / "model.safetensors"), load_file(best / "ema.safetensors")
    for name, parameter in weights_of(trainer.model).items():
        assert torch.equal(parameter, raw[name]), name
        assert torch.equal(trainer.weight_average.state_dict()[name], average[name]), name


def test_without_the_average_a_checkpoint_is_refused(tmp_path):
    averaging_trainer(tmp_path, ema_decay=None, save_strategy="epoch").train()
    checkpoint = tmp_path / "checkpoint-3"
    assert not (checkpoint / "ema.safetensors").exists()
    with pytest.raises(ValueError, match=r"checkpoint-3 can't be resumed: ema\.safetensors is missing.*`ema_decay`"):
        averaging_trainer(tmp_path, num_train_epochs=2).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("strategy", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_sharded_weights_are_refused(strategy, tmp_path, monkeypatch):
    create = Trainer.create_accelerator_and_postprocess

    def pretend(trainer: Trainer) -> None:
        create(trainer)
        setattr(trainer, strategy, True)

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", pretend)
    with pytest.raises(ValueError, match=r"`ema_decay`.*FSDP or DeepSpeed"):
        averaging_trainer(tmp_path)
