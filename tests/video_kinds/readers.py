"""
Everything that reads videos, asked for the same frames. What is right is burnt into the pictures, or comes from a
plain decode from the start.
"""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from s2d_hf.data.dataset import ClipDataset
from s2d_hf.data.sources import LabelledSamples, Sample
from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import make_video, number_of

MARK = 8  # samples a second in the timeline


def whole_clip(clip: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """An augmentation that does nothing."""
    return clip


def dataset_of(path: Path | str, num_frames: int = 16) -> ClipDataset:
    samples = LabelledSamples([Sample("the sample", 0, path=path)], ["a", "b"])
    return ClipDataset(samples, num_frames, augmentation=whole_clip)


def nearest(times: list[float], num_frames: int = 16, within: float = 1e-4) -> list[set[int]]:
    """For each of the times that divide a video evenly, the indices of the frames that are nearest (two in a tie)."""
    times = np.asarray(times)
    distances = np.abs(times - np.linspace(times[0], times[-1], num_frames)[:, None])
    return [set(np.flatnonzero(row <= row.min() + 2 * within).tolist()) for row in distances]


def check_even(found: list[int], numbers: list[int], times: list[float], within: float = 1e-4) -> None:
    if len(times) <= len(found):
        assert found == [numbers[min(i, len(numbers) - 1)] for i in range(len(found))]
        return
    for number, allowed in zip(found, nearest(times, len(found), within), strict=True):
        assert number in {numbers[i] for i in allowed}


def check_timeline(path: Path, numbers: list[int], times: list[float], number, within: float) -> None:
    """`times` are those of a player; frames must not lie further apart than two seconds."""
    with open_stream(path) as stream:
        samples = list(sample_evenly(stream, MARK))
    at = [sample.time for sample in samples]
    first = round(at[0] * MARK)
    assert at == pytest.approx((first + np.arange(len(at))) / MARK)
    assert at[0] <= times[0] + 1 / MARK and at[-1] >= times[-1] - 1 / MARK
    for sample in samples:
        distances = np.abs(np.asarray(times) - sample.time)
        allowed = {numbers[i] for i in np.flatnonzero(distances <= distances.min() + 2 * within)}
        assert number(sample.pixels) in allowed, (sample.time, number(sample.pixels), allowed)


def check_readers(
    path: Path,
    numbers: list[int],
    times: list[float],
    plain,
    number=number_of,
    starts_at: float = 0.0,
    within: float = 1e-4,
) -> None:
    """
    Everything that reads videos finds these numbers at these times, which count from the first frame; `within` says
    how well the file can tell which of two frames is the nearer one.
    """
    frames, metadata = read_video(path)
    assert [number(frame) for frame in frames] == numbers
    np.testing.assert_allclose(metadata.frame_times, times, atol=0.0015)
    assert metadata.total_num_frames == len(numbers)
    rng = np.random.default_rng(len(numbers))
    for _ in range(3):
        chosen = np.sort(rng.integers(0, len(numbers), 4))
        frames, metadata = read_video(path, lambda metadata, chosen=chosen: chosen)
        assert [number(frame) for frame in frames] == [numbers[i] for i in chosen]
        np.testing.assert_allclose(metadata.timestamps, np.asarray(times)[chosen], atol=0.0015)
    clip = plain(path, return_tensors="pt")["pixel_values"][0]
    check_even([number(frame) for frame in clip], numbers, times, within)
    torch.testing.assert_close(dataset_of(path)[0]["frames"].float(), clip.float(), atol=0, rtol=0)
    check_timeline(path, numbers, [starts_at + seconds for seconds in times], number, within)


def scores_of(entries: list[dict]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in entries}


def make_or_skip(path: Path, pictures, codec: str, **options) -> Path:
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    return make_video(path, pictures, codec, **options)
