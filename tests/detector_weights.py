"""The weights of face detectors, wherever a clone can have them from."""

import os
import socket
from pathlib import Path

import pytest
import torch

from s2d_hf.face_detection_s2d import _DOWNLOADS

SHARED = Path(__file__).resolve().parents[2] / "shared"
VARIABLE = "S2D_TEST_WEIGHTS"
# by detector the names that its file may have, of several releases: tests must not depend on which one it is
FILES = {
    "retinaface": ("retinaface_mobilenet0.25.pth",),
    "yunet": ("face_detection_yunet_2026may.onnx", "face_detection_yunet_2023mar.onnx"),
}
PATIENCE = 10.0  # seconds, for a network that doesn't answer


def find_weights(detector: str, shared: Path = SHARED) -> Path:
    """
    The file of a detector's weights: from the folder that `S2D_TEST_WEIGHTS` names, from `shared/weights`, from
    PyTorch's folder, or downloaded into that by face-alignment. Skips the test where there is none.

    Raises:
        NotADirectoryError: if `S2D_TEST_WEIGHTS` names no folder.
    """
    folders = [shared / "weights", Path(torch.hub.get_dir(), "checkpoints")]
    if given := os.environ.get(VARIABLE):
        if not Path(given).is_dir():
            raise NotADirectoryError(f"{VARIABLE}: there is no folder {given}. It names one with files of weights.")
        folders.insert(0, Path(given))
    for folder in folders:
        for file in FILES[detector]:
            if (folder / file).is_file():
                return folder / file
    from face_alignment import utils  # takes seconds

    address, file, _ = _DOWNLOADS[detector]
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        return Path(utils.load_file_from_url(address, file_name=file))
    except OSError as error:
        names = " or ".join(FILES[detector])
        pytest.skip(
            f"needs the weights of {detector}, which could not be downloaded ({error}): put {names} into a folder and "
            f"name that in {VARIABLE}. They come from {address}"
        )
    finally:
        socket.setdefaulttimeout(patience)
