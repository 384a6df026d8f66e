"""The chosen frames of a video: a file, an address, bytes or a folder of frames."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from .addresses_s2d import fetched_file
from .file_names_s2d import is_url
from .frames_s2d import check_num_frames, list_frame_files, read_image, sample_frame_indices, to_rgb
from .video_files_s2d import LONGEST_FRAME, VideoFile, open_video, tell_damage
from .video_limits_s2d import check_limit
from .video_source_s2d import VideoSource

VIDEO_BACKENDS = ("pyav", "decord")


# Packets that are decoded in passing rather than skipped: jumping to a key frame costs about as much.
_WORTH_A_JUMP = 60
# Containers with an index, by which they can be entered at any key frame.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


@dataclass
class TimedVideoMetadata(VideoMetadata):
    """
    What is known of a video when its frames are chosen.

    frame_times (`np.ndarray` of shape `(total_num_frames,)`, *optional*): When each frame is shown, in seconds from
        the first one; `None` for folders of frames.
    """

    frame_times: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def timestamps(self) -> list[float]:
        """Times of the chosen frames in seconds."""
        if self.frame_times is None or self.frames_indices is None:
            return super().timestamps
        return self.frame_times[np.asarray(self.frames_indices)].tolist()


Choice = Callable[[TimedVideoMetadata], Sequence[int] | np.ndarray]


def read_video(
    source: str | os.PathLike | bytes, choose: Choice | None = None, backend: str = "pyav", name: str | None = None
) -> tuple[list[torch.Tensor], TimedVideoMetadata]:
    """
    The chosen frames of a video, as a player shows them. Only they are kept in memory: the choice is made from the
    times of all frames, before any is kept.

    Args:
        source (`str`, `os.PathLike` or `bytes`): Anything that PyAV's FFmpeg decodes, or its bytes, an animated
            picture, an http(s) address, or a folder of images.
        choose (`Callable`, *optional*): From the metadata (`total_num_frames`, `frame_times`, `fps`, ...) to ascending
            frame indices, which may repeat; every frame if not given.
        backend (`"pyav"` or `"decord"`): What decodes. decord finds frames by their number in the file and gets wrong
            ones where numbers and times differ, so it is refused for all but plain MP4 and Matroska files.
        name (`str`, *optional*): What messages call the video.

    Returns:
        `list[torch.Tensor]`, RGB frames `(3, height, width)`, uint8, a repeated one being the same tensor; and
        [`TimedVideoMetadata`] with `frames_indices`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ImportError: if decord is asked for and not installed.
        ValueError: if it is empty, damaged beyond reading, no video or larger than the limits (`video_limits_s2d.py`),
            a folder without images, or a file that decord can't read rightly.
    """
    if backend not in VIDEO_BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(VIDEO_BACKENDS)}, got {backend!r}.")
    place = "" if isinstance(source, bytes) else os.fspath(source)
    if place and os.path.isdir(place):
        return _read_frame_folder(place, choose)
    name = name or place or "the video"
    # it is opened more than once
    with fetched_file(place) if is_url(place) else nullcontext(source) as file:
        reader = _Reader(file, name, choose)
        return reader.read_with_decord() if backend == "decord" else reader.read()


def check_video(source: str | os.PathLike | bytes, name: str | None = None) -> bool:
    """
    Reads a video from its start to its end, so that whatever its reader would find is found. Damage that can be passed
    over is a warning.

    Returns:
        `bool`: whether that is sure, see [`VideoSource`]. If not, nothing was told: check it again alone.

    Raises:
        FileNotFoundError, ValueError: see [`read_video`].
    """
    if not isinstance(source, bytes) and os.path.isdir(source):
        for file in list_frame_files(os.fspath(source)):
            to_rgb(read_image(file))
        return True
    with open_video(source, name, tells_damage=False) as video:
        for number, frame in enumerate(video.frames()):
            if number == 0:
                video.to_rgb(frame.picture)
    if video.is_sure:
        tell_damage(video)
    return video.is_sure


def _read_frame_folder(
    folder: str | os.PathLike, choose: Choice | None
) -> tuple[list[torch.Tensor], TimedVideoMetadata]:
    files = list_frame_files(os.fspath(folder))
    metadata = TimedVideoMetadata(total_num_frames=len(files), video_backend="folder")
    indices = np.arange(len(files)) if choose is None else np.asarray(choose(metadata))
    metadata.frames_indices = indices
    kept = _Kept(indices, str(folder))
    for index in np.unique(indices):
        kept.add(int(index), to_rgb(read_image(files[index])))
    return kept.in_order(), metadata


class _Kept:
    """The chosen frames, each once."""

    def __init__(self, indices: np.ndarray, name: str):
        self.indices = indices
        self.name = name
        self.frames: dict[int, torch.Tensor] = {}
        self.size = 0

    def add(self, index: int, frame: torch.Tensor) -> None:
        self.size += frame.nbytes
        check_limit(
            "S2D_MAX_KEPT_BYTES", self.size,
            f"{self.name}: {len(self.frames) + 1} of its frames take {self.size:,} bytes",
        )  # fmt: skip
        self.frames[index] = frame

    def in_order(self) -> list[torch.Tensor]:
        return [self.frames[int(index)] for index in self.indices]


@dataclass
class _Plan:
    """What a file's packets tell of its frames: their times in the order of presentation, and where one can enter."""

    pts: np.ndarray
    key_pts: np.ndarray  # ascending
    container: str
    has_edits: bool
    has_open_groups: bool  # frames that are shown before the key frame after which they are stored


