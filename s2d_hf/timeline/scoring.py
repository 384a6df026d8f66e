"""The scores of windows of face crops; what overlapping windows share is computed once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

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
        inputs (`dict`): What the model takes for it, `pixel_values` and `landmark_features`, once a window needs it.
        feature (`torch.Tensor` of shape `(hidden_size,)`, *optional*): What an image model gives for it.
    """

    time: float
    pixels: np.ndarray
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    feature: torch.Tensor | None = None


class WindowScorer:
    """
    Classifies windows of crops.

    A crop is normalised, and its landmark features are computed, when its first window is scored. An image model,
    whose features are averaged over a window, sees each crop once; a video model sees each window as a whole.

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
        self._prepare([crop for crop in crops if not crop.inputs])
        with self.clock("model"):
            if self.model.config.temporal_adapters:
                inputs = {name: torch.stack([_stack(window, name) for window in windows]) for name in crops[0].inputs}
                logits = self.model(**inputs).logits
            else:
                self._look_at([crop for crop in crops if crop.feature is None])
                features = torch.stack([torch.stack([crop.feature for crop in window]) for window in windows])
                logits = self.model.classifier(features.mean(dim=1))
            return logits.float().softmax(-1).cpu().numpy().astype(np.float64)

    def _prepare(self, crops: Sequence[FaceCrop]) -> None:
        """Normalises crops and computes their landmark features."""
        if not crops:
            return
        with self.clock("landmarks"):
            pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops])).permute(0, 3, 1, 2)
            pixels = self.processor.normalise_frames(pixels.to(self.model.device).contiguous())
            inputs = {"pixel_values": pixels}
            if self.needs_landmarks:
                inputs["landmark_features"] = self.processor.compute_landmarks(pixels)["landmark_features"]
            for name, tensor in inputs.items():
                for crop, values in zip(crops, tensor.to(self.model.dtype), strict=True):
                    crop.inputs[name] = values

    def _look_at(self, crops: Sequence[FaceCrop]) -> None:
        """An image model's features of crops."""
        if not crops:
            return
        inputs = {name: _stack(crops, name) for name in crops[0].inputs}
        features = self.model.base_model(**inputs, pooled_only=True).pooler_output
        for crop, feature in zip(crops, features, strict=True):
            crop.feature = feature


def _stack(crops: Sequence[FaceCrop], name: str) -> torch.Tensor:
    return torch.stack([crop.inputs[name] for crop in crops])


__all__ = ["FaceCrop", "WindowScorer"]
