"""What is known of a video's faces over time: tracks, their windows' scores, boxes and segments."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Segment:
    """
    A stretch of time over which one expression prevails.

    Args:
        label (`str`): The expression.
        start (`float`), end (`float`): In seconds of the video.
        score (`float`): The label's mean probability over the windows of the segment.
    """

    label: str
    start: float
    end: float
    score: float


@dataclass
class FaceTimeline:
    """
    One track: a face from where it appears to where it leaves or the scene is cut.

    A person who leaves and returns has two tracks.

    Args:
        track (`int`): Its number, from 1 in the order of appearance.
        times (`np.ndarray` of shape `(num_windows,)`): Middle of each window, in seconds.
        starts (`np.ndarray` of shape `(num_windows,)`), ends (same): Times of each window's first and last frame.
        scores (`np.ndarray` of shape `(num_windows, num_labels)`): Probabilities of the labels.
        segments (`list[Segment]`): Smoothed labels; they cover the track from its first to its last frame.
        box_times (`np.ndarray` of shape `(num_boxes,)`): Times of the boxes, in seconds, ascending.
        boxes (`np.ndarray` of shape `(num_boxes, 4)`): x1, y1, x2, y2 of the smoothed squares that were cropped, in
            pixels of the upright video; they may reach over its edges.
        angles (`np.ndarray` of shape `(num_boxes,)`): Degrees by which each square is turned about its middle,
            clockwise on the screen, to follow the line of the eyes.
        thumbnails (`list[tuple[float, np.ndarray]]`): Times and small crops `(height, width, 3)`, uint8 RGB.
    """

    track: int
    times: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    segments: list[Segment]
    box_times: np.ndarray
    boxes: np.ndarray
    angles: np.ndarray
    thumbnails: list[tuple[float, np.ndarray]] = field(default_factory=list)

    @property
    def start(self) -> float:
        """Time of the first frame, in seconds."""
        return float(self.box_times[0])

    @property
    def end(self) -> float:
        """Time of the last frame, in seconds."""
        return float(self.box_times[-1])

    @property
    def mean_scores(self) -> np.ndarray:
        """Probabilities of the labels, averaged over the windows: `(num_labels,)`."""
        return self.scores.mean(axis=0)

    def box_at(self, time: float) -> tuple[np.ndarray, float] | None:
        """
        The square `(x1, y1, x2, y2)` and its angle at a time, linearly between the known ones; `None` before the
        track's first and after its last frame.
        """
        if not self.start <= time <= self.end:
            return None
        box = np.array([np.interp(time, self.box_times, side) for side in self.boxes.T])
        return box, float(np.interp(time, self.box_times, self.angles))

    def scores_at(self, time: float) -> np.ndarray:
        """Probabilities of the labels at a time, linearly between the windows' middles: `(num_labels,)`."""
        return np.array([np.interp(time, self.times, column) for column in self.scores.T])

    def segment_at(self, time: float) -> Segment:
        """The segment that a time falls into; the first one before, and the last one after the track."""
        return next((segment for segment in self.segments if time < segment.end), self.segments[-1])


@dataclass
class FaceTracks:
    """
    The faces of one video and their expressions over time.

    Args:
        source (`str`): The video.
        labels (`tuple[str, ...]`): Names of the score columns.
        duration (`float`): Seconds of video that were looked at.
        width (`int`), height (`int`): Of the upright frames, in pixels.
        fps (`float`): Frames a second that were sampled.
        tracks (`list[FaceTimeline]`): Empty where no face was found.
        cuts (`list[float]`): Times of the first frames after cuts, in seconds.
        damage (`str`): What of the video was lost or found broken; empty if nothing was.
        dtype (`str`): What the model computed in, such as `"bfloat16"`; empty where it isn't known.
    """

    source: str
    labels: tuple[str, ...]
    duration: float
    width: int
    height: int
    fps: float
    tracks: list[FaceTimeline]
    cuts: list[float] = field(default_factory=list)
    damage: str = ""
    dtype: str = ""


__all__ = ["FaceTimeline", "FaceTracks", "Segment"]
