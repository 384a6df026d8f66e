"""Which checkpoint of a training can be resumed: every file that resuming reads is there, whole and finite."""

import hashlib
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from .finite import is_finite

logger = logging.get_logger(__name__)

# any of these holds the weights; accelerate's FSDP and DeepSpeed write folders
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
    "adapter_model.safetensors", "adapter_model.bin", "pytorch_model_fsdp.bin", "pytorch_model_fsdp_*", "global_step*",
)  # fmt: skip
_NOTHING: Mapping[str, str] = {}
CHECKSUMS_NAME = "checksums.json"
_OPTIMIZERS = (OPTIMIZER_NAME, "optimizer.bin", "optimizer_*", "global_step*")


def find_last_checkpoint(output_dir: str | os.PathLike, needed: Mapping[str, str] = _NOTHING) -> str | None:
    """
    The newest checkpoint in a training's output folder that can be resumed, or `None` if there is none. A warning
    names those that are newer, each with its fault; see [`find_fault`].

    Args:
        output_dir (`str` or `os.PathLike`): The folder.
        needed (`Mapping[str, str]`): Files that this training reads beside those of every training, each with the
            argument that asks for it.
    """
    return _on_main_process(lambda: _find_last(Path(output_dir), needed))


def _find_last(output_dir: Path, needed: Mapping[str, str]) -> str | None:
    steps = {}
    for folder in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        match = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", folder.name)
        if match is not None:
            steps[int(match.group(1))] = folder
    for _, folder in sorted(steps.items(), reverse=True):
        fault = next(_faults(folder, needed), None)
        if fault is None:
            return str(folder)
        logger.warning(f"{folder} can't be resumed and is passed over: {fault}.")
    return None


def _on_main_process(search: Callable[[], str | None]) -> str | None:
    """What the main process finds, which tells the others."""
    outcome = [search() if PartialState().is_main_process else None]
    broadcast_object_list(outcome)
    return outcome[0]


def check_checkpoint(folder: str | os.PathLike, needed: Mapping[str, str] = _NOTHING) -> None:
    """
    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it can't be resumed; the message names the file and its fault.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"`resume_from_checkpoint` names {folder}, and there is no such folder.")
    fault = find_fault(folder, needed)
    if fault is not None:
        raise ValueError(f"{folder} can't be resumed: {fault}.")


def find_fault(folder: str | os.PathLike, needed: Mapping[str, str] = _NOTHING) -> str | None:
    """
    What keeps a checkpoint from being resumed, with the file's name, or `None`. The main process looks and tells the
    others.

    A training that was killed while it wrote a checkpoint leaves a folder without `trainer_state.json`, which is
    written last; a disk that was full, or a copy that was broken off, leaves files that are cut off. Of FSDP's and
    DeepSpeed's folders only the presence is checked.

    Args:
        folder (`str` or `os.PathLike`): The checkpoint.
        needed (`Mapping[str, str]`): Files that this training reads beside those of every training, each with the
            argument that asks for it.
    """
    return _on_main_process(lambda: next(_faults(Path(folder), needed), None))


def find_fault_of_weights(folder: str | os.PathLike, needed: Mapping[str, str] = _NOTHING) -> str | None:
    """[`find_fault`] of a checkpoint of which the weights alone are read, as the best one's are at the end."""
    return _on_main_process(lambda: next(_faults_of_weights(Path(folder), needed), None))


def write_checksums(folder: str | os.PathLike) -> None:
    """
    Writes the size and SHA-256 of every file of a checkpoint beside them: safetensors files have none of their own,
    and a machine that lost power leaves files of the right size with zeros in them.
    """
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    sums = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in files
        if path.name not in (CHECKSUMS_NAME, TRAINER_STATE_NAME)  # which is written later
    }
    (Path(folder) / CHECKSUMS_NAME).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _faults_of_checksums(folder: Path) -> Iterator[str]:
    """Checkpoints of other programs have no such file."""
    if not (folder / CHECKSUMS_NAME).is_file():
        return
    try:
        sums = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
        expected = [(name, int(entry["bytes"]), str(entry["sha256"])) for name, entry in sums.items()]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        yield f"{CHECKSUMS_NAME} can't be read"
        return
    for name, size, digest in expected:
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size:,} bytes, and was written with {size:,}"
        elif _hash(path) != digest:
            yield f"{name} is not what was written (its SHA-256 is another)"


