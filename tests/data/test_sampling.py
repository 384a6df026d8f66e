"""Windows and crops, by the properties that they must have."""

import numpy as np
import pytest
import torch

from s2d_hf.data import evaluation_windows, random_window, resize_short_side, spatial_crops


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_windows_are_consecutive_and_reach_every_start():
    windows = [random_window(10, 4, generator(seed)) for seed in range(700)]
    for window in windows:
        assert isinstance(window, np.ndarray) and (np.diff(window) == 1).all()
    starts = np.bincount([window[0] for window in windows], minlength=7)
    assert len(starts) == 7 and starts.min() > 60  # 0 to 6, 100 of each on average


@pytest.mark.parametrize(("total", "expected"), [(4, [0, 1, 2, 3]), (2, [0, 1, 1, 1]), (1, [0, 0, 0, 0])])
def test_short_videos_give_every_frame(total, expected):
    for seed in range(5):
        assert random_window(total, 4, generator(seed)).tolist() == expected
    assert evaluation_windows(total, 4, 3).tolist() == [expected] * 3


def test_random_windows_follow_their_generator():
    same = [random_window(1000, 4, generator(7)).tolist() for _ in range(2)]
    assert same[0] == same[1]
    one = generator(7)
    assert random_window(1000, 4, one).tolist() == same[0] != random_window(1000, 4, one).tolist()


@pytest.mark.parametrize(
    ("num_windows", "starts"), [(1, [42]), (2, [0, 84]), (3, [0, 42, 84]), (5, [0, 21, 42, 63, 84])]
)
def test_evaluation_windows_are_spread_evenly(num_windows, starts):
    windows = evaluation_windows(100, 16, num_windows)
    assert windows.tolist() == [list(range(start, start + 16)) for start in starts]


def test_more_windows_than_starts():
    windows = evaluation_windows(6, 4, 5)
    assert windows.shape == (5, 4) and windows[0, 0] == 0 and windows[-1, -1] == 5
    assert (np.diff(windows, axis=1) == 1).all() and (np.diff(windows[:, 0]) >= 0).all()


@pytest.mark.parametrize("sample", [random_window, lambda total, frames: evaluation_windows(total, frames, 2)])
def test_impossible_windows(sample):
    with pytest.raises(ValueError, match="no frames"):
        sample(0, 4)
    with pytest.raises(ValueError, match="`num_frames`"):
        sample(10, 0)


def test_no_windows_or_crops():
    with pytest.raises(ValueError, match="`num_windows`"):
        evaluation_windows(10, 4, 0)
    with pytest.raises(ValueError, match="`num_crops`"):
        spatial_crops(torch.zeros(1, 3, 8, 9), 8, 0)


def positions(crops: torch.Tensor, axis: int) -> list[int]:
    """The first coordinate in each crop of frames that hold their own coordinate."""
    return [int(crop.select(axis, 0).unique()) for crop in crops]


@pytest.mark.parametrize(
    ("num_crops", "starts"), [(1, [20]), (2, [0, 40]), (3, [0, 20, 40]), (5, [0, 10, 20, 30, 40])]
)
def test_crops_are_spread_along_the_longer_side(num_crops, starts):
    wide = torch.arange(100, dtype=torch.uint8).expand(2, 3, 60, 100)
    crops = spatial_crops(wide, 60, num_crops)
    assert crops.shape == (num_crops, 2, 3, 60, 60) and positions(crops, -1) == starts
    tall = spatial_crops(wide.transpose(-1, -2), 60, num_crops)
    assert tall.shape == (num_crops, 2, 3, 60, 60) and positions(tall, -2) == starts


def test_crops_of_square_frames_are_identical():
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert all(torch.equal(crop, frames) for crop in spatial_crops(frames, 32, 3))


def test_crops_of_unresized_frames():
    with pytest.raises(ValueError, match=r"60x100.*resize_short_side"):
        spatial_crops(torch.zeros(1, 3, 60, 100), 32, 2)


@pytest.mark.parametrize(("shape", "expected"), [((60, 100), (30, 50)), ((100, 60), (50, 30)), ((10, 15), (30, 45))])
def test_resized_short_side(shape, expected):
    resized = resize_short_side(torch.full((2, 3, *shape), 77, dtype=torch.uint8), 30)
    assert resized.shape == (2, 3, *expected) and resized.dtype == torch.uint8 and (resized == 77).all()
