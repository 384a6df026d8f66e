"""Face detectors of face-alignment, brought to one form."""

import importlib
import inspect
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import is_offline_mode
from transformers.utils import logging

try:
    import cv2
except ImportError:  # comes with face-alignment
    cv2 = None  # type: ignore[assignment]  # where it is, a module

logger = logging.get_logger(__name__)

FACE_DETECTORS = ("retinaface", "yunet", "sfd", "blazeface", "scrfd")

# How each of face-alignment's detectors names its threshold.
_THRESHOLD_ARGUMENTS = ("confidence_threshold", "score_threshold", "filter_threshold", "min_score_thresh")
# From where face-alignment downloads the weights of each, under which name it keeps them in PyTorch's folder, and the
# licence that their origin names, with their size where it was measured.
_DOWNLOADS = {
    "retinaface": (
        "https://www.adrianbulat.com/downloads/python-fan/retinaface_mobilenet0.25.pth",
        "retinaface_mobilenet0.25.pth",
        "MIT; 1.8 MB",
    ),
    "yunet": (
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "face_detection_yunet_2023mar.onnx",
        "MIT; 0.2 MB",
    ),
    "sfd": (
        "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
        "s3fd-619a316812.pth",
        "not named",
    ),
    "blazeface": (
        "https://github.com/hollance/BlazeFace-PyTorch/blob/master/blazeface.pth?raw=true",
        "blazeface.pth",
        "Apache-2.0",
    ),
    "scrfd": (
        "https://github.com/yakhyo/facial-analysis/releases/download/v0.0.1/det_2.5g.onnx",
        "scrfd_2.5g_bnkps.onnx",
        "for non-commercial research",
    ),
}
_DEVICES = ("cpu", "cuda", "mps")
# Frames with a shorter edge hold no face that a detector finds, and sfd fails on them.
_MIN_EDGE = 32


class FaceDetector:
    """
    Finds the faces of frames with one of face-alignment's detectors.

    Args:
        name (`str`): `"retinaface"` (MobileNet 0.25; CPU and GPU), `"yunet"` (the fastest on a CPU; CPU only), `"sfd"`
            (slow without a GPU), `"blazeface"` (faces near the camera) or `"scrfd"` (needs onnxruntime).
        weights (`str` or `Path`, *optional*): The detector's weights: PyTorch's for retinaface, sfd and blazeface
            (with its anchors beside it, in `anchors.npy`, or `anchorsback.npy` for a `blazefaceback.pth`), ONNX for
            yunet and scrfd. By default face-alignment downloads them once.
        threshold (`float`): Confidence from which on something is a face.
        max_size (`int`): Frames are made smaller for the detector, until their longer edge has this many pixels.
        device (`str` or `torch.device`): Where the detector runs.

    Raises:
        ValueError: if there is no such detector, face-alignment does not run on the device, or the weights are another
            one's.
        FileNotFoundError: if there is no such file of weights.
        ImportError: if face-alignment is not installed.
    """

    def __init__(
        self,
        name: str = "retinaface",
        weights: str | os.PathLike | None = None,
        threshold: float = 0.6,
        max_size: int = 640,
        device: str | torch.device = "cpu",
    ):
        if name not in FACE_DETECTORS:
            raise ValueError(f"`face_detector` must be one of {', '.join(FACE_DETECTORS)}, got {name!r}.")
        if weights is not None and not Path(weights).expanduser().is_file():
            raise FileNotFoundError(
                f"`face_detector_weights`: there is no file {weights} with the weights of the face detector {name}."
            )
        device = torch.device(device)
        if device.type not in _DEVICES:
            raise ValueError(f"Face detectors run on {', '.join(_DEVICES)}, not on `device` {str(device)!r}.")
        self.name = name
        self.max_size = max_size
        self.threshold = threshold
        self._detector = _load_detector(
            name, None if weights is None else str(Path(weights).expanduser()), threshold, str(device)
        )
        for network in vars(self._detector).values():
            if isinstance(network, torch.nn.Module) and device.type == "cpu":
                network.to(memory_format=torch.channels_last)  # retinaface: almost twice as fast
        self._lock = threading.Lock()  # OpenCV's detectors keep the size of their input

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """
        Args:
            frames (`Sequence[np.ndarray]`): RGB frames `(height, width, 3)`, uint8.

        Returns:
            `list[np.ndarray]`, for each frame `(num_faces, 5)`, float64: x1, y1, x2, y2 in pixels of the frame, and
            the confidence; the most confident first.
        """
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        scale = min(1.0, self.max_size / max(height, width))
        small = np.ascontiguousarray(frame)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
        if min(small.shape[:2]) < _MIN_EDGE:
            return np.zeros((0, 5))
        if self.name == "retinaface":
            # trained on BGR, which face-alignment leaves to the caller
            small = np.ascontiguousarray(small[..., ::-1])
        with self._lock:
            found = self._detector.detect_from_image(small)
        faces = np.array(found, dtype=np.float64).reshape(-1, 5)
        faces = faces[np.isfinite(faces).all(axis=1)]
        faces[:, [0, 2]] *= width / small.shape[1]
        faces[:, [1, 3]] *= height / small.shape[0]
        faces = faces[(faces[:, 2] > faces[:, 0]) & (faces[:, 3] > faces[:, 1]) & (faces[:, 4] >= self.threshold)]
        return faces[np.argsort(-faces[:, 4], kind="stable")]


