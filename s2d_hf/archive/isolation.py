"""An analyser in a process of its own: a video may crash it or make it stand still, and the job goes on."""

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, cast

import torch

from ..model_loading import hide_loading_bars
from ..timeline.results import VideoTimeline
from .worker import Analyser, AnalyserLostError, ProcessDiedError, describe

# Seconds without a frame or a result after which a video is ended. No decoder or download that works takes as long:
# what these themselves notice (`S2D_STALL_SECONDS`) is ended much earlier.
STALL_LIMIT = 600.0
_BEAT = 1.0  # seconds from one sign of life to the next

# The interpreter of the new process has the same `sys.path`, and doesn't run the user's script again.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({handle})"


class IsolatedAnalyser:
    """
    Calls an analyser in another process, which is started anew for the next video if it has died.

    For POSIX systems. The process ends within a second of the one that started it, also if that is killed; one that
    hangs in a decoder which lets nothing else run stays until it is killed as well.

    Args:
        factory (`Callable`): Makes the analyser, in the other process; it must be picklable.
        stall_limit (`float`): Seconds without progress after which a video is given up and the process is killed.

    Raises:
        whatever `factory` raises.
    """

    def __init__(self, factory: Callable[[], Analyser], stall_limit: float = STALL_LIMIT):
        if not stall_limit > 0:  # nor if it is not a number
            raise ValueError(f"`stall_limit` must be positive, got {stall_limit}.")
        self.factory = factory
        self.stall_limit = stall_limit
        self._process: subprocess.Popen | None = None
        self._start()

    def __call__(self, source: str, progress: bool = False) -> VideoTimeline:
        """
        Raises:
            AnalyserLostError: if the process has to be started anew, and the model can't be loaded any more.
            ProcessDiedError: if it dies over this video.
            TimeoutError: if nothing happens for `stall_limit` seconds.
            Exception: what the analyser raises.
        """
        if self._process is None:
            try:
                self._start()
            except Exception as error:
                raise AnalyserLostError(f"The model could not be loaded again: {describe(error)}") from error
        return self._ask(source, self.stall_limit)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._end()

    def _start(self) -> None:
        self._connection, other = Pipe()
        with other:
            path = [os.fspath(entry) for entry in sys.path]
            program = _PROGRAM.format(path=path, module=__name__, handle=other.fileno())
            self._process = subprocess.Popen([sys.executable, "-c", program], pass_fds=(other.fileno(),))
        try:
            self._ask((os.getpid(), torch.get_num_threads(), pickle.dumps(self.factory)), math.inf)
        except ProcessDiedError as error:
            raise RuntimeError(f"Where the model is loaded, {error}.") from None
        except BaseException:
            self.close()
            raise

    def _ask(self, request: Any, limit: float) -> Any:
        """Sends a request and waits for what the other process answers; meanwhile, it says that it lives."""
        try:
            self._connection.send(request)
            kind, content = self._wait(limit)
        except (EOFError, ConnectionError):
            raise ProcessDiedError(f"the process died ({self._end()})") from None
        except BaseException:  # its answer must not be taken for that to a later request
            self._end()
            raise
        if kind == "error":
            raise content
        return content

    def _wait(self, limit: float) -> tuple[str, Any]:
        seen, silent, step = "", 0.0, min(_BEAT, limit)
        while True:
            # in steps, as a job that is stopped (Ctrl-Z) stands still without fault
            if not self._connection.poll(step):
                silent += step
                if silent >= limit:
                    raise TimeoutError(f"it was ended after {limit:g} s in which nothing happened{seen}")
                continue
            silent = 0.0
            kind, content = self._connection.recv()
            if kind != "at":
                return kind, content
            seen = f", at {content:.1f} s of the video"

    def _end(self) -> str:
        """Ends the process and tells how it ended."""
        process, self._process = cast(subprocess.Popen, self._process), None  # only ever called of one that is there
        self._connection.close()
        if process.poll() is None:
            time.sleep(0.05)  # one that is dying has closed its end already
        process.kill()
        code = process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(handle: int) -> None:
    """The other process: loads the analyser and calls it, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both, and the first one decides
    os.dup2(2, 1)  # what is printed here is none of the job's results
    connection = Connection(handle)
    parent, num_threads, factory = connection.recv()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(num_threads)
    hide_loading_bars()  # the bar of the videos is enough
    try:
        analyser = pickle.loads(factory)()
    except Exception as error:
        connection.send(("error", _picklable(error)))
        return
    with contextlib.suppress(EOFError, ConnectionError):  # nobody asks, or listens, any more
        connection.send(("result", None))
        while True:
            source = connection.recv()
            connection.send(_answer(analyser, source, connection))


def _answer(analyser: Analyser, source: str, connection: Connection) -> tuple[str, Any]:
    latest = time.monotonic()

    def beat(seconds: float) -> None:
        nonlocal latest
        if time.monotonic() - latest > _BEAT:
            latest = time.monotonic()
            connection.send(("at", seconds))

    try:
        timeline = analyser(source, progress=False, on_progress=beat)
        for face in timeline.tracks:
            face.thumbnails = []  # large, and not recorded
        return "result", timeline
    except torch.AcceleratorError:
        os._exit(1)  # a lost GPU is lost for this process only
    except Exception as error:
        return "error", _picklable(error)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_BEAT)
    os._exit(1)


class _RemoteTraceback(Exception):
    """The text of the other process's traceback, as the cause of what is raised in this one."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _picklable(error: Exception) -> "_Error":
    text = "".join(traceback.format_exception(error))
    try:
        str(error)
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(describe(error))
    return _Error(error, text)


class _Error:
    """An exception that keeps its traceback, as text, when it is pickled."""

    def __init__(self, error: Exception, text: str):
        self.error, self.text = error, text

    def __reduce__(self) -> tuple:
        return _with_cause, (self.error, self.text)


def _with_cause(error: Exception, text: str) -> Exception:
    error.__cause__ = _RemoteTraceback(text)
    return error


__all__ = ["STALL_LIMIT", "IsolatedAnalyser", "serve"]
