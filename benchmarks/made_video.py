"""A video to decode: a face-like shape that moves before a textured background."""

from pathlib import Path

import av
import cv2
import numpy as np

FPS = 25


def write_made_video(path: Path, width: int, height: int, seconds: float, faces: int = 1) -> Path:
    """Writes an H.264 video of `faces` heads beside each other; see [`face_boxes`] for where they are."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(60, 180, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    background = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * FPS)):
            frame = background.copy()
            for x1, y1, x2, y2 in face_boxes(width, height, faces):
                _draw_head(frame, (x1 + x2) / 2, (y1 + y2) / 2, (y2 - y1) / 2, index / FPS)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def face_boxes(width: int, height: int, faces: int) -> list[tuple[float, float, float, float]]:
    """The heads' boxes x1, y1, x2, y2, in pixels."""
    side = 0.7 * min(height, width / faces)
    middles = [(i + 0.5) * width / faces for i in range(faces)]
    return [(x - side / 2, (height - side) / 2, x + side / 2, (height + side) / 2) for x in middles]


def _draw_head(frame: np.ndarray, x: float, y: float, radius: float, time: float) -> None:
    def point(dx: float, dy: float) -> tuple[int, int]:
        return round(x + dx * radius), round(y + dy * radius + 0.05 * radius * np.sin(4 * time))

    cv2.ellipse(frame, point(0, 0), (round(0.75 * radius), round(radius)), 0, 0, 360, (224, 180, 150), -1)
    for side in (-0.3, 0.3):
        cv2.circle(frame, point(side, -0.2), max(1, round(0.1 * radius)), (40, 30, 30), -1)
    opening = max(1, round(radius * (0.08 + 0.06 * np.sin(3 * time))))
    cv2.ellipse(frame, point(0, 0.45), (round(0.3 * radius), opening), 0, 0, 360, (150, 40, 50), -1)


__all__ = ["FPS", "face_boxes", "write_made_video"]
