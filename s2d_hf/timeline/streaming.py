"""Video files and cameras as streams of upright RGB frames with their times, in constant memory."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from transformers.utils import logging

from ..file_names_s2d import is_url
from ..frames_s2d import display_matrix, turn_upright

logger = logging.get_logger(__name__)


def open_stream(source: str | os.PathLike | int) -> "VideoStream":
    """
    Opens a video file, an http(s) address or, by its number, a camera.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, empty, or holds no video.
        OSError: if there is no such camera.
    """
    return CameraStream(source) if isinstance(source, int) else FileStream(source)


class VideoStream:
    """
    Frames with their times. A context manager; it can be read once.

    Attributes:
        name (`str`): What is read.
        width (`int`), height (`int`): Of the upright frames with square pixels.
        duration (`float`, *optional*): In seconds, if known beforehand.
        fps (`float`, *optional*): Average frame rate, if known.
        is_live (`bool`): Whether the frames come when they come, as those of a camera.
    """

    name: str
    width: int
    height: int
    duration: float | None = None
    fps: float | None = None
    is_live: bool = False

    def __enter__(self) -> "VideoStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file or camera."""

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame: its time in seconds from the first one, and RGB `(height, width, 3)`, uint8."""
        for seconds, frame in self._decoded():
            yield seconds, self._to_array(frame)

    def sampled(self, fps: float) -> Iterator[tuple[float, np.ndarray]]:
        """
        Frames at an even rate: at 0, 1 / fps, 2 / fps, ... seconds the frame whose time is nearest.

        Where frames are further apart (a slow or variable frame rate), one is repeated for as long as it is shown; of
        a live source, each comes once at most, with its own time.

        Raises:
            ValueError: if `fps` is not positive.
        """
        if fps <= 0:
            raise ValueError(f"`fps` must be positive, got {fps}.")
        wanted = 0
        previous: tuple[float, Any] | None = None
        for seconds, frame in self._decoded():
            if self.is_live:
                if seconds >= wanted / fps:
                    yield seconds, self._to_array(frame)
                    wanted = int(seconds * fps) + 1
                continue
            while previous is not None and wanted / fps < (previous[0] + seconds) / 2:
                yield wanted / fps, self._to_array(previous[1])
                wanted += 1
            previous = seconds, frame
        if previous is not None:
            shown_until = previous[0] + 0.5 / (self.fps or fps)
            while wanted / fps < shown_until:
                yield wanted / fps, self._to_array(previous[1])
                wanted += 1

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        raise NotImplementedError

    def _to_array(self, frame: Any) -> np.ndarray:
        raise NotImplementedError


class FileStream(VideoStream):
    """
    A video file or address, decoded by FFmpeg (PyAV).

    Frames are turned as the container says, their pixels made square, and those of a variable frame rate keep their
    times. Damaged packets are left out, with a warning that counts them.

    Attributes:
        time_base (`Fraction`): The unit of the file's times, in seconds.
        rate (`Fraction`, *optional*): Frames a second on average, if known.
        start (`Fraction`): The first frame's time in the file, in seconds.
    """

    def __init__(self, source: str | os.PathLike):
        self.name = str(source)
        if not is_url(self.name):
            if os.path.isdir(self.name):
                raise ValueError(f"{self.name} is a folder: name a video file.")
            if not os.path.isfile(self.name) and not Path(self.name).is_char_device():
                raise FileNotFoundError(f"There is no video file {self.name}.")
            if os.path.isfile(self.name) and os.path.getsize(self.name) == 0:
                raise ValueError(f"The video file {self.name} is empty (0 bytes).")
        try:
            self._container = av.open(self.name)
        except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self.name} could not be opened: it is truncated, damaged or no video. "
                f"({getattr(error, 'strerror', None) or error})"
            ) from error
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if not self._container.streams.video:
            raise ValueError(f"{self.name} has no video stream.")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 90000)
        self.rate: Fraction | None = self._stream.average_rate or None
        self.fps = float(self.rate) if self.rate else None
        if self._stream.duration and self._stream.time_base:
            self.duration = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration:
            self.duration = self._container.duration / av.time_base
        self._raw = self._raw_frames()
        # sizes and the display matrix are certain only with a decoded frame
        self._first = next(self._raw, None)
        if self._first is None:
            raise ValueError(f"{self.name} could not be decoded: it is truncated, damaged or no video.")
        self.start: Fraction = (self._first.pts or 0) * (self._first.time_base or self.time_base)
        self._matrix = display_matrix(self._first)
        aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        self._size = (max(1, round(self._first.width * aspect)), self._first.height)
        is_turned = self._matrix is not None and self._matrix[0, 0] == 0
        self.width, self.height = self._size[::-1] if is_turned else self._size

    def close(self) -> None:
        self._container.close()

    def _raw_frames(self) -> Iterator[av.VideoFrame]:
        damaged = 0
        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                damaged += 1
        if damaged:
            logger.warning(f"{self.name} is damaged: {damaged} packets could not be decoded and were left out.")

    def _decoded(self) -> Iterator[tuple[float, av.VideoFrame]]:
        first, self._first = self._first, None
        if first is None:
            raise ValueError(f"The stream of {self.name} has been read: open it again.")
        step = 1 / (self.fps or 25.0)
        start = first.time or 0.0
        latest = -step
        left_out = 0
        for frame in itertools.chain([first], self._raw):
            seconds = latest + step if frame.time is None else frame.time - start
            if seconds <= latest:
                left_out += 1
                continue
            latest = seconds
            yield seconds, frame
        if left_out:
            logger.warning(
                f"{self.name} is damaged: {left_out} frames have times that run backwards, and were left out."
            )

    def _to_array(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._size
        colours = {}
        if frame.colorspace == Colorspace.ITU709:  # which PyAV before 18 minds only where it is told everything
            colours = {"src_colorspace": Colorspace.ITU709, "dst_colorspace": Colorspace.ITU709}
            colours["src_color_range"] = ColorRange.JPEG if frame.color_range == ColorRange.JPEG else ColorRange.MPEG
            colours["dst_color_range"] = ColorRange.JPEG
        array = frame.to_ndarray(format="rgb24", width=width, height=height, **colours)
        return turn_upright(array, self._matrix)


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Without what each of OpenCV's ways to a camera prints where there is none; an error of ours says it."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


class CameraStream(VideoStream):
    """A camera by its number, read by OpenCV; times count from the first frame. It ends when the camera does."""

    is_live = True

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
        self._camera.release()

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        start = time.monotonic()
        yield 0.0, self._first
        while True:
            is_read, frame = self._camera.read()
            if not is_read:
                return
            yield time.monotonic() - start, frame

    def _to_array(self, frame: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
