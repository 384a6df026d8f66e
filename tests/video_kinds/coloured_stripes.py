"""Videos of eight upright stripes, whose colours every reader must find."""

from pathlib import Path

import av
import numpy as np

from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import HEIGHT, WIDTH, as_array, make_video
from .readers import dataset_of

# Y, U and V in eight bits: grey, and colours that no matrix or range clips.
PATCHES = np.array(
    [(64, 128, 128), (128, 128, 128), (200, 128, 128), (110, 100, 170), (120, 160, 100), (100, 110, 110),
     (130, 150, 150), (90, 128, 155)]
)  # fmt: skip
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


def patches_frame(height: int, width: int, pix_fmt: str, patches: np.ndarray = PATCHES) -> av.VideoFrame:
    """Eight upright stripes of the colours in a frame whose planes are Y, U and V."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, component, values in zip(frame.planes, frame.format.components, patches.T, strict=False):
        values = values << (component.bits - 8)
        row = np.repeat(values, -(-plane.width // 8))[: plane.width]
        kind = np.uint8 if component.bits == 8 else np.uint16
        filled = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        filled[:, : plane.width] = row
        plane.update(filled.tobytes())
    return frame


def stripes_of(picture: np.ndarray) -> np.ndarray:
    """The colour in the middle of each of eight stripes, `(8, 3)`."""
    height, width = picture.shape[:2]
    columns = [round((i + 0.5) * width / 8) for i in range(8)]
    middle = slice(height // 4, 3 * height // 4)
    return np.stack([picture[middle, x - 1 : x + 2].reshape(-1, 3).mean(axis=0) for x in columns])


def check_stripes(path: Path, right: np.ndarray, plain, tolerance: float = 3) -> None:
    for picture in (
        read_video(path)[0][0],
        plain(path, return_tensors="pt")["pixel_values"][0, 0],
        dataset_of(path)[0]["frames"][0],
    ):
        np.testing.assert_allclose(stripes_of(as_array(picture)), right, atol=tolerance)
    with open_stream(path) as stream:
        np.testing.assert_allclose(stripes_of(next(iter(sample_evenly(stream, 1))).pixels), right, atol=tolerance)


LOSSLESS = {"qp": "0", "preset": "ultrafast"}


def write_tagged_patches(path: Path, matrix: int, colour_range: int, pix_fmt: str, count: int) -> Path:
    """Patches whose matrix and range stand in the frames and in the stream."""

    def prepare(context) -> None:
        context.colorspace, context.color_range = matrix, colour_range

    frames = []
    for _ in range(count):
        frame = patches_frame(HEIGHT, WIDTH, pix_fmt)
        frame.colorspace, frame.color_range = matrix, colour_range
        frames.append(frame)
    return make_video(path, frames, pix_fmt=pix_fmt, options=LOSSLESS, prepare=prepare)


COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 100, 50), (10, 60, 240)]
)


def stripes_with_alpha(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGBA `(height, width, 4)`, and its stripes' colours over white."""
    rgba = np.concatenate([COLOURS, levels[:, None]], axis=1)
    over_white = COLOURS * (levels[:, None] / 255) + 255 * (1 - levels[:, None] / 255)
    return np.repeat(np.repeat(rgba, WIDTH // 8, axis=0)[None], HEIGHT, axis=0).astype(np.uint8), over_white


LEVELS = np.array([255, 128, 0, 0, 128, 64, 192, 255])
