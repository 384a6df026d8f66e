"""From files, folders, URLs and arrays to RGB frames."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format, load_image
from transformers.utils import is_av_available, is_decord_available, logging
from transformers.video_utils import VideoMetadata, load_video

from .file_names_s2d import IMAGE_SUFFIXES, is_url, natural_order

try:
    import av
except ImportError:
    av = None

logger = logging.get_logger(__name__)

VIDEO_BACKENDS = ("decord", "pyav")


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

    Example:
    ```python
    >>> sample_frame_indices(31, 4).tolist(), sample_frame_indices(31, 4, stride=2).tolist()
    ([0, 10, 20, 30], [12, 14, 16, 18])
    >>> sample_frame_indices(3, 4).tolist()
    [0, 1, 2, 2]
    ```
    """
    if total_num_frames < 1:
        raise ValueError("The video has no frames.")
    if num_frames < 1:
        raise ValueError(f"`num_frames` must be at least 1, got {num_frames}.")
    if stride is None:
        if start is not None:
            raise ValueError("`start` says where a window begins: pass `stride` with it.")
        if total_num_frames <= num_frames:
            return np.minimum(np.arange(num_frames), total_num_frames - 1)
        return np.linspace(0, total_num_frames - 1, num_frames).round().astype(np.int64)
    if stride < 1:
        raise ValueError(f"`stride` must be at least 1, got {stride}.")
    if start is None:
        start = max(0, (total_num_frames - (num_frames - 1) * stride - 1) // 2)
    if not 0 <= start < total_num_frames:
        raise ValueError(f"`start` must be a frame of the video, 0 to {total_num_frames - 1}, got {start}.")
    return np.minimum(start + np.arange(num_frames) * stride, total_num_frames - 1)


def list_frame_files(folder: str | Path) -> list[Path]:
    """
    The images of a folder in the order of the numbers in their names (`frame2.jpg` before `frame10.jpg`).

    Raises:
        ValueError: if there are none.
    """
    files = [path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not files:
        raise ValueError(f"The folder {folder} holds no frames: no files ending in {', '.join(IMAGE_SUFFIXES)}.")
    return sorted(files, key=lambda path: natural_order(path.name))


def read_image(source: str | Path | bytes) -> Image.Image:
    """
    An image from a path, URL, base64 string or a file's bytes, turned upright by its EXIF orientation, in its own
    mode.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no readable image.
    """
    if isinstance(source, bytes):
        return _open_image(io.BytesIO(source), "it")
    source = str(source)
    if not os.path.isfile(source):
        if is_url(source):
            return load_image(source)
        try:  # a base64 string, as pipelines accept it
            return load_image(source)
        except ValueError:
            raise FileNotFoundError(f"There is no image file {_shorten(source)}.") from None
    return _open_image(source, source)


def _open_image(file: str | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
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
        `torch.Tensor` of shape `(3, height, width)`: uint8 stays uint8, 16-bit values become floats from 0 to 255,
        and floats keep their scale.

    Raises:
        ValueError: if the array is none of these, or has NaN or infinite values.
        TypeError: if it is neither image, array nor tensor.
    """
    if isinstance(image, Image.Image):
        image, input_data_format = _array_from_pil(image), ChannelDimension.LAST
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "buif":
            raise TypeError(f"An image of dtype {image.dtype} can't be read; pass integers or floats.")
        image = torch.from_numpy(np.require(image, requirements=["C", "W"]))
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
        return wide.float() / 257
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


def read_video(
    source: str | Path,
    choose: Callable[[VideoMetadata], Sequence[int]] | None = None,
    backend: str = "decord",
) -> tuple[list[torch.Tensor], VideoMetadata]:
    """
    The chosen frames of a video file, URL or folder of frames. Only they are kept in memory: the choice is made from
    the metadata, before anything is decoded.

    Args:
        source (`str` or `Path`): Anything FFmpeg reads, an http(s) address, or a folder of images.
        choose (`Callable`, *optional*): From the metadata (`total_num_frames`, `fps`, ...) to ascending frame
            indices, which may repeat; every frame if not given.
        backend (`"decord"` or `"pyav"`): What decodes. Where decord is not installed, PyAV stands in, with a warning.

    Returns:
        `list[torch.Tensor]`, RGB frames `(3, height, width)`, and `VideoMetadata` with `frames_indices`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it is empty, truncated or no video, or a folder without images.
    """
    if backend not in VIDEO_BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(VIDEO_BACKENDS)}, got {backend!r}.")
    source = str(source)
    if os.path.isdir(source):
        return _read_frame_folder(source, choose)
    if not is_url(source):
        if not os.path.exists(source):
            raise FileNotFoundError(f"There is no video file or folder of frames {_shorten(source)}.")
        if os.path.getsize(source) == 0:
            raise ValueError(f"The video file {source} is empty (0 bytes).")
    return _decode_video(source, choose, _available_backend(backend))


def _available_backend(backend: str) -> str:
    if backend == "decord" and not is_decord_available():
        logger.warning_once("decord is not installed: videos are decoded by PyAV instead.")
        backend = "pyav"
    if backend == "pyav" and not is_av_available():
        raise ImportError("No video decoder is installed: pip install decord, or pip install av.")
    return backend


def _read_frame_folder(
    folder: str, choose: Callable[[VideoMetadata], Sequence[int]] | None
) -> tuple[list[torch.Tensor], VideoMetadata]:
    files = list_frame_files(folder)
    metadata = VideoMetadata(total_num_frames=len(files), video_backend="folder")
    indices = np.arange(len(files)) if choose is None else np.asarray(choose(metadata))
    frames = {int(index): to_rgb(read_image(files[index])) for index in np.unique(indices)}
    metadata.update({"frames_indices": indices})
    return [frames[int(index)] for index in indices], metadata


def _decode_video(
    source: str, choose: Callable[[VideoMetadata], Sequence[int]] | None, backend: str
) -> tuple[list[torch.Tensor], VideoMetadata]:
    chosen: list[np.ndarray] = []
    error_in_choice: list[ValueError] = []

    def unique_indices(metadata: VideoMetadata, **_: Any) -> np.ndarray:
        if not metadata.total_num_frames and backend == "pyav":  # Matroska and WebM don't state it
            metadata.total_num_frames = _count_frames(source)
            metadata.duration = metadata.total_num_frames / metadata.fps if metadata.fps else None
        try:
            indices = np.arange(metadata.total_num_frames) if choose is None else np.asarray(choose(metadata))
        except ValueError as error:
            error_in_choice.append(error)
            raise
        chosen.append(indices)
        return np.unique(indices)  # PyAV's reader returns a repeated frame only once

    try:
        video, metadata = load_video(source, backend=backend, sample_indices_fn=unique_indices)
    except Exception as error:  # the decoders share no base class
        if error_in_choice:
            raise ValueError(f"{source}: {error_in_choice[0]}") from error
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{source} could not be decoded by {backend}: it is truncated, damaged or no video. "
            f"({reason[-1] if reason else type(error).__name__})"
        ) from error
    unique, position = np.unique(chosen[0], return_inverse=True)
    if len(video) != len(unique):
        raise ValueError(
            f"{source} is truncated: {len(unique)} frames up to frame {unique[-1]} were asked for, and only "
            f"{len(video)} could be decoded by {backend}."
        )
    frames = torch.from_numpy(np.asarray(video))
    if backend == "pyav":  # decord turns them itself
        frames = torch.from_numpy(turn_upright(frames.numpy(), _find_display_matrix(source)))
    frames = frames.permute(0, 3, 1, 2)
    metadata.update({"frames_indices": chosen[0], "height": frames.shape[2], "width": frames.shape[3]})
    _warn_if_cut_off(source, metadata)
    return [frames[int(index)] for index in position], metadata


def display_matrix(frame: "av.VideoFrame") -> np.ndarray | None:
    """
    How a decoded frame is to be turned for display, as its container says: `(2, 2)` with entries -1, 0 and 1, from
    (x, y) in the frame to (x, y) on the screen. `None` for a frame that is upright, or turned by other than right
    angles.
    """
    data = next((bytes(item) for item in frame.side_data if item.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return None
    (a, b, _), (c, d, _) = np.frombuffer(data, np.int32).reshape(3, 3)[:2].tolist()
    matrix = np.array([[np.sign(a), np.sign(c)], [np.sign(b), np.sign(d)]])
    is_right_angled = (np.abs(matrix).sum(axis=0) == 1).all() and (np.abs(matrix).sum(axis=1) == 1).all()
    return matrix if is_right_angled and (matrix != np.eye(2)).any() else None


def turn_upright(frames: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Frames `(..., height, width, channels)`, turned and mirrored by a [`display_matrix`]."""
    if matrix is None:
        return frames
    if matrix[0, 0] == 0:
        frames = frames.swapaxes(-3, -2)
    if matrix[0].sum() < 0:
        frames = frames[..., ::-1, :]
    if matrix[1].sum() < 0:
        frames = frames[..., ::-1, :, :]
    return np.ascontiguousarray(frames)


def _find_display_matrix(source: str) -> np.ndarray | None:
    with av.open(source) as container:
        return next((display_matrix(frame) for frame in container.decode(video=0)), None)


def _warn_if_cut_off(source: str, metadata: VideoMetadata) -> None:
    """
    Says so where the frames end long before the time that the header states. Containers made for streaming (Matroska,
    WebM, ...) decode without an error up to where a file was cut off; sound that outlasts the picture looks the same.
    """
    if av is None or is_url(source) or source.lower().endswith((".mp4", ".m4v", ".mov")) or not metadata.duration:
        return
    with av.open(source) as container:
        stated = (container.duration or 0) / av.time_base
    if metadata.duration < 0.9 * stated - 0.5:
        logger.warning(
            f"{source} may be truncated: its frames cover {metadata.duration:.1f} s of the {stated:.1f} s that its "
            "header states."
        )


def _count_frames(source: str) -> int:
    """Video packets of a file, read without decoding them."""
    if is_url(source):
        raise ValueError("the container does not state its number of frames; download it, or decode it with decord")
    with av.open(source) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


__all__ = [
    "display_matrix",
    "list_frame_files",
    "read_image",
    "read_video",
    "sample_frame_indices",
    "scale_to_eight_bit",
    "to_rgb",
    "turn_upright",
]
