import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s2d_hf.trainer import find_last_checkpoint
from tests.warm_python import WarmPython

from .frames_dataset import make_trainer


def train(python: WarmPython, folder: Path, returncode: int, *options: object) -> None:
    """Trains in a process of its own, which must end with this code."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = python.run("-m", "tests.trainer.train_until_killed", folder, *options, env=environment, timeout=300)
    assert run.returncode == returncode, run.stderr[-3000:]


def timeless(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second", "_time"))}


def test_a_training_that_is_killed_twice_ends_as_one_that_is_not(warm_python, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(warm_python, whole, 0)
    # some steps after the checkpoint in the middle of the third epoch
    train(warm_python, killed, -signal.SIGKILL, "--kill-after", 10)
    assert find_last_checkpoint(killed / "run") == str(killed / "run" / "checkpoint-8")
    assert load_file(killed / "run" / "checkpoint-8" / "emotion_anchors.safetensors")["counts"].sum() > 0
    # while the next checkpoint is being written
    train(warm_python, killed, -signal.SIGKILL, "--resume", "--kill-in-checkpoint", 12)
    half_written = {path.name for path in (killed / "run" / "checkpoint-12").iterdir()}
    assert "model.safetensors" in half_written and "trainer_state.json" not in half_written
    assert find_last_checkpoint(killed / "run") == str(killed / "run" / "checkpoint-8")
    train(warm_python, killed, 0, "--resume")

    for name in ("weights", "average", "anchors"):
        expected, tensors = (load_file(folder / f"{name}.safetensors") for folder in (whole, killed))
        torch.testing.assert_close(tensors, expected, atol=1e-6, rtol=1e-6)
    expected, report = (json.loads((folder / "report.json").read_text()) for folder in (whole, killed))
    assert timeless(report["metrics"]) == pytest.approx(timeless(expected["metrics"]), abs=1e-6)
    # every loss, gradient norm, learning rate and evaluation on the way; not the mean loss of the resumed part
    entries = [[timeless(entry) for entry in log["log"] if "train_loss" not in entry] for log in (report, expected)]
    assert len(entries[0]) == len(entries[1]) == 15 + 5 + 1
    for entry, other in zip(*entries, strict=True):
        assert entry == pytest.approx(other, abs=1e-6)


def test_a_checkpoint_that_is_written_over_is_not_complete_in_between(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    assert find_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")

    def fail(output_dir: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(trainer, "_save_optimizer_and_scheduler", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert find_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
