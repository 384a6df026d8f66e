"""Training of landmark encoders: the data, mirrored faces, the metric, and what a short training reaches."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from synthetic.dataset import write_synthetic_dataset
from synthetic.face_drawing import draw_face
from synthetic.face_shape import EXPRESSION_PARAMETERS, FaceIdentity, FacePose, Scene
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from s2d_hf.frames_s2d import read_image, to_rgb
from s2d_hf.landmark_encoders_s2d import (
    LANDMARK_WEIGHTS_NAME,
    LandmarkEncoder,
    MobileFaceNetLandmarkEncoder,
    load_landmark_encoder,
    save_landmark_encoder,
)
from s2d_hf.trainer.landmark_encoder_training import (
    MIRRORED_LANDMARKS,
    LandmarkPointsDataset,
    mirror_landmarks,
    normalized_mean_error,
    read_still_points,
    train_landmark_encoder,
)
from tests.trainer.frames_dataset import SmallLandmarkEncoder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_synthetic_dataset(
        folder / "new", seed=1, train_identities=4, test_identities=2, clips_per_identity_and_class=1,
        stills_per_clip=2, image_size=32, num_frames=4, occlusion=0.0, workers=0, progress=False,
    )  # fmt: skip
    return folder / "new" / "stills"


def dataset(stills: Path, split: str = "train", count: int | None = None, **settings) -> LandmarkPointsDataset:
    files, points = read_still_points(stills / split)
    return LandmarkPointsDataset(files[:count], points[:count], 32, progress=False, **settings)


def arguments(folder: Path, **settings) -> TrainingArguments:
    defaults = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "per_device_train_batch_size": 16, "per_device_eval_batch_size": 16, "num_train_epochs": 1,
        "learning_rate": 4e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0.2,
    }  # fmt: skip
    return TrainingArguments(**(defaults | settings))


def encoder(width: float = 0.125) -> MobileFaceNetLandmarkEncoder:
    torch.manual_seed(0)
    return MobileFaceNetLandmarkEncoder(width=width)


def predict(encoder: LandmarkEncoder, data: LandmarkPointsDataset) -> torch.Tensor:
    """The points that the encoder, used as the processors use it, finds in a data set's frames."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    frames = torch.stack([item["frames"] for item in data]).float() / 255
    return encoder((frames - mean[:, None, None]) / std[:, None, None], return_landmarks=True).landmarks


def plain_nme(predictions: torch.Tensor, landmarks: torch.Tensor) -> float:
    errors = []
    for face, truth in zip(predictions.tolist(), landmarks.tolist(), strict=True):
        eyes = np.hypot(truth[36][0] - truth[45][0], truth[36][1] - truth[45][1])
        for (x, y), (true_x, true_y) in zip(face, truth, strict=True):
            errors.append(np.hypot(x - true_x, y - true_y) / eyes)
    return float(np.mean(errors))


# mirrored faces


def test_mirroring_twice_changes_nothing():
    assert sorted(MIRRORED_LANDMARKS) == list(range(68))
    assert [MIRRORED_LANDMARKS[other] for other in MIRRORED_LANDMARKS] == list(range(68))
    points = torch.rand(3, 68, 2)
    torch.testing.assert_close(mirror_landmarks(mirror_landmarks(points)), points)


def test_mirrored_points_fit_the_mirrored_picture():
    """A face that is turned the other way looks, point by point, like the mirrored one."""
    expression, scene = np.zeros(len(EXPRESSION_PARAMETERS)), Scene(light=(0, -0.4, 0.85), background_angle=np.pi / 2)
    expression[EXPRESSION_PARAMETERS.index("mouth_open")] = 0.8  # so that no two points lie in one place
    face, size = FaceIdentity(hair_style="bald"), 96
    straight = torch.from_numpy(draw_face(face, expression, FacePose(), scene, image_size=size)[1])
    nearest = torch.cdist(straight * torch.tensor([-1, 1]) + torch.tensor([1, 0]), straight).argmin(dim=1)
    assert tuple(nearest.tolist()) == MIRRORED_LANDMARKS
    for yaw, roll in ((0.3, 0.1), (-0.2, 0.2)):
        image, points = draw_face(face, expression, FacePose(yaw, 0.1, roll, (0.03, 0.01)), scene, image_size=size)
        other, others = draw_face(face, expression, FacePose(-yaw, 0.1, -roll, (-0.03, 0.01)), scene, image_size=size)
        flipped = image[:, ::-1].astype(int)
        assert np.abs(flipped - other).mean() < 0.1 * np.abs(image.astype(int) - other).mean()
        torch.testing.assert_close(
            mirror_landmarks(torch.from_numpy(points)), torch.from_numpy(others), atol=0.005, rtol=0
        )


# the data set


