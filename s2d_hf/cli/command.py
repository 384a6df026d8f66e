"""The command `s2d-hf`: its subcommands, and how it ends after an error."""

import argparse
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from .. import __version__
from ..errors import NotDownloadedError
from ..labels import LABELS, dataset_in_name
from ..texts_s2d import visible
from .archive import add_archive_parser
from .convert import add_convert_parser
from .demo import add_demo_parser
from .export_onnx import add_export_onnx_parser
from .predict import add_predict_parser
from .wording import AsTyped, as_typed


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command and its subcommands."""
    parser = argparse.ArgumentParser(
        prog="s2d-hf", description="Facial expression recognition in videos with S2D (From Static to Dynamic)."
    )
    parser.add_argument("--version", action="version", version=f"s2d-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_predict_parser(commands)
    add_archive_parser(commands)
    add_demo_parser(commands)
    add_convert_parser(commands)
    add_export_onnx_parser(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="the traceback of an error, before its line")
        command.set_defaults(parser=command)
    return parser


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """
    The arguments of a command line. Mistakes end the program, with exit code 2 and the usage of the command that they
    were made in.
    """
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 after an error that the user can mend, or the command's own."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when PyTorch is loaded: its threads spin for some microseconds when they wait for each other, and then
        # sleep. By default they spin for milliseconds: beside a busy program, `predict` took 1.7 times as long.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what it can't write
            stream.reconfigure(errors="backslashreplace")
    arguments = parse_arguments(argv)
    notes = logging.getLogger("s2d_hf.model_sources")
    notes.addFilter(reword := AsTyped(arguments))
    try:
        return arguments.run(arguments) or 0
    except NotDownloadedError as error:
        return _end(_tell_what_to_fetch(error, argv, arguments), arguments)
    except BrokenPipeError:  # of what was printed, no more is wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return _end(as_typed(str(error) or type(error).__name__, arguments), arguments)
    except Exception as error:
        # a file that is damaged in a way nobody thought of, or a mistake in this program
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _end(f"unexpected {visible(what)} (--debug shows where)", arguments)
    except KeyboardInterrupt:
        print("s2d-hf: interrupted.", file=sys.stderr)
        return 130
    finally:
        notes.removeFilter(reword)


def _open_closed_streams() -> None:
    """
    Where a caller has closed stderr (`2>&-`), messages would go to stdout, and what libraries print into the first
    file that is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def _end(message: str, arguments: argparse.Namespace) -> int:
    """Prints the error that is being handled, and returns the exit code."""
    if arguments.debug:
        traceback.print_exc()
    print(f"s2d-hf: error: {message}", file=sys.stderr)
    return 1


def _tell_what_to_fetch(error: NotDownloadedError, argv: Sequence[str], arguments: argparse.Namespace) -> str:
    """What is missing, where it lies, and the command to run once it is here."""
    command = list(argv)
    for argument, address in error.files.items():
        file = unquote(urlsplit(address).path).rpartition("/")[2]
        option = f"--{argument.replace('_', '-')}"
        typed = getattr(arguments, argument, None) or getattr(arguments, "checkpoint", None)
        if argument == "model" and typed in command:
            command[command.index(typed)] = file
        elif argument == "model" and f"--model={typed}" in command:
            command[command.index(f"--model={typed}")] = f"--model={file}"
        else:
            command += [option, file]
        if argument == "model" and typed and not (arguments.dataset or arguments.labels):
            # what the address says may be more than the file's own name does
            said = {name for labels in LABELS.values() if (name := dataset_in_name(typed, len(labels))) is not None}
            said -= {dataset_in_name(file, len(labels)) for labels in LABELS.values()}
            command += ["--dataset", said.pop()] if len(said) == 1 else []
    return f"{error.missing}, and run\n  s2d-hf {shlex.join(command)}"


__all__ = ["build_parser", "main", "parse_arguments"]