def detector_download(name: str) -> str | None:
    """The address from which a detector's weights have yet to be downloaded; `None` where they are here."""
    address, file, _ = _DOWNLOADS[name]
    return None if (_cache_folder() / file).is_file() else address


def _cache_folder() -> Path:
    """PyTorch's folder, in which face-alignment keeps what it downloads."""
    return Path(torch.hub.get_dir(), "checkpoints")


def _announce_download(name: str) -> None:
    """
    Says what face-alignment is about to download.

    Raises:
        OSError: with `HF_HUB_OFFLINE`, which face-alignment doesn't know.
    """
    address = detector_download(name)
    if address is None:
        return
    if is_offline_mode():
        raise OSError("HF_HUB_OFFLINE is set")
    logger.warning(
        f"Downloading the weights of the face detector {name} from {address}, once (licence: {_DOWNLOADS[name][2]}). "
        f"They are kept in {_cache_folder()}."
    )


def _load_detector(name: str, weights: str | None, threshold: float, device: str) -> Any:
    try:
        module = importlib.import_module(f"face_alignment.detection.{name}")
    except ImportError as error:
        raise ImportError("Finding faces needs face-alignment: pip install face-alignment.") from error
    options: dict[str, Any] = {"device": "cpu" if name == "yunet" else device}
    if weights is not None:
        options["path_to_detector"] = weights
        if name == "blazeface":
            options |= _blazeface_options(Path(weights))
    parameters = inspect.signature(module.FaceDetector.__init__).parameters
    options |= {argument: threshold for argument in _THRESHOLD_ARGUMENTS if argument in parameters}
    try:
        if weights is None:
            _announce_download(name)
        with _quiet_opencv():
            return module.FaceDetector(**options)
    except ImportError:
        raise
    except Exception as error:  # of torch, OpenCV and onnxruntime: they share no base class
        if weights is None:
            raise OSError(
                f"The weights of the face detector {name} could not be downloaded: {error}. Fetch them where there is "
                f"a network, and put the file into {_cache_folder()} or pass its path as `face_detector_weights`:\n  "
                f"{_DOWNLOADS[name][0]}"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{weights} does not hold the weights of the face detector {name}. ({reason})") from error


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Without OpenCV's warning that YuNet can't choose what it runs on; errors are still printed."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _blazeface_options(weights: Path) -> dict[str, Any]:
    is_back = "back" in weights.stem
    anchors = weights.with_name("anchorsback.npy" if is_back else "anchors.npy")
    if not anchors.is_file():
        raise FileNotFoundError(f"The detector blazeface needs its anchors beside {weights}: there is no {anchors}.")
    return {"back_model": is_back, "path_to_anchor": str(anchors)}


__all__ = ["FACE_DETECTORS", "FaceDetector", "detector_download"]
