"""Logistic regressions on landmarks, held against regressions fitted by hand to what the encoder says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.linear_model import LogisticRegression

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DImageProcessor, S2DVideoProcessor
from s2d_hf.data import ClipDataset, from_class_folders
from s2d_hf.trainer.probes import probe_landmarks

SIZE = 32


def write_pictures(folder: Path, kind: str, count: int, seed: int) -> Path:
    """A bright square on the left or on the right; as videos, one that goes there."""
    generator = np.random.default_rng(seed)
    for label, place in (("left", 4), ("right", 20)):
        for i in range(count):
            frames = []
            for step in (0.5, 1.0):
                picture = Image.new("RGB", (SIZE, SIZE), tuple(generator.integers(0, 60, 3).tolist()))
                x, y = 12 + step * (place - 12) + generator.integers(-2, 3), 12 + generator.integers(-6, 7)
                ImageDraw.Draw(picture).rectangle((x, y, x + 8, y + 8), fill=(220, 200, 180))
                frames.append(picture)
            (folder / label).mkdir(parents=True, exist_ok=True)
            if kind == "image":
                frames[-1].save(folder / label / f"{i}.png")
            else:
                (folder / label / str(i)).mkdir()
                for number, frame in enumerate(frames):
                    frame.save(folder / label / str(i) / f"{number}.png")
    return folder


def make(kind: str, tmp_path: Path, swapped: bool = False) -> tuple[ClipDataset, ClipDataset, S2DImageProcessor]:
    torch.manual_seed(0)
    encoder = MobileFaceNetLandmarkEncoder(width=0.125, input_size=SIZE)
    kinds = {"image": S2DImageProcessor, "video": S2DVideoProcessor}
    size = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    sets = []
    for part, count, seed in (("train", 20, 0), ("test", 10, 1)):
        samples = from_class_folders(write_pictures(tmp_path / part, kind, count, seed), kind=kind)
        options = {} if kind == "image" else {"num_frames": 2, "sampling": "windows"}
        sets.append(ClipDataset(samples, size=SIZE, kind=kind, **options))
    return *sets, kinds[kind](landmark_encoder=encoder, **size)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_scores_are_those_of_a_regression_by_hand(kind, tmp_path):
    train, test, processor = make(kind, tmp_path)
    reports = probe_landmarks(train, test, processor, progress=False)
    assert set(reports) == {"landmark features", "landmark points"}

    def rows(dataset: ClipDataset) -> tuple[np.ndarray, np.ndarray]:
        features, points = [], []
        for item in (dataset[i] for i in range(len(dataset))):
            frames = item["frames"].reshape(-1, 3, SIZE, SIZE)
            found = processor.compute_landmarks(processor.normalise_frames(frames), return_landmarks=True)
            cells = found["landmark_features"].numpy()  # (frames, channels, height, width)
            edges = [round(i * cells.shape[-1] / 7) for i in range(8)] if cells.shape[-1] % 7 == 0 else None
            if edges is None:
                cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(cells), 7).numpy()
            else:
                n = cells.shape[-1] // 7
                cells = cells.reshape(*cells.shape[:2], 7, n, 7, n).mean(axis=(3, 5))
            features.append(cells.ravel())
            points.append(found["landmarks"].numpy().ravel())
        return np.array(features), np.array(points)

    labels = {part: np.array(dataset.label_indices) for part, dataset in (("train", train), ("test", test))}
    for name, strength, a, b in zip(reports, (1e-2, 1.0), rows(train), rows(test), strict=True):
        mean, spread = a.mean(axis=0), a.std(axis=0)
        spread[spread == 0] = 1
        model = LogisticRegression(C=strength, max_iter=300).fit((a - mean) / spread, labels["train"])
        expected = (model.predict((b - mean) / spread) == labels["test"]).mean()
        assert reports[name].war == pytest.approx(expected, abs=0.051)  # one sample, by rounding
    assert max(report.uar for report in reports.values()) > 0.8


def test_labels_that_say_nothing_are_not_told(tmp_path):
    train, test, processor = make("image", tmp_path)
    generator = np.random.default_rng(0)
    for dataset in (train, test):
        for sample in dataset.samples:
            object.__setattr__(sample, "label", int(generator.integers(2)))
    for report in probe_landmarks(train, test, processor, progress=False).values():
        assert 0.1 < report.uar < 0.9


def test_an_encoder_is_needed(tmp_path):
    train, test, processor = make("image", tmp_path)
    with pytest.raises(ValueError, match="no landmark encoder"):
        probe_landmarks(
            train, test, S2DImageProcessor(size=processor.size, crop_size=processor.crop_size), progress=False
        )
