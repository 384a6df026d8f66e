"""From a decoded frame to the picture that a player shows: upright, with square pixels, in RGB."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from .video_limits_s2d import check_limit, limit_of

# FFmpeg's numbers of the matrices between YUV and RGB: of a frame, and of its scaler
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020 twice
_BT601, _BT709 = 5, 1
_LIMITED, _FULL = 1, 2


class PixelReader:
    """
    Turns the frames of one video into RGB arrays of one size, that of the first.

    - Colours follow the frame's matrix and range; where it names no matrix, BT.709 is taken for high definition and
      BT.601 below, as players do. Transparent pixels lie over white.
    - Of interlaced frames the upper field is shown, so that nothing is combed.
    - Pixels that are not square are made so, and the picture is turned and mirrored as its container says.
    - A frame of another size is fitted into the first one's, in the middle and with its shape kept.

    Args:
        first (`av.VideoFrame`): The first frame.
        aspect (`Fraction`, *optional*): Width of a pixel by its height, as the container has it.

    Attributes:
        width (`int`), height (`int`): Of the arrays.

    Raises:
        ValueError: if the pixels are too many or too far from square, see `video_limits_s2d.py`.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None = None):
        self.aspect = Fraction(aspect or 1)
        if self.aspect <= 0:
            self.aspect = Fraction(1)
        aspect_limit = limit_of("S2D_MAX_PIXEL_ASPECT")
        for name, ratio in (("wide as high", self.aspect), ("high as wide", 1 / self.aspect)):
            if ratio > aspect_limit:
                check_limit("S2D_MAX_PIXEL_ASPECT", float(ratio), f"its pixels are {float(ratio):.4g} times as {name}")
        self.coded_size = (first.width, first.height)
        # its own one, whose threads end with it: those of a frame's would outlive the frame
        self._reformatter = VideoReformatter()
        # some files state it with their first frame only
        self.matrix = display_matrix(first)
        self.width, self.height = self._upright_size(first)

    def _square_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height with square pixels."""
        width = max(1, round(frame.width * self.aspect))
        check_limit("S2D_MAX_FRAME_PIXELS", width * frame.height, f"its frames have {width}x{frame.height} pixels")
        return width, frame.height

    def _upright_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        size = self._square_size(frame)
        return size[::-1] if self.matrix is not None and self.matrix[0, 0] == 0 else size

    def changes_size(self, frame: av.VideoFrame) -> bool:
        """Whether a frame is of another size than the one that was asked about before it."""
        before, self.coded_size = self.coded_size, (frame.width, frame.height)
        return before != self.coded_size

    def read(self, frame: av.VideoFrame) -> np.ndarray:
        """RGB `(height, width, 3)`, uint8."""
        width, height = self._square_size(frame)
        picture = turn_upright(self._convert(frame, width, height), self.matrix)
        if picture.shape[:2] != (self.height, self.width):
            picture = fit_into(picture, self.width, self.height)
        return picture

    def _convert(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        details = frame.format
        colours = {}
        if not details.is_rgb and not details.name.startswith(("gray", "mono", "pal8", "ya")):
            matrix = _MATRICES.get(int(frame.colorspace))
            if matrix is None:
                matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
            is_full = int(frame.color_range) == _FULL or details.name.startswith("yuvj")
            # RGB has no matrix: with another one than the frame's, PyAV before 18 minds the range, too
            other = _BT709 if matrix == _BT601 else _BT601
            colours = {"src_colorspace": matrix, "dst_colorspace": other, "dst_color_range": _FULL}
            colours["src_color_range"] = _FULL if is_full else _LIMITED
        if frame.interlaced_frame and frame.height > 1:
            frame = _upper_field(frame)
        if any(component.is_alpha for component in details.components) or details.name == "pal8":
            rgba = self._reformatter.reformat(frame, width, height, "rgba", **colours).to_ndarray()
            alpha = rgba[..., 3:].astype(np.uint16)
            return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return self._reformatter.reformat(frame, width, height, "rgb24", **colours).to_ndarray()


def _upper_field(frame: av.VideoFrame) -> av.VideoFrame:
    """Every other line of each plane: a picture of half the height, taken at one moment."""
    field = av.VideoFrame(frame.width, (frame.height + 1) // 2, frame.format.name)
    source: Any  # planes have the buffer protocol, of which PyAV's hints don't tell
    target: Any
    for source, target in zip(frame.planes, field.planes, strict=True):
        lines = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)[: source.height : 2]
        filled = np.zeros((target.height, target.line_size), np.uint8)
        rows, columns = min(len(lines), target.height), min(source.line_size, target.line_size)
        filled[:rows, :columns] = lines[:rows, :columns]
        filled[rows:] = filled[rows - 1]
        target.update(filled)
    return field


def fit_into(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture `(h, w, 3)` in the middle of a black one of another size, as large as fits, with its shape kept."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(scale * picture.shape[1])), max(1, round(scale * picture.shape[0])))
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    fitted = np.zeros((height, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    fitted[top : top + size[1], left : left + size[0]] = resized
    return fitted


def display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """
    How a decoded frame is to be turned for display, as its container says: `(2, 2)` with entries -1, 0 and 1, from
    (x, y) in the frame to (x, y) on the screen. `None` for a frame that is upright, or turned by other than right
    angles.
    """
    side_data: Any = frame.side_data  # going through it gives the items, and not the names, as its hints say
    data = next((bytes(item) for item in side_data if item.type.name == "DISPLAYMATRIX"), None)
    if data is None or len(data) < 36:
        return None
    (a, b, _), (c, d, _) = np.frombuffer(data[:36], np.int32).reshape(3, 3)[:2].tolist()
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


__all__ = ["PixelReader", "display_matrix", "fit_into", "turn_upright"]
