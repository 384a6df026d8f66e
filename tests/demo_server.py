"""
Serves the demo page with a stand-in for the analyser, for tests: `python -m tests.demo_server PORT LOG [LIMITS]`.

LOG gets a line for every host that the process asks for or connects to. LIMITS are the page's, as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from s2d_hf.demo import serve_demo
from s2d_hf.demo.limits import PageLimits
from s2d_hf.timeline import FaceTimeline, Segment, VideoTimeline

from .videos import write_video

LABELS = ("happy", "sad", "neutral", "<u>awe</u>")
FIRST_SCORES = np.array([[0.7, 0.1, 0.15, 0.05], [0.5, 0.1, 0.35, 0.05], [0.2, 0.05, 0.7, 0.05], [0, 0.05, 0.85, 0.1]])
SECOND_SCORES = np.array([[0.02, 0.8, 0.08, 0.1], [0.02, 0.6, 0.08, 0.3]])
PLOT_SIZE = (1950, 720)
MODEL_NAME = "someone/<b>small</b>&amp;${1 + 1}"
SLOW_SECONDS = 30.0


class StandInTimeline(VideoTimeline):
    """Draws quickly: a grey plot, and the video with a green bar on its left."""

    def plot(self, path: Path | None = None) -> None:
        Image.new("RGB", PLOT_SIZE, "lightgrey").save(path)

    def annotate(
        self,
        path: Path,
        source: str | None = None,
        progress: bool = True,
        on_progress: Callable[[float], None] | None = None,
    ) -> Path:
        frames, fps = read_frames(source)
        on_progress(0.0)
        for frame in frames:
            frame[:, :8] = (0, 255, 0)
        return write_video(path, frames, round(fps))


class StandInAnalyser:
    """Finds two faces in every video but in black ones; is slow, hangs or has a bug where their names say so."""

    labels = LABELS

    def __call__(
        self, source: str, progress: bool = True, on_progress: Callable[[float], None] | None = None
    ) -> StandInTimeline:
        if "bug" in Path(source).name:
            raise RuntimeError("a bug")
        if "hang" in Path(source).name:
            time.sleep(SLOW_SECONDS)
        frames, fps = read_frames(source)
        duration, (height, width) = len(frames) / fps, frames[0].shape[:2]
        timeline = StandInTimeline(str(source), LABELS, duration, width, height, 8.0, [])
        if max(frame.mean() for frame in frames) < 8:
            return timeline
        steps = 50
        for step in range(steps):
            on_progress(duration * (step + 1) / steps)
            time.sleep(SLOW_SECONDS / steps if "slow" in Path(source).name else 0.002)
        timeline.tracks = [
            _face(1, FIRST_SCORES, 0.0, duration, width * 0.3, frames),
            _face(2, SECOND_SCORES, duration / 2, duration, width * 0.7, frames),
        ]
        return timeline


def read_frames(path: str | Path) -> tuple[list[np.ndarray], float]:
    """RGB frames of a video and their mean rate, from their times: a camera's recording states none."""
    try:
        with av.open(str(path)) as container:
            decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    except av.FFmpegError as error:
        raise ValueError(f"{path} could not be opened: it is truncated, damaged or no video. ({error})") from error
    rate = (len(decoded) - 1) / (decoded[-1][0] - decoded[0][0])
    return [frame for _, frame in decoded], round(rate, 3)


def _face(
    track: int, scores: np.ndarray, start: float, end: float, x: float, frames: list[np.ndarray]
) -> FaceTimeline:
    half = frames[0].shape[0] / 4
    y = 2 * half
    edges = np.linspace(start, end, len(scores) + 1)
    crop = frames[-1][int(y - half) : int(y + half), max(0, int(x - half)) : int(x + half)]
    return FaceTimeline(
        track=track,
        times=(edges[:-1] + edges[1:]) / 2,
        starts=edges[:-1],
        ends=edges[1:],
        scores=scores,
        segments=[
            Segment(LABELS[row.argmax()], float(edges[i]), float(edges[i + 1]), float(row.max()))
            for i, row in enumerate(scores)
        ],
        box_times=np.array([start, end]),
        boxes=np.array([[x - half, y - half, x + half, y + half]] * 2),
        angles=np.zeros(2),
        thumbnails=[(end, np.ascontiguousarray(crop))],
    )


def log_hosts(path: Path) -> None:
    """Writes down whom the process talks to from now on, whichever library does it."""
    hosts: set[str] = set()

    def audit(event: str, arguments: tuple) -> None:
        if event == "socket.getaddrinfo":
            hosts.add(str(arguments[0]))
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            hosts.add(str(arguments[1][0]))
        else:
            return
        path.write_text("\n".join(sorted(hosts)), encoding="utf-8")

    sys.addaudithook(audit)


if __name__ == "__main__":
    log_hosts(Path(sys.argv[2]))
    limits = PageLimits(**json.loads(sys.argv[3])) if len(sys.argv) > 3 else None
    serve_demo(StandInAnalyser(), port=int(sys.argv[1]), model_name=MODEL_NAME, limits=limits)
