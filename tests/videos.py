"""Videos whose content a test knows."""

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


def counting_frames(num_frames: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Grey frames whose brightness tells their index: 3 * index + 20."""
    return [np.full((height, width, 3), 3 * i + 20, np.uint8) for i in range(num_frames)]


def frame_number(frame: np.ndarray | torch.Tensor) -> int:
    """The index of a frame of `counting_frames`, also after lossy compression."""
    return round((float(torch.as_tensor(frame).float().mean()) - 20) / 3)
