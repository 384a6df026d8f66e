"""From a long raw video to the expressions of its faces over time, in constant memory."""

import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..errors import NotDownloadedError
from ..face_cropping_s2d import crop_square
from ..face_detection_s2d import FACE_DETECTORS, detector_download
from ..face_tracking_s2d import FaceFollower, FollowedFace, FollowedFrame
from ..fast_cpu import packed_weights, use_fast_cpu
from ..int8_linear import Int8Linear, use_int8
from ..labels import label_names
from ..model_loading import check_model_type, errors_named, load_whole_model
from ..model_sources import DEFAULT_MODEL, find_model
from ..modeling_s2d import S2DForVideoClassification
from ..precision import default_device, find_precision
from ..video_files_s2d import VideoSource
from ..video_processing_s2d import S2DVideoProcessor
from .read_ahead import read_ahead
from .results import FaceTimeline, VideoTimeline, find_segments
from .scoring import FaceCrop, WindowScorer
from .streaming import CameraStream, open_stream, sample_evenly

# Of each track: so many at most, not closer than that, in seconds, and of so many pixels along an edge. A film has
# hundreds of tracks.
MAX_THUMBNAILS, THUMBNAIL_INTERVAL, THUMBNAIL_SIZE = 16, 1.0, 80

# So many frames, and of so many bytes, are decoded while the model is busy with earlier ones.
FRAMES_AHEAD, BYTES_AHEAD = 8, 64 * 2**20

# No camera's video is faster.
MAX_FPS = 1000


@dataclass
class WindowScores:
    """
    The scores of one window of one track, as soon as they are known.

    Args:
        track (`int`): As in [`FaceTimeline`].
        start (`float`), end (`float`): Times of the window's first and last frame, in seconds.
        scores (`np.ndarray` of shape `(num_labels,)`): Probabilities.
    """

    track: int
    start: float
    end: float
    scores: np.ndarray

    @property
    def time(self) -> float:
        """Middle of the window, in seconds."""
        return (self.start + self.end) / 2


