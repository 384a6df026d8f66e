"""Checkpoints that can't be resumed are passed over, and their fault is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s2d_hf.trainer import find_last_checkpoint
from s2d_hf.trainer.checkpoints import find_fault

from .frames_dataset import make_trainer

NEEDED = {"emotion_anchors.safetensors": "anchor_distillation", "ema.safetensors": "ema_decay"}
FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", *NEEDED)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a training with a checkpoint after each of two steps."""
    folder = tmp_path_factory.mktemp("run")
    arguments = {"save_strategy": "steps", "save_steps": 1, "ema_decay": 0.9, "anchor_distillation": True}
    make_trainer(folder, **arguments).train()
    return folder


@pytest.fixture
def folder(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def put_nan(path: Path) -> None:
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
        tensors[name].view(-1)[0] = torch.nan
        save_file(tensors, path)
    else:
        content = torch.load(path, weights_only=True)
        content["state"][0]["exp_avg"].view(-1)[-1] = torch.inf
        torch.save(content, path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def fill_with_zeros(path: Path) -> None:
    """As a machine that lost power leaves files."""
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_half_with_zeros(path: Path) -> None:
    """The same, of a file of which a part was written; a safetensors file still has its header and finite numbers."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = (Path.unlink, cut, empty, fill_with_zeros, fill_half_with_zeros, put_a_folder)
CASES = [(name, damage) for name in FILES for damage in DAMAGES]
CASES.remove(("emotion_anchors.safetensors", fill_half_with_zeros))  # of empty queues, it is so already
CASES += [(name, put_nan) for name in ("model.safetensors", "optimizer.pt", *NEEDED)]
CASES += [(name, flip_a_bit) for name in FILES[:4]]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_checkpoint_is_passed_over_with_its_fault(folder, name, damage, monkeypatch):
    whole, damaged = str(folder / "checkpoint-1"), folder / "checkpoint-2"
    assert find_last_checkpoint(folder, NEEDED) == str(damaged)
    damage(damaged / name)
    warnings = record_warnings(monkeypatch)
    assert find_last_checkpoint(folder, NEEDED) == whole
    (warning,) = warnings
    assert str(damaged) in warning and name in warning and "\n" not in warning


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_so_is_one_without_checksums(folder, name, damage, monkeypatch):
    """As other programs write it; what no format tells, as zeros in a safetensors file, can't be seen."""
    if damage in (fill_half_with_zeros, flip_a_bit) and name.endswith((".safetensors", "scheduler.pt")):
        pytest.skip("can't be seen")
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "checksums.json").unlink()
    test_a_damaged_checkpoint_is_passed_over_with_its_fault(folder, name, damage, monkeypatch)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[("trainer_state.json", content) for content in ("[]", "null", "{}", '{"a": 1}', '{"global_step": "a"}')],
        *[("trainer_state.json", f'{{"global_step": {step}}}') for step in (-5, 0, 1, 1e9, 2.0, "true")],
        ("trainer_state.json", '{"global_step": 2, "stateful_callbacks": []}'),
        *[("checksums.json", content) for content in ("[]", "null", '{"model.safetensors": 3}', "{")],
        *[("model.safetensors.index.json", content) for content in ("{}", "[]")],
        *[("model.safetensors.index.json", f'{{"weight_map": {parts}}}') for parts in ("3", "{}", '{"a": "b"}')],
        ("optimizer.pt", {}), ("optimizer.pt", [1]), ("optimizer.pt", {"other": 1}), ("scheduler.pt", {}),
    ],
)  # fmt: skip
def test_nonsense_that_can_be_read_is_passed_over_too(folder, name, content, monkeypatch):
    checkpoint = folder / "checkpoint-2"
    if isinstance(content, str):
        (checkpoint / name).write_text(content)
    else:
        (checkpoint / "checksums.json").unlink()
        torch.save(content, checkpoint / name)
    if name.endswith(".index.json"):
        (checkpoint / "checksums.json").unlink()
        (checkpoint / "model.safetensors").unlink()
    warnings = record_warnings(monkeypatch)
    assert find_last_checkpoint(folder, NEEDED) == str(folder / "checkpoint-1")
    assert len(warnings) == 1 and name in warnings[0] and "\n" not in warnings[0]


def record_warnings(monkeypatch) -> list[str]:
    warnings: list[str] = []
    monkeypatch.setattr("s2d_hf.trainer.checkpoints.logger.warning", warnings.append)
    return warnings


def test_the_newest_is_that_of_the_highest_step(folder):
    (folder / "checkpoint-2").rename(folder / "checkpoint-10")
    state = folder / "checkpoint-10" / "trainer_state.json"
    state.write_text(state.read_text().replace('"global_step": 2', '"global_step": 10'))
    for other in ("checkpoint-20-old", "checkpoint-best", "checkpoint-"):
        shutil.copytree(folder / "checkpoint-10", folder / other)
    assert find_last_checkpoint(str(folder)) == str(folder / "checkpoint-10")
    assert find_last_checkpoint(folder / "nowhere") is None


