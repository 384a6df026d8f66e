"""Crops faces as the paper's clips show them, and what the S2D processors do with it."""

import copy
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
import torch

from .face_detection_s2d import FaceDetector
from .face_tracking_s2d import FaceFollower, FollowedFace, FollowedFrame, colour_histogram
from .frames_s2d import scale_to_eight_bit

try:
    import cv2
except ImportError:  # comes with face-alignment
    cv2 = None  # type: ignore[assignment]  # where it is, a module

if TYPE_CHECKING:  # it stands beside a transformers processor, whose methods it calls
    from transformers import BaseImageProcessor as _Processor
else:
    _Processor = object

Processor = TypeVar("Processor", bound="FaceCropperMixin")

# The iBUG 68 points of the eyes: the one on the left of the picture first.
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)
# Eyes nearer to each other than this part of the crop belong to a face in profile: their line says nothing.
_MIN_EYE_DISTANCE = 0.15
# So much have the colours of two faces in common that are taken for one person's.
SAME_FACE_LIKENESS = 0.6


class FaceProcessorKwargs(TypedDict, total=False):
    """
    do_landmarks (`bool`, *optional*, defaults to `True`):
        Whether to compute `landmark_features`.
    return_landmarks (`bool`, *optional*, defaults to `False`):
        Whether to return the 68 points as `landmarks`.
    do_crop_faces (`bool`, *optional*, defaults to `False`):
        Whether to find and crop the largest face of an image, or a video's main one: the largest and longest seen.
    do_align_faces (`bool`, *optional*):
        Whether to turn the crop so that the eyes are level; by default where there is a landmark encoder to find them.
    face_margin (`float`, *optional*, defaults to 0.1):
        By how much the crop's edge is longer than the longer edge of the face's box, as a part of it.
    return_face_boxes (`bool`, *optional*, defaults to `False`):
        Whether to return the squares that were cropped as `face_boxes`.
    """

    do_landmarks: bool | None
    return_landmarks: bool | None
    do_crop_faces: bool | None
    do_align_faces: bool | None
    face_margin: float | None
    return_face_boxes: bool | None


