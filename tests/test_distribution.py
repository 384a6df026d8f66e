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
import yaml

import s2d_hf

ROOT = Path(__file__).resolve().parents[1]
# what a checkout has beside the package's own files
NOT_SHIPPED = {".gitignore"}

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
    beside_it = {name for name in ("CITATION.cff", "CONTRIBUTING.md") if (ROOT / name).is_file()}
    assert "CITATION.cff" in beside_it and beside_it <= held


def test_wheel_holds_the_package_and_nothing_else(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        contents = {archive.read(name) for name in held}
    assert held == tracked("s2d_hf")
    assert "s2d_hf/py.typed" in held
    # nor tests, training and drawn faces under another name
    assert not {"tests", "training", "benchmarks", "docs", "synthetic"} & {
        part for name in held for part in name.split("/")
    }
    elsewhere = [name for folder in ("tests", "training") for name in tracked(folder)]
    assert any(name.startswith("training/synthetic/") for name in elsewhere)
    assert not [
        name for name in elsewhere if (ROOT / name).read_bytes().strip() and (ROOT / name).read_bytes() in contents
    ]


def test_metadata(distributions):
    metadata = read_metadata(distributions[1])
    assert metadata["Version"] == s2d_hf.__version__
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["License-File"] == "LICENSE"
    readme = (ROOT / "README.md").read_text()
    assert metadata.get_payload().strip() == readme.strip()
    links = dict(link.split(", ", 1) for link in metadata.get_all("Project-URL"))
    assert set(links) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(link.startswith(links["Homepage"]) for link in links.values())
    assert set(metadata.get_all("Provides-Extra")) == {"archive", "ray", "demo", "onnx", "train", "test"}


def test_version_is_semantic_and_in_the_changelog():
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?", s2d_hf.__version__)
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == "Unreleased" and headings[1] == s2d_hf.__version__
    others = [name for name in tracked() if not name.startswith(("tests/", "CHANGELOG")) and name.endswith(".toml")]
    assert not [name for name in others if re.search(r"^version *=", (ROOT / name).read_text(), flags=re.MULTILINE)]


def test_citation_is_that_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == s2d_hf.__version__ and citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    fields = {"title": paper["title"], "author": authors, "journal": paper["journal"], "year": str(paper["year"])}
    (bibtex,) = re.findall(r"```bibtex\n@article.*?```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert dict(re.findall(r"(\w+)=\{(.*)\}", bibtex)) == fields
    assert paper["url"].rsplit("/", 1)[1] == "2312.05447"


def test_commits_and_ci_are_checked_by_one_ruff():
    """The hook's version is the lower bound of the environment that .ci/run makes."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (revision,) = [repo["rev"] for repo in hooks if repo["repo"].endswith("/ruff-pre-commit")]
    (bound,) = re.findall(r'"ruff>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert revision == f"v{bound}"
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {".venv/bin/ruff check .", ".venv/bin/ruff format --check ."} <= set(commands)


def test_github_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML takes `on` for true
    jobs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in workflow["jobs"].items()}
    assert jobs["tests"] == ["bash .ci/run"] and jobs["types"][-1] == "python -m mypy"


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
