"""README's code blocks run or are parsed, its commands are those that CI runs, and its links lead somewhere."""

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from PIL import Image
from transformers import ViTConfig, ViTModel, pipeline

from s2d_hf import MobileFaceNetLandmarkEncoder, __version__
from s2d_hf.cli import build_parser
from s2d_hf.data import from_table
from s2d_hf.labels import LABELS
from s2d_hf.trainer import read_recipe
from s2d_hf.trainer.building import build_model

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_MODEL = "your-name/s2d-faces"
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q -e "


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_languages_are_known():
    """So that no block is left out below; nothing is to be run of a citation."""
    assert set(re.findall(r"```(\S+)\n", README)) == {"bash", "python", "yaml", "csv", "bibtex"}


def test_ci_runs_the_test_command_of_readme():
    commands = [block.strip() for block in blocks("bash")]
    test_commands = [command for command in commands if command.endswith("-m pytest")]
    assert len(test_commands) == 1
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == test_commands[0]


def test_training_command_starts():
    """Up to its arguments; tests/trainer/test_stages.py runs a whole one."""
    (block,) = [block for block in blocks("bash") if block.startswith(SET_UP) and "training/train.py" in block]
    *_, launch = block.strip().split(" && ")
    command = launch.replace(".venv/bin/accelerate", f"{sys.executable} -m accelerate.commands.accelerate_cli").split()
    run = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--anchor_distillation" in run.stdout and "--train_data" in run.stdout


def test_recipe_is_valid(tmp_path):
    recipe, overrides = blocks("yaml")
    (tmp_path / "my.yaml").write_text(recipe)
    read = read_recipe([str(tmp_path / "my.yaml"), "--use_cpu"], default="")
    assert [stage.name for stage in read.stages] == ["static", "dynamic"]

    (tmp_path / "small.yaml").write_text(overrides)
    static, dynamic = read_recipe([str(tmp_path / "small.yaml"), "--use_cpu"], default="").stages
    encoder = MobileFaceNetLandmarkEncoder(width=0.125)
    image_model = build_model(static, ("sad", "happy"), encoder)  # without a start
    assert (image_model.config.hidden_size, image_model.config.image_size) == (192, 112)
    image_model.save_pretrained(tmp_path / "image")
    dynamic.model.model_name_or_path = str(tmp_path / "image")
    assert build_model(dynamic, ("sad", "happy"), encoder).config.num_frames == 8


def test_table_has_paths_from_its_folder(tmp_path):
    (table,) = blocks("csv")
    (tmp_path / "train.csv").write_text(table)
    samples = from_table(tmp_path / "train.csv")
    assert samples.labels == ("happy", "sad")
    assert [sample.path for sample in samples] == [tmp_path / "clips" / "anna-01.mp4", tmp_path / "clips" / "ben-07"]


def test_commands_are_understood():
    parsers = {
        "s2d-hf ": build_parser().parse_args,
        "accelerate launch -m s2d_hf.cli ": build_parser().parse_args,
        "accelerate launch training/train.py ": lambda argv: read_recipe([*argv, "--use_cpu"], default=""),
        "accelerate launch training/folds.py ": load_script(ROOT / "training" / "folds.py").parse_arguments,
        "python training/publish.py ": load_script(ROOT / "training" / "publish.py").parse_arguments,
    }
    seen = set()
    for line in filter(None, "".join(blocks("bash")).splitlines()):
        start = next((start for start in parsers if line.startswith(start)), None)
        if start is None:
            assert line.startswith((SET_UP, "source ")), f"nothing checks the command {line!r}"
            continue
        parsers[start](shlex.split(line.removeprefix(start)))
        seen.add(start)
    assert seen == set(parsers)


def torch_home(folder: Path, shared: Path) -> Path:
    """A folder for PyTorch's downloads, in which the default face detector's weights lie already."""
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(shared / "weights" / "retinaface_mobilenet0.25.pth", checkpoints)
    return folder / "torch"


def test_first_screen_runs_in_its_order(hub, clean_python, shared, face_video, tmp_path):
    """As a stranger types it, on a machine with empty caches; the Hub is a stand-in, with a small checkpoint."""
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copy(shared / "golden" / "pretrain-image.pth", repository / "pretrain-AffectNet-7.pth")
    hub.add_model("cyinen/S2D", repository)
    (tmp_path / "meeting.mp4").symlink_to(face_video)
    environment = hub.environment(tmp_path / "home") | {"TORCH_HOME": str(torch_home(tmp_path, shared))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # as `activate` does

    section = README.split("## First answers\n")[1].split("\n## ")[0]
    shown = re.findall(r"```(\w+)\n(.*?)```", section, flags=re.DOTALL)
    assert [language for language, _ in shown] == ["bash", "python", "bash", "python"]
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


def test_local_python_blocks_run(converted, face_video, shared, tmp_path, monkeypatch):
    local = [block for block in blocks("python") if OWN_MODEL not in block][2:]
    assert len(local) == 4
    monkeypatch.chdir(tmp_path)
    # in place of the download of the detector's weights
    monkeypatch.setenv("TORCH_HOME", str(torch_home(tmp_path, shared)))
    (tmp_path / "meeting.mp4").symlink_to(face_video)
    (tmp_path / "affectnet7").symlink_to(converted)
    (tmp_path / "s2d_hf").symlink_to(ROOT / "s2d_hf")
    (tmp_path / "path" / "to").mkdir(parents=True)
    ViTModel(ViTConfig(num_hidden_layers=1), add_pooling_layer=False).save_pretrained("path/to/vit")
    for code in local:
        exec(compile(code, "README.md", "exec"), {})
    assert {"meeting.png", "annotated.mp4"} <= {path.name for path in tmp_path.iterdir()}


def test_pinned_hub_model_runs_without_the_package(hub, clean_python, converted, face_video, tmp_path):
    """With the Hub's stand-in, on which the model has the name and the tag that README gives."""
    (block,) = [block for block in blocks("python") if OWN_MODEL in block]
    hub.add_model(OWN_MODEL, converted, tags=[f"v{__version__}"])
    (tmp_path / "face.mp4").symlink_to(face_video)
    code = f'{block}\nimport json\nprint("SCORES" + json.dumps(classifier("face.mp4")))\n'
    run = subprocess.run(
        [clean_python, "-c", code],
        cwd=tmp_path,
        env=hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    scores = {row["label"]: row["score"] for row in json.loads(run.stdout.split("SCORES")[1])}
    local = pipeline("video-classification", model=str(converted), trust_remote_code=True)
    expected = {row["label"]: row["score"] for row in local(str(face_video))}
    assert scores == pytest.approx(expected, abs=1e-5)
    # the pin holds for the code, too
    fetched = [request for request in hub.requests if "/resolve/" in request]
    assert any("modeling_s2d.py" in request for request in fetched)
    assert not any("/resolve/main/" in request for request in fetched)


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(targets) > 10
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), flags=re.MULTILINE)
    # as GitHub makes them of the headings
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in targets:
        if urlsplit(target).scheme:
            continue
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / path).exists(), f"there is no {path}"
        assert not anchor or anchor in anchors, f"there is no section {anchor}"


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
