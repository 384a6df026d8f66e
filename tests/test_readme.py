"""README's code blocks run, and its commands are those that CI runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from transformers import ViTConfig, ViTModel

from s2d_hf.cli import build_parser
from s2d_hf.trainer import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RETINAFACE = "face_alignment.detection.retinaface.retinaface_detector"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_ci_runs_the_test_command_of_readme():
    commands = [block.strip() for block in blocks("bash")]
    test_commands = [command for command in commands if command.endswith("-m pytest")]
    assert len(test_commands) == 1
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == test_commands[0]


def test_first_command_starts_a_training():
    """Up to its arguments; tests/trainer/test_stages.py runs a whole one."""
    *_, launch = blocks("bash")[0].strip().split(" && ")
    command = launch.replace(".venv/bin/accelerate", f"{sys.executable} -m accelerate.commands.accelerate_cli").split()
    assert "training/train.py" in command
    run = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--anchor_distillation" in run.stdout and "--train_data" in run.stdout


def test_recipe_is_valid(tmp_path):
    (recipe,) = blocks("yaml")
    (tmp_path / "my.yaml").write_text(recipe)
    read = read_recipe([str(tmp_path / "my.yaml"), "--use_cpu"], default="")
    assert [stage.name for stage in read.stages] == ["static", "dynamic"]


def test_commands_of_the_package_are_understood():
    lines = "\n".join(blocks("bash")).splitlines()
    commands = [
        line.split("s2d-hf ")[-1].split("s2d_hf.cli ")[-1] for line in lines if re.search(r"s2d(-hf|_hf.cli) ", line)
    ]
    parsed = [build_parser().parse_args(shlex.split(command)) for command in commands]
    assert {arguments.command for arguments in parsed} >= {"convert", "predict", "archive"}


def test_python_blocks_run(converted, face_video, shared, tmp_path, monkeypatch):
    python = blocks("python")
    assert len(python) == 5
    monkeypatch.chdir(tmp_path)
    # in place of the download of the detector's weights
    weights = str(shared / "weights" / "retinaface_mobilenet0.25.pth")
    monkeypatch.setattr(f"{RETINAFACE}.load_file_from_url", lambda url: weights)
    (tmp_path / "meeting.mp4").symlink_to(face_video)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "model").symlink_to(converted)
    ViTModel(ViTConfig(num_hidden_layers=1), add_pooling_layer=False).save_pretrained("path/to/vit")
    (tmp_path / "face.mp4").symlink_to(face_video)
    for code in python:
        exec(compile(code, "README.md", "exec"), {})
    assert {"meeting.png", "annotated.mp4"} <= {path.name for path in tmp_path.iterdir()}
