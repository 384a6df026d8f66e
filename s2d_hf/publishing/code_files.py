"""The code that a model's folder carries along: which files it needs, and whether they are there."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_imports, get_relative_imports

from .files import PROCESSOR_NAMES
from .problems import Problem

REQUIRED_CLASSES = {
    "config.json": ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoModelForVideoClassification"),
    PROCESSOR_NAMES["image"]: ("AutoImageProcessor",),
    PROCESSOR_NAMES["video"]: ("AutoVideoProcessor",),
}


def find_code(folder: Path, settings: dict[str, dict[str, Any]]) -> tuple[list[str], list[Problem]]:
    """
    The Python files that the classes in `auto_map` need, and what is wrong with them.

    Args:
        folder (`Path`): The model's folder.
        settings (`dict[str, dict]`): The contents of `config.json` and of the processors' files, by their names.
    """
    problems: list[Problem] = []
    needed: dict[str, str] = {}  # a file, and what needs it
    for name, content in settings.items():
        auto_map = content.get("auto_map")
        auto_map = auto_map if isinstance(auto_map, dict) else {}
        lacking = [key for key in REQUIRED_CLASSES[name] if not isinstance(auto_map.get(key), str)]
        if lacking:
            text = f"Its `auto_map` lacks {', '.join(lacking)}: write it with `save_pretrained` of s2d_hf."
            problems.append(Problem(name, text))
        for key, reference in auto_map.items():
            if not isinstance(reference, str):
                continue
            if "--" in reference:
                text = f"`auto_map` takes {key} from another repository, {reference}: save the model with its code."
                problems.append(Problem(name, text))
            elif reference.count(".") != 1:
                problems.append(Problem(name, f"`auto_map` has {reference!r} for {key}, which is no `module.Class`."))
            else:
                needed.setdefault(f"{reference.split('.')[0]}.py", f"{key} in {name}")
    found: list[str] = []
    waiting = list(needed)
    while waiting:
        file = waiting.pop()
        path, user = folder / file, needed[file]
        if not path.is_file():
            problems.append(Problem(file, f"It is not there, and {user} needs it: save the model again with s2d_hf."))
            continue
        found.append(file)
        try:
            modules = get_relative_imports(path)
        except UnicodeDecodeError:
            continue  # `check_syntax` says so
        for module in modules:
            imported = f"{module.replace('.', '/')}.py"
            if imported not in needed:
                needed[imported] = file
                waiting.append(imported)
    return sorted(found), problems


def check_syntax(folder: Path, code: Iterable[str]) -> Iterator[Problem]:
    """Whether files are Python code, in UTF-8."""
    for file in code:
        try:
            # of bytes, Python's parser takes some that its import refuses
            ast.parse((folder / file).read_text(encoding="utf-8-sig"))
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes, no UTF-8
            yield Problem(file, f"It is no Python code ({error}).")


def imported_packages(folder: Path, code: Iterable[str]) -> list[str]:
    """The top-level packages that the code needs beside Python's own; imports within `try` are not needed."""
    names = {name for file in code for name in get_imports(folder / file)}
    return sorted(names - set(sys.stdlib_module_names))


__all__ = ["REQUIRED_CLASSES", "check_syntax", "find_code", "imported_packages"]
