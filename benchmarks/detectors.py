"""Which face detector the parts that go through whole videos use, and what stands in for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2d_hf.face_detection_s2d import FaceDetector, detector_download

from .made_video import Box, face_boxes, real_face, write_face_video, write_made_video
from .settings import Settings


@dataclass(frozen=True)
class Detection:
    """
    How faces are found.

    Args:
        name (`str`, *optional*), weights (`str`, *optional*): The detector, as in [`FaceDetector`].
        stand_in (`str`, *optional*): Why there is none, so that the known boxes take its place, at no cost.
    """

    name: str | None = None
    weights: str | None = None
    stand_in: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of [`TimelineRunner`]."""
        return {"detector": self.name, "weights": self.weights}


def choose_detector(settings: Settings) -> Detection:
    """
    The detector of the settings, if all that it needs is here; nothing is downloaded.

    Raises:
        FileNotFoundError, ValueError: if the weights that the settings name are none of this detector.
    """
    if real_face() is None:
        return Detection(stand_in="scikit-image is missing, whose picture of a face a detector would find")
    name, weights = settings.detector, settings.detector_weights
    if weights is None and detector_download(name) is not None:
        return Detection(stand_in=f"the weights of {name} are not here; --detector-weights names them")
    try:
        FaceDetector(name, weights, device=settings.device)
    except ImportError as error:
        return Detection(stand_in=str(error))
    return Detection(name, None if weights is None else str(Path(weights).expanduser().absolute()))


def write_video(path: Path, height: int, seconds: float, faces: int, detection: Detection) -> list[Box] | None:
    """
    Writes a video of 16:9 with faces for a detector; returns the boxes that stand in for it, if they do.

    Args:
        path (`Path`): The file.
        height (`int`): In pixels, an even number.
        seconds (`float`), faces (`int`): What it shows.
        detection ([`Detection`]): How they will be found.
    """
    width, picture = width_of(height), real_face()
    if picture is None:
        write_made_video(path, width, height, seconds, faces)
        return face_boxes(width, height, faces)
    boxes = write_face_video(path, width, height, seconds, faces, picture)
    return None if detection.stand_in is None else boxes


def width_of(height: int) -> int:
    """Of a frame of 16:9, an even number."""
    return 2 * round(height * 8 / 9)


__all__ = ["Detection", "choose_detector", "width_of", "write_video"]
