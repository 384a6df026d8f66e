"""Videos to measure with: face-like shapes, or a real face, that move before a textured background."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

FPS = 25
Box = tuple[float, float, float, float]

# Where detectors see the face of scikit-image's astronaut, and her head and shoulders (x1, y1, x2, y2): in pixels.
_FACE_CENTER, _FACE_SIDE, _HEAD = (223.5, 118.0), 118.0, (110, 0, 336, 225)


def write_made_video(path: Path, width: int, height: int, seconds: float, faces: int = 1) -> Path:
    """Writes an H.264 video of `faces` drawn heads beside each other; see [`face_boxes`] for where they are."""

    def draw(frame: np.ndarray, time: float) -> np.ndarray:
        image = Image.fromarray(frame)
        for x1, y1, x2, y2 in face_boxes(width, height, faces):
            _draw_head(ImageDraw.Draw(image), (x1 + x2) / 2, (y1 + y2) / 2, (y2 - y1) / 2, time)
        return np.asarray(image)

    return _write(path, width, height, seconds, draw)


def face_boxes(width: int, height: int, faces: int) -> list[Box]:
    """The drawn heads' boxes x1, y1, x2, y2, in pixels."""
    return _boxes(width, height, faces, 0.7)


def real_face() -> np.ndarray | None:
    """
    The picture of the astronaut Eileen Collins, by NASA, in the public domain, `(512, 512, 3)` uint8; `None` where
    scikit-image, which brings it, is missing.
    """
    try:
        from skimage.data import astronaut

        return astronaut()
    except (ImportError, OSError):
        return None


def write_face_video(
    path: Path, width: int, height: int, seconds: float, faces: int, picture: np.ndarray
) -> list[Box]:
    """
    Writes an H.264 video in which detectors find faces, beside each other.

    Args:
        path (`Path`): The file.
        width (`int`), height (`int`), seconds (`float`): Its size; pixels are even numbers.
        faces (`int`): How many.
        picture (`np.ndarray`): Of [`real_face`].

    Returns:
        `list[Box]`: around which the faces are, x1, y1, x2, y2 in pixels: they move by a tenth of the face.
    """
    boxes = _boxes(width, height, faces, 0.45)
    side = boxes[0][2] - boxes[0][0]
    scale = side / _FACE_SIDE
    head = Image.fromarray(picture).crop(_HEAD)
    head = np.asarray(head.resize([round(scale * edge) for edge in head.size], Image.Resampling.LANCZOS), np.float32)
    # it fades into the background, so that its rectangle's edges are no features
    rows, columns = np.mgrid[-1 : 1 : head.shape[0] * 1j, -1 : 1 : head.shape[1] * 1j]
    weight = np.clip((1 - np.hypot(rows, columns)) / 0.12, 0, 1).astype(np.float32)[..., None]
    from_corner = [scale * (center - corner) for center, corner in zip(_FACE_CENTER, _HEAD[:2], strict=True)]

    def draw(frame: np.ndarray, time: float) -> np.ndarray:
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            phase = 1.5 * time + number
            x = round((x1 + x2) / 2 + 0.1 * side * np.sin(phase) - from_corner[0])
            y = round((y1 + y2) / 2 + 0.1 * side * np.cos(phase) - from_corner[1])
            top, left = max(0, -y), max(0, -x)
            part = frame[max(0, y) : y + head.shape[0], max(0, x) : x + head.shape[1]]
            shown = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
            part[:] = (part * (1 - weight[shown]) + head[shown] * weight[shown]).round()
        return frame

    _write(path, width, height, seconds, draw)
    return boxes


def _boxes(width: int, height: int, faces: int, share: float) -> list[Box]:
    side = share * min(height, width / faces)
    middles = [(i + 0.5) * width / faces for i in range(faces)]
    return [(x - side / 2, (height - side) / 2, x + side / 2, (height + side) / 2) for x in middles]


def _write(
    path: Path, width: int, height: int, seconds: float, draw: Callable[[np.ndarray, float], np.ndarray]
) -> Path:
    generator = np.random.default_rng(0)
    coarse = generator.integers(60, 180, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    background = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * FPS)):
            frame = draw(background.copy(), index / FPS)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def _draw_head(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, time: float) -> None:
    def ellipse(dx: float, dy: float, half_width: float, half_height: float, color: tuple[int, int, int]) -> None:
        middle = x + dx * radius, y + dy * radius + 0.05 * radius * np.sin(4 * time)
        half = max(1.0, half_width * radius), max(1.0, half_height * radius)
        draw.ellipse([middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]], fill=color)

    ellipse(0, 0, 0.75, 1, (224, 180, 150))
    for side in (-0.3, 0.3):
        ellipse(side, -0.2, 0.1, 0.1, (40, 30, 30))
    ellipse(0, 0.45, 0.3, 0.08 + 0.06 * np.sin(3 * time), (150, 40, 50))


__all__ = ["FPS", "Box", "face_boxes", "real_face", "write_face_video", "write_made_video"]
