"""The library's messages in the words of the command line."""

import argparse
import logging
import re

from ..texts_s2d import visible


class AsTyped(logging.Filter):
    """Notes of the library in the terms of the command line."""

    def __init__(self, arguments: argparse.Namespace):
        super().__init__()
        self.arguments = arguments

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = as_typed(record.getMessage(), self.arguments), ()
        return True


def as_typed(message: str, arguments: argparse.Namespace) -> str:
    """A message of the library in which its arguments have the names of the command's options."""
    other_names = {"num_attention_heads": "num_heads", "adapter_num_heads": "adapter_heads"}

    def option(match: re.Match) -> str:
        name = other_names.get(match.group(1), match.group(1))
        return f"--{name.replace('_', '-')}" if hasattr(arguments, name) else match.group(0)

    return visible(re.sub(r"`(\w+)`", option, message))


__all__ = ["AsTyped", "as_typed"]