class S2DTimeline:
    """
    Finds the faces of raw videos, follows them and gives their expressions over time.

    The video is read once, at an even frame rate; faces are found on every `detect_every`-th of these frames, followed
    (see [`FaceFollower`]), cropped as the paper's clips are, and classified in overlapping windows of the model's
    16 frames. Memory doesn't grow with the video's length, except for the results themselves: scores, boxes, and some
    small pictures of each track.

    Args:
        model ([`S2DForVideoClassification`]): A video model, or an image model, which it averages over the frames.
            Its linear layers become faster on CPUs, see [`use_fast_cpu`].
        processor ([`S2DVideoProcessor`]): The model's; its face detector, margin and alignment are used.
        fps (`float`): Frames a second that are looked at. At 8, the model's 16 frames cover two seconds.
        window_stride (`int`, *optional*): Frames from the start of one window to that of the next; by default half of
            the model's, so that each frame is in two windows.
        batch_size (`int`, *optional*): Windows that go through the model at a time, over all tracks; by default 8 on a
            GPU and 1 elsewhere. A camera's windows don't wait for each other.
        detect_every (`int`): Frames from one detection to the next.
        max_gap (`float`): Seconds for which a face may go unnoticed within a track.
        min_duration (`float`): Shorter tracks are dropped, in seconds, unless the whole video is shorter.
        switch_cost (`float`): How reluctantly the segments' label changes; see [`smooth_labels`].

    Raises:
        ValueError: if an argument is out of range, or the model needs landmark features and the processor has no
            landmark encoder.

    Example:
    ```python
    analyse = S2DTimeline.from_pretrained("path/to/model", device="cuda")
    timeline = analyse("meeting.mp4")
    timeline.to_dataframe()
    timeline.plot("meeting.png")
    timeline.annotate("meeting-annotated.mp4")
    ```
    """

    def __init__(
        self,
        model: S2DForVideoClassification,
        processor: S2DVideoProcessor,
        fps: float = 8.0,
        window_stride: int | None = None,
        batch_size: int | None = None,
        detect_every: int = 2,
        max_gap: float = 1.0,
        min_duration: float = 0.5,
        switch_cost: float = 1.0,
    ):
        if not 0 < fps <= MAX_FPS:  # nor if it is not a number
            raise ValueError(f"`fps` must be positive, {MAX_FPS} at most, got {fps}.")
        for name, value in (("window_stride", window_stride), ("detect_every", detect_every)):
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        not_negative: tuple[tuple[str, float], ...] = (
            ("max_gap", max_gap),
            ("min_duration", min_duration),
            ("switch_cost", switch_cost),
        )
        for name, seconds in not_negative:
            if not seconds >= 0:
                raise ValueError(f"`{name}` must not be negative, got {seconds}.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if model.config.prompt_type != "none" and processor.landmark_encoder is None:
            raise ValueError("The model needs landmark features, and its processor has no landmark encoder.")
        self.model = use_fast_cpu(model.eval())
        self.processor = processor
        self.fps = fps
        self.window_stride = window_stride or max(1, model.config.num_frames // 2)
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else 8)
        self.detect_every = detect_every
        self.max_gap = max_gap
        self.min_duration = min_duration
        self.switch_cost = switch_cost
        self.labels = label_names(model.config)
        # Seconds that each stage of the latest video took, and "total". A GPU goes on while the next stage begins;
        # with `exact_timings`, each stage waits for it, which takes longer.
        self.timings: dict[str, float] = {}
        self.exact_timings = False

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike = DEFAULT_MODEL,
        face_detector: str | None = None,
        face_detector_weights: str | os.PathLike | None = None,
        face_margin: float | None = None,
        do_align_faces: bool | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        dataset: str | None = None,
        labels: Sequence[str] | None = None,
        landmark_weights: str | os.PathLike | None = None,
        num_attention_heads: int | None = None,
        hub_arguments: dict[str, Any] | None = None,
        **settings: Any,
    ) -> "S2DTimeline":
        """
        Loads a model with its processor, and the face detector.

        Args:
            model (`str` or `os.PathLike`): A model's folder, a name on the Hub, or an authors' checkpoint: a file or
                `hf://OWNER/REPOSITORY[@REVISION]/FILE`. By default the authors' image model, averaged over the
                frames.
            face_detector (`str`, *optional*): See [`FaceDetector`]; the processor's own by default.
            face_detector_weights (`str` or `os.PathLike`, *optional*): Path of its weights; downloaded if not given.
            face_margin (`float`, *optional*), do_align_faces (`bool`, *optional*): See [`S2DVideoProcessor`].
            device (`str` or `torch.device`, *optional*): By default a GPU if there is one.
            dtype (`str` or `torch.dtype`): What the model computes in: `"float32"`, `"bfloat16"`, `"float16"` (for
                GPUs), `"int8"` (on CPUs; see [`use_int8`]), or `"auto"`, also `None`, which is bfloat16 where the
                device multiplies it and float32 elsewhere.
            dataset (`str`, *optional*), labels (`Sequence[str]`, *optional*), landmark_weights (`str` or
                `os.PathLike`, *optional*), num_attention_heads (`int`, *optional*): Of an authors' checkpoint; see
                [`find_model`].
            hub_arguments (`dict`, *optional*): `revision`, `token` and so on.
            settings: Arguments of the constructor.

        Raises:
            FileNotFoundError, OSError, ValueError: see [`find_model`] and [`FaceDetector`].
        """
        device = _find_device(device)
        precision = find_precision(dtype, device)
        hub_arguments = hub_arguments or {}
        try:
            folder = find_model(
                model,
                dataset=dataset,
                labels=labels,
                landmark_weights=landmark_weights,
                num_attention_heads=num_attention_heads,
                revision=hub_arguments.get("revision"),
                token=hub_arguments.get("token"),
            )
        except NotDownloadedError as error:
            # whoever fetches the model will need the detector as well
            address = None if face_detector_weights else detector_download(face_detector or FACE_DETECTORS[0])
            more = {} if address is None else {"face_detector_weights": address}
            raise NotDownloadedError(error.what, error.reason, error.files | more) from None
        if folder != os.path.expanduser(model):
            hub_arguments = {}  # they were for the checkpoint
        chosen = {"face_margin": face_margin, "do_align_faces": do_align_faces, "face_detector": face_detector}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        with errors_named(model):
            check_model_type(folder, **hub_arguments)
            processor = S2DVideoProcessor.from_pretrained(
                folder, face_detector_weights=face_detector_weights, **chosen, **hub_arguments
            )
            # what is not multiplied in int8 is computed in what is best beside it
            other = find_precision("auto", device) if precision == "int8" else precision
            loaded = load_whole_model(
                S2DForVideoClassification, folder, dtype=getattr(torch, other), **hub_arguments
            ).to(device)
        if precision == "int8":
            use_int8(loaded)
        # what is wrong with it is said once, and not for each video
        processor.get_face_detector(device)
        return cls(loaded, processor, **settings)

    @property
    def device(self) -> torch.device:
        """Where the model, the detector and the landmark encoder run."""
        return torch.device(self.model.device)

    @property
    def precision(self) -> str:
        """What the model computes in: `"int8"`, or its dtype's name."""
        if any(isinstance(module, Int8Linear) for module in self.model.modules()):
            return "int8"
        return str(self.model.dtype).removeprefix("torch.")

    def __call__(
        self,
        source: str | os.PathLike | int,
        progress: bool = True,
        on_window: Callable[[WindowScores], None] | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> VideoTimeline:
        """
        Analyses a video; of a camera, until it ends or is interrupted (Ctrl-C).

        Args:
            source (`str`, `os.PathLike` or `int`): A video file, an http(s) address, or the number of a camera.
            progress (`bool`): Show a progress bar.
            on_window (`Callable`, *optional*): Called with every window's [`WindowScores`], in the order in which they
                become known.
            on_progress (`Callable`, *optional*): Called with the time of every frame that was looked at, in seconds.
                It may raise an exception, which ends the analysis. Neither may change the model meanwhile.

        Returns:
            [`VideoTimeline`]; without tracks where there is no face.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no readable video.
            OSError: if there is no such camera.
        """
        with open_stream(source) as stream, packed_weights(self.model):
            analysis = _Analysis(self, stream, on_window)
            self.timings = analysis.timings
            bar = tqdm(
                total=None if stream.duration is None else round(stream.duration, 2),
                unit="s",
                desc=os.path.basename(stream.name) or stream.name,
                disable=not progress,
                bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s of video [{elapsed}<{remaining}]"
                if stream.duration
                else "{desc}: {n:.1f} s of video [{elapsed}]",
            )
            with bar:
                try:
                    for seconds in analysis.run():
                        bar.update(max(0.0, min(seconds, bar.total or seconds) - bar.n))
                        if on_progress is not None:
                            on_progress(seconds)
                except KeyboardInterrupt:
                    if not isinstance(stream, CameraStream):
                        raise
                if bar.total:
                    bar.update(max(0.0, bar.total - bar.n))
            timeline = analysis.result()
        timeline.damage = stream.damage  # which is known once all is read
        timeline.dtype = self.precision
        return timeline


def _find_device(name: str | torch.device | None) -> torch.device:
    """
    A device; a GPU by default, if there is one.

    Raises:
        ValueError: if there is no such device.
    """
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"`device` must be cpu, cuda, cuda:1 or the like, got {str(name)!r}.") from None
    counts = {"cuda": torch.cuda.device_count, "mps": lambda: int(torch.backends.mps.is_available())}
    if device.type in counts and (device.index or 0) >= counts[device.type]():
        raise ValueError(f"`device`: PyTorch finds no {name} here. Leave it out, or take cpu.")
    return device


