"""A model goes up to a Hub and comes down again, both through huggingface_hub's client, to somebody without s2d_hf."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import pipeline

from ..hub_server import HubServer

LOADER = Path(__file__).parent / "load_from_hub.py"
PUBLISH = Path(__file__).resolve().parents[2] / "training" / "publish.py"
REPOSITORY = "someone/s2d-test"
CARD = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: video-classification
tags: [s2d, facial-expression-recognition]
datasets: [someone/made-up]
model-index:
- name: s2d-test
  results:
  - task: {{type: video-classification}}
    dataset: {{type: someone/made-up, name: Made up}}
    metrics: [{{type: uar, value: 14.3}}]
---
# S2D for tests

## How to use

```python
from transformers import pipeline

classifier = pipeline("video-classification", model="{REPOSITORY}", trust_remote_code=True, revision="v0.1.0")
```

## Labels

happy, sad, neutral, angry, surprise, disgust, fear

## Intended use

Tests.

## Out-of-scope use

All else.

## Training data

None.

## Training

None: the weights are random.

## Evaluation

As good as chance.

## Biases and limits

It knows nothing.

## Environmental impact

None worth naming.

## Citation

None.
"""


def run(command: list[str | Path], hub: HubServer, home: Path) -> str:
    done = subprocess.run(command, env=hub.environment(home), capture_output=True, text=True, check=False, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def publish(folder: Path, card: Path, version: str, hub: HubServer, home: Path) -> None:
    options = ["--card", card, "--version", version]
    run([sys.executable, PUBLISH, folder, REPOSITORY, *options], hub, home)


def upload(folder: Path, tag: str, hub: HubServer, home: Path) -> None:
    """As anybody does; a few seconds faster than `publish`."""
    code = """
import sys
from huggingface_hub import HfApi

api = HfApi()
repository, folder, tag = sys.argv[1:]
api.upload_folder(repo_id=repository, folder_path=folder, commit_message=tag)
api.create_tag(repository, tag=tag)
"""
    run([sys.executable, "-c", code, REPOSITORY, folder, tag], hub, home)


def local_scores(folder: Path, video: Path) -> dict[str, float]:
    classifier = pipeline("video-classification", model=str(folder))
    return {answer["label"]: answer["score"] for answer in classifier(str(video), top_k=7)}


def test_what_was_published_answers_without_the_package(hub, clean_python, converted, face_video, tmp_path):
    check_round_trip(hub, clean_python, converted, face_video, tmp_path)


def check_round_trip(hub: HubServer, clean_python: Path, model: Path, video: Path, tmp_path: Path) -> None:
    """Two versions go up; `clean_python`, an environment without s2d_hf, gets the first by its tag, and the second."""
    second, home, stranger = tmp_path / "second", tmp_path / "home", tmp_path / "stranger"
    home.mkdir()
    stranger.mkdir()
    (tmp_path / "card.md").write_text(CARD)
    publish(model, tmp_path / "card.md", "0.1.0", hub, home)
    assert len(hub.commits(REPOSITORY)) == 2  # the Hub's own, and one with everything
    shutil.copytree(model, second)
    (second / "README.md").write_text(CARD)
    state = load_file(second / "model.safetensors")
    state["classifier.weight"] *= -1
    save_file(state, second / "model.safetensors", {"format": "pt"})
    (second / "modeling_s2d.py").write_text((second / "modeling_s2d.py").read_text() + "\n# changed\n")
    upload(second, "v0.2.0", hub, home)
    commits = hub.tags(REPOSITORY)
    for tag, folder in (("v0.1.0", model), ("v0.2.0", second)):
        there = hub.files(REPOSITORY, tag)
        del there[".gitattributes"]  # the Hub's own
        assert there == {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": CARD.encode()}

    hub.requests.clear()
    loader = [clean_python, "-I", LOADER, REPOSITORY, video, "v0.1.0", "main"]
    report = json.loads(run(loader, hub, stranger).splitlines()[-1])

    expected = {"v0.1.0": local_scores(model, video), "main": local_scores(second, video)}
    assert abs(expected["v0.1.0"]["happy"] - expected["main"]["happy"]) > 1e-2
    for revision, tag in (("v0.1.0", "v0.1.0"), ("main", "v0.2.0")):
        assert report[revision]["scores"] == pytest.approx(expected[revision], abs=1e-6)
        for module in report[revision]["modules"]:
            assert re.fullmatch(rf"transformers_modules\..*\.{commits[tag]}\.\w+_s2d", module)
    check_requests(hub)


def check_requests(hub: HubServer) -> None:
    """Nothing but weights, code and settings was fetched, and nothing from `main` while a version was pinned."""
    asked = [request.split("/resolve/")[1].split("/") for request in hub.requests if "/resolve/" in request]
    commits = hub.tags(REPOSITORY)
    # clients ask by the revision's name or by its commit
    pinned = [revision in ("v0.1.0", commits["v0.1.0"]) for revision, _ in asked]
    latest = [revision in ("main", commits["v0.2.0"]) for revision, _ in asked]
    assert any(pinned) and any(latest) and pinned == [not is_latest for is_latest in latest]
    assert pinned == sorted(pinned, reverse=True)
    suffixes = {Path(path).suffix for _, path in asked}
    assert {".safetensors", ".json", ".py"} <= suffixes <= {".safetensors", ".json", ".py", ".md", ".png"}
    others = {request for request in hub.requests if "/resolve/" not in request and "/storage/" not in request}
    assert not {request for request in others if not request.startswith("GET /api/models/")}
