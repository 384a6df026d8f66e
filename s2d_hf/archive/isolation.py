"""An analyser in a process of its own: a video may crash it or make it stand still, and the job goes on."""

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
from typing import Any

import torch

from ..model_options import hide_loading_bars
from ..timeline.results import VideoTimeline
from .worker import Analyser, AnalyserLostError, ProcessDiedError

# Seconds without a frame or a result after which a video is ended. No decoder or download that works takes as long:
# what these themselves notice (`S2D_STALL_SECONDS`) is ended much earlier.
STALL_LIMIT = 600.0
_BEAT = 1.0  # seconds from one sign of life to the next

# The interpreter of the new process has the same `sys.path`, and doesn't run the user's script again.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({handle})"


class IsolatedAnalyser:
    """
    Calls an analyser in another process, which is started anew for the next video if it has died.

    For POSIX systems. The process ends with the one that started it, also if that is killed.

    Args:
        factory (`Callable`): Makes the analyser, in the other process; it must be picklable.
        stall_limit (`float`): Seconds without progress after which a video is given up and the process is killed.

    Raises:
        whatever `factory` raises.
    """

    def __init__(self, factory: Callable[[], Analyser], stall_limit: float = STALL_LIMIT):
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
                raise AnalyserLostError(f"The model could not be loaded again: {error}") from error
        try:
            self._connection.send(source)
            return self._wait()
        except (EOFError, ConnectionError):
            raise ProcessDiedError(f"the process died ({self._end()})") from None
        except (KeyboardInterrupt, TimeoutError):
            self._end()
            raise

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._end()

    def _start(self) -> None:
        self._connection, other = Pipe()
        with other:
            program = _PROGRAM.format(path=sys.path, module=__name__, handle=other.fileno())
            self._process = subprocess.Popen([sys.executable, "-c", program], pass_fds=(other.fileno(),))
        try:
            self._connection.send((os.getpid(), torch.get_num_threads(), pickle.dumps(self.factory)))
            self._wait(forever=True)
        except (EOFError, ConnectionError):
            raise RuntimeError(f"The process that loads the model died ({self._end()}).") from None
        except BaseException:
            self._end()
            raise

    def _wait(self, forever: bool = False) -> Any:
        """What the other process answers; meanwhile, it says that it lives."""
        seen = ""
        while True:
            if not self._connection.poll(None if forever else self.stall_limit):
                raise TimeoutError(f"it was ended after {self.stall_limit:g} s in which nothing happened{seen}")
            kind, content = self._connection.recv()
            if kind == "result":
                return content
            if kind == "error":
                raise content
            seen = f", at {content:.1f} s of the video"

    def _end(self) -> str:
        """Ends the process and tells how it ended."""
        process, self._process = self._process, None
        self._connection.close()
        if process.poll() is None:
            time.sleep(0.05)  # one that is dying has closed its end already
        process.kill()
        code = process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(handle: int) -> None:
    """The other process: loads the analyser and calls it, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both, and the first one decides
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
    connection.send(("result", None))
    while True:
        try:
            source = connection.recv()
        except EOFError:
            return
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
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
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
