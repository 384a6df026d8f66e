"""An analyser that needs no model, and "videos" that are a few bytes which tell it what to do."""

import functools
import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from s2d_hf.timeline.results import FaceTimeline, Segment, VideoTimeline

LABELS = ("happy", "sad", "neutral")


class UntoldError(Exception):
    """Of a library that can't tell its own errors."""

    def __str__(self) -> str:
        raise AttributeError("message")


class StandIn:
    """
    Invents a timeline from a file's bytes, the same for the same bytes.

    Files that begin with `broken`, `no face`, `poison` (kills the process), `deadly once` (kills the first process),
    `lost gpu` (the GPU fails), `slow`, `stands still`, `cut off`, `no server` or `untold` (the
    error has no message) are what they say. `calls`, a file, gets a line with the
    content and process of each call when it begins.
    """

    labels = LABELS

    def __init__(self, calls: Path, delay: float = 0.0):
        self.calls = Path(calls)
        self.delay = delay

    def __call__(self, source: str, progress: bool = True, on_progress: Callable | None = None) -> VideoTimeline:
        content = Path(source).read_bytes()
        on_progress = on_progress or (lambda seconds: None)
        with open(self.calls, "ab") as file:
            file.write(content + f" {os.getpid()} {torch.get_num_threads()}\n".encode())
        time.sleep(self.delay)
        if content.startswith(b"poison") or (content.startswith(b"deadly once") and self._is_first(content)):
            os.kill(os.getpid(), signal.SIGKILL)
        if content.startswith(b"lost gpu") and self._is_first(content):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if content.startswith(b"stands still"):
            on_progress(1.5)
            time.sleep(1.1)
            on_progress(2.5)
            time.sleep(1000)
        if content.startswith(b"slow"):  # for longer than the limit, but never without a sign of life
            for second in range(3):
                time.sleep(1.1)
                on_progress(float(second))
        if content.startswith(b"cut off"):  # as PyAV says it; it is the file that ends, and not the process
            raise EOFError("the file ends")
        if content.startswith(b"no server"):
            raise ConnectionRefusedError("nobody answers")
        if content.startswith(b"untold"):
            raise UntoldError
        if content.startswith(b"broken"):
            raise ValueError(f"{source} is no video:\nits header is missing")
        tracks = [] if content.startswith(b"no face") else [invent_track(content)]
        return VideoTimeline(source, LABELS, duration=4.0, width=64, height=48, fps=8.0, tracks=tracks, cuts=[1.5])

    def _is_first(self, content: bytes) -> bool:
        return sum(line.startswith(content + b" ") for line in self.calls.read_bytes().splitlines()) == 1


def stand_in(calls: Path, delay: float = 0.0) -> Callable[[], StandIn]:
    """A factory of [`StandIn`], which pickles."""
    return functools.partial(StandIn, calls, delay)


def refuse() -> StandIn:
    """A factory that fails."""
    raise OSError("There is no model here.")


def read_calls(calls: Path) -> list[str]:
    """The contents of the videos that were begun, in order."""
    if not calls.exists():
        return []
    return [line.rsplit(" ", 2)[0] for line in calls.read_text().splitlines()]


def invent_track(content: bytes) -> FaceTimeline:
    """Three windows of a face, with numbers drawn from the content."""
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest()[:8], "big"))
    scores = draw.dirichlet(np.ones(len(LABELS)), size=3)
    return FaceTimeline(
        track=1,
        times=np.array([0.5, 1.5, 2.5]),
        starts=np.array([0.0, 1.0, 2.0]),
        ends=np.array([1.0, 2.0, 3.0]),
        scores=scores,
        segments=[Segment("happy", 0.0, 3.0, 0.5)],
        box_times=np.array([0.0, 3.0]),
        boxes=draw.uniform(0, 40, size=(2, 4)),
        angles=np.zeros(2),
    )


def write_archive(folder: Path, contents: dict[str, str]) -> Path:
    """Files with the given contents."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder
