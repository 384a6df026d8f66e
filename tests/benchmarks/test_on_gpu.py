"""The script for a machine with a GPU: what it makes of steps that fail, and itself on this CPU."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import collect
from benchmarks.commits import ROOT

SCRIPT = ROOT / "benchmarks" / "on_gpu.sh"
STEPS = [
    "1-quick", "2-forward-1", "2-forward-8", "2-forward-64", "2-training-1", "3-processors", "3-timeline",
    "4-training-8", "5-modes",
]  # fmt: skip

# Takes the benchmark's place: it tells what it was called with, and fails as the step's name says.
_STUB = """#!/bin/bash
case "$*" in
    *--name-of*) echo my-card; exit ;;
    *benchmarks.collect*) exec "{python}" "$@" ;;
esac
folder="${{@: -1}}"
case "$folder" in
    */2-forward-8) echo "out of memory" >&2; exit 3 ;;
    */3-processors) printf '{{"half' >"$folder/results.json"; exit ;;
    */3-timeline) echo '{{"timeline": 1}}' >"$folder/results.json"; sleep 60 ;;
    */5-modes) exit ;;
    *) echo '{{"settings": {{}}}}' >"$folder/results.json"; echo "$*" ;;
esac
"""


def _run(output: Path, python: str, *arguments: str) -> subprocess.CompletedProcess:
    """The script, with a program in the place of Python."""
    environment = os.environ | {"PYTHON": python, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [str(SCRIPT), "--output", str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """The script in a folder of its own, so that what it keeps lies there."""
    folder = tmp_path / "clone" / "benchmarks"
    folder.mkdir(parents=True)
    for name in ("on_gpu.sh", "collect.py", "__init__.py"):
        (folder / name).write_bytes((ROOT / "benchmarks" / name).read_bytes())
    (folder / "on_gpu.sh").chmod(0o755)
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", folder / "on_gpu.sh")
    return folder.parent


@pytest.fixture
def stub(tmp_path) -> str:
    path = tmp_path / "python"
    path.write_text(_STUB.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_a_step_that_fails_stops_no_other_one(tmp_path, copy, stub):
    text = SCRIPT.read_text()
    shortened, count = re.subn(r"^step 3-timeline \d+", "step 3-timeline 5", text, flags=re.MULTILINE)
    assert count == 1
    SCRIPT.write_text(shortened)
    run = _run(tmp_path / "results", stub)
    assert run.returncode == 1 and f"written: {tmp_path}/results/my-card.json" in run.stdout, run.stderr
    found = json.loads((tmp_path / "results" / "my-card.json").read_text())
    assert [*found["steps"]] == sorted(STEPS)
    assert found["failed"] == ["2-forward-8", "3-processors", "3-timeline", "5-modes"]
    steps = found["steps"]
    assert steps["2-forward-8"]["error"] == "exit code 3" and steps["2-forward-8"]["exit_code"] == 3
    assert "out of memory" in steps["2-forward-8"]["log"] and steps["2-forward-8"]["results"] is None
    assert "results.json is damaged" in steps["3-processors"]["error"]
    # what it had found before its time was over is kept
    assert steps["3-timeline"]["error"] == "it was ended after 5 s" and steps["3-timeline"]["exit_code"] == 124
    assert steps["3-timeline"]["results"] == {"timeline": 1} and 4 <= steps["3-timeline"]["seconds"] <= 10
    assert steps["5-modes"]["error"] == "it wrote no results"
    assert steps["4-training-8"]["error"] is None and steps["4-training-8"]["results"] == {"settings": {}}
    command = steps["4-training-8"]["command"]
    assert "-m benchmarks.speed --device cuda --parts training --training-batch-size 8" in command
    assert "--quick" not in command and "--quick" in steps["1-quick"]["command"]


def test_no_step_begins_after_the_end(tmp_path, copy, stub):
    run = _run(tmp_path, stub, "--seconds", "4", "--quick")
    assert run.returncode == 1
    found = json.loads((tmp_path / "my-card-quick.json").read_text())
    assert found["failed"] == [*found["steps"]] and "1-quick" not in found["steps"]
    assert all("no time was left for it" in step["log"] for step in found["steps"].values())


@pytest.mark.parametrize("arguments", [["--fast"], ["--output"], ["--device"]])
def test_wrong_options_of_the_script(tmp_path, copy, stub, arguments):
    run = subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, check=False, env=os.environ | {"PYTHON": stub}
    )
    assert run.returncode != 0 and arguments[0] in run.stderr and not (copy / "outputs").exists()


def test_no_gpu(tmp_path, copy):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run = _run(tmp_path / "results", sys.executable)
    assert run.returncode == 1 and "no cuda here" in run.stderr and not (tmp_path / "results").exists()


def test_steps_of_an_interrupted_run(tmp_path):
    for name, files in {
        "a": {"command.txt": "one\n", "limit.txt": "10", "exit.txt": "0", "seconds.txt": "7", "results.json": "{}"},
        "b": {"command.txt": "two", "limit.txt": "20", "log.txt": "50 %\r100 %\nnow\n", "results.json": '{"x": 1}'},
        "c": {"log.txt": "none of the steps"},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content.encode())
    collect.main([str(tmp_path), "--output", str(tmp_path / "results" / "card.json")])
    assert json.loads((tmp_path / "results" / "card.json").read_text()) == {
        "failed": ["b"],
        "steps": {
            "a": {"command": "one", "limit": 10, "exit_code": 0, "seconds": 7, "error": None, "results": {}},
            "b": {
                "command": "two", "limit": 20, "exit_code": None, "seconds": None, "error": "it did not end",
                "results": {"x": 1}, "log": ["100 %", "now", ""],
            },
        },
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["card.json"]


def test_nothing_to_collect(tmp_path, capsys):
    with pytest.raises(SystemExit):
        collect.main([str(tmp_path), "--output", str(tmp_path / "card.json")])
    assert f"{tmp_path} holds no folder of a step" in capsys.readouterr().err
    assert not (tmp_path / "card.json").exists()


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-r-xeon-r-platinum-8481c-cpu-2-70ghz"),
        ("AMD EPYC 9R14", "amd-epyc-9r14"),
        ("中", "cpu"),
    ],
)
def test_name_of_a_file(monkeypatch, processor, name):
    monkeypatch.setattr(collect, "_processor", lambda: processor)
    assert collect.name_of("cpu") == name


@pytest.mark.slow
def test_the_script_on_a_cpu(tmp_path):
    before = {*(ROOT / "outputs" / "on_gpu").glob("*")}
    run = _run(tmp_path, sys.executable, "--device", "cpu", "--quick")
    (kept,) = {*(ROOT / "outputs" / "on_gpu").glob("*")} - before
    assert run.returncode == 0, run.stdout + run.stderr
    (file,) = tmp_path.glob("*-quick.json")
    found = json.loads(file.read_text())
    steps = found["steps"]
    assert found["failed"] == [] and [*steps] == sorted(STEPS[1:])
    assert [steps[f"2-forward-{n}"]["results"]["forward"]["runs"][0]["batch"] for n in (1, 8, 64)] == [1, 8, 64]
    assert steps["4-training-8"]["results"]["training"]["batch"] == 8
    assert [video["faces"] for video in steps["3-timeline"]["results"]["timeline"]["videos"]] == [1, 2, 6]
    unavailable = steps["5-modes"]["results"]["forward"]["unavailable"]
    assert {"float16", "bfloat16-flash-attention"} <= {*unavailable}
    assert {path.name for path in kept.iterdir()} == {*STEPS[1:]}
    shutil.rmtree(kept)
