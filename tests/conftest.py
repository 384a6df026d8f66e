"""Small models, real faces and real videos for the tests."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# what is converted here is nobody else's
os.environ["HF_ASSETS_CACHE"] = tempfile.mkdtemp(prefix="s2d-hf-tests-")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as threads there would be
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import settings
from safetensors import safe_open
from safetensors.torch import load_file

from s2d_hf import (
    S2DConfig,
    S2DForImageClassification,
    S2DForVideoClassification,
    S2DImageProcessor,
    S2DVideoProcessor,
)
from s2d_hf.conversion import convert_checkpoint

from .detector_weights import SHARED, find_weights
from .hub_server import HubServer
from .small_models import TINY, random_inputs, randomise
from .videos import write_video
from .warm_python import WarmPython

atexit.register(shutil.rmtree, os.environ["HF_ASSETS_CACHE"], ignore_errors=True)

# made inputs: the same in every run of the tests, and many others with `--hypothesis-profile=long`
settings.register_profile("short", max_examples=100, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=3000, deadline=None, database=None)
settings.load_profile("short")

GOLDEN_LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the golden tensors and landmark weights in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared) -> dict[str, torch.Tensor]:
    """Frames, the authors' weights (`official.*`) and what their code computed from them."""
    return load_file(shared / "golden" / "s2d_video_tiny.safetensors")


@pytest.fixture(scope="session")
def official_state(golden) -> dict[str, torch.Tensor]:
    """A state dict under the authors' names."""
    return {name.removeprefix("official."): tensor for name, tensor in golden.items() if name.startswith("official.")}


@pytest.fixture(scope="session")
def retinaface_weights() -> Path:
    return find_weights("retinaface")


@pytest.fixture(scope="session")
def yunet_weights() -> Path:
    return find_weights("yunet")


@pytest.fixture(scope="session")
def landmark_weights(shared) -> Path:
    return shared / "weights" / "mobilefacenet_68pts.safetensors"


@pytest.fixture(scope="session")
def landmark_state(landmark_weights) -> dict[str, torch.Tensor]:
    with safe_open(landmark_weights, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="session")
def converted(official_state, landmark_weights, tmp_path_factory) -> Path:
    """The folder that the golden checkpoint converts to; not to be written into."""
    folder = tmp_path_factory.mktemp("converted")
    torch.save({"model": official_state}, folder / "official.pth")
    convert_checkpoint(
        folder / "official.pth",
        folder / "golden",
        landmark_weights=landmark_weights,
        labels=GOLDEN_LABELS,
        num_attention_heads=4,
    )
    return folder / "golden"


@pytest.fixture(scope="session")
def image_folder(converted, tmp_path_factory) -> Path:
    """An image model with the converted model's processors."""
    folder = tmp_path_factory.mktemp("image")
    model = S2DForImageClassification.from_pretrained(converted, temporal_adapters=False)
    randomise(model).save_pretrained(folder)
    S2DImageProcessor.from_pretrained(converted).save_pretrained(folder)
    S2DVideoProcessor.from_pretrained(converted).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_config() -> S2DConfig:
    """A video model of a few thousand parameters: 32x32 pixels, 4 frames, 3 blocks."""
    return S2DConfig(**TINY)


@pytest.fixture
def tiny_video_model(tiny_config) -> S2DForVideoClassification:
    return randomise(S2DForVideoClassification(tiny_config)).eval()


@pytest.fixture
def tiny_image_model() -> S2DForImageClassification:
    return randomise(S2DForImageClassification(S2DConfig(**(TINY | {"temporal_adapters": False})))).eval()


@pytest.fixture
def tiny_inputs(tiny_config) -> dict[str, torch.Tensor]:
    """Two clips for `tiny_video_model`."""
    return random_inputs(tiny_config, batch_size=2)


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """A real face, `(224, 224, 3)` uint8: a loose crop of scikit-image's astronaut."""
    return np.ascontiguousarray(skimage.data.astronaut()[:224, 110:334])


@pytest.fixture(scope="session")
def face_video(face, tmp_path_factory) -> Path:
    """A real face that moves to the right, 40 frames."""
    frames = [np.roll(face, shift=i, axis=1) for i in range(40)]
    return write_video(tmp_path_factory.mktemp("videos") / "face.mp4", frames)


@pytest.fixture
def torch_home(shared, tmp_path) -> Path:
    """A folder for PyTorch's downloads, in which the default face detector's weights lie already."""
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(shared / "weights" / "retinaface_mobilenet0.25.pth", checkpoints)
    return tmp_path / "torch"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """An empty Hub. This process is offline; give subprocesses `hub.environment(...)`."""
    with HubServer() as server:
        yield server


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Runs Python as a process of its own, but for its first seconds."""
    with WarmPython() as python:
        yield python


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory) -> Path:
    """The interpreter of a virtual environment with everything that is installed here, but without s2d_hf."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (own,) = (folder / "lib").glob("python*/site-packages")
    # Python doesn't read the .pth files in folders that are added so: an editable install's stays without effect
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    code = "import importlib.util as u; print(u.find_spec('transformers') is not None, u.find_spec('s2d_hf') is None)"
    found = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=folder).stdout
    assert found.split() == ["True", "True"], "transformers must be, and s2d_hf must not be importable here"
    return python
