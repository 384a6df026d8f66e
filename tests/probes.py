"""Runs `probe_folder.py` with some interpreter and judges its report."""

import json
import subprocess
from pathlib import Path

PROBE = Path(__file__).parent / "probe_folder.py"


def run_probe(python: Path | str, mode: str, video_folder: Path, image_folder: Path, video: Path, cache: Path) -> dict:
    run = subprocess.run(
        [python, "-I", PROBE, mode, video_folder, image_folder, video],
        capture_output=True,
        text=True,
        check=False,
        cwd=cache,
        env={"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def check_probe(report: dict, module_prefix: str) -> None:
    assert report["logged"] == []
    assert report["top"][0]["score"] > 1 / 7
    for name, module in report["modules"].items():
        assert module.startswith(module_prefix), name
    assert set(report["modules"]) == {
        "AutoConfig", "AutoModel", "AutoModelForVideoClassification", "AutoModelForImageClassification",
        "AutoImageProcessor", "AutoVideoProcessor", "video-classification", "image-classification",
    }  # fmt: skip