def _faults_of_state(folder: Path) -> Iterator[str]:
    path = folder / TRAINER_STATE_NAME
    if not path.is_file():
        yield f"{TRAINER_STATE_NAME} is missing, which is written last, so that it was broken off"
        return
    try:
        state = TrainerState.load_from_json(str(path))
        step = state.global_step
        callbacks = json.loads(path.read_text(encoding="utf-8")).get("stateful_callbacks", {})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        yield f"{TRAINER_STATE_NAME} can't be read ({type(error).__name__}: {str(error).splitlines()[0]})"
        return
    named = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", folder.name)
    if type(step) is not int or step < 1 or (named is not None and step != int(named.group(1))):
        yield f"{TRAINER_STATE_NAME} is of step {step!r}, which the folder's name contradicts"
    if not isinstance(callbacks, dict):
        yield f"{TRAINER_STATE_NAME} is not what a Trainer writes"


def _faults(folder: Path, needed: Mapping[str, str]) -> Iterator[str]:
    yield from _faults_of_state(folder)
    yield from _faults_of_weights(folder, needed)
    if not _any(folder, _OPTIMIZERS):
        yield f"{OPTIMIZER_NAME} is missing, as where it was written with `save_only_model`"
    if not _any(folder, ("global_step*",)) and not (folder / SCHEDULER_NAME).is_file():
        yield f"{SCHEDULER_NAME} is missing"
    if not _any(folder, ("rng_state.pth", "rng_state_*.pth")):
        yield "rng_state.pth is missing"


def _faults_of_weights(folder: Path, needed: Mapping[str, str]) -> Iterator[str]:
    if not folder.is_dir():
        yield "there is no such folder"
        return
    yield from _faults_of_checksums(folder)
    if not _any(folder, _WEIGHTS):
        yield "it has no weights (model.safetensors)"
    for name, argument in needed.items():
        if not (folder / name).is_file():
            yield f"{name} is missing, as where it was written without `{argument}`"
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        fault = _fault_of_file(path)
        if fault is not None:
            yield f"{path.name} {fault}"


def _any(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether there is a file of one of these names, or for those that end in `*` a folder."""
    return any(path.is_file() or pattern.endswith("*") for pattern in patterns for path in folder.glob(pattern))


def _fault_of_file(path: Path) -> str | None:
    try:
        match path.suffix:
            case ".safetensors":
                return _fault_of_safetensors(path)
            case ".pt" | ".pth" | ".bin" if path.name != "training_args.bin":  # which nothing reads
                return _fault_of_torch_file(path)
            case ".json":
                content = json.loads(path.read_text(encoding="utf-8"))
                if path.name.endswith(".index.json"):
                    return _fault_of_index(path, content)
    except (OSError, ValueError, RuntimeError, SafetensorError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        return f"can't be read ({type(error).__name__}: {str(error).splitlines()[0]})"
    return None


def _fault_of_index(path: Path, content: Any) -> str | None:
    parts = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts or not all(isinstance(part, str) for part in parts.values()):
        return "is no index of weights"
    missing = [part for part in sorted(set(parts.values())) if not (path.parent / part).is_file()]
    return f"names {missing[0]}, which is missing" if missing else None


def _fault_of_safetensors(path: Path) -> str | None:
    with safe_open(path, framework="pt") as file:
        broken = [name for name in file.keys() if not is_finite(file.get_tensor(name))]  # noqa: SIM118
    return f"has NaN or infinity in {broken[0]}" if broken else None


def _fault_of_torch_file(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        cut = archive.testzip()
    if cut is not None:
        return f"is damaged (its part {cut})"
    if path.name.startswith("rng_state"):  # holds no numbers that could be wrong
        return None
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not content or (path.name == OPTIMIZER_NAME and "state" not in content):
        return "doesn't hold what its name says"
    return "has NaN or infinity" if not all(map(_is_finite, _numbers(content))) else None


def _numbers(content: Any) -> Iterator[Any]:
    """Tensors and numbers anywhere in dicts and lists."""
    if isinstance(content, dict):
        content = content.values()
    elif not isinstance(content, list | tuple | set):
        yield content
        return
    for part in content:
        yield from _numbers(part)


def _is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return is_finite(value)
    return not isinstance(value, float) or math.isfinite(value)


__all__ = ["check_checkpoint", "find_fault", "find_fault_of_weights", "find_last_checkpoint", "write_checksums"]
