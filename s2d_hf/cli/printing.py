"""What `s2d-hf predict` prints of its results: JSON lines for programs, tables for people."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..texts_s2d import clock, count_of, visible

if TYPE_CHECKING:
    from ..timeline import Segment, VideoTimeline, WindowScores


class JsonLines:
    """A line of JSON for each window as soon as it is known, and for each video at its end."""

    def window(self, video: str, labels: Sequence[str], window: "WindowScores") -> None:
        scores = dict(zip(labels, _rounded(window.scores), strict=True))
        _print_json(
            {
                "event": "scores",
                "video": video,
                "track": window.track,
                "start": round(window.start, 3),
                "end": round(window.end, 3),
                "label": max(scores, key=scores.__getitem__),
                "scores": scores,
            }
        )

    def video(self, video: str, timeline: "VideoTimeline") -> None:
        tracks = [
            {
                "track": face.track,
                "start": round(face.start, 3),
                "end": round(face.end, 3),
                "scores": dict(zip(timeline.labels, _rounded(face.mean_scores), strict=True)),
                "segments": [_segment(segment) for segment in face.segments],
            }
            for face in timeline.tracks
        ]
        line = {"event": "video", "video": video, "duration": round(timeline.duration, 3), "tracks": tracks}
        _print_json(line | {"cuts": _rounded(timeline.cuts, 3), "damage": timeline.damage, "dtype": timeline.dtype})

    def error(self, video: str, error: Exception) -> None:
        _print_json({"event": "error", "video": video, "error": str(error)})


class Tables:
    """A table for each person; a camera's windows are printed as they come."""

    def __init__(self, is_live: bool = False):
        self.is_live = is_live

    def window(self, video: str, labels: Sequence[str], window: "WindowScores") -> None:
        if self.is_live:
            best = int(window.scores.argmax())
            print(f"{clock(window.end)}  face {window.track}  {labels[best]} {window.scores[best]:.0%}", flush=True)

    def video(self, video: str, timeline: "VideoTimeline") -> None:
        count = len(timeline.tracks)
        found = count_of(count, "face") if count else "no face was found"
        print(f"{visible(video)}: {clock(timeline.duration)}, {found}")
        width = max(10, *(len(label) for label in timeline.labels))
        for face in timeline.tracks:
            print(f"\nface {face.track}")
            print(f"  {'from':>9}  {'to':>9}  {'expression':{width}}  confidence")
            for part in face.segments:
                print(f"  {clock(part.start):>9}  {clock(part.end):>9}  {part.label:{width}}  {part.score:>10.0%}")
        print(flush=True)

    def error(self, video: str, error: Exception) -> None:
        """Errors go to stderr, once."""


def _segment(segment: "Segment") -> dict[str, Any]:
    return {
        "label": segment.label,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "score": round(segment.score, 4),
    }


def _rounded(values: Any, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]


def _print_json(line: dict[str, Any]) -> None:
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # JSON has a way to write what this output can't
        text = json.dumps(line)
    print(text, flush=True)


__all__ = ["JsonLines", "Tables"]
