"""From images in any form to RGB frames, and which of a video's frames make a clip."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format, load_image

from .addresses_s2d import fetch_bytes
from .file_names_s2d import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_url, natural_order
from .texts_s2d import shorten
from .video_limits_s2d import check_limit


def sample_frame_indices(
    total_num_frames: int, num_frames: int, stride: int | None = None, start: int | None = None
) -> np.ndarray:
    """
    Which frames of a video make its clip.

    Args:
        total_num_frames (`int`): Frames of the video.
        num_frames (`int`): Frames of the clip.
        stride (`int`, *optional*): Take a window of frames that are `stride` apart. By default the frames are spread
            evenly over the whole video, its first and its last frame included.
        start (`int`, *optional*): First frame of the window. By default the window lies in the middle of the video.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: ascending indices. Where the video is too short, every frame is taken
        once and its last one repeated.

    Raises:
        ValueError: if the video has no frames, or an argument is out of range.
        TypeError: if an argument is no whole number.

    Example:
    ```python
    >>> sample_frame_indices(31, 4).tolist(), sample_frame_indices(31, 4, stride=2).tolist()
    ([0, 10, 20, 30], [12, 14, 16, 18])
    >>> sample_frame_indices(3, 4).tolist()
    [0, 1, 2, 2]
    ```
    """
    check_num_frames(num_frames)
    for name, value in (("stride", stride), ("start", start)):
        if value is not None:
            _check_whole(name, value)
    if total_num_frames < 1:
        raise ValueError("The video has no frames.")
    if stride is None:
        if start is not None:
            raise ValueError("`start` says where a window begins: pass `stride` with it.")
        if total_num_frames <= num_frames:
            return np.minimum(np.arange(num_frames), total_num_frames - 1)
        return np.linspace(0, total_num_frames - 1, num_frames).round().astype(np.int64)
    if stride < 1:
        raise ValueError(f"`stride` must be at least 1, got {stride}.")
    stride = min(stride, total_num_frames)  # a longer one leads beyond the last frame, too
    if start is None:
        start = max(0, (total_num_frames - (num_frames - 1) * stride - 1) // 2)
    if not 0 <= start < total_num_frames:
        raise ValueError(f"`start` must be a frame of the video, 0 to {total_num_frames - 1}, got {start}.")
    return np.minimum(start + np.arange(num_frames) * stride, total_num_frames - 1)


def check_num_frames(num_frames: int) -> None:
    """
    Raises:
        TypeError: if it is no whole number.
        ValueError: if it is less than 1.
    """
    _check_whole("num_frames", num_frames)
    if num_frames < 1:
        raise ValueError(f"`num_frames` must be at least 1, got {num_frames}.")


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}.")


def list_frame_files(folder: str | Path) -> list[Path]:
    """
    The images of a folder in the order of the numbers in their names (`frame2.jpg` before `frame10.jpg`).

    Hidden files and files of other kinds are passed over.

    Raises:
        ValueError: if there are none, one is a link to nowhere, or videos lie among them: the folder is then a
            collection and no single video.
    """
    entries = [path for path in Path(folder).iterdir() if not path.name.startswith(".") and not path.is_dir()]
    missing = sorted(path.name for path in entries if not path.exists())
    if missing:
        raise ValueError(f"The folder {folder} holds links to files that are not there, such as {missing[0]}.")
    videos = sorted(path.name for path in entries if path.suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        raise ValueError(f"The folder {folder} is no folder of frames: it holds videos, such as {videos[0]}.")
    files = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise ValueError(f"The folder {folder} holds no frames: no files ending in {', '.join(IMAGE_SUFFIXES)}.")
    return sorted(files, key=lambda path: natural_order(path.name))


def read_image(source: str | Path | bytes) -> Image.Image:
    """
    An image from a path, URL, base64 string or a file's bytes, turned upright by its EXIF orientation, in its own
    mode.

    Raises:
        FileNotFoundError: if there is no such file, or nothing at the URL.
        ValueError: if it is no readable image, or larger than `S2D_MAX_IMAGE_PIXELS`.
    """
    if isinstance(source, bytes):
        return _open_image(io.BytesIO(source), "it")
    source = os.fspath(source)
    if not os.path.isfile(source):
        if is_url(source):
            return _open_image(io.BytesIO(fetch_bytes(source)), source)
        try:  # a base64 string, as pipelines accept it
            return load_image(source)
        except ValueError:
            raise FileNotFoundError(f"There is no image file {shorten(source, 200)}.") from None
    return _open_image(source, source)


def _open_image(file: str | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            check_limit(
                "S2D_MAX_IMAGE_PIXELS", image.width * image.height, f"{name} has {image.width}x{image.height} pixels"
            )
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is not a readable image: {error}") from error


def to_rgb(image: Any, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """
    One image as an RGB tensor.

    Args:
        image: A PIL image of any mode, or an array or tensor `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)` with 1 (grey), 3 (RGB) or 4 channels (RGBA, laid over white); uint8, bool,
            16-bit integers, or floats.
        input_data_format (`str`, *optional*): `"channels_first"` or `"channels_last"`, for arrays; guessed if not
            given.

    Returns:
        `torch.Tensor` of shape `(3, height, width)`: uint8 stays uint8, 16-bit values are rounded to it, and floats
        keep their scale.

    Raises:
        ValueError: if the array is none of these, or has NaN or infinite values.
        TypeError: if it is neither image, array nor tensor.
    """
    if isinstance(image, Image.Image):
        image, input_data_format = _array_from_pil(image), ChannelDimension.LAST
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "buif":
            raise TypeError(f"An image of dtype {image.dtype} can't be read; pass integers or floats.")
        image = np.require(image, requirements=["C", "W"])
        if min(image.strides, default=0) < 0:  # of an axis of one entry, which numpy doesn't mind
            image = image.copy()
        image = torch.from_numpy(image)
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"Expected a PIL image, a numpy array or a torch tensor, got {type(image).__name__}.")
    if image.numel() == 0:
        raise ValueError(f"An image of shape {tuple(image.shape)} has no pixels.")
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3:
        if input_data_format is None:
            try:
                input_data_format = infer_channel_dimension_format(image, num_channels=(1, 3, 4))
            except ValueError:
                raise ValueError(
                    f"An image of shape {tuple(image.shape)} has no axis of 1, 3 or 4 channels, first or last."
                ) from None
        if ChannelDimension(input_data_format) == ChannelDimension.LAST:
            image = image.permute(2, 0, 1)
    else:
        raise ValueError(f"An image must have 2 or 3 axes, got the shape {tuple(image.shape)}.")
    return _to_three_channels(_to_eight_bit_range(image))


def _array_from_pil(image: Image.Image) -> np.ndarray:
    """`(height, width, channels)` of uint8, or of 16-bit grey values; PIL itself would clip those at 255."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F"):
        array = np.asarray(image)
        if image.mode == "I" and array.min() >= 0 and array.max() > 255:  # how PIL opens 16-bit PNG and TIFF
            return array.astype(np.uint16)[..., None]
        return array.astype(np.float32)[..., None]
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return np.array(image.convert("RGBA" if has_alpha else "RGB"))