def crop_square(
    frame: np.ndarray, center: Sequence[float] | np.ndarray, side: float, angle: float, size: int
) -> np.ndarray:
    """
    Cuts a square out of a frame at exact, fractional positions, without aliasing; black where it leaves the frame.

    Args:
        frame (`np.ndarray` of shape `(height, width, 3)`): uint8.
        center (`Sequence[float]`): x and y of the square's middle, in pixels, where (0, 0) is the frame's upper left
            corner and (0.5, 0.5) the middle of its first pixel.
        side (`float`): In pixels of the frame.
        angle (`float`): Degrees by which the square is turned, clockwise.
        size (`int`): Pixels along an edge of the result.

    Returns:
        `np.ndarray` of shape `(size, size, 3)`, uint8.

    Raises:
        ValueError: if `side` or `size` is not positive.
    """
    if side <= 0 or size < 1:
        raise ValueError(f"`side` and `size` must be positive, got {side} and {size}.")
    # as many samples as pixels, whose mean is taken: a shrunken crop doesn't flicker
    factor = max(1, math.ceil(side / size - 1e-6))
    step = side / (size * factor)
    cos, sin = step * math.cos(math.radians(angle)), step * math.sin(math.radians(angle))
    half = (size * factor - 1) / 2
    # pixels' middles to pixels' middles, which OpenCV gives whole numbers
    matrix = np.array(
        [
            [cos, -sin, center[0] - 0.5 - half * (cos - sin)],
            [sin, cos, center[1] - 0.5 - half * (sin + cos)],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(frame, matrix, (size * factor, size * factor), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return large if factor == 1 else cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def find_roll_angles(landmarks: torch.Tensor) -> np.ndarray:
    """
    By how much faces are turned in the picture, from the line through their eyes.

    Args:
        landmarks (`torch.Tensor` of shape `(N, 68, 2)`): As fractions of square crops, in the iBUG 68 order.

    Returns:
        `np.ndarray` of shape `(N,)`: degrees, clockwise; NaN for faces in profile, whose eyes lie close together.
    """
    points = landmarks.detach().cpu().double().numpy()
    across = points[:, _RIGHT_EYE].mean(axis=1) - points[:, _LEFT_EYE].mean(axis=1)
    angles = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    angles[np.linalg.norm(across, axis=1) < _MIN_EYE_DISTANCE] = np.nan
    return angles


class FaceCropperMixin(_Processor):
    """
    Gives an S2D processor the cropping of faces.

    The detector is made when it is first needed. Its weights' path belongs to the machine and isn't saved.
    """

    do_crop_faces = False
    do_align_faces: bool | None = None
    face_margin = 0.1
    return_face_boxes = False

    def __init__(
        self, face_detector: str = "retinaface", face_detector_weights: str | os.PathLike | None = None, **kwargs
    ):
        self.face_detector = face_detector
        self.face_detector_weights = face_detector_weights
        self._loaded_detector: tuple[tuple, FaceDetector] | None = None
        super().__init__(**kwargs)

    @classmethod
    def from_pretrained(
        cls: type[Processor], pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> Processor:
        """Loads a processor; `face_detector` and `face_detector_weights` take the place of what was saved."""
        chosen = {name: kwargs.pop(name) for name in ("face_detector", "face_detector_weights") if name in kwargs}
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        for name, value in chosen.items():
            setattr(loaded[0] if isinstance(loaded, tuple) else loaded, name, value)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        # a detector can't be copied; a copy of the processor makes its own
        return self.__dict__ | {"_loaded_detector": None}

    @classmethod
    def from_dict(cls: type[Processor], dictionary: dict[str, Any], **kwargs: Any) -> Processor:
        """Makes a processor of its settings; a stranger's can't name files of this machine."""
        return super().from_dict({k: v for k, v in dictionary.items() if k != "face_detector_weights"}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The processor's settings, without what belongs to the machine."""
        settings = copy.copy(self)
        dictionary = super(FaceCropperMixin, settings).to_dict()
        for name in ("_loaded_detector", "face_detector_weights"):
            dictionary.pop(name, None)
        return dictionary

    def get_face_detector(self, device: str | torch.device | None = None) -> FaceDetector:
        """
        The detector that `face_detector` and `face_detector_weights` name, loaded once.

        Raises:
            ImportError, OSError, ValueError: see [`FaceDetector`].
        """
        settings = (self.face_detector, self.face_detector_weights, str(device or "cpu"))
        if self._loaded_detector is None or self._loaded_detector[0] != settings:
            self._loaded_detector = (settings, FaceDetector(settings[0], settings[1], device=settings[2]))
        return self._loaded_detector[1]

    def face_square_side(self, face_side: float, face_margin: float | None = None) -> float:
        """Side of the square that is cropped for a face whose box is `face_side` long, in pixels."""
        margin = self.face_margin if face_margin is None else face_margin
        if margin <= -1:
            raise ValueError(f"`face_margin` must be above -1, got {margin}.")
        return (1 + margin) * face_side

    def angle_finder(
        self, do_align_faces: bool | None = None, device: str | torch.device | None = None
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        """
        What a [`FaceFollower`] takes as `find_angles`: the landmark encoder's eyes; `None` if faces stay as they are.

        Raises:
            ValueError: if `do_align_faces` is `True` and there is no landmark encoder.
        """
        wanted = self.do_align_faces if do_align_faces is None else do_align_faces
        if wanted is None:
            wanted = self.landmark_encoder is not None
        if not wanted:
            return None
        if self.landmark_encoder is None:
            raise ValueError("`do_align_faces=True` needs a landmark encoder, and this processor has none.")

        def find(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
            size = self.face_crop_size()
            crops = [
                crop_square(
                    frame, ((x1 + x2) / 2, (y1 + y2) / 2), self.face_square_side(max(x2 - x1, y2 - y1)), 0, size
                )
                for x1, y1, x2, y2 in boxes
            ]
            pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device or "cpu")
            landmarks = self.compute_landmarks(self.normalise_frames(pixels), return_landmarks=True)["landmarks"]
            return find_roll_angles(landmarks)

        return find

    def face_crop_size(self, size: Any = None) -> int:
        """Edge of the face crops in pixels: what the processor's resizing would make of them."""
        size = self.size if size is None else size
        if isinstance(size, int):
            return size
        size = dict(size)
        return int(size.get("shortest_edge") or size["height"])

    def crop_faces(
        self,
        frames: list[torch.Tensor],
        times: np.ndarray | None = None,
        face_margin: float | None = None,
        do_align_faces: bool | None = None,
        size: Any = None,
        device: str | torch.device | None = None,
        detect_every: int = 1,
    ) -> tuple[list[torch.Tensor], np.ndarray]:
        """
        Crops the main face of a video: the one that is largest and seen longest (most face lengths, added up over the
        frames), with the faces of other tracks that have its colours, as after a cut. In frames without it, the crop
        stays where it was nearest in time.

        Args:
            frames (`list[torch.Tensor]`): RGB frames `(3, height, width)`, in order.
            times (`np.ndarray` of shape `(num_frames,)`, *optional*): In seconds, not descending; by default an eighth
                of a second apart.
            face_margin (`float`, *optional*): See the processor.
            do_align_faces (`bool`, *optional*): See the processor.
            size (`dict`, *optional*): See the processor.
            device (`str` or `torch.device`, *optional*): Where the detector and the landmark encoder run.
            detect_every (`int`): Frames from one detection to the next.

        Returns:
            `list[torch.Tensor]`: crops `(3, size, size)`, uint8; and `np.ndarray` of shape `(num_frames, 4)`: x1, y1,
            x2, y2 of the squares in pixels of the frames, before they were turned.

        Raises:
            ValueError: if no face is found, or `detect_every` is below 1.
        """
        pixels = [frame.round().clamp(0, 255).to(torch.uint8) for frame in scale_to_eight_bit(frames)]
        arrays = [np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()) for frame in pixels]
        times = np.arange(len(arrays)) / 8 if times is None else np.asarray(times, dtype=float)
        # a short clip's last frame may be repeated
        is_new = np.concatenate([[True], np.diff(times) > 0])
        positions = self._follow_main_face(arrays, times, is_new, do_align_faces, device, detect_every)
        crop_size = self.face_crop_size(size)
        crops, boxes = [], []
        for array, face in zip(arrays, positions, strict=True):
            side = self.face_square_side(face.side, face_margin)
            crop = crop_square(array, face.center, side, face.angle, crop_size)
            crops.append(torch.from_numpy(crop).permute(2, 0, 1))
            boxes.append([*(face.center - side / 2), *(face.center + side / 2)])
        return crops, np.array(boxes)

    def _follow_main_face(
        self,
        frames: list[np.ndarray],
        times: np.ndarray,
        is_new: np.ndarray,
        do_align_faces: bool | None,
        device: str | torch.device | None,
        detect_every: int,
    ) -> list[FollowedFace]:
        """Where the main face is in each frame."""
        finder = self.angle_finder(do_align_faces, device)
        fresh = times[is_new]
        step = float(np.median(np.diff(fresh))) if len(fresh) > 1 else 0.125
        # frames that are seconds apart: neither smoothed nor given up after one that shows no face
        follower = FaceFollower(
            self.get_face_detector(device),
            detect_every=detect_every,
            max_gap=max(1.0, 2.5 * step * detect_every),
            smoothing=0.2 if step < 0.4 else 0.0,
            find_angles=finder,
        )
        followed = [
            done for i in np.flatnonzero(is_new) for done in follower.add(float(times[i]), frames[i])
        ] + follower.finish()
        tracks: dict[int, dict[int, FollowedFace]] = {}
        for i, frame in enumerate(followed):
            for face in frame.faces:
                tracks.setdefault(face.track, {})[i] = face
        if not tracks:
            among = f" in {len(followed)} frames" if len(followed) > 1 else ""
            raise ValueError(
                f"No face was found{among}. If what it shows is cropped to a face already, pass `do_crop_faces=False`."
            )
        main = max(tracks.values(), key=lambda track: sum(face.side for face in track.values()))
        _join_broken_tracks(main, followed)
        seen = np.array(sorted(main))
        positions = np.cumsum(is_new) - 1
        return [main[int(seen[np.abs(seen - position).argmin()])] for position in positions]


def _join_broken_tracks(main: dict[int, FollowedFace], followed: list[FollowedFrame]) -> None:
    """
    Adds to a track, the faces by their frames' numbers, the faces of other frames that look like its own: those of one
    person before and after a cut, or a movement too fast to follow.
    """

    def look(i: int, face: FollowedFace) -> np.ndarray:
        half = face.side / 2
        return colour_histogram(followed[i].frame, (*(face.center - half), *(face.center + half)))

    wanted = np.mean([look(i, face) for i, face in main.items()], axis=0)
    for i, frame in enumerate(followed):
        if i not in main and frame.faces:
            likeness = [float(np.minimum(look(i, face), wanted).sum()) for face in frame.faces]
            if max(likeness) >= SAME_FACE_LIKENESS:
                main[i] = frame.faces[int(np.argmax(likeness))]


__all__ = ["FaceCropperMixin", "FaceProcessorKwargs", "crop_square", "find_roll_angles"]