def test_items_are_the_images_with_their_points(stills):
    files, points = read_still_points(stills / "test")
    data = dataset(stills, "test")
    assert len(data) == len(files) == 28
    for index in (0, 13, -1):
        assert data[index].keys() == {"frames", "landmarks"}
        assert torch.equal(data[index]["frames"], to_rgb(read_image(files[index])))
        assert torch.equal(data[index]["landmarks"], torch.from_numpy(points[index]))
    assert data[0]["frames"].dtype == torch.uint8 and data[0]["landmarks"].dtype == torch.float32
    with pytest.raises(IndexError, match="28 images"):
        data[28]


def test_images_are_resized_to_squares(tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[20:, :40] = 200  # the lower left quarter
    Image.fromarray(image).save(tmp_path / "wide.png")
    data = LandmarkPointsDataset([tmp_path / "wide.png"], np.zeros((1, 68, 2)), 24, progress=False)
    frame = data[0]["frames"].float()
    assert frame.shape == (3, 24, 24)
    assert frame[:, 14:, :10].min() > 195 and frame[:, :10].max() < 5 and frame[:, :, 14:].max() < 5


def test_flipped_items_show_the_points_that_they_claim(stills):
    plain, flipped, half = (dataset(stills, "test", flip_probability=p) for p in (0.0, 1.0, 0.5))
    flips = 0
    for item, mirrored, either in zip(plain, flipped, half, strict=True):
        assert torch.equal(mirrored["frames"], item["frames"].flip(-1))
        torch.testing.assert_close(mirrored["landmarks"], mirror_landmarks(item["landmarks"]))
        is_flipped = not torch.equal(either["landmarks"], item["landmarks"])
        flips += is_flipped
        assert torch.equal(either["frames"], (mirrored if is_flipped else item)["frames"])
        assert torch.equal(either["landmarks"], (mirrored if is_flipped else item)["landmarks"])
    assert 6 < flips < 22


def test_jitter_changes_light_alone_and_leaves_what_is_stored(stills):
    plain, data = (dataset(stills, "test", count=20, jitter=jitter) for jitter in (0.0, 0.3))
    means = []
    for item, changed in zip(plain, data, strict=True):
        assert changed["frames"].dtype == torch.uint8 and torch.equal(changed["landmarks"], item["landmarks"])
        means.append(float(changed["frames"].float().mean() / item["frames"].float().mean()))
        changed["frames"].zero_()
        changed["landmarks"].zero_()
    assert 0.65 < min(means) < 0.85 and 1.1 < max(means) < 1.35
    assert torch.equal(plain.frames, data.frames) and torch.equal(plain.landmarks, data.landmarks)


def test_items_follow_from_seed_epoch_and_index(stills):
    def epoch(data: LandmarkPointsDataset, number: int) -> torch.Tensor:
        data.set_epoch(number)
        return torch.stack([item["frames"] for item in data])

    settings = {"split": "test", "count": 8, "flip_probability": 0.5, "jitter": 0.2}
    data = dataset(stills, **settings)
    first, second = epoch(data, 0), epoch(data, 1)
    assert (first != second).flatten(1).any(1).all()
    assert torch.equal(epoch(data, 0), first)
    assert torch.equal(epoch(dataset(stills, **settings), 1), second)
    assert not torch.equal(epoch(dataset(stills, **settings, seed=1), 0), first)
    data.set_epoch(0)
    loader = DataLoader(data, 8, num_workers=1, persistent_workers=True)
    assert torch.equal(next(iter(loader))["frames"], first)
    data.set_epoch(1)
    assert torch.equal(next(iter(loader))["frames"], second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": []}, "`points` must have the shape"),
        ({"points": np.zeros((2, 68, 2))}, r"got \(2, 68, 2\) for 1 files"),
        ({"points": np.zeros((1, 5, 2))}, "`points` must have the shape"),
        ({"points": np.full((1, 68, 2), np.nan)}, "NaN"),
        ({"size": 0}, "`size`"),
        ({"flip_probability": 1.5}, "`flip_probability`"),
        ({"jitter": -0.1}, "`jitter`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_arguments_that_do_not_fit(stills, change, message):
    values = {"files": read_still_points(stills / "test")[0][:1], "points": np.zeros((1, 68, 2)), "size": 32} | change
    with pytest.raises(ValueError, match=message):
        LandmarkPointsDataset(**values, progress=False)


def test_files_that_can_not_be_read_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        LandmarkPointsDataset([tmp_path / "broken.png"], np.zeros((1, 68, 2)), 32, progress=False)
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        LandmarkPointsDataset([tmp_path / "missing.png"], np.zeros((1, 68, 2)), 32, progress=False)


# the training


def test_the_error_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (5, 68, 2)).astype(np.float32)
    moved = points + rng.normal(0, 0.05, points.shape).astype(np.float32)
    assert normalized_mean_error(moved, points) == pytest.approx(plain_nme(moved, points), rel=1e-5)
    assert normalized_mean_error(points, points) == 0
    assert normalized_mean_error(3 * moved, 3 * points) == pytest.approx(normalized_mean_error(moved, points))


def test_training_finds_points_better_than_their_mean(stills, tmp_path):
    """Of the very faces that it has seen: for other people, a few seconds are too few."""
    data = dataset(stills)
    network = encoder()
    before = copy.deepcopy(network.state_dict())
    settings = arguments(tmp_path / "run", num_train_epochs=14, per_device_train_batch_size=8)
    metrics = train_landmark_encoder(network, data, data, args=settings)
    assert metrics.keys() == {"train_loss", "train_runtime", "eval_loss", "nme"}
    mean_points = data.landmarks.mean(dim=0).expand_as(data.landmarks)
    assert metrics["nme"] < 0.75 * plain_nme(mean_points, data.landmarks)

    found = predict(network, data)
    assert metrics["nme"] == pytest.approx(plain_nme(found, data.landmarks), rel=1e-4)
    assert metrics["eval_loss"] == pytest.approx(float((found - data.landmarks).abs().mean()), rel=1e-4)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.train() is network and not network.output_layer.training
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert not any(torch.equal(after[name], before[name]) for name in after)

    config = network.to_dict()
    loaded = load_landmark_encoder(save_landmark_encoder(network, tmp_path), config)
    assert torch.equal(predict(loaded, data), found)


def test_training_starts_around_the_mean_of_the_points(stills, tmp_path):
    train = dataset(stills)
    network = encoder()
    train_landmark_encoder(network, train, args=arguments(tmp_path, max_steps=1, learning_rate=1e-9))
    mean = train.landmarks.mean(dim=0)
    assert (predict(network, train).mean(dim=0) - mean).abs().max() < 0.1
    torch.testing.assert_close(network.output_layer.bn.bias, mean.flatten())


def test_a_last_batch_of_one_image_is_left_out(stills, tmp_path):
    network = encoder(width=1 / 64)
    settings = arguments(tmp_path, per_device_train_batch_size=4)
    test = dataset(stills, count=3)  # less than a batch, and evaluated whole
    metrics = train_landmark_encoder(network, dataset(stills, count=9), test, args=settings)
    assert np.isfinite(metrics["train_loss"]) and int(network.conv1.bn.num_batches_tracked) == 2
    assert metrics["nme"] == pytest.approx(plain_nme(predict(network, test), test.landmarks), rel=1e-4)
    assert settings.dataloader_drop_last is False


def test_an_interrupted_training_leaves_a_frozen_encoder(stills, tmp_path):
    class Interrupting(LandmarkPointsDataset):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            raise KeyboardInterrupt

    network = encoder(width=1 / 64)
    files, points = read_still_points(stills / "test")
    with pytest.raises(KeyboardInterrupt):
        train_landmark_encoder(network, Interrupting(files, points, 32, progress=False), args=arguments(tmp_path))
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_what_can_not_be_trained_is_refused(stills, tmp_path):
    with pytest.raises(TypeError, match="SmallLandmarkEncoder"):
        train_landmark_encoder(SmallLandmarkEncoder(), dataset(stills, count=4), args=arguments(tmp_path))
    for count, batch_size in ((1, 4), (4, 1)):
        settings = arguments(tmp_path, per_device_train_batch_size=batch_size)
        with pytest.raises(ValueError, match="at least 2 images"):
            train_landmark_encoder(encoder(1 / 64), dataset(stills, count=count), args=settings)


SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from s2d_hf.landmark_encoders_s2d import save_landmark_encoder
from s2d_hf.trainer.landmark_encoder_training import train_landmark_encoder
from tests.trainer.test_landmark_encoder_training import arguments, dataset, encoder

stills, folder = Path(sys.argv[1]), Path(sys.argv[2])
settings = arguments(folder / "run", per_device_train_batch_size=4, per_device_eval_batch_size=4)
network = encoder(1 / 32)
train, test = dataset(stills, count=24), dataset(stills, "test", count=9)
metrics = train_landmark_encoder(network, train, test, args=settings)
own = folder / str(settings.process_index)
own.mkdir()
save_landmark_encoder(network, own)
(own / "metrics.json").write_text(json.dumps(metrics | {"processes": settings.world_size}))
torch.distributed.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # now and then torch's gloo threads abort a process while it unloads
"""


@pytest.mark.slow
def test_two_processes_train_one_encoder(stills, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "script.py"), str(stills), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training'}"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    reports = [json.loads((tmp_path / process / "metrics.json").read_text()) for process in "01"]
    assert [report["processes"] for report in reports] == [2, 2]
    first, second = (load_file(tmp_path / process / LANDMARK_WEIGHTS_NAME) for process in "01")
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert int(first["conv1.bn.num_batches_tracked"]) == 3
    test = dataset(stills, "test", count=9)
    found = predict(load_landmark_encoder(tmp_path / "0" / LANDMARK_WEIGHTS_NAME, encoder(1 / 32).to_dict()), test)
    for report in reports:
        assert report["nme"] == pytest.approx(plain_nme(found, test.landmarks), rel=1e-4)
