"""What overlapping windows share is computed once, and the scores are those of whole windows."""

import contextlib

import numpy as np
import pytest
import torch

from s2d_hf import S2DConfig, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.timeline.scoring import FaceCrop, WindowScorer

from ..small_models import TINY, random_encoder, randomise

SIZE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def processor() -> S2DVideoProcessor:
    return S2DVideoProcessor(random_encoder(1 / 16, 32), num_frames=4, **SIZE)


def build(temporal_adapters: bool, prompt_type: str = "deep", **fields) -> S2DForVideoClassification:
    fields = TINY | {"landmark_channels": 8, "landmark_size": 4, "prompt_type": prompt_type} | fields
    return randomise(S2DForVideoClassification(S2DConfig(temporal_adapters=temporal_adapters, **fields))).eval()


def make_crops(number: int) -> list[FaceCrop]:
    pixels = np.random.default_rng(0).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
    return [FaceCrop(i / 8, picture) for i, picture in enumerate(pixels)]


def windows_of(crops: list[FaceCrop]) -> list[list[FaceCrop]]:
    """Overlapping by half; the last one is short, and its last frame repeated."""
    return [crops[0:4], crops[2:6], crops[4:8], crops[6:8] + crops[7:8] * 2]


def expected_scores(model, processor, windows) -> np.ndarray:
    """Of each window by itself, by processor and model as a user calls them."""
    scores = []
    for window in windows:
        inputs = processor(np.stack([crop.pixels for crop in window]), do_sample_frames=False, return_tensors="pt")
        if model.config.prompt_type == "none":
            del inputs["landmark_features"]
        with torch.no_grad():
            scores.append(model(**inputs).logits.softmax(-1)[0].numpy())
    return np.stack(scores)


@pytest.mark.parametrize("at_a_time", [1, 3])
@pytest.mark.parametrize("prompt_type", ["deep", "none"])
@pytest.mark.parametrize("temporal_adapters", [True, False])
def test_scores_are_those_of_whole_windows(processor, temporal_adapters, prompt_type, at_a_time):
    # a dropout in the classifier is none in eval mode
    model = build(temporal_adapters, prompt_type, classifier_dropout_prob=0.5)
    windows = windows_of(make_crops(8))
    expected = expected_scores(model, processor, windows)
    scorer = WindowScorer(model, processor, lambda stage: contextlib.nullcontext())
    found = [scorer(windows[i : i + at_a_time]) for i in range(0, len(windows), at_a_time)]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=2e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3  # so that windows that were mixed up would show


def test_each_crop_is_looked_at_once(processor):
    model, seen = build(temporal_adapters=False), []
    model.s2d.register_forward_pre_hook(
        lambda module, arguments, inputs: seen.append(len(inputs["pixel_values"])), with_kwargs=True
    )
    encoded: list[int] = []
    hook = processor.landmark_encoder.register_forward_pre_hook(lambda _, frames: encoded.append(len(frames[0])))
    stages: list[str] = []

    @contextlib.contextmanager
    def clock(stage: str):
        stages.append(stage)
        yield

    scorer = WindowScorer(model, processor, clock)
    for window in windows_of(make_crops(8)):
        scorer([window])
    hook.remove()
    assert seen == encoded == [4, 2, 2]  # and none for the last window, whose crops are known
    assert stages == ["landmarks", "model"] * 3 + ["model"]


def test_a_video_model_sees_whole_windows(processor):
    model, seen = build(temporal_adapters=True), []
    model.register_forward_pre_hook(
        lambda module, arguments, inputs: seen.append(inputs["pixel_values"].shape[:2]), with_kwargs=True
    )
    WindowScorer(model, processor, lambda stage: contextlib.nullcontext())(windows_of(make_crops(8)))
    assert seen == [(4, 4)]


@pytest.mark.parametrize("temporal_adapters", [True, False])
def test_what_is_kept_of_a_crop_is_its_own(processor, temporal_adapters):
    """A part of a larger tensor would keep all of it in memory, for every face that is followed."""
    crops = make_crops(4)
    WindowScorer(build(temporal_adapters), processor, lambda stage: contextlib.nullcontext())([crops])
    for crop in crops:
        kept = [tensor for tensor in (crop.landmark_features, crop.feature) if tensor is not None]
        assert len(kept) == 1 and crop.pixels.nbytes == 32 * 32 * 3
        assert kept[0].untyped_storage().nbytes() == kept[0].nbytes
