import os
import sys
from pathlib import Path

import pytest

from s2d_hf.publishing.code_files import imported_packages
from s2d_hf.publishing.probe import create_environment, judge, probe_folder, requirements

LABELS = ("happy", "sad")


def report(**changes) -> dict:
    scores = [{"label": "happy", "score": 0.25}, {"label": "sad", "score": 0.75}]
    return {"modules": {"AutoModel": "transformers_modules.m.modeling_s2d"}, "scores": scores, "logged": []} | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modules": {"AutoModel": "s2d_hf.modeling_s2d"}}, "AutoModel gives a class of s2d_hf.modeling_s2d"),
        ({"logged": ["transformers: Some weights"] * 2}, "warns: transformers: Some weights"),
        ({"scores": [{"label": "happy", "score": 1.0}]}, "Its labels are happy"),
        ({"scores": [{"label": "happy", "score": 0.5}, {"label": "sad", "score": 0.4}]}, "sum to 0.9000"),
        ({"scores": [{"label": "happy", "score": float("nan")}, {"label": "sad", "score": 1.0}]}, "not finite"),
    ],
)
def test_reports_are_judged(changes, expected):
    assert list(judge(report(), LABELS)) == []
    (problem,) = judge(report(**changes), LABELS)
    assert expected in problem.text


PRYING_CODE = """
import os
import warnings

try:
    import s2d_hf
except ImportError:
    warnings.warn(f"alone, offline: {os.environ['HF_HUB_OFFLINE']}, token: {'HF_TOKEN' in os.environ}")
"""


def test_a_folder_is_loaded_alone_and_its_warnings_are_heard(image_folder, tmp_path, monkeypatch):
    """A good folder but for code that would like to use the package, and warns if it can't."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    for path in image_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    code = tmp_path / "configuration_s2d.py"
    text = code.read_text()
    code.unlink()
    code.write_text(text + PRYING_CODE)
    labels = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    problems = probe_folder(tmp_path, labels)
    assert [problem.text for problem in problems] == [
        "Loading and running it warns: UserWarning: alone, offline: 1, token: False"
    ]


def test_the_interpreter_can_be_chosen(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho it is me >&2\nexit 3\n")
    (problem,) = probe_folder(tmp_path, LABELS, script)
    assert "can't be started" in problem.text
    script.chmod(0o755)
    (problem,) = probe_folder(tmp_path, LABELS, script)
    assert problem.text.endswith("alone: it is me")
    error = "Traceback (most recent call last):\\n  File\\nImportError: no\\n  code"
    script.write_text(f"#!/bin/sh\nprintf '{error}' >&2\nexit 1\n")
    (problem,) = probe_folder(tmp_path, LABELS, script)
    assert problem.text.endswith("alone: ImportError: no")


def test_requirements_are_those_of_the_package():
    found = requirements(["PIL", "torch", "some_package"])
    names = {line.split(">")[0] for line in found}
    assert names == {"pillow", "torch", "some_package", "av", "torchvision", "transformers"}
    assert all(">=" in line for line in found if line != "some_package")


@pytest.mark.slow
def test_a_fresh_environment_loads_a_folder(image_folder, tmp_path):
    packages = imported_packages(image_folder, [path.name for path in image_folder.glob("*.py")])
    python = create_environment(tmp_path / "venv", packages)
    assert Path(python).is_relative_to(tmp_path) and os.fspath(python) != sys.executable
    labels = ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
    assert probe_folder(image_folder, labels, python) == []
