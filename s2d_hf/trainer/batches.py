"""
What happens to a batch on the training's device: its pixels are normalised, boxes erased, clips mixed (mixup and
CutMix), and the landmark features computed from what came of that; in evaluation, views of a video become one answer.
"""

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn
from transformers import TrainerState

from ..data import RandomErasing, mixup_cutmix
from ..modeling_s2d import S2DClassifierOutput
from .arguments import S2DTrainingArguments

if TYPE_CHECKING:  # it stands beside transformers' Trainer, whose methods it calls
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


def distinct_views(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Which views `(batch_size, num_views, ...)` of videos are not the same picture as an earlier one of their video, a
    mask `(batch_size, num_views)`; and for every view the index of the one like it among those that the mask selects.
    """
    numbers = torch.arange(frames.shape[1], device=frames.device)
    first_like_it = numbers.repeat(len(frames), 1)
    for view in range(1, len(numbers)):
        for earlier in reversed(range(view)):
            is_same = (frames[:, view] == frames[:, earlier]).flatten(1).all(dim=1)
            first_like_it[is_same, view] = earlier
    is_distinct = first_like_it == numbers
    places = is_distinct.flatten().cumsum(dim=0).view_as(is_distinct) - 1
    return is_distinct, places.gather(1, first_like_it)


def average_views(outputs: S2DClassifierOutput, views: torch.Tensor) -> S2DClassifierOutput:
    """The outputs of clips to one for each video; `views` `(batch_size, num_views)` are the indices of its clips."""
    logits, pooled = cast(torch.Tensor, outputs.logits), cast(torch.Tensor, outputs.pooler_output)
    scores = logits.float().softmax(dim=-1)[views].mean(dim=1)
    # the logarithm of 0 would be infinite
    scores = scores.clamp(min=torch.finfo(scores.dtype).tiny)
    return S2DClassifierOutput(logits=scores.log(), pooler_output=pooled[views].mean(dim=1))


class BatchPreparation(_Trainer):
    """The part of [`S2DTrainer`] that turns batches of frames into what the model takes."""

    args: S2DTrainingArguments
    state: TrainerState
    erasing: RandomErasing
    _micro_step: int

    def prepare_pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 `frames` to the float `pixel_values` of the same shape that the model takes."""
        return self.processing_class.normalise_frames(frames)

    def model_inputs(
        self, pixel_values: torch.Tensor, landmark_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """`pixel_values` and, where the model wants them, their landmark features, computed if they are not given."""
        if self.model.config.prompt_type == "none":
            return {"pixel_values": pixel_values}
        if landmark_features is not None:
            return {"pixel_values": pixel_values, "landmark_features": landmark_features.to(pixel_values)}
        processor = self._training_processor if self.model.training else self.processing_class
        return {"pixel_values": pixel_values, **processor.compute_landmarks(pixel_values)}

    def _batch_generator(self) -> torch.Generator:
        # every process erases and mixes in its own way; resuming needs no state that is not in a checkpoint
        entropy = (self.args.seed, self.args.process_index, self.state.global_step, self._micro_step)
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))

    def _refuse_changes_of_pixels(self) -> None:
        changes = ("mixup_alpha", "cutmix_alpha", "random_erasing_prob")
        given = [f"`{name}`" for name in changes if getattr(self.args, name)]
        if given and self.model.config.prompt_type != "none":
            raise ValueError(
                f"The data set gives landmark features, which can't be used where pixels are changed: set "
                f"{', '.join(given)} to 0, or train without cached features."
            )

    def _erase_and_mix(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        generator = self._batch_generator()
        pixels = self._erase(pixels, generator)
        smoothing = self.args.label_smoothing_factor
        if not (self.args.mixup_alpha or self.args.cutmix_alpha or smoothing):
            return pixels, labels
        one_hot = nn.functional.one_hot(labels.long(), self.model.config.num_labels).float()
        return mixup_cutmix(
            pixels,
            one_hot,
            mixup_alpha=self.args.mixup_alpha,
            cutmix_alpha=self.args.cutmix_alpha,
            switch_prob=self.args.mixup_switch_prob,
            label_smoothing=smoothing,
            generator=generator,
        )

    def _erase(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.erasing.p == 0:
            return pixels
        return torch.stack([self.erasing(clip, generator) for clip in pixels])


__all__ = ["BatchPreparation", "average_views", "distinct_views"]