class _Unplanned(Exception):
    """What was decoded is not what the packets told."""


class _Reader:
    """Reads one file: first the times of its frames, and then those that are chosen."""

    def __init__(self, file: Any, name: str, choose: Choice | None):
        self.file = file
        self.name = name
        self.choose = choose

    def read(self) -> tuple[list[torch.Tensor], TimedVideoMetadata]:
        plan = self._find_plan()
        if plan is not None:
            is_safe = plan.container in _INDEXED and not plan.has_edits
            for may_jump in (True, False) if is_safe else (False,):
                try:
                    return self._read_planned(plan, may_jump)
                except (_Unplanned, LookupError):
                    continue
        return self._read_twice()

    def _open(self, starts: bool = True) -> VideoSource:
        # it may be read several times, and its damage is told once
        return open_video(self.file, self.name, tells_damage=False, starts=starts)

    def _open_file(self) -> VideoFile:
        video = self._open()
        if not isinstance(video, VideoFile):  # another one than the plan is of
            video.close()
            raise _Unplanned
        return video

    def _find_plan(self) -> _Plan | None:
        """
        From the packets, without decoding them. `None` where they don't tell, as when times are missing, repeat or
        start again, or the file is damaged.
        """
        with self._open(starts=False) as video:
            if not isinstance(video, VideoFile):
                return None
            shown: list[int] = []
            keys: list[int] = []
            latest: int | None = None
            has_edits = has_open_groups = False
            try:
                for packet in video.packets():
                    if packet.size == 0:
                        continue
                    pts = packet.pts if video.has_presentation_times else packet.dts
                    is_late = packet.dts is not None and latest is not None and packet.dts <= latest
                    if pts is None or packet.is_corrupt or is_late:
                        return None
                    latest = latest if packet.dts is None else packet.dts
                    has_edits = has_edits or packet.is_discard
                    if packet.is_keyframe:
                        keys.append(pts)
                    has_open_groups = has_open_groups or (bool(keys) and pts < keys[-1])
                    if not packet.is_discard:
                        shown.append(pts)
                    check_limit("S2D_MAX_FRAMES", len(shown), f"{self.name} has {len(shown):,} frames or more")
            except ValueError:  # which whoever decodes may get past
                return None
            container = video.container.format.name
            longest_gap = video.jump_ahead / float(video.time_base)
            times = np.unique(np.array(shown, np.int64))
            if not keys or not 0 < len(times) == len(shown) or np.diff(times, prepend=times[0]).max() > longest_gap:
                return None
            last = 1 / video.fps if video.fps else 0.0
            end, end_in_file = (
                float(int(ticks) * video.time_base) + last for ticks in (times[-1] - times[0], times[-1])
            )
            if video.has_trouble() or video.ends_early(end, end_in_file):
                return None  # it is to be told of, so all of it has to be looked at
        return _Plan(times, np.sort(np.array(keys, np.int64)), container, has_edits, has_open_groups)

    def _choose(self, video: Any, times: np.ndarray, backend: str) -> tuple[np.ndarray, TimedVideoMetadata]:
        fps = video.fps or (float((len(times) - 1) / times[-1]) if times[-1] > 0 else None)
        metadata = TimedVideoMetadata(
            total_num_frames=len(times),
            fps=fps,
            width=video.width,
            height=video.height,
            duration=float(times[-1] + (1 / fps if fps else 0)),
            video_backend=backend,
            frame_times=times,
        )
        try:
            indices = np.arange(len(times)) if self.choose is None else np.asarray(self.choose(metadata))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        metadata.frames_indices = indices
        return indices, metadata

    def _read_planned(self, plan: _Plan, may_jump: bool) -> tuple[list[torch.Tensor], TimedVideoMetadata]:
        """Decodes up to each chosen frame, and jumps over what lies between where that is safe (`may_jump`)."""
        with self._open_file() as video:
            times = (plan.pts - plan.pts[0]) * float(video.time_base)
            indices, metadata = self._choose(video, times, "pyav")
            kept = _Kept(indices, self.name)
            frames, position = video.decoded(), 0  # of the next frame
            for index in np.unique(indices):
                key = int(np.searchsorted(plan.key_pts, plan.pts[index], side="right")) - 1
                if may_jump and key >= 0:
                    entry = int(np.searchsorted(plan.pts, plan.key_pts[key]))
                    if entry - position > _WORTH_A_JUMP:
                        frames, position = self._jump(video, int(plan.key_pts[key])), entry
                for frame in frames:
                    if frame.pts != plan.pts[position]:
                        raise _Unplanned
                    position += 1
                    if position > index:
                        kept.add(int(index), torch.from_numpy(video.to_rgb(frame)).permute(2, 0, 1))
                        break
                else:
                    raise _Unplanned
            if len(plan.pts) == position and next(iter(frames), None) is not None:
                raise _Unplanned
            if may_jump and video.has_trouble():
                raise _Unplanned
        tell_damage(video)
        return kept.in_order(), metadata

    def _jump(self, video: VideoFile, key_pts: int) -> Iterator[av.VideoFrame]:
        """The frames from a key frame on, whose time proves it."""
        frames = video.decoded_from(key_pts)
        for frame in frames:
            if not frame.key_frame:
                raise _Unplanned
            yield frame
            break
        yield from frames

    def _read_twice(self) -> tuple[list[torch.Tensor], TimedVideoMetadata]:
        """Decodes everything to know the frames' times, and once more for those that are chosen."""
        with self._open() as video:
            times = np.array([frame.time for frame in video.frames()])
            if not len(times):
                raise ValueError(f"{self.name} could not be decoded: it is truncated, damaged or no video.")
            indices, metadata = self._choose(video, times - times[0], "pyav")
        tell_damage(video)
        kept = _Kept(indices, self.name)
        wanted = set(np.unique(indices).tolist())
        last = max(wanted)
        with self._open() as video:
            for number, frame in enumerate(video.frames()):
                if number in wanted:
                    kept.add(number, torch.from_numpy(video.to_rgb(frame.picture)).permute(2, 0, 1))
                if number == last:
                    return kept.in_order(), metadata
        raise ValueError(f"{self.name} gave {len(times)} frames at first and fewer when it was read again.")

    def read_with_decord(self) -> tuple[list[torch.Tensor], TimedVideoMetadata]:
        try:
            import decord
        except ImportError as error:
            raise ImportError("`video_backend='decord'` needs decord: pip install decord.") from error
        plan = self._find_plan()
        with self._open() as video:
            refused = self._why_not_decord(video, plan)
            if refused or plan is None or not isinstance(video, VideoFile):
                raise ValueError(f"{self.name}: decord does not read it rightly, as {refused}: use 'pyav'.")
            times = (plan.pts - plan.pts[0]) * float(video.time_base)
            indices, metadata = self._choose(video, times, "decord")
            size = (video.height, video.width)
        unique = np.unique(indices)
        try:
            reader = decord.VideoReader(os.fspath(self.file))
            if len(reader) != len(times):
                raise ValueError(f"it counts {len(reader)} frames, and there are {len(times)}")
            frames = reader.get_batch(unique).asnumpy()
            if frames.shape[1:3] != size:
                raise ValueError(f"it gives frames of {frames.shape[2]}x{frames.shape[1]} pixels")
        except Exception as error:  # decord's errors share no base class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ValueError(f"{self.name} could not be decoded by decord, use 'pyav': {reason}") from error
        kept = _Kept(indices, self.name)
        for index, frame in zip(unique, torch.from_numpy(frames).permute(0, 3, 1, 2), strict=True):
            kept.add(int(index), frame)
        return kept.in_order(), metadata

    def _why_not_decord(self, video: Any, plan: _Plan | None) -> str | None:
        """What of a file decord gets wrong, or waits for without an end."""
        if isinstance(self.file, bytes):
            return "it has no file of its own"
        if plan is None:
            return "it is damaged, or its packets don't tell its frames' times"
        if plan.container not in _INDEXED:
            return f"it seeks wrongly in {plan.container}"
        if plan.has_edits:
            return "an edit list leaves frames out"
        if plan.has_open_groups:
            return "it loses frames at key frames that others are shown before"
        if video.stream.frames not in (0, len(plan.pts)):
            return "its header states another number of frames"
        if video.aspect != 1:
            return "its pixels are not square"
        if video.matrix is not None and round(float(np.linalg.det(video.matrix))) < 0:
            return "it is mirrored"
        return None


