"""The Trainer of the S2D models."""

import os
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data import RandomErasing, mixup_cutmix
from ..losses import EmotionAnchors
from ..modeling_s2d import S2DClassifierOutput, classification_loss
from .arguments import S2DTrainingArguments
from .samplers import ClassBalancedSampler

ANCHORS_NAME = "emotion_anchors.safetensors"


def _average_views(outputs: S2DClassifierOutput, num_views: int) -> S2DClassifierOutput:
    """The outputs of `batch_size * num_views` clips to one for each video."""
    scores = outputs.logits.float().softmax(dim=-1).unflatten(0, (-1, num_views)).mean(dim=1)
    features = outputs.pooler_output.unflatten(0, (-1, num_views)).mean(dim=1)
    return S2DClassifierOutput(logits=scores.log(), pooler_output=features)


class S2DTrainer(Trainer):
    """
    transformers' Trainer with what S2D's training needs. Everything that Trainer does stays.

    Batches are those of [`ClipCollator`]: `frames`, uint8 pixels `(batch_size, num_frames, 3, height, width)` or for
    images `(batch_size, 3, height, width)`, already augmented and of the model's size; `labels` `(batch_size,)`; and,
    for the emotion anchors, `clean_frames` without augmentation. The trainer normalises the pixels, erases boxes,
    mixes the batch (mixup and cutmix), and computes the landmark features from the result, all on the training device,
    with the processor that is handed over as `processing_class`.

    In evaluation `frames` may have several views of each video, `(batch_size, num_views, num_frames, 3, height,
    width)`: the softmax scores of the views are averaged, and the logarithm of the mean stands for the logits.

    The loss is the cross-entropy with (soft) labels plus, with `anchor_distillation`, the weighted loss of the emotion
    anchors. In distributed training, an update of the anchors gathers the batch of all processes; the anchors stand in
    every checkpoint.

    Args:
        model ([`S2DForVideoClassification`] or [`S2DForImageClassification`]).
        args ([`S2DTrainingArguments`]).
        processing_class ([`S2DVideoProcessor`] or [`S2DImageProcessor`]).
        kwargs: As for [`~transformers.Trainer`]. For `balanced_sampling`, `train_dataset` must have an attribute
            `label_indices`, the class of each sample, as [`ClipDataset`] has.
        anchors ([`EmotionAnchors`], *optional*): Made from the arguments if not given.

    Raises:
        ValueError: if no processor is given, or the model needs landmarks and the processor has no encoder.
    """

    args: S2DTrainingArguments
    # the loss is a mean over the batch
    loss_is_scaled_for_ga = False

    def __init__(self, *args, anchors: EmotionAnchors | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        processor = self.processing_class
        if processor is None:
            raise ValueError("`processing_class` is missing: pass the model's video or image processor.")
        if self.model.config.prompt_type != "none" and processor.landmark_encoder is None:
            raise ValueError("The model is guided by landmarks, and `processing_class` has no landmark encoder.")
        self.anchors, self.anchor_schedule = None, None
        if self.args.anchor_distillation:
            config = self.model.config
            self.anchors = anchors or EmotionAnchors(
                config.num_labels,
                config.hidden_size,
                queue_size=self.args.anchor_queue_size,
                num_neighbours=self.args.anchor_neighbours,
                start=self.args.anchor_start,
            )
            self.anchors.to(self.args.device)
            self.anchor_schedule = self.args.anchor_schedule
        self.erasing = RandomErasing(self.args.random_erasing_prob)
        # every process erases and mixes in its own way; after resuming, this is drawn anew
        self._batch_generator = torch.Generator().manual_seed(self.args.seed * 1009 + self.args.process_index)

    def prepare_pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 `frames` to the float `pixel_values` of the same shape that the model takes."""
        processor = self.processing_class
        return processor.rescale_and_normalize(
            frames,
            do_rescale=True,
            rescale_factor=processor.rescale_factor,
            do_normalize=True,
            image_mean=tuple(processor.image_mean),
            image_std=tuple(processor.image_std),
        )

    def model_inputs(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """`pixel_values` and, where the model wants them, their landmark features."""
        if self.model.config.prompt_type == "none":
            return {"pixel_values": pixel_values}
        return {"pixel_values": pixel_values, **self.processing_class.compute_landmarks(pixel_values)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Task loss and, in training, anchor loss of a batch; see [`~transformers.Trainer.compute_loss`]."""
        frames, labels = inputs["frames"], inputs["labels"]
        num_views = frames.shape[1] if frames.ndim == 6 else None
        pixels = self.prepare_pixels(frames if num_views is None else frames.flatten(0, 1))
        targets = labels
        if model.training:
            pixels, targets = self._erase_and_mix(pixels, labels)
        outputs = model(**self.model_inputs(pixels))
        if num_views is not None:
            outputs = _average_views(outputs, num_views)
        loss = classification_loss(outputs.logits, targets, self.model.config)
        if model.training and self.anchors is not None:
            weight = self.anchor_schedule.weight(self._epoch(), self.args.num_train_epochs)
            if weight > 0:
                loss = loss + weight * self.anchors(outputs.logits, outputs.pooler_output)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args, **kwargs) -> torch.Tensor:
        """One batch; in chosen epochs its un-augmented view enters the anchors first."""
        if self.anchors is not None and self.anchor_schedule.is_update_epoch(
            int(self._epoch() + 1e-6), self.args.num_train_epochs
        ):
            inputs = self._prepare_inputs(inputs)
            self._update_anchors(model, inputs)
        return super().training_step(model, inputs, *args, **kwargs)

    def _erase_and_mix(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.erasing.p > 0:
            pixels = torch.stack([self.erasing(clip, self._batch_generator) for clip in pixels])
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
            generator=self._batch_generator,
        )

    @torch.no_grad()
    def _update_anchors(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        if "clean_frames" not in inputs:
            raise ValueError(
                "The emotion anchors are updated with un-augmented clips: the data set must give `clean_frames`."
            )
        was_training = model.training
        model.eval()
        with self.compute_loss_context_manager():
            outputs = model(**self.model_inputs(self.prepare_pixels(inputs["clean_frames"])))
        model.train(was_training)
        batch = (outputs.pooler_output.float(), outputs.logits.float(), inputs["labels"])
        self.anchors.update(*self.accelerator.gather(batch))

    def _epoch(self) -> float:
        return float(self.state.epoch or 0.0)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        if not self.args.balanced_sampling:
            return super()._get_train_sampler(train_dataset)
        labels = getattr(train_dataset, "label_indices", None)
        if labels is None:
            raise ValueError("`balanced_sampling` needs a `train_dataset` with an attribute `label_indices`.")
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return ClassBalancedSampler(labels, seed)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Parameters with weight decay: none of one axis, and neither class, position nor temporal embedding."""
        embeddings = ("cls_token", "position_embeddings", "temporal_embeddings")
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1 and not name.endswith(("bias", *embeddings))
        ]

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        """The optimizer, its learning rate scaled with the batch if `learning_rate_batch` is given."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new and self.args.learning_rate_batch is not None:
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * batch / self.args.learning_rate_batch
        return optimizer

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # before the rest, so that a checkpoint that is uploaded is whole
        if self.anchors is not None and self.args.should_save:
            folder = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder = os.path.join(self._get_output_dir(trial=trial), folder)
            os.makedirs(folder, exist_ok=True)
            save_file(self.anchors.state_dict(), os.path.join(folder, ANCHORS_NAME))
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.anchors is None:
            return
        path = os.path.join(resume_from_checkpoint, ANCHORS_NAME)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{resume_from_checkpoint} has no {ANCHORS_NAME}: it was written without `anchor_distillation`, and a "
                "training with it can't go on from there."
            )
        self.anchors.load_state_dict(load_file(path, device=str(self.args.device)))
