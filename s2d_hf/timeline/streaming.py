"""Video files and cameras as streams of upright RGB frames at an even rate, in constant memory."""

import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import cv2
import numpy as np

from ..video_files_s2d import LONGEST_FRAME, TimedFrame, VideoSource, open_video


class SampledFrame(NamedTuple):
    """
    A frame of an evenly sampled video.

    Args:
        time (`float`): In seconds.
        pixels (`np.ndarray` of shape `(height, width, 3)`): RGB, uint8.
        after_cut (`bool`): Whether it follows a gap, another recording or a change of size.
    """

    time: float
    pixels: np.ndarray
    after_cut: bool


def open_stream(source: str | os.PathLike | int) -> VideoSource:
    """
    Opens a video file, an http(s) address or, by its number, a camera.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: see [`open_video`].
        OSError: if there is no such camera.
    """
    return CameraStream(source) if isinstance(source, int) else open_video(source)


def sample_evenly(video: VideoSource, fps: float) -> Generator[SampledFrame, None, None]:
    """
    Frames at an even rate: at 0, 1 / fps, 2 / fps, ... seconds the frame whose time is nearest.

    Where frames are further apart (a slow or variable frame rate), one is repeated for as long as it is shown, but for
    two seconds at most; of a live source, each comes once at most, with its own time.

    Raises:
        ValueError: if `fps` is not positive.
    """
    if fps <= 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    return _sample_live(video, fps) if isinstance(video, CameraStream) else _sample_file(video, fps)


def _sample_live(video: VideoSource, fps: float) -> Generator[SampledFrame, None, None]:
    wanted = 0
    for frame in video.frames():
        if frame.time >= wanted / fps:
            yield SampledFrame(frame.time, video.to_rgb(frame.picture), False)
            wanted = int(frame.time * fps) + 1


def _sample_file(video: VideoSource, fps: float) -> Generator[SampledFrame, None, None]:
    wanted = 0
    previous: TimedFrame | None = None
    after_cut = is_sampled = False

    def take_until(time: float) -> Generator[SampledFrame, None, None]:
        nonlocal wanted, after_cut, is_sampled
        pixels = None
        while wanted / fps < time:
            if pixels is None:  # the first frame's time is 0, so there is an earlier one
                pixels = video.to_rgb(cast(TimedFrame, previous).picture)
            yield SampledFrame(wanted / fps, pixels, after_cut)
            wanted, after_cut, is_sampled = wanted + 1, False, True

    def end_shot(time: float) -> Generator[SampledFrame, None, None]:
        yield from take_until(time)
        if not is_sampled:  # it lies between two of the places
            yield from take_until((wanted + 0.5) / fps)

    for frame in video.frames():
        if previous is None or frame.time - previous.time > LONGEST_FRAME:
            if previous is not None:
                yield from end_shot(previous.time + LONGEST_FRAME)  # so long it stands there, and not for days
            # the first place that is nearer to this frame than half a step
            wanted, is_sampled = max(wanted, int(np.ceil(frame.time * fps - 0.5))), False
        else:
            yield from take_until((previous.time + frame.time) / 2)
        after_cut = after_cut or frame.after_cut
        previous = frame
    if previous is not None:
        yield from end_shot((previous.time + video.seen_until) / 2)


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Without what each of OpenCV's ways to a camera prints where there is none; an error of ours says it."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


class CameraStream(VideoSource):
    """A camera by its number, read by OpenCV; times count from the first frame. It ends when the camera does."""

    def __init__(self, number: int):
        self.name = f"camera {number}"
        if not 0 <= number < 2**31:  # OpenCV crashes at others
            raise OSError(f"There is no camera {number}: they are numbered from 0 on.")
        with _silent_opencv():
            self._camera = cv2.VideoCapture(number)
            is_read, self._first = self._camera.read()
        if not is_read:
            self._camera.release()
            raise OSError(f"There is no camera {number}, or another program uses it.")
        self.height, self.width = self._first.shape[:2]
        self.fps = self._camera.get(cv2.CAP_PROP_FPS) or None

    def close(self) -> None:
        """Lets go of the camera."""
        self._camera.release()

    def frames(self) -> Iterator[TimedFrame]:
        """Every frame, as it comes."""
        start = time.monotonic()
        yield TimedFrame(0.0, self._first)
        while True:
            is_read, frame = self._camera.read()
            if not is_read:
                return
            self.seen_until = time.monotonic() - start
            yield TimedFrame(self.seen_until, frame)

    def to_rgb(self, picture: np.ndarray) -> np.ndarray:
        """RGB `(height, width, 3)`, uint8."""
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
