"""What sources of frames have in common: files, pictures (`video_files_s2d.py`), cameras (`timeline/streaming.py`)."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np

Source = TypeVar("Source", bound="VideoSource")


class TimedFrame(NamedTuple):
    """
    One frame of a video, not yet converted.

    Args:
        time (`float`): When a player shows it, in seconds from the start of the recording.
        picture: What [`VideoSource.to_rgb`] takes.
        after_cut (`bool`): Whether it follows a gap, another recording or a change of size.
    """

    time: float
    picture: Any
    after_cut: bool = False


class SoundPacket(NamedTuple):
    """
    One packet of sound.

    Args:
        packet (`av.Packet`): With the file's times.
        recording (`int`): Which one of a file's recordings it belongs to: an index into [`VideoFile`]'s `offsets`.
    """

    packet: av.Packet
    recording: int


class VideoSource:
    """
    Frames with their times. A context manager; it can be read once. A process that was forked while it was open can't
    use it, as the decoder's threads are missing there.

    Attributes:
        name (`str`): What is read.
        width (`int`), height (`int`): Of the upright frames with square pixels.
        duration (`float`, *optional*): In seconds, if stated beforehand and not absurd.
        fps (`float`, *optional*): Average frame rate, if known.
        seen_until (`float`): Up to where it has been read: the end of the latest frame, in seconds.
        damage (`str`): What was lost or found broken while it was read, and empty if nothing was.
        is_sure (`bool`): Whether that is all; known when it is closed. It isn't where other videos were read at the
            same time and FFmpeg reported errors, of which nobody knows whose they are.
    """

    name: str
    width: int
    height: int
    duration: float | None = None
    fps: float | None = None
    seen_until: float = 0.0
    damage: str = ""
    is_sure: bool = True

    def __enter__(self: Source) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""

    def frames(self) -> Iterator[TimedFrame]:
        """Every frame, with ascending times."""
        raise NotImplementedError

    def to_rgb(self, picture: Any) -> np.ndarray:
        """RGB `(height, width, 3)`, uint8."""
        raise NotImplementedError


__all__ = ["SoundPacket", "TimedFrame", "VideoSource"]
