"""Videos whose content a test knows."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch


def write_video(path: Path, frames: list[np.ndarray], fps: int = 25, **options: str) -> Path:
    """Writes RGB frames `(height, width, 3)` as H.264; `options` go to the container."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_timed_video(
    path: Path,
    frames: list[np.ndarray],
    pts: list[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
) -> Path:
    """Frames with time stamps in hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=100)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 100)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = (4 * i if pts is None else pts[i]), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_video(video: Path, target: Path, a: int, b: int, c: int, d: int) -> Path:
    """A copy of an MP4 file whose header says that frames are to be turned by the matrix (x, y) -> (ax+cy, bx+dy)."""
    data = bytearray(video.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # where version 0 of the box has its matrix
    one = 1 << 16
    data[start : start + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def counting_frames(num_frames: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Grey frames whose brightness tells their index: 3 * index + 20."""
    return [np.full((height, width, 3), 3 * i + 20, np.uint8) for i in range(num_frames)]


def frame_number(frame: np.ndarray | torch.Tensor) -> int:
    """The index of a frame of `counting_frames`, also after lossy compression."""
    return round((float(torch.as_tensor(frame).float().mean()) - 20) / 3)
