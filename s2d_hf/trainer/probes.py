"""
What can be told from the landmark encoder alone: logistic regressions on its features and on the 68 points. A model
that does no better adds nothing to it.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data import ClipCollator, ClipDataset
from ..image_processing_s2d import S2DImageProcessor
from ..metrics import ClassificationReport, classification_report
from ..video_processing_s2d import S2DVideoProcessor

# cells of the features along a side; all 14 would be four times as many numbers and tell no more
GRID = 7
# Inverse strengths of the regularisation, chosen on no test data: the fewer numbers a sample has, the weaker.
STRENGTHS = {"landmark features": 1e-2, "landmark points": 1.0}
_IMAGES_AT_A_TIME = 64
_MAX_ITERATIONS = 300


def probe_landmarks(
    train: ClipDataset,
    test: ClipDataset,
    processor: S2DImageProcessor | S2DVideoProcessor,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> dict[str, ClassificationReport]:
    """
    Fits logistic regressions to the training samples, without augmentation, and evaluates them on the test samples.

    Args:
        train, test ([`ClipDataset`]): Of the same labels, one view of each sample. The frames of a video stand side by
            side in its numbers.
        processor ([`S2DImageProcessor`] or [`S2DVideoProcessor`]): With a landmark encoder.
        device (`str` or `torch.device`): Where the landmark encoder runs.
        progress (`bool`): Show progress bars.

    Returns:
        `dict[str, ClassificationReport]`: By `"landmark features"` (averaged to 7x7 cells) and, if the encoder finds
        them, `"landmark points"`.

    Raises:
        ValueError: if the processor has no landmark encoder.
    """
    numbers = {
        "train": _compute(train, processor, device, progress),
        "test": _compute(test, processor, device, progress),
    }
    reports = {}
    for name, strength in STRENGTHS.items():
        if name in numbers["train"]:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS))
            with warnings.catch_warnings():
                # the last digits of its weights don't matter here
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(numbers["train"][name], train.label_indices)
            scores = np.zeros((len(test), len(test.labels)))
            scores[:, model.classes_] = model.predict_proba(numbers["test"][name])
            reports[name] = classification_report(scores, test.label_indices, test.labels)
    return reports


def _compute(
    dataset: ClipDataset, processor: S2DImageProcessor | S2DVideoProcessor, device: str | torch.device, progress: bool
) -> dict[str, np.ndarray]:
    """Features and points of each sample in a row, `(samples, numbers)`."""
    frames = 1 if dataset.kind == "image" else dataset.num_frames
    loader = DataLoader(dataset, max(1, _IMAGES_AT_A_TIME // frames), collate_fn=ClipCollator(processor))
    rows: dict[str, list[torch.Tensor]] = {}
    for batch in tqdm(loader, desc="Landmarks for logistic regressions", disable=not progress):
        pixels = processor.normalise_frames(batch["frames"].to(device))
        found = processor.compute_landmarks(pixels, return_landmarks=True)
        cells = nn.functional.adaptive_avg_pool2d(found["landmark_features"].float().flatten(0, -4), GRID)
        rows.setdefault("landmark features", []).append(cells.reshape(len(pixels), -1).cpu())
        if found.get("landmarks") is not None:
            rows.setdefault("landmark points", []).append(found["landmarks"].float().reshape(len(pixels), -1).cpu())
    return {name: torch.cat(parts).numpy() for name, parts in rows.items()}


__all__ = ["probe_landmarks"]
