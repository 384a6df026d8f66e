"""Which files of a model's folder belong on the Hub, and which must not go there."""

import fnmatch
import os
import pickletools
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from huggingface_hub.utils import filter_repo_objects
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..landmark_encoders_s2d import LANDMARK_WEIGHTS_NAME
from .cards import CARD_NAME, find_size_problem
from .problems import Problem

PROCESSOR_NAMES = {"image": "preprocessor_config.json", "video": "video_preprocessor_config.json"}
# the weights' shards, the code and what the card shows come on top
ALLOWED_NAMES = frozenset(
    {"config.json", *PROCESSOR_NAMES.values(), LANDMARK_WEIGHTS_NAME, CARD_NAME}
    | {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME}
    | {"LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", ".gitattributes", "metrics.json"}
)
# what a training leaves beside its model
TRAINING_FILES = ("checkpoint-*", "runs", "training_args.bin")
SHOWN_SUFFIXES = (".gif", ".jpeg", ".jpg", ".mp4", ".png", ".svg", ".webp")
# in bytes, of code, settings, metrics, licences and drawings
MAX_TEXT_SIZE = 5 * 10**6
_NO_TEXTS = (".safetensors", *(suffix for suffix in SHOWN_SUFFIXES if suffix != ".svg"))
PICKLE_SUFFIXES = (".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".tar")


@dataclass
class FolderFiles:
    """
    The files of a folder, sorted.

    Args:
        upload (`dict[str, Path]`): What goes up: the name in the repository and the file.
        left_out (`list[str]`): What stays, since it was asked for.
        problems (`list[Problem]`): What must be removed, or left out by asking for it.
    """

    upload: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def sort_files(
    folder: Path,
    code: Collection[str] = (),
    shown: Collection[str] = (),
    leave_out: Sequence[str] = (),
    leave_out_strays: bool = False,
) -> FolderFiles:
    """
    Sorts the files of a folder into what goes up, what is left out, and what must not be there.

    Args:
        folder (`Path`): The model's folder.
        code (`Collection[str]`): The Python files that the model needs.
        shown (`Collection[str]`): The files that the card links to.
        leave_out (`Sequence[str]`): Patterns as of a shell (`*.log`, `checkpoint-*`), for names of files and folders
            and for their paths in the folder.
        leave_out_strays (`bool`): Leave out everything that doesn't belong, instead of naming it as a problem.
    """
    files = FolderFiles()
    root = folder.resolve()

    def refuse(name: str, text: str) -> None:
        if leave_out_strays:
            files.left_out.append(name)
        else:
            files.problems.append(Problem(name, text))

    def visit(directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            name = path.relative_to(folder).as_posix()
            if is_left_out(f"{name}/" if path.is_dir() else name, leave_out):
                files.left_out.append(f"{name}/" if path.is_dir() else name)
            elif path.is_symlink() and not _is_inside(path, root):
                refuse(name, "It is a symbolic link to what is not in the folder: put the file itself there.")
            elif path.is_dir():
                if _leads_to(name, shown):
                    visit(path)
                else:
                    refuse(
                        f"{name}/",
                        f"It is a folder of {_count_files(path)}: remove it, or leave it out (`leave_out`).",
                    )
            elif not path.is_file():
                refuse(name, "It is no file: remove it.")
            elif (reason := find_pickle(path)) is not None:
                refuse(
                    name,
                    f"It is {reason}, which can run code when it is read: remove it, or leave it out (`leave_out`).",
                )
            elif _belongs(name, code, shown):
                files.upload[name] = path
            elif path.name.startswith("."):
                refuse(name, "It is a hidden file: remove it, or leave it out.")
            else:
                refuse(name, f"It is no part of the model{_hint(path)}: remove it, or leave it out.")

    visit(folder)
    return files


def is_left_out(name: str, leave_out: Sequence[str]) -> bool:
    """Whether a pattern fits a path in the folder, or its last part; `runs/` is all that lies in that folder."""
    names = (name, name.rstrip("/"), Path(name).name)
    return len(list(filter_repo_objects(names, ignore_patterns=list(leave_out)))) < len(names)


def find_unreadable(files: Mapping[str, Path]) -> list[Problem]:
    """
    The texts among some files that must not be read, by their names in the repository: those that are too large, and
    pipes and devices, which may have no end. Nothing is read here.
    """
    found: list[Problem | None] = []
    for name, path in files.items():
        if path.exists() and not path.is_file():
            found.append(Problem(name, "It is no file: remove it."))
        elif path.is_file() and not name.lower().endswith(_NO_TEXTS):
            found.append(find_size_problem(name, path, *(() if name == CARD_NAME else (MAX_TEXT_SIZE,))))
    return [problem for problem in found if problem is not None]


def _hint(path: Path) -> str:
    if path.suffix == ".py":
        return ", and no class of it in `auto_map` needs it"
    return ", and the card doesn't show it" if path.suffix.lower() in SHOWN_SUFFIXES else ""


def _belongs(name: str, code: Collection[str], shown: Collection[str]) -> bool:
    if name in ALLOWED_NAMES or name in code:
        return True
    if "/" not in name and fnmatch.fnmatch(name, "model-*-of-*.safetensors"):
        return True
    return name in shown and name.lower().endswith(SHOWN_SUFFIXES)


def _is_inside(path: Path, root: Path) -> bool:
    return path.exists() and path.resolve().is_relative_to(root)


def _leads_to(name: str, shown: Collection[str]) -> bool:
    return any(PurePosixPath(name) in PurePosixPath(path).parents for path in shown)


def _count_files(folder: Path) -> str:
    count = sum(len(names) for _, _, names in os.walk(folder))
    return "1 file" if count == 1 else f"{count} files"


def find_pickle(path: Path) -> str | None:
    """What kind of pickle a file is, by its name or its first bytes; `None` if it is none."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            names = []
        if any(name.endswith((".pkl", ".npy")) for name in names):
            return "an archive of pickles or arrays"
    if start.startswith(b"\x93NUMPY") and _holds_objects(path):
        return "an array of pickled objects"
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return f"a pickle by its name ({path.suffix})"
    return "a pickle" if _is_old_pickle(path) else None


def _holds_objects(path: Path) -> bool:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).dtype.hasobject
    except ValueError:  # what numpy says of objects, and of damaged files
        return True


def _is_old_pickle(path: Path, limit: int = 1 << 20) -> bool:
    """Pickles of protocols 0 and 1 have no mark at their beginning. `limit` (bytes): larger files aren't parsed."""
    if path.stat().st_size > limit:
        return False
    content = path.read_bytes()
    if not content.endswith(b"."):
        return False
    try:
        return sum(1 for _ in pickletools.genops(content)) > 1
    except (ValueError, IndexError, KeyError, AttributeError, UnicodeDecodeError):
        return False


__all__ = [
    "ALLOWED_NAMES",
    "MAX_TEXT_SIZE",
    "PROCESSOR_NAMES",
    "TRAINING_FILES",
    "FolderFiles",
    "find_pickle",
    "find_unreadable",
    "is_left_out",
    "sort_files",
]
