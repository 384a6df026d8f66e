"""
Which frames of a video make a clip, in training and in evaluation, and which squares of its frames: windows, as the
paper takes them. With `sampling: even`, `dataset.py` takes `spread_evenly` of `video_reading_s2d.py` instead.
"""

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF

from ..frames_s2d import sample_frame_indices


def random_window(total_num_frames: int, num_frames: int, generator: torch.Generator | None = None) -> np.ndarray:
    """
    A random window of consecutive frames, for training; every possible start is equally likely.

    Args:
        total_num_frames (`int`): Frames of the video.
        num_frames (`int`): Frames of the window.
        generator (`torch.Generator`, *optional*): Makes the draw reproducible; torch's global one if not given.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: ascending indices. Where the video is not longer than the window, every
        frame, the last one repeated.

    Raises:
        ValueError: if the video has no frames, or `num_frames` is less than 1.
    """
    device = "cpu" if generator is None else generator.device
    num_starts = max(0, total_num_frames - num_frames) + 1
    start = int(torch.randint(num_starts, (), generator=generator, device=device))
    return sample_frame_indices(total_num_frames, num_frames, stride=1, start=start)


def evaluation_windows(total_num_frames: int, num_frames: int, num_windows: int) -> np.ndarray:
    """
    Windows of consecutive frames that are spread evenly over a video, for evaluation.

    Args:
        total_num_frames (`int`): Frames of the video.
        num_frames (`int`): Frames of each window.
        num_windows (`int`): One window lies in the middle; two are the first and the last possible ones.

    Returns:
        `np.ndarray` of shape `(num_windows, num_frames)`: ascending indices in each row. Where the video is not longer
        than a window, every row holds every frame, the last one repeated.

    Raises:
        ValueError: if the video has no frames, or `num_frames` or `num_windows` is less than 1.
    """
    if num_windows < 1:
        raise ValueError(f"`num_windows` must be at least 1, got {num_windows}.")
    if num_windows == 1:
        return sample_frame_indices(total_num_frames, num_frames, stride=1)[None]
    starts = np.linspace(0, max(0, total_num_frames - num_frames), num_windows).round().astype(np.int64)
    return np.stack([sample_frame_indices(total_num_frames, num_frames, 1, int(start)) for start in starts])


def resize_short_side(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Frames `(..., 3, height, width)` with their shorter side at `size` pixels, bilinearly as the processors do."""
    return tvF.resize(frames, [size], interpolation=InterpolationMode.BILINEAR, antialias=True)


def spatial_crops(frames: torch.Tensor, size: int, num_crops: int) -> torch.Tensor:
    """
    Squares that are spread evenly along the longer side of a clip's frames.

    Args:
        frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`): The shorter side has `size` pixels, see
            [`resize_short_side`].
        size (`int`): Height and width of the squares, in pixels.
        num_crops (`int`): One crop is the middle; two are the ends. Square frames give identical crops.

    Returns:
        `torch.Tensor` of shape `(num_crops, num_frames, 3, size, size)`, from the left or top to the right or bottom.

    Raises:
        ValueError: if the shorter side is not `size`, or `num_crops` is less than 1.
    """
    height, width = frames.shape[-2:]
    if min(height, width) != size:
        raise ValueError(
            f"The shorter side of the frames must have `size` = {size} pixels, got {height}x{width}; resize them with "
            "`resize_short_side`."
        )
    if num_crops < 1:
        raise ValueError(f"`num_crops` must be at least 1, got {num_crops}.")
    if num_crops == 1:
        return tvF.center_crop(frames, [size])[None]
    offsets = np.linspace(0, max(height, width) - size, num_crops).round().astype(np.int64).tolist()
    axis = -2 if height > width else -1
    return torch.stack([frames.narrow(axis, offset, size) for offset in offsets])


__all__ = ["evaluation_windows", "random_window", "resize_short_side", "spatial_crops"]
