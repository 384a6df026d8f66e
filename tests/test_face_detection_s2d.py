import importlib
import inspect
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from face_alignment.detection.blazeface.net_blazeface import BlazeFace
from face_alignment.detection.sfd.net_s3fd import s3fd

from s2d_hf.face_detection_s2d import _DOWNLOADS, FACE_DETECTORS, FaceDetector, detector_download

from .face_videos import PlacedFace, draw_faces

# of the astronaut's face in scikit-image's picture, drawn by hand: x1, y1, x2, y2
ASTRONAUT = (178, 60, 268, 178)
WIDTH = 512  # of the picture


@pytest.fixture(scope="module", params=["retinaface", "yunet"])
def detector(request) -> FaceDetector:
    return FaceDetector(request.param, request.getfixturevalue(f"{request.param}_weights"))


@pytest.fixture(scope="module")
def sfd_weights(tmp_path_factory):
    """S3FD that sees one face of 512 pixels, around the middle of one of its coarsest cells of 128 pixels."""
    network = zero_heads(s3fd())
    biases = {name: p for name, p in network.named_parameters() if "mbox_conf.bias" in name}
    for name, bias in biases.items():
        bias[-1] = 3.0 if name.startswith("conv7_2") else -30.0
    path = tmp_path_factory.mktemp("sfd") / "s3fd.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["front", "back"])
def blazeface_weights(request, tmp_path_factory):
    """BlazeFace that sees one face, 0.25 x 0.5 of its square input, whose middle is at (0.75, 0.5) of it."""
    network = zero_heads(BlazeFace(back_model=request.param))
    scale = 256 if request.param else 128
    for name, parameter in network.named_parameters():
        if name.startswith("classifier") and name.endswith("bias"):
            parameter.fill_(3.0)
        if name.startswith("regressor") and name.endswith("bias"):
            parameter.view(-1, 16)[:, 2:4] = torch.tensor([0.25, 0.5]) * scale
    folder = tmp_path_factory.mktemp("blazeface")
    path = folder / ("blazefaceback.pth" if request.param else "blazeface.pth")
    torch.save(network.state_dict(), path)
    anchors = np.tile(np.array([0.75, 0.5, 1, 1], np.float32), (896, 1))
    np.save(folder / ("anchorsback.npy" if request.param else "anchors.npy"), anchors)
    return path


def zero_heads(network: torch.nn.Module) -> torch.nn.Module:
    """A network of which only the biases of its outputs matter."""
    torch.manual_seed(0)
    network.requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "mbox" in name or name.startswith(("classifier", "regressor")):
            parameter.zero_()
    return network


