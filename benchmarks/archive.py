"""A folder of short videos through an archive's job: what it costs beside the analysis itself."""

import functools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s2d_hf.archive import list_videos, run_processes
from s2d_hf.archive.isolation import STALL_LIMIT
from s2d_hf.timeline.results import VideoTimeline

from .detectors import choose_detector, width_of, write_video
from .measuring import summarise
from .settings import Settings
from .timeline import write_model
from .timeline_runner import load_timeline, show_faces


class LoggedAnalyser:
    """
    A timeline that writes down when it was loaded, and when it was at which video.

    Args:
        log (`Path`): A file to which it adds lines of JSON, in seconds: `{"loaded"}`, and for each video `{"begin",
            "end", "timings"}`.
        boxes (`Sequence`, *optional*): Where the faces are, if no detector finds them.
        arguments: Those of [`load_timeline`].
    """

    def __init__(self, log: Path, boxes: Sequence[Sequence[float]] | None, **arguments: Any):
        self.log, self.analyse = log, load_timeline(**arguments)
        if boxes is not None:
            show_faces(self.analyse, boxes)
        self._write({"loaded": time.time()})

    def __call__(
        self, source: str, progress: bool = False, on_progress: Callable[[float], None] | None = None
    ) -> VideoTimeline:
        begin = time.time()
        timeline = self.analyse(source, progress=progress, on_progress=on_progress)
        self._write({"begin": begin, "end": time.time(), "timings": self.analyse.timings})
        return timeline

    def _write(self, entry: dict[str, Any]) -> None:
        with self.log.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def measure_archive(settings: Settings) -> dict[str, Any]:
    """
    Returns `{"videos", "seconds", "height", "width", "faces", "detector", "stand_in", "without_face", "times"}`; the
    times are of whole jobs, see [`divide_job`].

    Raises:
        RuntimeError: if a job fails with a video.
    """
    detection = choose_detector(settings)
    height, faces = settings.heights[0], settings.faces[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(settings, folder / "model")
        boxes = write_video(folder / "video.mp4", height, settings.seconds, faces, detection)
        archive = folder / "archive"
        archive.mkdir()
        for number in range(settings.videos):
            shutil.copy(folder / "video.mp4", archive / f"{number}.mp4")
        jobs = []
        for number in tqdm(range(settings.rounds), desc="archive"):
            log = folder / f"{number}.jsonl"
            factory = functools.partial(
                LoggedAnalyser, log, boxes, folder=str(model), device=settings.device, dtype="float32",
                **detection.arguments,
            )  # fmt: skip
            begin = time.time()
            summary = run_processes(
                list_videos(archive),
                folder / f"results-{number}",
                factory,
                {},
                progress=False,
                stall_limit=STALL_LIMIT,
            )
            end = time.time()
            if summary.num_failed:
                raise RuntimeError(f"the job failed with videos: {'; '.join(summary.failures.values())}")
            jobs.append(divide_job(begin, end, [json.loads(line) for line in log.read_text().splitlines()]))
    return {
        "videos": settings.videos,
        "seconds": settings.seconds,
        "height": height,
        "width": width_of(height),
        "faces": faces,
        "detector": detection.name,
        "stand_in": detection.stand_in,
        "without_face": summary.num_without_face,
        "times": {part: summarise([job[part] for job in jobs]) for part in jobs[0]},
    }


def divide_job(begin: float, end: float, log: Sequence[dict[str, Any]]) -> dict[str, float]:
    """
    Where the time of a job went.

    Args:
        begin (`float`), end (`float`): Of the job.
        log (`Sequence[dict]`): What [`LoggedAnalyser`] wrote down.

    Returns:
        `dict[str, float]`, in seconds: `job`, the whole; `start-up` of the job and of its process, until the model is
        loaded; `analysis`, and the timeline's stages as `analysis, STAGE`; `writing`, and all else between videos and
        after them.
    """
    loaded, entries = log[0]["loaded"], log[1:]
    parts = {"job": end - begin, "start-up": loaded - begin}
    parts["analysis"] = sum(entry["end"] - entry["begin"] for entry in entries)
    for stage in entries[0]["timings"]:
        if stage != "total":
            parts[f"analysis, {stage}"] = sum(entry["timings"][stage] for entry in entries)
    parts["writing"] = parts["job"] - parts["start-up"] - parts["analysis"]
    return parts


__all__ = ["LoggedAnalyser", "divide_job", "measure_archive"]
