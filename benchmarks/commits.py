"""The model as it was at a commit of this repository, beside the installed one."""

import importlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from torch import nn

from s2d_hf import S2DForVideoClassification

ROOT = Path(__file__).resolve().parents[1]


def find_commit(commit: str, root: Path = ROOT) -> str:
    """
    The short hash of a commit that holds a model.

    Args:
        commit (`str`): As git understands it: a hash, a tag, `HEAD~1`.
        root (`Path`): The repository.

    Raises:
        ValueError: if there is no git, no repository, no such commit, or no model in it.
    """
    try:
        _git(root, "rev-parse", "--git-dir")
    except ValueError as error:
        raise ValueError(f"{commit} can only be read in a git clone of the project: {error}") from None
    try:
        found = _git(root, "rev-parse", "--verify", "--short", "--end-of-options", f"{commit}^{{commit}}")
    except ValueError:
        raise ValueError(
            f"{commit} is no commit of the repository in {root}; `git log --oneline` lists them (in a shallow clone, "
            "`git fetch --unshallow` gets the older ones)"
        ) from None
    short = found.decode().strip()
    try:
        _git(root, "cat-file", "-e", f"{short}:s2d_hf/modeling_s2d.py")
    except ValueError:
        raise ValueError(f"{commit} has no s2d_hf/modeling_s2d.py, so there is no model to compare with") from None
    return short


def unpack_commit(commit: str, root: Path = ROOT) -> tempfile.TemporaryDirectory:
    """
    The package `s2d_hf` of a commit, in a temporary folder.

    Raises:
        ValueError: as [`find_commit`] does.
    """
    short = find_commit(commit, root)
    folder = tempfile.TemporaryDirectory(prefix=f"s2d_hf-{short}-")
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", short, "s2d_hf"))) as archive:
        archive.extractall(folder.name, filter="data")
    return folder


@cache
def load_modeling(commit: str, root: Path = ROOT) -> ModuleType:
    """
    The module `modeling_s2d` of a commit, in a package of its own. Its classes are not registered with the Auto
    classes, which stay with the installed model.

    Raises:
        ValueError: as [`find_commit`] does.
    """
    short, folder = find_commit(commit, root), unpack_commit(commit, root)
    # an empty package: the commit's own __init__.py would register its classes
    package = ModuleType(f"s2d_hf_at_{short}")
    package.__path__ = [str(Path(folder.name) / "s2d_hf")]
    package.folder = folder  # deleted when the process ends, since modules may import others late
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.modeling_s2d")


def build_at(commit: str, model: S2DForVideoClassification, root: Path = ROOT) -> nn.Module:
    """
    A commit's video model with the configuration and the weights of `model`, on its device, in eval mode.

    Raises:
        ValueError: as [`find_commit`] does, or if the weights don't fit the commit's model.
    """
    modeling = load_modeling(commit, root)
    other = modeling.S2DForVideoClassification(modeling.S2DConfig(**model.config.to_dict()))
    try:
        missing, unexpected = other.load_state_dict(model.state_dict(), strict=False)
    except RuntimeError as error:  # shapes
        raise ValueError(f"The weights don't fit the model of commit {commit}: {error}") from None
    missing = [key for key in missing if not _is_unused_norm(key, model.config.num_prompt_norms)]
    if missing or unexpected:
        raise ValueError(
            f"The weights don't fit the model of commit {commit}: it misses {missing or 'none'} and doesn't know "
            f"{unexpected or 'none'}."
        )
    return other.to(model.device).eval()


def _is_unused_norm(key: str, num_used: int) -> bool:
    """Whether a weight is of the norm that the authors' model has, and versions before 0.2 had, and never uses."""
    found = re.fullmatch(r"s2d\.prompt_norms\.(\d+)\.(weight|bias)", key)
    return found is not None and int(found[1]) >= num_used


def _git(root: Path, *arguments: str) -> bytes:
    try:
        run = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise ValueError("the program git is not installed") from None
    if run.returncode:
        raise ValueError(run.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed in {root}")
    return run.stdout


__all__ = ["build_at", "find_commit", "load_modeling", "unpack_commit"]
