"""One video of an archive, from its file to its records."""

import time
import traceback
from collections.abc import Callable
from typing import Protocol

import torch

from ..timeline.results import VideoTimeline
from .records import ArchiveRecords, RecordsError
from .sources import ArchiveItem

# So many processes may die over a video before it counts as failed.
MAX_ATTEMPTS = 3


class Analyser(Protocol):
    """What finds faces and expressions in a video: `S2DTimeline`, or what takes its place."""

    def __call__(
        self, source: str, /, *, progress: bool = True, on_progress: Callable[[float], None] | None = None
    ) -> VideoTimeline: ...


class ProcessDiedError(RuntimeError):
    """The process died that was at a video. It may be begun again."""


class AnalyserLostError(RuntimeError):
    """There is no analyser any more. That is no video's fault, and the job stops."""


def analyse_item(item: ArchiveItem, analyser: Analyser, records: ArchiveRecords) -> str:
    """
    Analyses a video and writes what came of it.

    Whatever goes wrong with the video is recorded as its failure, with the reason. One over which a process dies is
    begun again, until processes have died over it [`MAX_ATTEMPTS`] times: then it fails.

    Returns:
        `str`: the outcome, `"done"`, `"no_face"` or `"failed"`.

    Raises:
        AnalyserLostError: if the analyser can't be called any more.
        RecordsError: if the records can't be written.
        torch.AcceleratorError: if the GPU fails in a way after which this process can't use it any more.
    """
    while True:
        attempts = records.begin(item.name)
        if attempts > MAX_ATTEMPTS:
            reason = f"the process died {MAX_ATTEMPTS} times while it was at this video"
            records.save_failure(item.name, reason, path=_place(item), attempts=MAX_ATTEMPTS)
            return "failed"
        try:
            return _try_item(item, analyser, records, attempts)
        except ProcessDiedError:  # the attempt counts
            continue
        except torch.AcceleratorError:  # may well be the video's doing: the attempt counts
            raise
        except BaseException:  # the user's, or the disk's
            records.withdraw(item.name)
            raise


def _try_item(item: ArchiveItem, analyser: Analyser, records: ArchiveRecords, attempts: int) -> str:
    started = time.monotonic()
    path = _place(item)
    try:
        with item.open() as path:
            timeline = analyser(path, progress=False)
        return records.save(item.name, timeline, _place(item), attempts, time.monotonic() - started)
    except (AnalyserLostError, ProcessDiedError, RecordsError, torch.AcceleratorError):
        raise
    except Exception as error:  # one broken video must not stop the others
        # of a temporary file nobody wants to know the name
        reason = describe(error).replace(path, _place(item))
        trace = traceback.format_exc()
        records.save_failure(item.name, reason, _place(item), attempts, time.monotonic() - started, trace)
        return "failed"


def describe(error: Exception) -> str:
    """An exception's name and message."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # which a library's own may not be able to tell
        return type(error).__name__


def _place(item: ArchiveItem) -> str:
    return item.path or item.name


__all__ = ["MAX_ATTEMPTS", "Analyser", "AnalyserLostError", "ProcessDiedError", "analyse_item", "describe"]
