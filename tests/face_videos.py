"""Videos of a real face whose place in every frame a test knows."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import skimage.data

# Where detectors see the face of scikit-image's astronaut: its middle and its longer side, in pixels.
FACE_CENTER, FACE_SIDE = (223.5, 118.0), 118.0
_PATCH = (110, 0, 336, 225)  # x1, y1, x2, y2 of head and shoulders


@dataclass
class PlacedFace:
    """
    The astronaut's head in a frame.

    Args:
        center (`tuple[float, float]`): Middle of the face, in pixels of the frame.
        side (`float`): Longer side of the face, in pixels of the frame.
        mirrored (`bool`): Left and right exchanged.
        angle (`float`): Degrees, clockwise.
    """

    center: tuple[float, float]
    side: float
    mirrored: bool = False
    angle: float = 0.0


def draw_faces(faces: Sequence[PlacedFace], height: int = 360, width: int = 640, background: int = 90) -> np.ndarray:
    """A plain frame `(height, width, 3)`, uint8, with heads on it."""
    frame = np.full((height, width, 3), background, np.uint8)
    picture = skimage.data.astronaut()
    x1, y1, x2, y2 = _PATCH
    patch = picture[y1:y2, x1:x2].astype(np.float32)
    # the head fades into the background, so that its rectangle's edges are no features
    rows, columns = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]]
    middle = (FACE_CENTER[0] - x1, FACE_CENTER[1] - y1)
    distance = np.hypot((columns - middle[0]) / 105, (rows - middle[1]) / 112)
    alpha = np.clip((1 - distance) / 0.12, 0, 1).astype(np.float32)
    for face in faces:
        scale = face.side / FACE_SIDE
        cos, sin = scale * np.cos(np.radians(face.angle)), scale * np.sin(np.radians(face.angle))
        flip = -1 if face.mirrored else 1
        matrix = np.array([[cos * flip, -sin, 0], [sin * flip, cos, 0]])
        matrix[:, 2] = np.array(face.center) - 0.5 - matrix[:, :2] @ (np.array(middle) - 0.5)
        size = (width, height)
        shrunken = cv2.GaussianBlur(patch, (0, 0), 0.4 / scale) if scale < 1 else patch
        pixels = cv2.warpAffine(shrunken, matrix, size)
        weight = cv2.warpAffine(alpha, matrix, size)[..., None]
        frame = (frame * (1 - weight) + pixels * weight).round().astype(np.uint8)
    return frame
