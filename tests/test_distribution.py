"""What goes to PyPI: builds, is well-formed, holds what it should, and works where it is installed."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import s2d_hf

ROOT = Path(__file__).resolve().parents[1]
# what a checkout has beside the package's own files
NOT_SHIPPED = {".ci", ".gitignore"}

USE_INSTALLED = """
import importlib.metadata, pathlib, sys
import s2d_hf
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor
folder, site = sys.argv[1:]
assert pathlib.Path(s2d_hf.__file__).is_relative_to(site), s2d_hf.__file__
model = AutoModelForVideoClassification.from_pretrained(folder)
assert type(model) is s2d_hf.S2DForVideoClassification
# with the code, which must therefore have been installed
for part in (model, AutoVideoProcessor.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)):
    part.save_pretrained("saved")
print(importlib.metadata.version("s2d-hf"), *sorted(path.name for path in pathlib.Path("saved").glob("*.py")))
"""


def tracked(folder: str = ".") -> set[str]:
    """The files of the checkout, those that git ignores left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("needs a git checkout")
    names = set(filter(None, listed.stdout.decode().split("\0")))
    return {name for name in names if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def read_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_twine_accepts_them(distributions):
    command = [sys.executable, "-m", "twine", "check", "--strict", *distributions]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("PASSED") == 2


def test_source_distribution_holds_the_checkout(distributions):
    with tarfile.open(distributions[0]) as archive:
        held = {member.name.split("/", 1)[1] for member in archive.getmembers() if not member.isdir()}
    expected = {name for name in tracked() if name.split("/")[0] not in NOT_SHIPPED}
    assert expected and held - {"PKG-INFO", ".gitignore"} == expected


def test_wheel_holds_the_package_and_nothing_else(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == tracked("s2d_hf")
    assert "s2d_hf/py.typed" in held


def test_metadata(distributions):
    metadata = read_metadata(distributions[1])
    assert metadata["Version"] == s2d_hf.__version__
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["License-File"] == "LICENSE"
    readme = (ROOT / "README.md").read_text()
    assert metadata.get_payload().strip() == readme.strip()
    assert set(metadata.get_all("Provides-Extra")) == {"archive", "ray", "demo", "onnx", "train", "test"}


def test_version_is_semantic_and_in_the_changelog():
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?", s2d_hf.__version__)
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == "Unreleased" and headings[1] == s2d_hf.__version__
    others = [name for name in tracked() if not name.startswith(("tests/", "CHANGELOG")) and name.endswith(".toml")]
    assert not [name for name in others if re.search(r"^version *=", (ROOT / name).read_text(), flags=re.MULTILINE)]


def test_wheel_works_in_a_new_environment(distributions, converted, clean_python, tmp_path):
    """Its dependencies are borrowed; tests/test_environments.py installs them, too."""
    site = tmp_path / "site"
    # pip beside this interpreter, for one that has none
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site]
    subprocess.run([*install, distributions[1]], check=True)
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    command = [clean_python, "-c", USE_INSTALLED, converted, site]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    version, *code = run.stdout.split()
    assert version == s2d_hf.__version__
    assert set(code) == {Path(name).name for name in tracked("s2d_hf") if re.fullmatch(r"s2d_hf/\w+_s2d\.py", name)}
    script = [site / "bin" / "s2d-hf", "--version"]
    run = subprocess.run([clean_python, *script], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split() == ["s2d-hf", s2d_hf.__version__]