def spread_evenly(metadata: VideoMetadata, num_frames: int) -> np.ndarray:
    """
    Frames that are spread evenly over the time of a video, its first and its last one included.

    Args:
        metadata (`VideoMetadata`): Its `frame_times` are minded if it has them; a gap of more than two seconds counts
            as two, as it holds nothing to be seen. Without them, frames are taken to follow each other evenly.
        num_frames (`int`): Frames of the clip.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: ascending indices. Where there are fewer frames, every frame is taken
        once and the last one repeated.

    Raises:
        ValueError: if the video has no frames, or `num_frames` is less than 1.
        TypeError: if it is no whole number.
    """
    check_num_frames(num_frames)
    times = getattr(metadata, "frame_times", None)
    total = metadata.total_num_frames
    if times is None or total <= num_frames:
        return sample_frame_indices(total, num_frames)
    times = np.concatenate([[0.0], np.cumsum(np.minimum(np.diff(times), LONGEST_FRAME))])
    # in frames, so that an even rate gives what counting gives
    places = np.interp(np.linspace(0, times[-1], num_frames), times, np.arange(total))
    return np.round(places.round(6)).astype(np.int64)


def window_at_rate(metadata: VideoMetadata, num_frames: int, fps: float) -> np.ndarray:
    """
    A window from the middle of a video, `fps` frames a second; each is the frame whose time is nearest.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: ascending indices; the last frame is repeated where the video is
        shorter.

    Raises:
        ValueError: if the video has no frames, `num_frames` or `fps` is not positive, or the frames' times are not
            known.
        TypeError: if `num_frames` is no whole number.
    """
    check_num_frames(num_frames)
    if metadata.total_num_frames < 1:
        raise ValueError("The video has no frames.")
    if not 0 < fps < np.inf:
        raise ValueError(f"`fps` must be positive and finite, got {fps}.")
    times = getattr(metadata, "frame_times", None)
    if times is None:
        if metadata.fps is None or not 0 < metadata.fps < np.inf:
            raise ValueError(
                "`fps` needs the video's own frame rate, which frames and folders don't have: pass `video_metadata` "
                "with `fps`, or use `frame_stride`."
            )
        times = np.arange(metadata.total_num_frames) / metadata.fps
    free = max(0.0, times[-1] - times[0] - (num_frames - 1) / fps)
    start = times[np.searchsorted(times, times[0] + free / 2 + 1e-6, side="right") - 1]
    wanted = start + np.arange(num_frames) / fps
    after = np.searchsorted(times, wanted).clip(1, max(1, len(times) - 1))
    after = np.minimum(after, len(times) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(wanted - times[before] <= times[after] - wanted + 1e-6, before, after)


__all__ = ["TimedVideoMetadata", "check_video", "read_video", "spread_evenly", "window_at_rate"]