def _to_eight_bit_range(image: torch.Tensor) -> torch.Tensor:
    if image.dtype == torch.uint8:
        return image
    if image.dtype == torch.bool:
        return image.to(torch.uint8) * 255
    if image.is_floating_point():
        image = image.float()
        if not torch.isfinite(image).all():
            raise ValueError("The pixels hold NaN or infinite values.")
        return image
    wide = image.to(torch.int64)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > 65535:
        raise ValueError(f"Integer pixels must lie in 0..255 or, for 16-bit images, 0..65535; got {low}..{high}.")
    if image.dtype == torch.uint16 or high > 255:
        return (wide.float() / 257).round().to(torch.uint8)
    return wide.to(torch.uint8)


def _to_three_channels(image: torch.Tensor) -> torch.Tensor:
    channels = image.shape[0]
    if channels == 3:
        return image
    if channels == 1:
        return image.expand(3, -1, -1)
    if channels != 4:
        raise ValueError(f"An image must have 1, 3 or 4 channels, got {channels}.")
    colour = image[:3]
    peak = 1.0 if image.is_floating_point() and image.max() <= 1 else 255.0
    alpha = image[3:].float() / peak
    if bool((alpha == 1).all()):
        return colour
    blended = colour.float() * alpha + peak * (1 - alpha)
    return blended.round().to(torch.uint8) if image.dtype == torch.uint8 else blended


def scale_to_eight_bit(frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """
    Brings the floating-point frames of one video or image to 0..255, where uint8 frames are.

    Frames in [0, 1] are taken as scaled to 1; whether they are is decided over all of them.

    Raises:
        ValueError: if they lie outside [0, 255], as normalised frames do.
    """
    floating = [frame for frame in frames if frame.is_floating_point()]
    if not floating:
        return frames
    low, high = min(float(frame.min()) for frame in floating), max(float(frame.max()) for frame in floating)
    if low < 0 or high > 255:
        raise ValueError(
            f"Floating-point pixels must lie in [0, 1] or [0, 255], got {low:.3g} to {high:.3g}. Frames that are "
            "normalised already need `do_rescale=False, do_normalize=False`."
        )
    factor = 255.0 if high <= 1 else 1.0
    return [frame * factor if frame.is_floating_point() else frame for frame in frames]


__all__ = [
    "check_num_frames",
    "list_frame_files",
    "read_image",
    "sample_frame_indices",
    "scale_to_eight_bit",
    "to_rgb",
]
