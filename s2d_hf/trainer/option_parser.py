"""The command line of a training: what `--help` shows, and what is said of options that there aren't."""

import argparse
import difflib
import inspect
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any, NoReturn

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

_TRAINING_ARGUMENTS_PAGE = "https://huggingface.co/docs/transformers/main_classes/trainer"


class OptionParser(HfArgumentParser):
    """
    Makes options of the fields of dataclasses. Errors are raised, as `ValueError`, since recipes are parsed, too.

    `--help` explains the fields that the dataclasses have themselves, and names those of `TrainingArguments`.

    Args:
        kinds (`Mapping[str, type]`): The dataclasses, by the titles that `--help` gives them.
        usage (`str`): What `--help` shows first.
        sections (`Iterable[str]`): What may stand before a field's name, as in `--static.seed`.
    """

    def __init__(self, kinds: Mapping[str, type], usage: str, sections: Iterable[str] = ()):
        super().__init__(kinds.values(), allow_abbrev=False, usage=usage, formatter_class=_Formatter)
        self.kinds, self.sections = dict(kinds), tuple(sections)
        for action in self._actions:
            if action.option_strings[0].startswith("--no_"):
                action.help = argparse.SUPPRESS  # its help is that of its opposite
            elif action.dest != "help":
                action.metavar = _value_in_words(action)
        options = (option for action in self._actions for option in action.option_strings)
        self._names = {option[2:].replace("-", "_") for option in options if option.startswith("--")}

    def parse(self, argv: Sequence[str]) -> tuple[Any, ...]:
        """
        An instance of each dataclass.

        Raises:
            ValueError: if an option is unknown, its value impossible, or there is a value too many.
        """
        try:
            *arguments, unknown = self.parse_args_into_dataclasses(
                args=list(argv), return_remaining_strings=True, look_for_args_file=False
            )
        except json.JSONDecodeError as error:
            raise ValueError(f"{error.doc!r} is no JSON: {error}.") from error
        if unknown:
            if unknown[0].startswith("-"):
                self._refuse_option(unknown[0])
            hint = "; a recipe is the first argument" if unknown[0].lower().endswith((".yaml", ".yml")) else ""
            raise ValueError(f"there is a value too many, {unknown[0]!r}{hint}.")
        for each in arguments:
            _refuse_what_is_no_number(each)
        return tuple(arguments)

    def check_options(self, argv: Iterable[str]) -> None:
        """
        Raises:
            ValueError: if a command line has an option that there isn't; the message has the nearest one.
        """
        for argument in argv:
            if argument.startswith("--"):
                section, dot, name = argument[2:].partition("=")[0].rpartition(".")
                if name.replace("-", "_") not in self._names or (dot and section not in self.sections):
                    self._refuse_option(argument)

    def check_fields(self, names: Iterable[str]) -> None:
        """
        Raises:
            ValueError: if a recipe has a field that there isn't; the message has the nearest one.
        """
        for name in names:
            if name.replace("-", "_") not in self._names - {"help"}:
                near = _nearest(name, [*self._names, *self.sections])
                raise ValueError(f"there is no field `{name}`{_suggest(near and f'`{near}`')}")

    def _refuse_option(self, argument: str) -> NoReturn:
        typed = argument.partition("=")[0]
        section, dot, name = typed.lstrip("-").rpartition(".")
        near = _nearest(name, self._names)
        if near is not None and "-" in name and "_" not in name:
            near = near.replace("_", "-")
        if near is not None and dot:
            nearest_section = _nearest(section, self.sections)
            near = None if nearest_section is None else f"{nearest_section}.{near}"
        raise ValueError(f"there is no option {typed}{_suggest(near and f'--{near}')}")

    def error(self, message: str) -> NoReturn:
        # argparse writes "argument --a_b/--a-b: ..."
        raise ValueError(re.sub(r"^argument (--\w+)(/--[\w-]+)*: ", r"\1: ", message))

    def format_help(self) -> str:
        own = {title: inspect.get_annotations(kind).keys() for title, kind in self.kinds.items()}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        for title, names in own.items():
            formatter.start_section(title)
            formatter.add_arguments([action for action in self._actions if action.dest in names])
            formatter.end_section()
        inherited = {action.dest for action in self._actions}.difference({"help"}, *own.values())
        formatter.start_section(f"transformers' TrainingArguments ({_TRAINING_ARGUMENTS_PAGE})")
        formatter.add_text(", ".join(sorted(inherited)))
        formatter.end_section()
        return formatter.format_help()


class _Formatter(argparse.HelpFormatter):
    """Each option under one name, with the defaults that say something."""

    def __init__(self, prog: str):
        width = min(110, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, max_help_position=30, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return f"{action.option_strings[0]} {self._format_args(action, str(action.metavar or ''))}".strip()

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if action.help is None or default is None or default is False:
            return action.help
        if isinstance(default, list):
            default = " ".join(f"{item:.3g}" for item in default)
        elif default is True or isinstance(default, Enum):
            default = "true" if default is True else default.value
        elif isinstance(default, float):
            default = f"{default:g}"
        return f"{action.help} Default: {default}."


def _value_in_words(action: argparse.Action) -> str:
    """What `--help` shows for an option's value."""
    if action.choices:
        return "|".join(str(choice) for choice in action.choices)
    if action.type is string_to_bool:
        return "true|false"
    if action.type in (int, float):
        return "NUMBER"
    return "JSON" if "in JSON" in (action.help or "") else "TEXT"


def _refuse_what_is_no_number(arguments: Any) -> None:
    for item in fields(arguments):
        value = getattr(arguments, item.name)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in values):
            raise ValueError(f"`{item.name}` must be a finite number, got {value}.")


def _nearest(name: str, candidates: Iterable[str]) -> str | None:
    # in a fixed order, of which equally near ones are taken
    near = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(candidates), n=1)
    return near[0] if near else None


def _suggest(near: str | None) -> str:
    return "; --help lists them." if near is None else f"; did you mean {near}?"


__all__ = ["OptionParser"]