@dataclass
class _TrackState:
    """What is known of a track, while its face is followed and afterwards."""

    latest: deque[FaceCrop]  # as many as a window has
    number: int | None = None  # once it has lasted for long enough
    frame_times: array = field(default_factory=lambda: array("d"))
    squares: array = field(default_factory=lambda: array("d"))  # x, y, side, angle of each frame
    next_window: int = 0  # its first frame, counted from the track's first
    num_windows: int = 0
    windows: list[tuple[float, float, np.ndarray]] = field(default_factory=list)  # start, end, scores
    num_reported: int = 0
    thumbnails: list[tuple[float, np.ndarray]] = field(default_factory=list)
    thumbnail_interval: float = THUMBNAIL_INTERVAL


@dataclass
class _Window:
    state: _TrackState
    crops: list[FaceCrop]

    @property
    def times(self) -> tuple[float, float]:
        """Of the first and the last frame, in seconds."""
        return self.crops[0].time, self.crops[-1].time


class _Analysis:
    """One pass over one stream."""

    def __init__(self, settings: S2DTimeline, stream: VideoSource, on_window: Callable | None):
        self.settings = settings
        self.stream = stream
        self.on_window = on_window
        self.timings = dict.fromkeys(("decoding", "detection", "cropping", "landmarks", "model"), 0.0)
        self.started = time.perf_counter()
        processor = settings.processor
        self.length = settings.model.config.num_frames
        self.crop_size = processor.face_crop_size()
        self.batch_size = 1 if isinstance(stream, CameraStream) else settings.batch_size
        find_angles = processor.angle_finder(device=settings.device)
        self.follower = FaceFollower(
            self._timed("detection", processor.get_face_detector(settings.device)),
            detect_every=settings.detect_every,
            max_gap=settings.max_gap,
            find_angles=None if find_angles is None else self._timed("landmarks", find_angles),
        )
        self.scorer = WindowScorer(settings.model, processor, self._clock)
        self.active: dict[int, _TrackState] = {}
        self.kept: list[_TrackState] = []
        self.cuts: list[float] = []
        self.pending: list[_Window] = []
        self.first_time: float | None = None
        self.last_time = 0.0
        self.keeps_all = False

    def run(self) -> Iterator[float]:
        """Goes through the stream; yields the time of each frame that was read, in seconds."""
        frames = sample_evenly(self.stream, self.settings.fps)
        if not isinstance(self.stream, CameraStream):  # whose frames come when they come
            fitting = BYTES_AHEAD // max(1, 3 * self.stream.width * self.stream.height)
            frames = read_ahead(frames, max(1, min(FRAMES_AHEAD, fitting)))
        with closing(frames):
            while True:
                with self._clock("decoding"):
                    item = next(frames, None)
                if item is None:
                    return
                self.last_time = item.time
                if self.first_time is None:
                    self.first_time = item.time
                for followed in self.follower.add(item.time, item.pixels, item.after_cut):
                    self._take(followed)
                yield self.last_time

    def result(self) -> VideoTimeline:
        """What was found up to here."""
        # in a photograph, or a video that is shorter itself, no face lasts for longer
        self.keeps_all = self.last_time - (self.first_time or 0.0) < self.settings.min_duration
        for followed in self.follower.finish():
            self._take(followed)
        for number in list(self.active):
            self._end_track(number)
        self._classify()
        self.timings["total"] = time.perf_counter() - self.started
        stream = self.stream
        return VideoTimeline(
            source=stream.name,
            labels=self.settings.labels,
            duration=max(self.last_time, stream.seen_until),
            width=stream.width,
            height=stream.height,
            fps=self.settings.fps,
            tracks=[self._face_timeline(state) for state in self.kept if state.windows],
            cuts=self.cuts,
        )

    def _take(self, followed: FollowedFrame) -> None:
        if followed.after_cut:
            self.cuts.append(followed.time)
        for face in followed.faces:
            if face.track not in self.active:
                self.active[face.track] = _TrackState(deque(maxlen=self.length))
            self._add_face(self.active[face.track], followed, face)
            if face.is_last:
                self._end_track(face.track)

    def _add_face(self, state: _TrackState, followed: FollowedFrame, face: FollowedFace) -> None:
        side = self.settings.processor.face_square_side(face.side)
        with self._clock("cropping"):
            crop = crop_square(followed.frame, face.center, side, face.angle, self.crop_size)
        self._keep_thumbnail(state, followed.time, crop)
        state.frame_times.append(followed.time)
        state.squares.extend((*face.center, side, face.angle))
        state.latest.append(FaceCrop(followed.time, crop))
        if state.number is None and followed.time - state.frame_times[0] >= self.settings.min_duration:
            self._keep_track(state)
        if len(state.frame_times) == state.next_window + self.length:
            self._add_window(state)
            state.next_window += self.settings.window_stride

    def _keep_track(self, state: _TrackState) -> None:
        """A track that has lasted for long enough, or as long as the video."""
        if state.number is None:
            self.kept.append(state)
            state.number = len(self.kept)
            self._report(state)

    def _end_track(self, number: int) -> None:
        state = self.active.pop(number)
        if self.keeps_all:
            self._keep_track(state)
        if state.number is not None:
            covered = state.next_window + self.length - self.settings.window_stride
            uncovered = len(state.frame_times) - covered
            if state.num_windows == 0 or uncovered >= max(1, self.settings.window_stride // 2):
                self._add_window(state)
        state.latest.clear()

    def _add_window(self, state: _TrackState) -> None:
        """The latest frames of a track as a window; the last one is repeated where there are too few."""
        crops = list(state.latest)
        crops += crops[-1:] * (self.length - len(crops))
        self.pending.append(_Window(state, crops))
        state.num_windows += 1
        if len(self.pending) >= self.batch_size:
            self._classify()

    def _classify(self) -> None:
        if not self.pending:
            return
        windows, self.pending = self.pending, []
        scores = self.scorer([window.crops for window in windows])
        if not np.isfinite(scores).all():
            start, precision = windows[0].times[0], self.settings.precision
            raise ValueError(
                f"The model's scores from {start:.2f} s on are NaN: its weights are broken, or too large for "
                f"{precision}; float32 would tell."
            )
        for window, row in zip(windows, scores, strict=True):
            window.state.windows.append((*window.times, row))
            self._report(window.state)

    def _report(self, state: _TrackState) -> None:
        """Hands out the windows of a track that is known to last."""
        if self.on_window is None or state.number is None:
            return
        for start, end, scores in state.windows[state.num_reported :]:
            self.on_window(WindowScores(state.number, start, end, scores))
        state.num_reported = len(state.windows)

    def _keep_thumbnail(self, state: _TrackState, seconds: float, crop: np.ndarray) -> None:
        """A bounded number of small crops, evenly spread over the track so far."""
        if state.thumbnails and seconds - state.thumbnails[-1][0] < state.thumbnail_interval:
            return
        small = cv2.resize(crop, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA)
        state.thumbnails.append((seconds, small))
        if len(state.thumbnails) > MAX_THUMBNAILS:
            state.thumbnails = state.thumbnails[::2]
            state.thumbnail_interval *= 2

    def _face_timeline(self, state: _TrackState) -> FaceTimeline:
        starts, ends = (np.array([window[i] for window in state.windows]) for i in range(2))
        scores = np.stack([window[2] for window in state.windows])
        squares = np.array(state.squares).reshape(-1, 4)
        centers, half = squares[:, :2], squares[:, 2:3] / 2
        box_times = np.array(state.frame_times)
        times = (starts + ends) / 2
        first, last = float(box_times[0]), float(box_times[-1])
        return FaceTimeline(
            track=cast(int, state.number),  # which those that are kept have
            times=times,
            starts=starts,
            ends=ends,
            scores=scores,
            segments=find_segments(times, scores, self.settings.labels, first, last, self.settings.switch_cost),
            box_times=box_times,
            boxes=np.concatenate([centers - half, centers + half], axis=1),
            angles=squares[:, 3],
            thumbnails=state.thumbnails,
        )

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.settings.exact_timings and self.settings.device.type == "cuda":
            torch.cuda.synchronize(self.settings.device)
        self.timings[stage] += time.perf_counter() - start

    def _timed(self, stage: str, function: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            with self._clock(stage):
                return function(*arguments)

        return call


__all__ = ["S2DTimeline", "WindowScores"]
