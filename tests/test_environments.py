"""Whole environments from nothing: gigabytes and minutes each, so by hand with `pytest -m slow`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .probes import check_probe, run_probe
from .publishing.test_round_trip import check_round_trip

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def new_environment(folder: Path, interpreter: str = sys.executable) -> Path:
    """The interpreter of a new, empty virtual environment."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def dependency_floors() -> list[str]:
    """`name==version` for every lower bound in pyproject.toml, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    pattern = r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)"
    found = (re.match(pattern, requirement) for requirement in project["dependencies"] + extras)
    return [f"{match.group(1)}=={match.group(2)}" for match in found if match]


def test_suite_passes_at_the_dependency_floors(tmp_path):
    """With the oldest Python that is at hand, too."""
    python = new_environment(tmp_path / "floors", shutil.which("python3.10") or sys.executable)
    floors = dependency_floors()
    assert any(floor.startswith("transformers==") for floor in floors) and len(floors) >= 12
    (tmp_path / "floors.txt").write_text("\n".join(floors))
    source = shutil.copytree(
        ROOT, tmp_path / "checkout" / "s2d_hf", ignore=shutil.ignore_patterns(".git", ".venv", "outputs")
    )
    if (ROOT.parent / "shared").is_dir():
        (tmp_path / "checkout" / "shared").symlink_to(ROOT.parent / "shared")
    install = [python, "-m", "pip", "install", "-q", "-c", tmp_path / "floors.txt", "-e", f"{source}[test]"]
    subprocess.run(install, check=True)
    frozen = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    installed = {line.split("==")[0].lower().replace("_", "-"): line for line in frozen.splitlines() if "==" in line}
    for floor in floors:
        name, version = floor.split("==")
        assert installed[name].split("==")[1].split("+")[0] == version
    run = subprocess.run([python, "-m", "pytest", "-q"], cwd=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-5000:]


def test_remote_code_in_a_new_environment_without_the_package(hub, converted, image_folder, face_video, tmp_path):
    python = new_environment(tmp_path / "remote")
    packages = ["transformers", "torch", "torchvision", "av"]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    check_probe(run_probe(python, "remote", converted, image_folder, face_video, tmp_path), "transformers_modules.")
    check_round_trip(hub, python, converted, face_video, tmp_path)


def test_wheel_with_its_dependencies_in_a_new_environment(converted, face_video, retinaface_weights, tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    python = new_environment(tmp_path / "wheel")
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True)
    command = [python.parent / "s2d-hf", "predict", face_video, "--model", converted, "--plot", "plot.png"]
    command += ["--face-detector-weights", retinaface_weights]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("{") and (tmp_path / "plot.png").stat().st_size > 1000
