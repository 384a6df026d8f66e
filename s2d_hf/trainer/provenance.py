"""What made a result: code, libraries and machine."""

import datetime
import platform
import subprocess
from pathlib import Path

import torch
import transformers
from accelerate import PartialState

from .. import __version__


def provenance() -> dict[str, str | int]:
    """Commit (if the package lies in a git checkout), versions, hardware, number of processes and date of a run."""
    found: dict[str, str | int] = {
        "date": datetime.date.today().isoformat(),
        "s2d_hf": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hardware": _hardware(),
        "processes": PartialState().num_processes,
    }
    commit = _commit()
    return found if commit is None else found | {"commit": commit}


def _hardware() -> str:
    device = PartialState().device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _commit() -> str | None:
    """The checked-out commit, marked where files differ from it; `None` where this file is of no git checkout."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


__all__ = ["provenance"]
