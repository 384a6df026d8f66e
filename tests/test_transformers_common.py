"""
The tests that every model of transformers passes, on S2D's; by hand with `pytest -m slow`, as their source is fetched.

What is run is in `transformers_suite.py`. Whoever has no way to PyPI names the source distribution (.tar.gz) of the
installed transformers in the environment variable S2D_TRANSFORMERS_SDIST.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from .transformers_source import SOURCE_VARIABLE, fetch_common_tests

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

# Where S2D differs and is to: patterns of `Class::test`, each with its reason. All that one matches must fail.
DEVIATIONS = {
    "*::test_model_get_set_embeddings": (
        "It wants an `nn.Embedding`; a convolution embeds frames here, and transformers' own ViT replaces the test."
    ),
    "ImageProcessorTest::test_call_numpy_4_channels": (
        "It wants 4 channels to stay 4; an image always becomes RGB, which is all that the models and detectors take."
    ),
    "VideoProcessorTest::test_call_numpy_4_channels": (
        "It wants 4 channels to stay 4; a frame always becomes RGB, which is all that the models and detectors take."
    ),
    "VideoProcessorTest::test_call_sample_frames": (
        "Its end wants an error of a video with too few frames; as in the authors' code, its last one is repeated."
    ),
}


def run_suite(folder: Path) -> dict[str, str]:
    """
    Runs the suite in a process of its own.

    Returns:
        `dict[str, str]`: `"Class::test"` to "passed" or "skipped", or to what it failed with.
    """
    paths = [str(ROOT), str(fetch_common_tests()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RUN_SLOW": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    results = folder / "results.xml"
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=short", "--junitxml", results]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/transformers_suite.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout[-5000:] + run.stderr[-5000:]  # 1: there are failures
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(results).iter("testcase"):
        name = f"{case.get('classname').split('.')[-1]}::{case.get('name')}"
        broken = [each.text or each.get("message") for kind in ("failure", "error") for each in case.iter(kind)]
        outcome = "skipped" if case.find("skipped") is not None else "passed"
        # a test has one entry more for each of its subtests that failed
        if broken or name not in outcomes:
            outcomes[name] = broken[0][-1500:] if broken else outcome
    return outcomes


def compare(outcomes: dict[str, str], deviations: dict[str, str]) -> list[str]:
    """What contradicts the table: failures that it doesn't have, and tests of it that don't fail or aren't there."""
    failures = [name for name, outcome in outcomes.items() if outcome not in ("passed", "skipped")]
    problems = [
        f"{name} fails:\n{outcomes[name]}"
        for name in failures
        if not any(fnmatchcase(name, pattern) for pattern in deviations)
    ]
    for pattern in deviations:
        named = [name for name in outcomes if fnmatchcase(name, pattern)]
        problems += [f"{name} is {outcomes[name]}: take it off the table." for name in named if name not in failures]
        problems += [] if named else [f"There is no {pattern}: take it off the table."]
    return problems


def test_common_tests_of_transformers(tmp_path):
    outcomes = run_suite(tmp_path)
    assert sum(outcome == "passed" for outcome in outcomes.values()) > 400
    problems = compare(outcomes, DEVIATIONS)
    assert not problems, "\n\n".join(problems)


def test_table_is_held_to():
    outcomes = {"A::one": "passed", "A::two": "skipped", "B::one": "AssertionError", "B::two": "passed"}
    assert compare(outcomes, {"B::one": ""}) == []
    assert compare(outcomes, {"?::one": ""}) == ["A::one is passed: take it off the table."]
    assert compare(outcomes, {}) == ["B::one fails:\nAssertionError"]
    expected = ["A::two is skipped: take it off the table.", "There is no C::*: take it off the table."]
    assert compare(outcomes, {"B::one": "", "A::two": "", "C::*": ""}) == expected


def test_another_archive_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "other.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path.parent, tmp_path.name], check=True)
    monkeypatch.setattr("tests.transformers_source.CACHE", tmp_path / "cache")
    monkeypatch.setenv(SOURCE_VARIABLE, str(archive))
    with pytest.raises(RuntimeError, match=r"other\.tar\.gz holds no transformers-.*/tests/"):
        fetch_common_tests()
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setenv(SOURCE_VARIABLE, "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match=SOURCE_VARIABLE):
        fetch_common_tests()
