"""Runs `probe_model.py` in an interpreter of its own and judges what it reports."""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from .problems import Problem

PROBE = Path(__file__).with_name("probe_model.py")
WHERE = "pipeline"
# what a process may need to start and to find its libraries; nothing that could tell it where s2d_hf is
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "OMP_NUM_THREADS")
_OWN_PACKAGE = "s2d-hf"


def probe_folder(
    folder: Path, labels: Iterable[str], python: str | Path | None = None, timeout: float | None = None
) -> list[Problem]:
    """
    Loads a folder as a stranger would, in a new process without `s2d_hf`, without network and with empty caches, runs
    `pipeline` on made frames, and says what went wrong.

    Args:
        folder (`Path`): The model's folder.
        labels (`Iterable[str]`): The model's labels, which must all get a score.
        python (`str` or `Path`, *optional*): The interpreter. By default the running one.
        timeout (`float`, *optional*): Seconds after which the process is stopped.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {
            "HOME": home,
            "HF_HOME": home,
            "HF_MODULES_CACHE": str(Path(home, "modules")),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [str(python or sys.executable), "-I", str(PROBE), str(folder)]
        try:
            run = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=home, env=environment, timeout=timeout
            )
        except OSError as error:
            return [Problem(WHERE, f"{command[0]} can't be started ({error}): name another interpreter.")]
        except subprocess.TimeoutExpired:
            return [Problem(WHERE, f"The model gave no scores within {timeout:g} seconds.")]
    if run.returncode != 0:
        reason = _last_error(run.stderr) or f"exit code {run.returncode}"
        text = "It doesn't load, or doesn't run, in a clean environment with its own code alone"
        return [Problem(WHERE, f"{text}: {reason}")]
    return list(judge(json.loads(run.stdout.splitlines()[-1]), labels))


def judge(report: dict[str, Any], labels: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with what `probe_model.py` reported."""
    for name, module in report["modules"].items():
        if not module.startswith("transformers_modules."):
            yield Problem(WHERE, f"{name} gives a class of {module}, and not of the folder's code: see `auto_map`.")
    scores = {entry["label"]: entry["score"] for entry in report["scores"]}
    if set(scores) != set(labels):
        yield Problem(WHERE, f"Its labels are {', '.join(sorted(scores))}, and config.json's others.")
    if not all(math.isfinite(score) for score in scores.values()):
        yield Problem(WHERE, f"Its scores are not finite: {scores}.")
    elif abs(sum(scores.values()) - 1) > 0.01:  # bfloat16 has no more digits
        yield Problem(WHERE, f"Its scores sum to {sum(scores.values()):.4f} and not to 1.")
    for message in dict.fromkeys(report["logged"]):
        yield Problem(WHERE, f"Loading and running it warns: {' '.join(message.split())}")


def _last_error(stderr: str) -> str:
    """The message of a traceback, which may have several lines; without one, the last lines."""
    lines = stderr.strip().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    after = lines[starts[-1] + 1 :] if starts else lines[-5:]
    return " ".join(" ".join(line for line in after if not line.startswith("  ")).split())


def create_environment(folder: Path, packages: Iterable[str]) -> Path:
    """
    A new virtual environment with packages newly installed, and without `s2d_hf`.

    Args:
        folder (`Path`): Where to make it.
        packages (`Iterable[str]`): Importable names, as of [`~s2d_hf.publishing.code_files.imported_packages`].

    Returns:
        `Path`: Its interpreter.

    Raises:
        RuntimeError: if pip can't install them.
    """
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements(packages)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"The fresh environment could not be made: pip says {run.stderr.strip()}")
    return python


def requirements(packages: Iterable[str]) -> list[str]:
    """The requirements of `s2d_hf` for importable names (`cv2`, `PIL`); others are required under their own name."""
    try:
        own = [Requirement(line) for line in importlib.metadata.requires(_OWN_PACKAGE) or ()]
    except importlib.metadata.PackageNotFoundError:  # run from its source alone
        own = []
    own = [requirement for requirement in own if requirement.marker is None or requirement.marker.evaluate()]
    known = {_normal(requirement.name): f"{requirement.name}{requirement.specifier}" for requirement in own}
    distributions = importlib.metadata.packages_distributions()
    # pipelines for videos want PyAV, and processors torchvision, whatever the code imports
    names = {"av", "torchvision", "transformers", *packages}
    found = [next((d for d in distributions.get(name, [name]) if _normal(d) in known), name) for name in sorted(names)]
    return [known.get(_normal(name), name) for name in found]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


__all__ = ["create_environment", "judge", "probe_folder", "requirements"]
