"""How the scripts in `training/` end where it is the user who can mend it: in one line, and not in a traceback."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from datasets.exceptions import DatasetsError
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What reading options, data and models raises. Others, such as TypeError, are mistakes in code: their traceback stays.
USER_ERRORS = (DatasetsError, ImportError, OSError, SafetensorError, StrictDataclassError, ValueError)
# seconds in which a launcher ends the other processes of a script once one has ended
_PATIENCE = 5


@contextmanager
def ends_in_one_line(program: str, reword: Callable[[str], str] = str) -> Iterator[None]:
    """
    Ends the program with `PROGRAM: error: ...` and exit code 1 where what is inside raises one of `USER_ERRORS`. With
    `TRANSFORMERS_VERBOSITY=debug`, the traceback stands before it.

    Of several processes on a machine, the first one prints; the others do only if they are still there after a while.

    Args:
        program (`str`): The name of the script's file.
        reword (`Callable`, *optional*): Puts a message into the words of the script's options.
    """
    try:
        yield
    except USER_ERRORS as error:
        logger.debug("The traceback of the error below:", exc_info=True)
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if rank > 0:
            time.sleep(_PATIENCE)
        place = f" (process {os.environ.get('RANK', rank)})" if rank > 0 else ""
        sys.exit(f"{program}: error{place}: {reword(_in_words(error))}")
    except KeyboardInterrupt:
        print(f"{program}: interrupted.", file=sys.stderr)
        sys.exit(130)


def _in_words(error: Exception) -> str:
    """A message as it is where its lines are a list of ours, and on one line where a library broke it."""
    text = " ".join(str(error).split()) if isinstance(error, StrictDataclassError) else str(error)
    return text or type(error).__name__


__all__ = ["USER_ERRORS", "ends_in_one_line"]
