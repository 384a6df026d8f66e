"""Follows faces through the frames of a video: detections on every k-th frame become smooth tracks."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

try:
    import cv2
    from scipy.ndimage import gaussian_filter
    from scipy.optimize import linear_sum_assignment
except ImportError:  # both come with face-alignment
    cv2 = gaussian_filter = linear_sum_assignment = None  # type: ignore[assignment]  # where they are, modules

# Between two frames is a cut if their pixels differ by so many grey levels and, quarter by quarter, their colours have
# less than that in common. A moving camera changes the pixels as much as a cut does, but the colours far less.
CUT_DIFFERENCE, CUT_LIKENESS = 20.0, 0.65
# A face may be this many of its sides away from where it was expected, and as many more for each second that passed.
MAX_DISTANCE, MAX_SPEED, MAX_REACH = 0.5, 1.5, 2.5
# Faces that differ more than this in size or colours are not the same one.
MAX_SIZE_RATIO = 1.8
MIN_LIKENESS = 0.35


@dataclass
class FollowedFace:
    """
    A face in one frame.

    Args:
        track (`int`): Number of its track, from 0.
        center (`np.ndarray` of shape `(2,)`): x and y of the middle, in pixels, smoothed over time.
        side (`float`): The longer side of its box, in pixels, smoothed.
        angle (`float`): Degrees by which the face is turned in the picture, clockwise, smoothed.
        is_last (`bool`): Whether this is the track's last frame.
    """

    track: int
    center: np.ndarray
    side: float
    angle: float
    is_last: bool


@dataclass
class FollowedFrame:
    """A frame with its time in seconds, its faces, and whether there is a cut right before it."""

    time: float
    frame: np.ndarray
    faces: list[FollowedFace]
    after_cut: bool


@dataclass
class _Track:
    number: int
    # per detection: time, x, y, logarithm of the side, angle (NaN where unknown)
    observations: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    look: np.ndarray | None = None

    @property
    def first(self) -> float:
        return self.observations[0][0]

    @property
    def last(self) -> float:
        return self.observations[-1][0]

    def expected(self, time: float) -> tuple[np.ndarray, float]:
        """Middle and side at a time after the last detection, if half of the latest movement goes on."""
        latest = np.array(self.observations[-1])
        center = latest[1:3]
        if len(self.observations) > 1:
            before = np.array(self.observations[-2])
            center = center + 0.5 * (latest[1:3] - before[1:3]) / (latest[0] - before[0]) * (time - latest[0])
        return center, float(np.exp(latest[3]))


class FaceFollower:
    """
    Finds and follows the faces of a stream of frames, with a bounded delay and in constant memory.

    Faces are detected on every `detect_every`-th frame and on both sides of a cut. Detections are linked to tracks by
    the assignment (`scipy.optimize.linear_sum_assignment`) of least distance, change of size and change of colours;
    one that is too far from where a face was expected, or looks too different, starts a track of its own. A track ends
    with a cut, and where its face has not been found for `max_gap` seconds; shorter gaps are bridged.

    Positions between and at the detections are those of straight lines fitted to the detections nearby, weighted by a
    Gaussian in time: they don't jump, and don't lag behind a steady movement.

    Args:
        detect (`Callable`): From a list of RGB frames to their faces, as [`FaceDetector`] gives them.
        detect_every (`int`): Frames from one detection to the next.
        max_gap (`float`): Seconds.
        smoothing (`float`): Standard deviation of the Gaussian, in seconds.
        find_angles (`Callable`, *optional*): From a frame and its boxes `(num_faces, 4)` to the faces' angles
            `(num_faces,)` in degrees, clockwise, NaN where unknown. Without it all are 0.

    Raises:
        ValueError: if `detect_every` is below 1, or `max_gap` or `smoothing` negative.
    """

    def __init__(
        self,
        detect: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
        detect_every: int = 2,
        max_gap: float = 1.0,
        smoothing: float = 0.2,
        find_angles: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ):
        if detect_every < 1:
            raise ValueError(f"`detect_every` must be at least 1, got {detect_every}.")
        if max_gap < 0 or smoothing < 0:
            raise ValueError(f"`max_gap` and `smoothing` must not be negative, got {max_gap} and {smoothing}.")
        self.detect = detect
        self.detect_every = detect_every
        self.max_gap = max_gap
        self.smoothing = smoothing
        self.find_angles = find_angles
        self._num_tracks = 0
        self._tracks: list[_Track] = []
        self._waiting: deque[tuple[float, np.ndarray, bool]] = deque()
        self._small: np.ndarray | None = None
        self._since_detection = 0
        self._detected_at = -np.inf

    def add(self, time: float, frame: np.ndarray, after_cut: bool = False) -> list[FollowedFrame]:
        """
        Takes the next frame, RGB `(height, width, 3)`, uint8, at a time in seconds.

        Args:
            after_cut (`bool`): Whether it is known to follow a cut; others are noticed by their pixels.

        Returns:
            `list[FollowedFrame]`: the frames whose faces are certain by now, in order.
        """
        done = []
        step = max(1, min(frame.shape[:2]) // 180)  # some pixels of each area are enough, and sooner averaged
        small = cv2.resize(np.ascontiguousarray(frame[::step, ::step]), (64, 36), interpolation=cv2.INTER_AREA)
        is_cut = self._small is not None and (after_cut or is_cut_between(self._small, small))
        self._small = small
        if is_cut:
            done = self._end_shot()
        self._waiting.append((time, frame, is_cut))
        self._since_detection += 1
        if is_cut or self._since_detection >= self.detect_every or self._detected_at == -np.inf:
            self._look(time, frame)
        # the latest detection's own frame waits: only the next one tells whether a track ends there
        until = self._detected_at - self.max_gap - 2 * self.smoothing
        return done + self._release(min(until, np.nextafter(self._detected_at, -np.inf)))

    def finish(self) -> list[FollowedFrame]:
        """The frames that are left when the stream ends."""
        return self._end_shot()

    def _end_shot(self) -> list[FollowedFrame]:
        if self._waiting and self._waiting[-1][0] > self._detected_at:
            self._look(*self._waiting[-1][:2])
        done = self._release(np.inf)
        self._tracks = []
        return done

    def _look(self, time: float, frame: np.ndarray) -> None:
        """Detects the faces of a frame and links them to the tracks."""
        self._since_detection = 0
        before, self._detected_at = self._detected_at, time
        faces = self.detect([frame])[0]
        centers = (faces[:, 0:2] + faces[:, 2:4]) / 2
        sides = (faces[:, 2:4] - faces[:, 0:2]).max(axis=1)
        looks = [colour_histogram(frame, face) for face in faces]
        angles = np.zeros(len(faces))
        if self.find_angles is not None and len(faces):
            angles = self.find_angles(frame, faces[:, :4])
        # a face that was found the last time has no gap, however rare detections are; times are rounded
        tracks = [track for track in self._tracks if track.last == before or time - track.last <= self.max_gap + 1e-6]
        linked = self._link(tracks, time, centers, sides, looks)
        for i in range(len(faces)):
            track = linked.get(i)
            if track is None:
                track = _Track(self._num_tracks)
                self._num_tracks += 1
                self._tracks.append(track)
            track.observations.append((time, *centers[i].tolist(), float(np.log(sides[i])), float(angles[i])))
            track.look = looks[i] if track.look is None else 0.7 * track.look + 0.3 * looks[i]

    def _link(
        self, tracks: list[_Track], time: float, centers: np.ndarray, sides: np.ndarray, looks: list[np.ndarray]
    ) -> dict[int, _Track]:
        """The tracks that some of the faces belong to."""
        forbidden = 1e6
        costs = np.full((len(sides), len(tracks)), forbidden)
        for j, track in enumerate(tracks):
            center, side = track.expected(time)
            reach = min(MAX_DISTANCE + MAX_SPEED * (time - track.last), MAX_REACH)
            distances = np.linalg.norm(centers - center, axis=1) / ((sides + side) / 2)
            ratios = np.abs(np.log(sides / side))
            own = cast(np.ndarray, track.look)  # since its first detection
            likeness = np.array([np.minimum(look, own).sum() for look in looks])
            allowed = (distances <= reach) & (ratios <= np.log(MAX_SIZE_RATIO)) & (likeness >= MIN_LIKENESS)
            costs[allowed, j] = (distances + ratios + (1 - likeness))[allowed]
        rows, columns = linear_sum_assignment(costs)
        return {int(i): tracks[j] for i, j in zip(rows, columns, strict=True) if costs[i, j] < forbidden}

    def _release(self, until: float) -> list[FollowedFrame]:
        done = []
        while self._waiting and self._waiting[0][0] <= until:
            time, frame, after_cut = self._waiting.popleft()
            following = self._waiting[0][0] if self._waiting else np.inf
            faces = []
            for track in self._tracks:
                if track.first <= time <= track.last:
                    center, side, angle = self._position(track, time)
                    faces.append(FollowedFace(track.number, center, side, angle, is_last=following > track.last))
            done.append(FollowedFrame(time, frame, faces, after_cut))
        if done:
            # what lies behind is needed for smoothing only
            past = done[-1].time - 3 * max(self.smoothing, self.max_gap)
            self._tracks = [track for track in self._tracks if track.last > done[-1].time]
            for track in self._tracks:
                while len(track.observations) > 2 and track.observations[1][0] < past:
                    *_, angle = track.observations.pop(0)
                    if np.isnan(track.observations[0][-1]):  # the latest known one lasts
                        track.observations[0] = (*track.observations[0][:-1], angle)
        return done

    def _position(self, track: _Track, time: float) -> tuple[np.ndarray, float, float]:
        observations = np.array(track.observations)
        x, y, log_side, angle = (
            _smooth_value(observations[:, 0], observations[:, i], time, self.smoothing) for i in range(1, 5)
        )
        return np.array([x, y]), float(np.exp(log_side)), angle


def is_cut_between(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two frames of one size, small and RGB `(height, width, 3)`, uint8, belong to different shots."""
    if float(cv2.absdiff(before, after).mean()) <= CUT_DIFFERENCE:
        return False
    middle_y, middle_x = before.shape[0] // 2, before.shape[1] // 2
    quarters = [
        np.s_[rows, columns]
        for rows in (slice(None, middle_y), slice(middle_y, None))
        for columns in (slice(None, middle_x), slice(middle_x, None))
    ]
    likeness = [np.minimum(_histogram(before[part]), _histogram(after[part])).sum() for part in quarters]
    return float(np.mean(likeness)) < CUT_LIKENESS


