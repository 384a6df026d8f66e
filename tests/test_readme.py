"""What README alone promises: that it is short, that its first screen and its commands run, and its pictures."""

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from s2d_hf.labels import LABELS

from .page_commands import load_script
from .pages import PAGES, ROOT, texts

README = PAGES["README.md"]
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q -e "
MAX_WORDS = 1300


def test_it_is_read_to_the_end():
    """As `wc -w` counts, with tables and code."""
    assert len(README.split()) <= MAX_WORDS


def test_ci_runs_the_test_command():
    (command,) = [block.strip() for block in texts("README.md", "bash") if block.endswith("-m pytest\n")]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_training_command_starts(tmp_path):
    """As it stands there, until it draws faces; tests/trainer/test_stages.py runs a whole, small one."""
    commands = texts("README.md", "bash")
    (block,) = [block for block in commands if block.startswith(SET_UP) and "training/train.py" in block]
    *_, launch = block.strip().split(" && ")
    command = launch.replace(".venv/bin/accelerate", f"{sys.executable} -m accelerate.commands.accelerate_cli").split()
    (tmp_path / "training").symlink_to(ROOT / "training")
    output, end = tmp_path / "printed.txt", time.monotonic() + 120
    with output.open("wb") as file:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file, start_new_session=True)
        try:
            drawn = tmp_path / "outputs" / "synthetic" / "data.partial" / "train"
            while not any(drawn.rglob("*.mp4")):
                assert run.poll() is None and time.monotonic() < end, output.read_text()
                time.sleep(0.2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def test_first_screen_runs_in_its_order(hub, clean_python, shared, torch_home, face_video, tmp_path):
    """As a stranger types it, on a machine with empty caches; the Hub is a stand-in, with a small checkpoint."""
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copy(shared / "golden" / "pretrain-image.pth", repository / "pretrain-AffectNet-7.pth")
    hub.add_model("cyinen/S2D", repository)
    (tmp_path / "meeting.mp4").symlink_to(face_video)
    environment = hub.environment(tmp_path / "home") | {"TORCH_HOME": str(torch_home)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # as `activate` does

    section = README.split("## First answers\n")[1].split("\n## ")[0]
    shown = re.findall(r"```(\w+)\n(.*?)```", section, flags=re.DOTALL)
    assert [language for language, _ in shown] == ["bash", "python", "bash", "python"]
    assert texts("README.md", "python") == [block for language, block in shown if language == "python"]
    printed = []
    for language, block in shown:
        # `pipeline` needs nothing of this package, and so it runs without
        python = clean_python if "pipeline" in block else sys.executable
        command = ["bash", "-ec", block] if language == "bash" else [python, "-c", block]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        printed.append(run.stdout)
    assert all(label in printed[0] for label in LABELS["AffectNet-7"]) and "surprise" in printed[1]
    assert "as the checkpoint's name says: neutral, happy, sad, surprise, fear, disgust, anger" in printed[2]
    scores = ast.literal_eval(printed[3])
    assert len(scores) == 5 and {row["label"] for row in scores} < set(LABELS["AffectNet-7"])


def test_pictures(tmp_path):
    """They load fast, are sharp at the width of the page, and the drawing can be drawn again."""
    overview = ROOT / "docs" / "pictures" / "overview.png"
    assert overview.stat().st_size < 400_000
    with Image.open(overview) as picture:
        assert picture.width >= 1800
    script = load_script(ROOT / "docs" / "draw_pictures.py")
    script.draw_data_flow(tmp_path / "data_flow.svg")
    drawn, kept = (ElementTree.parse(folder / "data_flow.svg").getroot() for folder in (tmp_path, overview.parent))
    assert drawn.get("viewBox") == kept.get("viewBox") is not None
