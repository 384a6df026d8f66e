"""A video's faces over time as users get them: tables, JSON and CSV, a picture, an annotated video."""

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..file_names_s2d import printable
from .tracks import FaceTimeline, FaceTracks, Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fields of a table beside the labels' scores.
TABLE_FIELDS = ("video", "track", "start", "time", "end", "label", "score", "segment", "x1", "y1", "x2", "y2")
FORMAT_VERSION = 1


class VideoTimeline(FaceTracks):
    """
    The faces of one video and their expressions over time: what is known of them ([`FaceTracks`]), as tables, JSON,
    a picture and an annotated video.
    """

    def to_dataframe(self) -> pd.DataFrame:
        """
        One row for each window of each track: `video`, `track`, `start`, `time` (its middle) and `end` in seconds,
        `label` (the most probable one) and its `score`, `segment` (the smoothed label), the box `x1`, `y1`, `x2`,
        `y2` at `time` in pixels, and a column of probabilities under each label's name; with `_score` behind it where
        that is one of these columns' names.

        Raises:
            ValueError: if a label repeats.
        """
        video = printable(self.source)
        rows = []
        for face in self.tracks:
            for window, time in enumerate(face.times):
                scores = face.scores[window]
                located = face.box_at(float(time))
                box = [math.nan] * 4 if located is None else located[0].tolist()
                best = int(scores.argmax())
                rows.append(
                    [video, face.track, face.starts[window], time, face.ends[window], self.labels[best],
                     scores[best], face.segment_at(float(time)).label, *box, *scores]
                )  # fmt: skip
        frame = pd.DataFrame(rows, columns=[*TABLE_FIELDS, *_score_columns(self.labels)])
        text = {"video": "str", "label": "str", "segment": "str"}
        return frame.astype({name: text.get(name, "int64" if name == "track" else "float64") for name in frame})

    def to_csv(self, path: str | os.PathLike | None = None) -> str | None:
        """Writes [`to_dataframe`] as CSV, or returns it as text."""
        frame = self.to_dataframe()
        # a lone carriage return ends a line for readers, and is not quoted otherwise
        has_return = any("\r" in name for name in (*frame["video"][:1], *self.labels))
        quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
        text = frame.to_csv(index=False, float_format="%.6g", quoting=quoting)
        return _write_or_return(text, path)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the thumbnails, in plain numbers, lists and strings."""
        return {
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "labels": list(self.labels),
            "duration": self.duration,
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "cuts": list(self.cuts),
            "damage": self.damage,
            "dtype": self.dtype,
            "tracks": [
                {
                    "track": face.track,
                    "segments": [vars(segment) for segment in face.segments],
                    "windows": {name: getattr(face, name).tolist() for name in ("times", "starts", "ends", "scores")},
                    "boxes": {name: getattr(face, name).tolist() for name in ("box_times", "boxes", "angles")},
                }
                for face in self.tracks
            ],
        }

    def to_json(self, path: str | os.PathLike | None = None) -> str | None:
        """Writes [`to_dict`] as JSON, or returns it as text; [`from_json`] reads it."""
        return _write_or_return(json.dumps(self.to_dict()), path)

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "VideoTimeline":
        """
        Reads what [`to_json`] wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no such JSON file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["format_version"] != FORMAT_VERSION:
                raise ValueError(f"its format_version is {data['format_version']}, and {FORMAT_VERSION} is known")
            tracks = [
                FaceTimeline(
                    track=item["track"],
                    segments=[Segment(**segment) for segment in item["segments"]],
                    **_arrays(item["windows"]),
                    **_arrays(item["boxes"]),
                )
                for item in data["tracks"]
            ]
            names = ("source", "duration", "width", "height", "fps", "cuts")
            known = {name: data[name] for name in names}
            known |= {name: data.get(name, "") for name in ("damage", "dtype")}  # which earlier versions don't have
            return cls(labels=tuple(data["labels"]), tracks=tracks, **known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no timeline that `to_json` wrote: {error}") from error

    def plot(self, path: str | os.PathLike | None = None) -> "Figure":
        """Draws the scores of each face over time, with thumbnails; see [`plot_timeline`]."""
        from .plotting import plot_timeline

        return plot_timeline(self, path)

    def annotate(
        self,
        path: str | os.PathLike,
        source: str | os.PathLike | None = None,
        progress: bool = True,
        on_progress: Callable[[float], None] | None = None,
    ) -> Path:
        """Writes the video with boxes, labels and bars drawn on it as MP4; see [`annotate_video`]."""
        from .annotation import annotate_video

        return annotate_video(self, path, source, progress=progress, on_progress=on_progress)


def smooth_labels(scores: np.ndarray, switch_cost: float = 1.0) -> np.ndarray:
    """
    The sequence of labels that best explains a track's scores when every change costs something (Viterbi's algorithm).

    Maximises the sum of the logarithms of the chosen labels' probabilities less `switch_cost` for every change, so
    that an expression has to be clear or to last before it counts.

    Args:
        scores (`np.ndarray` of shape `(num_windows, num_labels)`): Probabilities.
        switch_cost (`float`): In nats. 0 takes each window's most probable label.

    Returns:
        `np.ndarray` of shape `(num_windows,)`: indices of labels.

    Raises:
        ValueError: if `scores` is not two-dimensional, empty, or not finite, or `switch_cost` is negative.
    """
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(
            f"`scores` must be (num_windows, num_labels) with a window and a label at least, got {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("`scores` hold NaN or infinite values.")
    if not switch_cost >= 0:
        raise ValueError(f"`switch_cost` must not be negative, got {switch_cost}.")
    gains = np.log(np.clip(scores, 1e-9, None))
    total = gains[0]
    came_from = []
    for gain in gains[1:]:
        best = int(total.argmax())
        switched = total[best] - switch_cost
        came_from.append(np.where(switched > total, best, np.arange(len(total))))
        total = np.maximum(total, switched) + gain
    path = [int(total.argmax())]
    for origin in reversed(came_from):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


def find_segments(
    times: np.ndarray, scores: np.ndarray, labels: Sequence[str], start: float, end: float, switch_cost: float = 1.0
) -> list[Segment]:
    """
    The segments of a track, which cover it from `start` to `end` without gaps.

    Where the smoothed label changes between two windows, the segment ends halfway between their middles.

    Args:
        times (`np.ndarray` of shape `(num_windows,)`): Middles of the windows, in seconds, ascending.
        scores (`np.ndarray` of shape `(num_windows, num_labels)`): Probabilities.
        labels (`Sequence[str]`): Names of the labels.
        start (`float`), end (`float`): Of the track, in seconds.
        switch_cost (`float`): See [`smooth_labels`].

    Raises:
        ValueError: see [`smooth_labels`]; if lengths don't fit, or `times` don't ascend from `start` to `end`.
    """
    path = smooth_labels(scores, switch_cost)
    if times.shape != scores.shape[:1] or len(labels) != scores.shape[1]:
        raise ValueError(
            f"`scores` of shape {scores.shape} need a time each row and a label each column, got `times` of shape "
            f"{times.shape} and {len(labels)} `labels`."
        )
    if not (np.diff([start, *times, end]) >= 0).all():
        raise ValueError(f"`times` must ascend from `start` ({start:g}) to `end` ({end:g}).")
    changes = np.flatnonzero(np.diff(path)) + 1
    firsts = [0, *changes.tolist()]
    lasts = [*changes.tolist(), len(path)]
    borders = [start, *((times[changes - 1] + times[changes]) / 2).tolist(), end]
    return [
        Segment(
            label=labels[path[first]],
            start=float(borders[i]),
            end=float(borders[i + 1]),
            score=float(scores[first:last, path[first]].mean()),
        )
        for i, (first, last) in enumerate(zip(firsts, lasts, strict=True))
    ]


def _score_columns(labels: Sequence[str]) -> list[str]:
    """A name for each label's column of scores, none of them another column's."""
    if len(set(labels)) < len(labels):
        raise ValueError(f"The labels of a table's columns must differ from each other, got {list(labels)}.")
    names: list[str] = []
    for label in labels:
        name = label
        while name in TABLE_FIELDS or name in names or (name != label and name in labels):
            name += "_score"
        names.append(name)
    return names


def _write_or_return(text: str, path: str | os.PathLike | None) -> str | None:
    if path is None:
        return text
    Path(path).write_text(text, encoding="utf-8")
    return None


def _arrays(lists: dict[str, list]) -> dict[str, Any]:
    return {name: np.array(values, dtype=float) for name, values in lists.items()}
