"""The command `s2d-hf`. Nothing heavy is imported before a subcommand does its work."""

from .command import build_parser, main

__all__ = ["build_parser", "main"]
