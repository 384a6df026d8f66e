"""The scores of windows of face crops; what overlapping windows share is computed once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ..modeling_s2d import S2DForVideoClassification
from ..video_processing_s2d import S2DVideoProcessor


@dataclass(eq=False)
class FaceCrop:
    """
    A face in one frame.

    Args:
        time (`float`): In seconds.
        pixels (`np.ndarray` of shape `(size, size, 3)`): RGB, uint8.
        landmark_features (`torch.Tensor` of shape `(channels, cells, cells)`, *optional*): Once a window needs them.
        feature (`torch.Tensor` of shape `(hidden_size,)`, *optional*): What an image model gives for it.
    """

    time: float
    pixels: np.ndarray
    landmark_features: torch.Tensor | None = None
    feature: torch.Tensor | None = None


class WindowScorer:
    """
    Classifies windows of crops.

    The landmark features of a crop are computed when its first window is scored. An image model, whose features are
    averaged over a window, sees each crop once; a video model sees each window as a whole.

    Args:
        model ([`S2DForVideoClassification`]): In eval mode.
        processor ([`S2DVideoProcessor`]): The model's.
        clock (`Callable`): From a stage's name to the context manager that takes its time.
    """

    def __init__(
        self,
        model: S2DForVideoClassification,
        processor: S2DVideoProcessor,
        clock: Callable[[str], AbstractContextManager],
    ):
        self.model = model
        self.processor = processor
        self.clock = clock
        self.needs_landmarks = model.config.prompt_type != "none"

    @torch.no_grad()
    def __call__(self, windows: Sequence[Sequence[FaceCrop]]) -> np.ndarray:
        """
        Args:
            windows (`Sequence[Sequence[FaceCrop]]`): Of the model's number of frames each.

        Returns:
            `np.ndarray` of shape `(num_windows, num_labels)`, float64: probabilities.
        """
        crops = list(dict.fromkeys(crop for window in windows for crop in window))
        if self.model.config.temporal_adapters:
            inputs = self._prepare(crops)
            numbers = {crop: number for number, crop in enumerate(crops)}
            members = torch.tensor([[numbers[crop] for crop in window] for window in windows])
            with self.clock("model"):
                logits = self.model(**{name: values[members] for name, values in inputs.items()}).logits
                return _probabilities(logits)
        new = [crop for crop in crops if crop.feature is None]
        inputs = self._prepare(new) if new else {}
        with self.clock("model"):
            if new:
                features = self.model.base_model(**inputs, pooled_only=True).pooler_output
                for crop, feature in zip(new, features, strict=True):
                    crop.feature, crop.landmark_features = feature.clone(), None  # which are needed no more
            features = torch.stack(
                [torch.stack([cast(torch.Tensor, crop.feature) for crop in window]) for window in windows]
            )
            return _probabilities(self.model.classifier(features.mean(dim=1)))

    def _prepare(self, crops: Sequence[FaceCrop]) -> dict[str, torch.Tensor]:
        """What the model takes for crops, `(num_crops, ...)`."""
        with self.clock("landmarks"):
            pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops])).permute(0, 3, 1, 2).contiguous()
            pixels = self.processor.normalise_frames(pixels.to(self.model.device))
            inputs = {"pixel_values": pixels.to(self.model.dtype)}
            if self.needs_landmarks:
                new = [number for number, crop in enumerate(crops) if crop.landmark_features is None]
                if new:
                    computed = self.processor.compute_landmarks(pixels[new])["landmark_features"]
                    for number, features in zip(new, computed, strict=True):
                        # a part of a tensor would keep the whole of it in memory
                        crops[number].landmark_features = features.to(self.model.dtype, copy=True)
                inputs["landmark_features"] = torch.stack(
                    [cast(torch.Tensor, crop.landmark_features) for crop in crops]
                )
        return inputs


def _probabilities(logits: torch.Tensor) -> np.ndarray:
    return logits.float().softmax(-1).cpu().numpy().astype(np.float64)


__all__ = ["FaceCrop", "WindowScorer"]
