"""The commands on the project's pages, given to the parsers of the programs that they call; nothing is run."""

import argparse
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from unittest import mock

from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from benchmarks import speed
from s2d_hf.cli import build_parser
from s2d_hf.trainer import read_recipe

from . import fuzz_videos
from .pages import ROOT

RECIPES = ROOT / "training" / "recipes"


class UnknownCommandError(ValueError):
    """Nothing here checks a command of a page."""


class _Understood(BaseException):
    """The arguments were parsed, and that was all that was wanted."""


def load_script(path: Path) -> ModuleType:
    """A Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _until_parsed(main: Callable[[], None], argv: Sequence[str]) -> None:
    """A program up to where its arguments are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *args: object) -> None:
        parse(parser, *args)
        raise _Understood

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop),
        mock.patch.object(sys, "argv", ["program", *argv]),
    ):
        try:
            main()
        except _Understood:
            return
    raise AssertionError("the program parsed no arguments")


def _check_recipe(argv: Sequence[str]) -> None:
    argv = list(argv)
    if argv and not argv[0].startswith("-"):
        argv[0] = str(ROOT / argv[0])
    if "--use_cpu" not in argv:  # recipes may ask for a GPU's precision
        argv.append("--use_cpu")
    read_recipe(argv, default=RECIPES / "synthetic.yaml")


def _check_folds(argv: Sequence[str]) -> None:
    scripts = (ROOT / "training" / name for name in ("folds.py", "benchmark.py"))
    arguments, more = load_script(next(script for script in scripts if script.exists())).parse_arguments(list(argv))
    recipe = RECIPES / f"{argv[0].lower()}.yaml"
    _check_recipe([str(recipe), "--data_root", arguments.data_root, *more])


def _check_speed(argv: Sequence[str]) -> None:
    argv = list(argv)
    if "--against" in argv:  # a commit of a clone whose history may be missing
        place = argv.index("--against")
        assert re.fullmatch(r"[0-9a-f]{7,40}", argv[place + 1])
        del argv[place : place + 2]
    # stands for any file that there is
    speed.parse_arguments([__file__ if argument == "FILE" else argument for argument in argv])


def _check_tests(argv: Sequence[str]) -> None:
    for argument in argv:
        path = argument.split("::")[0]
        assert "/" not in path or (ROOT / path).exists(), f"there is no {path}"


def _check_nothing(argv: Sequence[str]) -> None:
    assert not argv, f"unknown arguments {argv}"


def _check_venv(argv: Sequence[str]) -> None:
    assert argv == [".venv"]


SCRIPTS: dict[str, Callable[[Sequence[str]], object]] = {
    "training/train.py": _check_recipe,
    "training/folds.py": _check_folds,
    "training/publish.py": lambda argv: load_script(ROOT / "training" / "publish.py").parse_arguments(argv),
    "training/ablation.py": lambda argv: _until_parsed(load_script(ROOT / "training" / "ablation.py").main, argv),
}
MODULES: dict[str, Callable[[Sequence[str]], object]] = {
    "s2d_hf.cli": lambda argv: build_parser().parse_args(argv),
    "benchmarks.speed": _check_speed,
    "tests.fuzz_videos": lambda argv: _until_parsed(fuzz_videos.main, argv),
    "tests.attack_page": _check_nothing,
    "pytest": _check_tests,
    "venv": _check_venv,
}


def _check_program(program: str, argv: Sequence[str], is_module: bool = False) -> None:
    known = MODULES if is_module else SCRIPTS
    if program not in known:
        raise UnknownCommandError(f"Nothing checks {program}: add it to tests/page_commands.py.")
    known[program](argv)


def _check_python(argv: Sequence[str]) -> None:
    is_module = argv[0] == "-m"
    program, *rest = argv[1:] if is_module else argv
    _check_program(program, rest, is_module)


def _check_launcher(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    arguments = parser.parse_args(argv)
    _check_program(arguments.training_script, arguments.training_script_args, arguments.module)


def _check_accelerate(argv: Sequence[str]) -> None:
    assert argv[0] == "launch"
    _check_launcher(launch_command_parser(), argv[1:])


def _check_pip(argv: Sequence[str]) -> None:
    """`install -q -e .`, with extras that there are; or a tool that the project has a configuration for."""
    *start, package = argv
    if argv == ["install", "pre-commit"]:
        assert (ROOT / ".pre-commit-config.yaml").is_file()
        return
    assert [argument for argument in start if argument != "-q"] == ["install", "-e"]
    extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", package).group(1)
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    for extra in (extras or "").split(",") if extras else ():
        assert re.search(rf"^{extra} = \[", known, flags=re.MULTILINE), f"there is no extra {extra}"


def _check_ruff(argv: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "ruff", *argv, "--help"], check=True, capture_output=True)


def _check_pre_commit(argv: Sequence[str]) -> None:
    assert argv in (["install"], ["run", "--all-files"])


COMMANDS: dict[str, Callable[[Sequence[str]], object]] = {
    "pre-commit": _check_pre_commit,
    "s2d-hf": MODULES["s2d_hf.cli"],
    "python": _check_python,
    "python3": _check_python,
    "pytest": _check_tests,
    "accelerate": _check_accelerate,
    "torchrun": lambda argv: _check_launcher(get_args_parser(), argv),
    "pip": _check_pip,
    "ruff": _check_ruff,
}


def check_commands(text: str) -> None:
    """
    Reads each command of a block of bash as the program that it calls does.

    Raises:
        UnknownCommandError: if nothing here knows how to check a program.
        SystemExit: if a parser of options refuses a command.
        AssertionError, ValueError, OSError: if it can't be right for another reason.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            (program, *argv), words = words[:end], words[end + 1 :]
            _check_command(program, argv)


def _check_command(program: str, argv: Sequence[str]) -> None:
    name = program.removeprefix(".venv/bin/")
    if program.startswith(".ci/"):
        assert os.access(ROOT / program, os.X_OK)
        _check_nothing(argv)
    elif program == "source":
        assert argv == [".venv/bin/activate"]
    elif name in COMMANDS:
        COMMANDS[name](argv)
    else:
        raise UnknownCommandError(f"Nothing checks the command {program}: add it to tests/page_commands.py.")
