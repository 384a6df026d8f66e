"""Whole videos through the timeline: how many seconds of video it does in a second, and where its time goes."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from .candidates import commit_name, commit_of
from .commit_timeline import CommitTimeline
from .detectors import Detection, choose_detector, width_of, write_video
from .measuring import ratio, summarise, time_in_turns
from .models import build_s2d
from .modes import fast_path, precision_of
from .processors import build_processor
from .settings import Settings
from .timeline_runner import TimelineRunner

FAST = ", fast path"


def measure_timeline(settings: Settings) -> Iterator[dict[str, Any]]:
    """
    Yields what is measured so far after every video: `{"seconds", "detector", "stand_in", "unavailable": {name:
    reason}, "videos": [{"height", "width", "faces", "candidates": {name: {...}}}]}`.
    """
    detection = choose_detector(settings)
    unavailable: dict[str, str] = {}
    try:
        fast_path(nn.Linear(1, 1))
    except RuntimeError as error:  # the environment turns it off
        unavailable |= {name: str(error) for name in _candidates(settings) if name.endswith(FAST)}
    found: dict[str, Any] = {
        "seconds": settings.seconds,
        "detector": detection.name,
        "stand_in": detection.stand_in,
        "unavailable": unavailable,
        "videos": [],
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arguments = {"folder": str(write_model(settings, folder / "model")), "device": settings.device}
        runners: dict[str, TimelineRunner | CommitTimeline] = {"": TimelineRunner(**arguments, **detection.arguments)}
        if settings.against is not None:
            try:
                commit = CommitTimeline(settings.against, **arguments, **detection.arguments)
                stack.callback(commit.close)
                runners[settings.against] = commit
            except RuntimeError as error:  # its package is another one in many ways
                unavailable[commit_name(settings.against)] = str(error)
        for height in settings.heights:
            for faces in settings.faces:
                found["videos"].append(
                    _measure_video(settings, folder, height, faces, detection, runners, unavailable)
                )
                yield found


def write_model(settings: Settings, folder: Path) -> Path:
    """Writes the folder of a model with random weights, and its processor."""
    model = build_s2d(settings.size, temporal_adapters=settings.kind == "video")
    model.save_pretrained(folder)
    build_processor(settings.size, model).save_pretrained(folder)
    return folder


def _candidates(settings: Settings) -> dict[str, dict[str, Any]]:
    """What is compared: arguments of the runners. Commits have their own way to be fast."""
    ours: dict[str, dict[str, Any]] = {}
    for precision in settings.precisions:
        if settings.device != "cpu":
            ours |= {precision: {"dtype": precision}} if precision != "int8" else {}
        elif precision == "int8":
            ours[precision + FAST] = {"dtype": precision}
        else:
            ours[precision] = {"dtype": precision, "fast_cpu": False}
            ours[precision + FAST] = {"dtype": precision, "fast_cpu": True}
    if settings.against is not None:  # which may know no int8
        theirs = [precision for precision in settings.precisions if precision != "int8"]
        ours |= {commit_name(settings.against, precision): {"dtype": precision} for precision in theirs}
    return ours


def _measure_video(
    settings: Settings,
    folder: Path,
    height: int,
    faces: int,
    detection: Detection,
    runners: dict[str, TimelineRunner | CommitTimeline],
    unavailable: dict[str, str],
) -> dict[str, Any]:
    video = folder / f"{height}-{faces}.mp4"
    boxes = write_video(video, height, settings.seconds, faces, detection)
    runs: dict[str, list[dict[str, Any]]] = {}
    calls = {}
    for name, arguments in _candidates(settings).items():
        runner = runners.get(commit_of(name) or "")
        if runner is None or name in unavailable:
            continue
        call = partial(runner, video=str(video), boxes=boxes, **arguments)
        try:
            call()
        except RuntimeError as error:
            if isinstance(runner, TimelineRunner):
                raise
            unavailable[name] = str(error)
            continue
        runs[name] = []
        calls[name] = lambda name=name, call=call: runs[name].append(call())
    with tqdm(total=len(calls) * settings.rounds, desc=f"timeline, {height}p, faces: {faces}") as bar:
        times = time_in_turns(
            calls, settings.rounds, settings.clock, settings.device, after_call=lambda _: bar.update()
        )
    video.unlink()
    candidates = {name: _describe(times[name], runs[name], settings.seconds) for name in calls}
    for name, facts in candidates.items():
        # int8 is what one takes in place of bfloat16
        precision = precision_of(name) or "bfloat16"
        before = "float32" if settings.against is None else commit_name(settings.against, precision)
        if before in calls and before != name:
            facts["compared_with"] = before
            facts["largest_difference"] = largest_difference(runs[name][-1], runs[before][-1])
            facts["times_as_fast"] = ratio(times[before], times[name])
    return {"height": height, "width": width_of(height), "faces": faces, "candidates": candidates}


def _describe(times: list[float], runs: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    timings = [run["timings"] for run in runs]
    stages = [stage for stage in timings[0] if stage != "total"]
    return {
        "seconds": summarise(times),
        "real_time_factor": summarise([seconds / time for time in times]),
        "stages": {stage: summarise([timing[stage] for timing in timings]) for stage in stages},
        "shares": {stage: summarise([timing[stage] / timing["total"] for timing in timings]) for stage in stages},
        "tracks": runs[-1]["tracks"],
        "windows": len(runs[-1]["windows"]),
    }


def largest_difference(run: dict[str, Any], expected: dict[str, Any]) -> float | None:
    """Of the scores of two runs; `None` where their windows are not the same."""
    ours, theirs = (np.array(each["windows"]) for each in (run, expected))
    if ours.shape != theirs.shape or not ours.size or not np.allclose(ours[:, 0], theirs[:, 0], rtol=0, atol=1e-6):
        return None
    return float(np.abs(ours[:, 1:] - theirs[:, 1:]).max())


__all__ = ["measure_timeline", "write_model"]
