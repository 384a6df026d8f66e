import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s2d_hf.trainer import find_last_checkpoint

from .frames_dataset import make_trainer

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *options: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.trainer.train_until_killed", str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder / "output.txt", "w") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def assert_ends(process: subprocess.Popen, folder: Path, returncode: int) -> None:
    assert process.wait(timeout=300) == returncode, (folder / "output.txt").read_text()[-3000:]


def timeless(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second", "_time"))}


def test_a_training_that_is_killed_twice_ends_as_one_that_is_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    unbroken = start(whole)
    # some steps after the checkpoint in the middle of the third epoch
    assert_ends(start(killed, "--kill-after", "10"), killed, -signal.SIGKILL)
    assert find_last_checkpoint(killed / "run") == str(killed / "run" / "checkpoint-8")
    assert load_file(killed / "run" / "checkpoint-8" / "emotion_anchors.safetensors")["counts"].sum() > 0
    # while the next checkpoint is being written
    assert_ends(start(killed, "--resume", "--kill-in-checkpoint", "12"), killed, -signal.SIGKILL)
    half_written = {path.name for path in (killed / "run" / "checkpoint-12").iterdir()}
    assert "model.safetensors" in half_written and "trainer_state.json" not in half_written
    assert find_last_checkpoint(killed / "run") == str(killed / "run" / "checkpoint-8")
    assert_ends(start(killed, "--resume"), killed, 0)
    assert_ends(unbroken, whole, 0)

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
