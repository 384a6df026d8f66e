"""How the scripts in `training/` end after an error: in one line, with the traceback where it can be had."""

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from datasets.exceptions import DatasetsError
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from ..texts_s2d import shorten

# What reading options, data and models raises: the user can mend it, and the message says how.
USER_ERRORS = (DatasetsError, ImportError, OSError, SafetensorError, StrictDataclassError, ValueError)
# seconds in which a launcher ends the other processes of a script once one has ended
_PATIENCE = 5
# characters of an error that nobody foresaw; all of them stand in the traceback
_LONGEST = 500


@contextmanager
def ends_in_one_line(program: str, reword: Callable[[str], str] = str, debug: bool = False) -> Iterator[None]:
    """
    Ends the program with `PROGRAM: error: ...` and exit code 1 where what is inside raises an exception.

    Of several processes on a machine, the first one prints; the others do only if they are still there after a while.

    Args:
        program (`str`): The name of the script's file.
        reword (`Callable`, *optional*): Puts a message into the words of the script's options.
        debug (`bool`): Print the traceback before the line.
    """
    try:
        yield
    except Exception as error:
        if debug:
            traceback.print_exc()
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if rank > 0:
            time.sleep(_PATIENCE)
        place = f" (process {os.environ.get('RANK', rank)})" if rank > 0 else ""
        sys.exit(f"{program}: error{place}: {reword(describe_error(error, keep_traceback=not debug))}")
    except KeyboardInterrupt:
        print(f"{program}: interrupted.", file=sys.stderr)
        sys.exit(130)


def describe_error(error: Exception, keep_traceback: bool = True) -> str:
    """
    An error in a line: as it is where its lines are a list of ours, and on one line where a library broke it.

    Args:
        error (`Exception`): The error.
        keep_traceback (`bool`): Write the traceback of one that is none of `USER_ERRORS`, such as a mistake in this
            program, into a temporary file, and name that: a training may have run for days before it.
    """
    text = str(error)
    if isinstance(error, USER_ERRORS):
        text = " ".join(text.split()) if isinstance(error, StrictDataclassError) else text
        return text or type(error).__name__
    text = " ".join(f"unexpected {type(error).__name__}: {text}".split())
    text = shorten(text, _LONGEST)
    return f"{text} (traceback: {_write_traceback(error)})" if keep_traceback else text


def take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """
    Command line arguments without a `--debug` that has no value, and whether it was there. With a value, it is an
    option of transformers' `TrainingArguments`.
    """
    kept, found = [], False
    for number, argument in enumerate(arguments, start=1):
        if argument == "--debug" and (number == len(arguments) or arguments[number].startswith("-")):
            found = True
        else:
            kept.append(argument)
    return kept, found


def _write_traceback(error: Exception) -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="s2d-hf-error-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:  # as on a full disk, which may be the error itself
        return "--debug prints it"
    return file.name


__all__ = ["USER_ERRORS", "describe_error", "ends_in_one_line", "take_debug"]