def _smooth_value(times: np.ndarray, values: np.ndarray, time: float, width: float) -> float:
    """A series' smoothed value at a time; unknown ones, NaN, are left out, and 0 is returned if all of them are."""
    known = np.isfinite(values)
    if not known.any():
        return 0.0
    times, values = times[known], values[known]
    near = np.abs(times - time) <= max(2 * width, 1e-6)
    # at least the ones right before and after
    near[max(0, int(np.searchsorted(times, time, side="right")) - 1)] = True
    near[min(len(times) - 1, int(np.searchsorted(times, time, side="left")))] = True
    return _local_line(times[near], values[near], time, width)


def _local_line(times: np.ndarray, values: np.ndarray, time: float, width: float) -> float:
    """Where a straight line, fitted to values with Gaussian weights around a time, passes that time."""
    offsets = times - time
    # the nearest ones weigh as much as anything, so that no weight vanishes in a gap
    width = max(width, float(np.abs(offsets).min()), 1e-6)
    weights = np.exp(-0.5 * (offsets / width) ** 2)
    weights /= weights.sum()
    mean_offset, mean = weights @ offsets, weights @ values
    spread = weights @ (offsets - mean_offset) ** 2
    if spread < 1e-12:
        return float(mean)
    slope = weights @ ((offsets - mean_offset) * (values - mean)) / spread
    # no further out than the values themselves: a line may not run away beyond them
    return float(np.clip(mean - slope * mean_offset, values.min(), values.max()))


def colour_histogram(frame: np.ndarray, face: Sequence[float]) -> np.ndarray:
    """Histogram of the colours in a face's box (x1, y1, x2, y2, ...), `(216,)`, which sums up to 1."""
    height, width = frame.shape[:2]
    x1, y1 = (int(np.clip(value, 0, limit - 1)) for value, limit in zip(face[:2], (width, height), strict=True))
    x2, y2 = (int(np.clip(value, low + 1, limit)) for value, low, limit in
              zip(face[2:4], (x1, y1), (width, height), strict=True))  # fmt: skip
    patch = cv2.resize(np.ascontiguousarray(frame[y1:y2, x1:x2]), (32, 32), interpolation=cv2.INTER_AREA)
    return _histogram(patch)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    histogram = cv2.calcHist([np.ascontiguousarray(pixels)], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3)
    # neighbouring bins share, so that a slight change of light is a slight change here
    histogram = gaussian_filter(histogram, sigma=0.7, mode="nearest").ravel()
    return histogram / max(float(histogram.sum()), 1e-9)


__all__ = ["FaceFollower", "FollowedFace", "FollowedFrame", "colour_histogram", "is_cut_between"]
