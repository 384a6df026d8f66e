"""A short video of a real face, for visitors who have none at hand."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

FPS = 24
SECONDS = 4
WIDTH, HEIGHT = 640, 480

# Of the picture, in its pixels: where the middle of the view is and how wide it is, when farthest and nearest. The
# face is about 118 pixels wide, around (223, 118).
_FAR, _NEAR = np.array([240.0, 158.0, 420.0]), np.array([226.0, 126.0, 270.0])
_SWAY = 14.0


def write_example(path: Path) -> Path | None:
    """
    Writes a video that moves slowly over a portrait, towards the face and back: 4 s of 640x480 pixels, H.264.

    The portrait is scikit-image's picture of the astronaut Eileen Collins, by NASA, in the public domain.

    Args:
        path (`Path`): The .mp4 file to write.

    Returns:
        `Path`, *optional*: the file, or `None` where scikit-image or its picture is missing.
    """
    try:
        from skimage.data import astronaut

        picture = astronaut()
    except (ImportError, OSError):
        return None
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=Fraction(FPS), options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        # BT.709, limited range
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for view in _views(picture):
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _views(picture: np.ndarray) -> Iterator[np.ndarray]:
    """The frames, RGB `(480, 640, 3)`, uint8; the last one leads back to the first."""
    for angle in np.linspace(0, 2 * np.pi, FPS * SECONDS, endpoint=False):
        x, y, width = _FAR + (1 - np.cos(angle)) / 2 * (_NEAR - _FAR)
        x += _SWAY * np.sin(angle)
        scale = width / WIDTH  # pixels of the picture for one of the view
        to_picture = np.array([[scale, 0, x - width / 2], [0, scale, y - scale * HEIGHT / 2]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        yield cv2.warpAffine(picture, to_picture, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REPLICATE)