def overlap(a, b) -> float:
    """Intersection over union."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_a_face_and_its_mirror_image(detector):
    picture = skimage.data.astronaut()
    plain, mirrored = detector([picture, picture[:, ::-1]])
    assert plain.shape == mirrored.shape == (1, 5) and plain.dtype == np.float64
    assert overlap(plain[0], ASTRONAUT) > 0.6
    assert 0.6 <= plain[0, 4] <= 1
    x1, y1, x2, y2 = mirrored[0, :4]
    assert overlap((WIDTH - x2, y1, WIDTH - x1, y2), plain[0]) > 0.85


def test_boxes_of_a_4k_frame_are_in_its_own_pixels(detector):
    frame = np.full((2160, 3840, 3), 90, np.uint8)
    frame[1000:1512, 2000:2512] = skimage.data.astronaut()
    (faces,) = detector([frame])
    assert len(faces) == 1
    assert overlap(faces[0] - [2000, 1000, 2000, 1000, 0], ASTRONAUT) > 0.6


def test_upright_frame_that_is_shrunk(detector):
    frame = draw_faces([PlacedFace((300, 1500), 420)], height=1920, width=1080)
    (faces,) = detector([frame])
    assert len(faces) == 1
    np.testing.assert_allclose((faces[0, :2] + faces[0, 2:4]) / 2, (300, 1500), atol=20)
    assert max(faces[0, 2:4] - faces[0, :2]) == pytest.approx(420, rel=0.12)


def test_two_faces_the_most_confident_first(detector):
    placed = [PlacedFace((150, 180), 100), PlacedFace((450, 200), 140, mirrored=True)]
    (faces,) = detector([draw_faces(placed)])
    assert len(faces) == 2 and faces[0, 4] >= faces[1, 4]
    faces = faces[faces[:, 0].argsort()]
    for face, known in zip(faces, placed, strict=True):
        np.testing.assert_allclose((face[:2] + face[2:4]) / 2, known.center, atol=0.07 * known.side)


def test_frames_without_faces(detector):
    frames = [np.full((*size, 3), 90, np.uint8) for size in ((360, 640), (20, 300), (1, 1))]
    for faces in detector(frames):
        assert faces.shape == (0, 5) and faces.dtype == np.float64
    assert detector([]) == []


def test_threshold(yunet_weights):
    frame = draw_faces([PlacedFace((320, 180), 160)])
    ((*_, confidence),) = FaceDetector("yunet", yunet_weights)([frame])[0]
    assert len(FaceDetector("yunet", yunet_weights, threshold=confidence - 0.01)([frame])[0]) == 1
    assert len(FaceDetector("yunet", yunet_weights, threshold=confidence + 0.01)([frame])[0]) == 0


def test_what_is_no_box_is_left_out(yunet_weights, monkeypatch):
    detector = FaceDetector("yunet", yunet_weights)
    good, better = [10.0, 20.0, 30.0, 45.0, 0.7], [50.0, 20.0, 70.0, 45.0, 0.9]
    broken = [[math.nan, 0, 5, 5, 0.9], [0, 0, math.inf, 5, 0.9], [30, 0, 20, 5, 0.9], [0, 9, 5, 9, 0.9]]
    rows = [good, *broken, [0, 0, 5, 5, 0.59], better]
    monkeypatch.setattr(detector._detector, "detect_from_image", lambda image: rows)
    np.testing.assert_array_equal(detector([np.zeros((100, 100, 3), np.uint8)])[0], [better, good])


def test_max_size_bounds_what_the_detector_sees(yunet_weights):
    small = FaceDetector("yunet", yunet_weights, max_size=32)
    assert len(small([skimage.data.astronaut()])[0]) == 0  # its face has 7 pixels


def test_sfd_from_a_state_dict(sfd_weights):
    detector = FaceDetector("sfd", sfd_weights, max_size=128)
    faces, enlarged = detector([np.zeros((128, 128, 3), np.uint8), np.zeros((256, 256, 3), np.uint8)])
    confidence = 1 / (1 + math.exp(-3))
    (middle,) = (faces[:, :2] + faces[:, 2:4]) / 2
    assert all(value in (64, 64 + 128) for value in middle)
    np.testing.assert_allclose(faces, [[*(middle - 256), *(middle + 256), confidence]], rtol=1e-5)
    np.testing.assert_allclose(enlarged[:, :4], 2 * faces[:, :4], rtol=1e-5)
    for size in ((10, 10), (20, 128), (1, 1)):
        assert detector([np.zeros((*size, 3), np.uint8)])[0].shape[1:] == (5,)
    assert FaceDetector("sfd", sfd_weights, threshold=0.99)([np.zeros((128, 128, 3), np.uint8)])[0].shape == (0, 5)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (300, 300), (100, 200), (200, 100), (1000, 2000)])
def test_blazeface_from_a_state_dict(blazeface_weights, height, width):
    detector = FaceDetector("blazeface", blazeface_weights)
    (faces,) = detector([np.zeros((height, width, 3), np.uint8)])
    # it looks at the square in the middle
    square, x, y = min(height, width), max(0, width - height) / 2, max(0, height - width) / 2
    expected = [x + 0.625 * square, y + 0.25 * square, x + 0.875 * square, y + 0.75 * square, 1 / (1 + math.exp(-3))]
    np.testing.assert_allclose(faces, [expected], atol=1e-3 * square)
    assert FaceDetector("blazeface", blazeface_weights, threshold=0.99)([np.zeros((height, width, 3), np.uint8)])[
        0
    ].shape == (0, 5)


def test_blazeface_needs_its_anchors(blazeface_weights, tmp_path):
    path = tmp_path / blazeface_weights.name
    path.write_bytes(blazeface_weights.read_bytes())
    anchors = "anchorsback" if "back" in path.stem else "anchors"
    with pytest.raises(FileNotFoundError, match=rf"anchors beside .*{anchors}\.npy"):
        FaceDetector("blazeface", path)


def test_scrfd_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    (tmp_path / "scrfd.onnx").touch()
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        FaceDetector("scrfd", tmp_path / "scrfd.onnx")


def test_unknown_detectors_and_missing_weights(tmp_path):
    with pytest.raises(ValueError, match="retinaface, yunet, sfd, blazeface, scrfd, got 'dlib'"):
        FaceDetector("dlib")
    for name in FACE_DETECTORS:
        with pytest.raises(FileNotFoundError, match=rf"nowhere\.pth with the weights of .*{name}"):
            FaceDetector(name, tmp_path / "nowhere.pth")
        with pytest.raises(FileNotFoundError, match=name):
            FaceDetector(name, tmp_path)  # a folder


@pytest.mark.parametrize("name", ["retinaface", "yunet", "sfd", "blazeface"])
def test_files_that_are_no_weights(name, tmp_path):
    np.save(tmp_path / "anchors.npy", np.zeros((896, 4), np.float32))
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    for file in ("text.pth", "empty.onnx", "other.pth", "tensor.pth"):
        with pytest.raises(ValueError, match=f"{file} does not hold the weights of the face detector {name}"):
            FaceDetector(name, tmp_path / file)


def test_weights_of_another_detector(retinaface_weights, yunet_weights, sfd_weights):
    for name, path in (
        ("retinaface", yunet_weights),
        ("retinaface", sfd_weights),
        ("yunet", retinaface_weights),
        ("sfd", retinaface_weights),
    ):
        with pytest.raises(ValueError, match=f"{path.name} does not hold the weights of the face detector {name}"):
            FaceDetector(name, path)


def test_devices_are_told_from_weights(retinaface_weights):
    with pytest.raises(ValueError, match="run on cpu, cuda, mps, not on `device` 'meta'"):
        FaceDetector("retinaface", retinaface_weights, device="meta")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """PyTorch's folder of downloads, without any."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_what_cannot_be_downloaded(monkeypatch, empty_cache, caplog):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    message = r"(?s)yunet could not be downloaded: {}.*`face_detector_weights`.*https://.*yunet_2023mar\.onnx"
    with pytest.raises(OSError, match=message.format("HF_HUB_OFFLINE is set")):
        FaceDetector("yunet")
    assert not caplog.text
    monkeypatch.setattr("s2d_hf.face_detection_s2d.is_offline_mode", lambda: False)
    monkeypatch.setattr("face_alignment.detection.yunet.yunet_detector.load_file_from_url", refuse)
    with pytest.raises(OSError, match=message.format("no network")):
        FaceDetector("yunet")
    # what it is, from where, under which licence and where to
    assert all(said in caplog.text for said in ("face detector yunet", "opencv_zoo", "MIT", str(empty_cache)))


@pytest.mark.parametrize("name", FACE_DETECTORS)
def test_addresses_are_those_of_face_alignment(name, empty_cache):
    """Which has them in its source, some of them in two pieces."""
    module = importlib.import_module(f"face_alignment.detection.{name}.{name}_detector")
    source = inspect.getsource(module).replace("'\n    '", "")
    address = detector_download(name)
    assert address in source
    empty_cache.mkdir(parents=True)
    _, file, _ = _DOWNLOADS[name]
    assert file in source or address.partition("?")[0].endswith(file)
    (empty_cache / file).touch()
    assert detector_download(name) is None


def test_weights_are_not_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"weight": Harmful()}, tmp_path / "harmful.pth")
    for name in ("retinaface", "sfd"):
        with pytest.raises(ValueError, match="does not hold"):
            FaceDetector(name, tmp_path / "harmful.pth")
    assert not (tmp_path / "written").exists()


def test_opencv_is_quiet_while_yunet_is_loaded_and_as_loud_as_before_afterwards(yunet_weights, capfd):
    level = cv2.utils.logging.getLogLevel()
    FaceDetector("yunet", yunet_weights)
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level
