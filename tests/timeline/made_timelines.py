"""Timelines whose content a test knows."""

from collections.abc import Sequence

import numpy as np
import skimage.data
import skimage.transform

from s2d_hf.labels import LABELS
from s2d_hf.timeline import FaceTimeline, VideoTimeline
from s2d_hf.timeline.annotation import FramePainter
from s2d_hf.timeline.results import find_segments

# x1, y1, x2, y2 of the square around the astronaut's face, 512x512
ASTRONAUT_BOX = (158, 54, 288, 184)
SURE = np.tile([0.5, 0.04, 0.24, 0.12, 0.05, 0.03, 0.02], (10, 1))  # of the labels of DFEW: "happy" above all


def smooth_scores(num_windows: int, num_labels: int, seed: int = 0, change: float = 0.35) -> np.ndarray:
    """Probabilities `(num_windows, num_labels)` that wander as those of a face do."""
    random = np.random.default_rng(seed)
    logits = np.zeros((num_windows, num_labels))
    state = random.normal(size=num_labels)
    for window in range(num_windows):
        state = 0.985 * state + change * random.normal(size=num_labels)
        logits[window] = state
    kernel = np.hanning(7)[1:-1] / np.hanning(7).sum()
    padded = np.pad(1.4 * logits, ((2, 2), (0, 0)), mode="edge")
    logits = np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def astronaut_thumbnails(times: Sequence[float], size: int = 64) -> list[tuple[float, np.ndarray]]:
    """Crops of a real face that drift and grow darker and brighter a little."""
    picture = skimage.data.astronaut()
    x1, y1, x2, y2 = ASTRONAUT_BOX
    thumbnails = []
    for number, time in enumerate(times):
        drift = round(8 * np.sin(number / 2))
        crop = picture[y1:y2, x1 + drift : x2 + drift] * (0.9 + 0.1 * np.sin(number))
        small = skimage.transform.resize(crop, (size, size), anti_aliasing=True, preserve_range=True)
        thumbnails.append((float(time), small.round().clip(0, 255).astype(np.uint8)))
    return thumbnails


def made_face(
    track: int = 1,
    start: float = 0.0,
    end: float = 10.0,
    labels: Sequence[str] = LABELS["DFEW"],
    num_windows: int | None = None,
    scores: np.ndarray | None = None,
    box: Sequence[float] = ASTRONAUT_BOX,
    movement: Sequence[float] = (0, 0),
    angle: float = 0.0,
    thumbnails: bool = True,
    fps: float = 8.0,
) -> FaceTimeline:
    """
    A face from `start` to `end` seconds with a window per second; its box moves by `movement` pixels (x, y) a second.
    """
    if scores is None:
        scores = smooth_scores(num_windows or max(1, round(end - start)), len(labels), seed=track)
    box_times = np.linspace(start, end, max(2, round((end - start) * fps) + 1))
    borders = np.linspace(start, end, len(scores) + 1)
    times = (borders[:-1] + borders[1:]) / 2
    return FaceTimeline(
        track=track,
        times=times,
        starts=borders[:-1],
        ends=borders[1:],
        scores=scores,
        segments=find_segments(times, scores, labels, start, end),
        box_times=box_times,
        boxes=np.array(box, dtype=float) + np.outer(box_times - start, [*movement, *movement]),
        angles=np.full(len(box_times), float(angle)),
        thumbnails=astronaut_thumbnails(np.linspace(start, end, min(40, 1 + int(end - start)))) if thumbnails else [],
    )


def made_timeline(
    *faces: FaceTimeline,
    duration: float = 10.0,
    labels: Sequence[str] = LABELS["DFEW"],
    source: str = "video.mp4",
    size: tuple[int, int] = (512, 512),
    cuts: Sequence[float] = (),
) -> VideoTimeline:
    """The timeline of a video of `size` (width, height) with these faces."""
    return VideoTimeline(source, tuple(labels), duration, *size, 8.0, list(faces), list(cuts))


def sure_timeline(*boxes: tuple[float, ...], size: tuple[int, int] = (640, 360), **options) -> VideoTimeline:
    """A timeline of faces that are happy for `end` = 10 seconds."""
    faces = [made_face(i + 1, scores=SURE, box=box, thumbnails=False, **options) for i, box in enumerate(boxes)]
    return made_timeline(*faces, size=size)


def draw_on_grey(timeline: VideoTimeline, time: float = 5.0, grey: int = 128) -> np.ndarray:
    frame = np.full((timeline.height, timeline.width, 3), grey, np.uint8)
    FramePainter(timeline).draw(frame, time)
    return frame