def test_where_all_are_damaged_there_is_none(folder, monkeypatch):
    warnings = record_warnings(monkeypatch)
    for step in (1, 2):
        cut(folder / f"checkpoint-{step}" / "optimizer.pt")
    assert find_last_checkpoint(folder) is None
    assert [Path(warning.split()[0]).name for warning in warnings] == ["checkpoint-2", "checkpoint-1"]
    with pytest.raises(ValueError, match="no complete checkpoint to resume from"):
        make_trainer(folder).train(resume_from_checkpoint=True)


def test_one_that_is_named_is_refused_with_its_fault(folder):
    checkpoint = folder / "checkpoint-2"
    (checkpoint / "checksums.json").unlink()
    put_nan(checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match=r"checkpoint-2 can't be resumed: model\.safetensors has NaN or infinity in"):
        make_trainer(folder).train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(FileNotFoundError, match="checkpoint-9, and there is no such folder"):
        make_trainer(folder).train(resume_from_checkpoint=str(folder / "checkpoint-9"))


def test_what_a_training_with_other_arguments_did_not_write_is_missing(folder):
    (folder / "checkpoint-2" / "ema.safetensors").unlink()
    (folder / "checkpoint-2" / "checksums.json").unlink()
    assert find_fault(folder / "checkpoint-2") is None
    assert make_trainer(folder, ema_decay=0.9).files_to_resume() == {"ema.safetensors": "ema_decay"}
    with pytest.raises(ValueError, match=r"ema\.safetensors is missing, as where it was written without `ema_decay`"):
        make_trainer(folder, ema_decay=0.9).train(resume_from_checkpoint=str(folder / "checkpoint-2"))


def test_a_part_of_sharded_weights_is_missed(folder):
    checkpoint = folder / "checkpoint-2"
    (checkpoint / "checksums.json").unlink()
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    half = len(tensors) // 2
    parts = {
        "model-00001-of-00002.safetensors": list(tensors)[:half],
        "model-00002-of-00002.safetensors": list(tensors)[half:],
    }
    for part, names in parts.items():
        save_file({name: tensors[name] for name in names}, checkpoint / part, metadata={"format": "pt"})
    weight_map = {name: part for part, names in parts.items() for name in names}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert find_fault(checkpoint, NEEDED) is None
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    assert "names model-00002-of-00002.safetensors, which is missing" in find_fault(checkpoint, NEEDED)
    # a part that lacks a weight which the index names
    save_file({name: tensors[name] for name in list(tensors)[half:-1]}, checkpoint / part, metadata={"format": "pt"})
    assert find_fault(checkpoint, NEEDED) is None
    trainer = make_trainer(folder, ema_decay=0.9, anchor_distillation=True)
    with pytest.raises(ValueError, match=r"(?s)checkpoint-2 is of another model.*: missing"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_weights_in_a_pickle_are_compared_with_the_model(folder):
    checkpoint = folder / "checkpoint-2"
    (checkpoint / "checksums.json").unlink()
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    del tensors["classifier.bias"]
    torch.save(tensors, checkpoint / "pytorch_model.bin")
    trainer = make_trainer(folder, ema_decay=0.9, anchor_distillation=True)
    with pytest.raises(ValueError, match=r"(?s)checkpoint-2 is of another model.*classifier\.bias: missing"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optim": "sgd"}, "optimizer and schedule of other arguments.*`optim`"),
        ({"layer_decay": 0.5}, "optimizer and schedule of other arguments.*`layer_decay`"),
        ({"anchor_queue_size": 4}, "another `anchor_queue_size`"),
    ],
)
def test_other_arguments_than_before_are_named(folder, changed, message):
    trainer = make_trainer(folder, num_train_epochs=2, ema_decay=0.9, anchor_distillation=True, **changed)
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))


def test_an_optimizer_of_other_weights_is_refused(folder):
    """torch would read memory that isn't theirs."""
    checkpoint = folder / "checkpoint-2"
    (checkpoint / "checksums.json").unlink()
    content = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    content["state"][0]["exp_avg"] = torch.zeros(1, 3)
    torch.save(content, checkpoint / "optimizer.pt")
    trainer = make_trainer(folder, num_train_epochs=2, ema_decay=0.9, anchor_distillation=True)
    with pytest.raises(ValueError, match=r"optimizer and schedule of other.*`exp_avg` is \(1, 3\)"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_the_best_checkpoint_must_be_whole_too(tmp_path):
    arguments = {
        "save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 2,
        "metric_for_best_model": "loss",
    }  # fmt: skip
    from .frames_dataset import FramesDataset

    trainer = make_trainer(tmp_path, dataset=FramesDataset([0, 1]), eval_dataset=FramesDataset([2, 3]), **arguments)
    load = trainer._load_best_model

    def damage_and_load() -> None:
        cut(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
        load()

    trainer._load_best_model = damage_and_load
    with pytest.raises(ValueError, match=r"`load_best_model_at_end`: the best checkpoint .*model\.safetensors has"):
        trainer.train()
