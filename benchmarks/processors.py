"""From a video file to scores: every stage of the video processor, and the whole pipeline."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import pipeline

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.video_reading_s2d import read_video

from .made_video import write_made_video
from .measuring import summarise, time_in_turns
from .models import Size, build_s2d
from .settings import Settings


def build_processor(size: Size, model: S2DForVideoClassification) -> S2DVideoProcessor:
    """The model's processor, with a landmark encoder of random weights."""
    torch.manual_seed(0)
    pixels = model.config.image_size
    return S2DVideoProcessor(
        MobileFaceNetLandmarkEncoder(**size.encoder).to(model.device),
        num_frames=model.config.num_frames,
        size={"shortest_edge": pixels},
        crop_size={"height": pixels, "width": pixels},
        device=str(model.device),
    )


def measure_processors(settings: Settings) -> dict[str, Any]:
    """
    Returns `{"videos": {what it is: {stage: {"seconds": {...}}}}, "unavailable": {stage: reason}}`: of the latter, a
    package is missing.
    """
    model = build_s2d(settings.size, settings.device)
    processor = build_processor(settings.size, model)
    pixels = model.config.image_size
    is_tiny = settings.size_name == "tiny"
    seconds = 1 if is_tiny else 10
    wide = (64, 36) if is_tiny else (1280, 720)
    results = {}
    unavailable: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for width, height in (wide, (pixels, pixels)):
            video = write_made_video(Path(folder) / f"{width}.mp4", width, height, seconds)
            calls = _stages(model, processor, video)
            for stage in list(calls):
                try:
                    calls[stage]()
                except ImportError as error:
                    unavailable[stage] = str(error)
                    del calls[stage]
            name = f"{seconds} s of {width}x{height}, {processor.num_frames} frames sampled"
            with tqdm(total=len(calls) * settings.rounds, desc=f"processors, {width}x{height}") as bar:
                times = time_in_turns(
                    calls, settings.rounds, settings.clock, settings.device, after_call=lambda _, bar=bar: bar.update()
                )
            results[name] = {stage: {"seconds": summarise(values)} for stage, values in times.items()}
    return {"videos": results, "unavailable": unavailable}


def _stages(
    model: S2DForVideoClassification, processor: S2DVideoProcessor, video: Path
) -> dict[str, Callable[[], Any]]:
    choose = partial(processor.sample_frames, num_frames=processor.num_frames)
    frames, _ = read_video(video, choose)
    clip = torch.stack(frames)
    prepare = partial(processor, clip, do_sample_frames=False, do_landmarks=False, return_tensors="pt")
    inputs = processor(str(video), return_tensors="pt").to(model.device)
    classifier = pipeline("video-classification", model=model, video_processor=processor, device=model.device)

    @torch.no_grad()
    def classify() -> torch.Tensor:
        return model(**inputs).logits

    return {
        "decoding, decord": lambda: read_video(video, choose, "decord"),
        "decoding, PyAV": lambda: read_video(video, choose),
        "resizing, cropping, normalising": prepare,
        "landmark features": lambda: processor.compute_landmarks(inputs["pixel_values"]),
        "model": classify,
        "video processor, all": lambda: processor(str(video), return_tensors="pt"),
        "pipeline, all": lambda: classifier(str(video)),
    }


__all__ = ["build_processor", "measure_processors"]
