"""README's code blocks run, and its commands are those that CI runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTModel

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_ci_runs_the_test_command_of_readme():
    commands = [block.strip() for block in blocks("bash")]
    test_commands = [command for command in commands if command.endswith("-m pytest")]
    assert len(test_commands) == 1
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == test_commands[0]


def test_quickstart_classifies_a_real_video(tmp_path):
    quickstart = [block for block in blocks("bash") if "quickstart.py" in block]
    script = re.search(r"\S+/quickstart\.py", quickstart[0]).group(0)
    run = subprocess.run(
        [sys.executable, ROOT / script, "--output", tmp_path], capture_output=True, text=True, check=True
    )
    scores = [float(line.split()[1]) for line in run.stdout.splitlines() if re.fullmatch(r"  \w+ +0\.\d{3}", line)]
    assert len(scores) == 7 and sum(scores) == pytest.approx(1, abs=0.005)
    assert "The weights are random" in run.stdout
    assert (tmp_path / "face.mp4").stat().st_size > 10_000


def test_python_blocks_run(converted, face_video, tmp_path, monkeypatch):
    python = blocks("python")
    assert len(python) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "model").symlink_to(converted)
    ViTModel(ViTConfig(num_hidden_layers=1), add_pooling_layer=False).save_pretrained("path/to/vit")
    (tmp_path / "face.mp4").symlink_to(face_video)
    for code in python:
        exec(compile(code, "README.md", "exec"), {})
