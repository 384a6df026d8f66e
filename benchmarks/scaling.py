"""How the time grows: with the batch, the frames, the image size, and the faces and length of a raw video."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from s2d_hf import S2DForVideoClassification

from .made_video import face_boxes, write_made_video
from .measuring import fit_line, summarise, time_in_turns
from .models import build_s2d, make_clips
from .processors import build_processor
from .settings import Settings

AXES = ("batch", "frames", "pixels")
TIMELINE_ROUNDS = 2  # each takes many forward passes


def measure_scaling(settings: Settings) -> dict[str, Any]:
    """
    Returns `{axis: {"x", "seconds", "fit"}}` for the model's `batch`, `frames` and `pixels` (the fit of the last is
    over the patches of a frame), and `{"timeline": {"points", "fit"}}` with the time of [`S2DTimeline`] against the
    windows that it classified, or `{"timeline": {"not_measured": reason}}` where a package is missing.
    """
    model = build_s2d(settings.size, settings.device)
    return _measure_model(model, settings) | {"timeline": _measure_timeline(model, settings)}


@torch.no_grad()
def _measure_model(model: S2DForVideoClassification, settings: Settings) -> dict[str, Any]:
    size, config = settings.size, model.config
    usual = (1, config.num_frames, config.image_size)
    points = {
        axis: [tuple(value if i == place else usual[i] for i in range(3)) for value in values]
        for place, (axis, values) in enumerate(zip(AXES, (size.batches, size.frames, size.pixels), strict=True))
    }
    calls: dict[str, Callable[[], Any]] = {}
    for point in sorted({point for values in points.values() for point in values}):
        batch, num_frames, pixels = point
        clips = make_clips(config, batch, device=settings.device, num_frames=num_frames, pixels=pixels)
        calls[str(point)] = lambda clips=clips: model(
            *clips, interpolate_pos_encoding=True, interpolate_temporal_encoding=True
        )
        calls[str(point)]()
    with tqdm(total=len(calls) * settings.rounds, desc="scaling") as bar:
        times = time_in_turns(
            calls, settings.rounds, settings.clock, settings.device, after_call=lambda _: bar.update()
        )
    result = {}
    for place, axis in enumerate(AXES):
        x = [point[place] for point in points[axis]]
        seconds = [summarise(times[str(point)]) for point in points[axis]]
        amounts = [value**2 / config.patch_size**2 for value in x] if axis == "pixels" else x
        result[axis] = {"x": x, "seconds": seconds, "fit": fit_line(amounts, [entry["median"] for entry in seconds])}
    result["pixels"]["patch_size"] = config.patch_size
    return result


def _measure_timeline(model: S2DForVideoClassification, settings: Settings) -> dict[str, Any]:
    """The faces are shown to it: what a face detector costs does not depend on their number."""
    try:
        from s2d_hf import S2DTimeline

        from .timeline_runner import show_faces
    except ImportError as error:  # the model needs less
        return {"not_measured": str(error)}
    is_tiny = settings.size_name == "tiny"
    width, height = (96, 64) if is_tiny else (640, 360)
    short = 2 if is_tiny else 4
    processor = build_processor(settings.size, model)
    analyse = S2DTimeline(model, processor)
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], Any]] = {}
        facts: dict[str, dict[str, Any]] = {}
        for seconds, faces in ((short, 1), (short, 2), (2 * short, 1)):
            name = f"{seconds} s, {faces} {'face' if faces == 1 else 'faces'}"
            video = write_made_video(Path(folder) / f"{seconds}-{faces}.mp4", width, height, seconds, faces)
            facts[name] = {"seconds_of_video": seconds, "faces": faces}
            boxes = face_boxes(width, height, faces)

            def call(video=video, fact=facts[name], boxes=boxes) -> None:
                show_faces(analyse, boxes)
                timeline = analyse(str(video), progress=False)
                fact["windows"] = sum(len(track.times) for track in timeline.tracks)

            calls[name] = call
        rounds = min(TIMELINE_ROUNDS, settings.rounds)
        with tqdm(total=len(calls) * rounds, desc="timeline") as bar:
            times = time_in_turns(calls, rounds, settings.clock, settings.device, after_call=lambda _: bar.update())
    for name, values in times.items():
        facts[name]["seconds"] = summarise(values)
    fit = fit_line(
        [fact["windows"] for fact in facts.values()], [fact["seconds"]["median"] for fact in facts.values()]
    )
    windows_per_second = analyse.fps / analyse.window_stride
    return {"points": facts, "fit": fit, "seconds_per_second_of_face": fit["slope"] * windows_per_second}


__all__ = ["AXES", "measure_scaling"]
