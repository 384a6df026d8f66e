"""The Trainer of the S2D models."""

import copy
import json
import math
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import SCALER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, TrainOutput, has_length
from transformers.utils import logging

from ..classification_loss_s2d import classification_loss
from ..data import RandomErasing
from ..losses import EmotionAnchors
from ..losses.emotion_anchors import ANCHORS_NAME
from .arguments import S2DTrainingArguments
from .batches import BatchPreparation, average_views, distinct_views
from .checkpoints import check_checkpoint, find_fault_of_weights, find_last_checkpoint, write_checksums
from .finite import FiniteCallback, NotFiniteError, check_batch, check_weights
from .parameter_groups import decay_by_layer
from .pushing import HubUpload
from .samplers import ClassBalancedSampler, EpochCallback
from .settings import SETTINGS_NAME
from .starting_weights import check_resumed
from .weight_average import WeightAverage

logger = logging.get_logger(__name__)

AVERAGE_NAME = "ema.safetensors"


class _TrainingHooks(TrainerCallback):
    """What [`S2DTrainer`] does at fixed points of Trainer's loop."""

    def __init__(self, trainer: "S2DTrainer"):
        self.trainer = trainer

    def on_train_begin(
        self,
        args: S2DTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: DataLoader,
        **kwargs: Any,
    ) -> None:
        self.trainer._begin_anchors(train_dataloader)
        # not where a checkpoint gave it already
        if args.ema_decay is not None and self.trainer.weight_average is None:
            self.trainer.weight_average = WeightAverage(self.trainer.model, args.ema_decay)

    def on_step_begin(
        self, args: S2DTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer._micro_step = 0
        self.trainer.names_of_step = []
        self.trainer._anchor_batches.clear()

    def on_step_end(
        self, args: S2DTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.weight_average is not None:
            self.trainer.weight_average.update(self.trainer.model, state.global_step)
        self.trainer._update_anchors_after_step()


class S2DTrainer(BatchPreparation, HubUpload, Trainer):
    """
    transformers' Trainer with what S2D's training needs. Everything that Trainer does stays.

    Batches are those of [`ClipCollator`]: `frames`, uint8 pixels `(batch_size, num_frames, 3, height, width)` or for
    images `(batch_size, 3, height, width)`, already augmented and of the model's size; `labels` `(batch_size,)`; and,
    for emotion anchors with `anchor_update="before"`, `clean_frames` without augmentation. The trainer normalises the
    pixels, erases boxes, mixes the batch (mixup and cutmix), and computes the landmark features from the result, all
    on the training device, with the processor that is handed over as `processing_class`.

    Batches of [`CachedClips`] have `landmark_features` of `frames` already, and of `clean_frames`, which must then be
    the same. They are used instead, in training only where nothing is erased or mixed.

    In evaluation `frames` may have several views of each video, `(batch_size, num_views, num_frames, 3, height,
    width)`: the softmax scores of the views are averaged, and the logarithm of the mean stands for the logits. Views
    of a video that are the same picture are computed once.

    The loss is the cross-entropy with (soft) labels plus, with `anchor_distillation`, the weighted loss of the emotion
    anchors. In distributed training, an update of the anchors gathers the batch of all processes; the anchors stand in
    every checkpoint.

    With `ema_decay`, an exponential moving average of the trained weights is kept. Everything that is evaluated,
    predicted, saved with `save_model` or pushed is the average. The model itself, also as `trainer.model` after the
    training, has the raw weights; so has `model.safetensors` in a checkpoint, and the average stands beside it in
    `ema.safetensors`. With `load_best_model_at_end`, both are loaded from the best checkpoint.

    With `dataloader_drop_last`, only training leaves out the last, smaller batch; evaluation never does.

    A resumed training equals one that was never interrupted, also from the middle of an epoch: erasing and mixing
    depend on the seed, the process and the step alone, and `train_dataset` and its sampler are told the epoch
    (`set_epoch`).

    Args:
        model ([`S2DForVideoClassification`] or [`S2DForImageClassification`]).
        args ([`S2DTrainingArguments`]).
        processing_class ([`S2DVideoProcessor`] or [`S2DImageProcessor`]).
        kwargs: As for [`~transformers.Trainer`]. For `balanced_sampling`, `train_dataset` must have an attribute
            `label_indices`, the class of each sample, as [`ClipDataset`] has.
        anchors ([`EmotionAnchors`], *optional*): Made from the arguments if not given.

    Raises:
        ValueError: if no processor is given, the model needs landmarks and the processor has no encoder, FSDP is asked
            for where accelerate would pass over it, or `ema_decay` is given with FSDP or DeepSpeed.
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
        if self.model.config.problem_type is None and self.model.config.num_labels > 1:
            # labels are class indices, and become class probabilities where they are mixed or smoothed
            self.model.config.problem_type = "single_label_classification"
        if not self.is_fsdp_enabled and (self.args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true"):
            raise ValueError(
                "FSDP is asked for. accelerate has it for processes on GPUs alone, and would silently leave it out on "
                f"{self.args.device.type!r}: remove `fsdp` (or `distributed_type: FSDP`), to train with DDP."
            )
        if self.args.ema_decay is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "`ema_decay` needs whole weights in every process: it can't be used with FSDP or DeepSpeed."
            )
        self.weight_average: WeightAverage | None = None
        self._writes_checkpoint = False
        self._micro_step = 0
        self._num_epochs = self.args.num_train_epochs
        # what its checkpoints say of it, see `settings.py`
        self.settings: dict[str, Any] = {}
        # the files of the batches since the last optimizer step, for errors
        self.names_of_step: list[str] = []
        # of the step, to enter the anchors after it, each with the generator of its erasing
        self._anchor_batches: list[tuple[dict[str, Any], torch.Generator]] = []
        # first, since other callbacks may evaluate or save
        self.callback_handler.callbacks[:0] = [EpochCallback(), _TrainingHooks(self), FiniteCallback(self)]
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
        # what is saved and evaluates keeps its precision
        self._training_processor = processor
        if self.args.landmark_encoder_dtype != "float32" and processor.landmark_encoder is not None:
            self._training_processor = copy.copy(processor)
            encoder = copy.deepcopy(processor.landmark_encoder)
            self._training_processor.landmark_encoder = encoder.to(getattr(torch, self.args.landmark_encoder_dtype))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        [`~transformers.Trainer.train`]; `resume_from_checkpoint=True` takes what [`find_last_checkpoint`] finds.

        Raises:
            ValueError: if there is no whole checkpoint to resume from, or the one that is named isn't; the message
                names the file and its fault.
            FileNotFoundError: if there is no such folder.
            NotFiniteError: if a loss, a gradient, a score or a weight becomes NaN or infinite.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = find_last_checkpoint(self.args.output_dir, self.files_to_resume())
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir} has no complete checkpoint to resume from.")
        elif resume_from_checkpoint:
            check_checkpoint(resume_from_checkpoint, self.files_to_resume())
        self.weight_average = None
        if resume_from_checkpoint:
            state = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, TRAINER_STATE_NAME))
            written_by = len(list(Path(resume_from_checkpoint).glob("rng_state_*.pth"))) or 1
            if written_by != self.args.world_size:
                logger.warning(
                    f"{resume_from_checkpoint} was written by {written_by} processes, and is resumed by "
                    f"{self.args.world_size}: the batches are others, and so is what the training ends with."
                )
            is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
            if 0 < self.args.max_steps <= state.global_step and not is_sharded:
                return self._take_over(resume_from_checkpoint, state)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _take_over(self, checkpoint: str, state: TrainerState) -> TrainOutput:
        """A training of which no step is left; Trainer would train one more where they don't end an epoch."""
        self._load_from_checkpoint(checkpoint)
        self.state = state
        if self.args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._load_best_model()
        metrics = {"epoch": state.epoch, "train_loss": math.nan, "train_runtime": 0.0}
        return TrainOutput(state.global_step, math.nan, metrics)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """
        [`~transformers.Trainer.evaluate`].

        Raises:
            NotFiniteError: also if the score by which the best checkpoint is found is not finite, as the recall of a
                class that doesn't occur.
        """
        metrics = super().evaluate(*args, **kwargs)
        name = self.args.metric_for_best_model
        if name is not None:
            name = name if name.startswith("eval_") else f"eval_{name}"
            if not math.isfinite(metrics.get(name, 0.0)):
                raise NotFiniteError(
                    f"`metric_for_best_model`: {name} is {metrics[name]}, and no checkpoint is better or worse by it. "
                    "The recall of a class needs samples of it in the validation data."
                )
        return metrics

    def files_to_resume(self) -> dict[str, str]:
        """What this training reads from a checkpoint beside what all do, with the argument that asks for it."""
        files = {
            ANCHORS_NAME: self.anchors is not None and "anchor_distillation",
            AVERAGE_NAME: self.args.ema_decay is not None and "ema_decay",
            SCALER_NAME: self.accelerator.scaler is not None and "fp16",
        }
        return {name: argument for name, argument in files.items() if argument}

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """[`~transformers.Trainer.evaluation_loop`], with the averaged weights if there are any."""
        with self._averaged_weights():
            return super().evaluation_loop(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """[`~transformers.Trainer.save_model`], with the averaged weights if there are any."""
        # a checkpoint keeps the raw weights, for the training to go on from
        with nullcontext() if self._writes_checkpoint else self._averaged_weights():
            self._check_weights()
            super().save_model(output_dir, _internal_call)

    def _check_weights(self) -> None:
        check_weights(self.model.named_parameters(), f"After step {self.state.global_step}")

    def _averaged_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self.weight_average is None else self.weight_average.applied_to(self.model)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Task loss and, in training, anchor loss of a batch; see [`~transformers.Trainer.compute_loss`]."""
        frames, labels, features = inputs["frames"], inputs["labels"], inputs.get("landmark_features")
        views = None
        if frames.ndim == 6:
            is_distinct, views = distinct_views(frames)
            frames = frames[is_distinct]
            features = None if features is None else features[is_distinct]
        pixels = self.prepare_pixels(frames)
        targets = labels
        if model.training:
            if features is not None:
                self._refuse_changes_of_pixels()
            pixels, targets = self._erase_and_mix(pixels, labels)
        outputs = model(**self.model_inputs(pixels, features))
        if views is not None:
            outputs = average_views(outputs, views)
        loss = classification_loss(outputs.logits, targets, self.model.config)
        if model.training and self.anchors is not None and self.anchor_schedule is not None:
            weight = self.anchor_schedule.weight(self._epoch(), self._num_epochs)
            if weight > 0:
                loss = loss + weight * self.anchors(outputs.logits, outputs.pooler_output)
        step = f"Step {self.state.global_step + 1} (epoch {self._epoch():.2f})"
        check_batch(loss, outputs.logits, inputs.get("name"), step if model.training else "Evaluation")
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """One batch; in chosen epochs it enters the anchors, before the step or after it (`anchor_update`)."""
        schedule = self.anchor_schedule
        epoch = int(self._epoch() + 1e-6)
        if self.anchors is not None and schedule is not None and schedule.is_update_epoch(epoch, self._num_epochs):
            inputs = self._prepare_inputs(inputs)
            if self.args.anchor_update == "before":
                self._update_anchors(model, inputs)
            else:
                self._anchor_batches.append((inputs, self._batch_generator()))
        self.names_of_step += inputs.get("name", [])
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._micro_step += 1
        return loss

    def _begin_anchors(self, train_dataloader: DataLoader) -> None:
        """Finds how many epochs there will be, and warns of anchors that will do nothing in these."""
        self._num_epochs = self.args.num_train_epochs
        if self.args.max_steps > 0 and has_length(train_dataloader):
            steps = math.ceil(len(train_dataloader) / self.args.gradient_accumulation_steps)
            self._num_epochs = self.args.max_steps / steps
        if self.anchors is None or self.anchor_schedule is None or not self.is_world_process_zero():
            return
        samples = None
        labels = getattr(self.train_dataset, "label_indices", None)
        if labels is not None:
            names = self.model.config.id2label
            counts = np.bincount(labels, minlength=len(names)).astype(float)
            if self.args.balanced_sampling:  # all that there are come equally often
                counts = np.where(counts > 0, counts.sum() / np.count_nonzero(counts), 0)
            samples = {names[i]: count for i, count in enumerate(counts)}
        starts_full = bool(self.anchors.ready.all())
        for problem in self.anchor_schedule.find_idle(self._num_epochs, samples, self.anchors.queue_size, starts_full):
            logger.warning(f"Emotion anchors: {problem}.")

    def _update_anchors(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        if "clean_frames" not in inputs:
            raise ValueError(
                "The emotion anchors are updated with un-augmented clips: the data set must give `clean_frames`."
            )
        features = inputs.get("landmark_features")
        if features is not None and not torch.equal(inputs["frames"], inputs["clean_frames"]):
            raise ValueError(
                "`clean_frames` are not the `frames` that `landmark_features` belong to: leave those out of the batch."
            )
        was_training = model.training
        model.eval()
        self._enter_anchors(model, self.prepare_pixels(inputs["clean_frames"]), features, inputs["labels"])
        model.train(was_training)

    def _update_anchors_after_step(self) -> None:
        """The clips as the step had them, erased but not mixed, by the model as the step left it."""
        for inputs, generator in self._anchor_batches:
            pixels = self._erase(self.prepare_pixels(inputs["frames"]), generator)
            self._enter_anchors(self.model_wrapped, pixels, inputs.get("landmark_features"), inputs["labels"])
        self._anchor_batches.clear()

    @torch.no_grad()
    def _enter_anchors(
        self, model: nn.Module, pixels: torch.Tensor, features: torch.Tensor | None, labels: torch.Tensor
    ) -> None:
        with self.compute_loss_context_manager():
            outputs = model(**self.model_inputs(pixels, features))
        batch = (outputs.pooler_output.float(), outputs.logits.float(), labels)
        cast(EmotionAnchors, self.anchors).update(*self.accelerator.gather(batch))

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, *args, is_training: bool = False, **kwargs
    ) -> DataLoader:
        given = self.args.dataloader_drop_last
        whole_batch = batch_size * self.args.world_size
        if given and is_training and has_length(dataset) and len(dataset) < whole_batch:
            raise ValueError(
                f"`dataloader_drop_last` leaves out batches of less than {whole_batch}, and there are {len(dataset)} "
                "samples to train on: set it to false, or lower `per_device_train_batch_size`."
            )
        # Trainer would leave out the last samples of an evaluation, too
        self.args.dataloader_drop_last = given and is_training
        try:
            return super()._get_dataloader(dataset, description, batch_size, *args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = given

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

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimizer, its learning rate scaled with the batch (`learning_rate_batch`) and by `layer_decay`."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new and self.args.learning_rate_batch is not None:
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * batch / self.args.learning_rate_batch
        if is_new and self.args.layer_decay is not None:
            optimizer.param_groups[:] = decay_by_layer(
                optimizer.param_groups, self.model, self.model.config.num_hidden_layers, self.args.layer_decay
            )
        return optimizer

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_weights()
        where = f"After step {self.state.global_step}"
        for kept, name in ((self.anchors, "emotion anchors"), (self.weight_average, "averaged weights")):
            if kept is not None:
                check_weights(kept.state_dict().items(), f"{where}, {name}")
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            folder.mkdir(parents=True, exist_ok=True)
            # where a checkpoint is written over an older one, it must not pass for complete in between
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
            # before the rest, so that a checkpoint that is complete or uploaded has them
            if self.settings:
                (folder / SETTINGS_NAME).write_text(json.dumps(self.settings, indent=1) + "\n", encoding="utf-8")
            if self.anchors is not None:
                self.anchors.save(folder)
            if self.weight_average is not None:
                save_file(self.weight_average.state_dict(), folder / AVERAGE_NAME)
        self._writes_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writes_checkpoint = False

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # the state that marks a checkpoint as complete comes next, and every process has its own file here
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_checksums(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_resumed(self.model, resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.anchors is not None:
            self.anchors.load(resume_from_checkpoint)
        if self.args.ema_decay is not None:
            self.weight_average = WeightAverage(self.model, self.args.ema_decay)
            self.weight_average.load_state_dict(load_file(os.path.join(resume_from_checkpoint, AVERAGE_NAME)))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        refusal = (
            f"{checkpoint} has the optimizer and schedule of other arguments than those of this training: resume it "
            "with the `optim`, `lr_scheduler_type`, `layer_decay` and trained weights with which it began"
        )
        fields = [set(group) for group in self.optimizer.param_groups]
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
            for group, names in zip(self.optimizer.param_groups, fields, strict=True):
                if names - set(group):  # which torch would miss in the next step
                    raise KeyError(min(names - set(group)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{refusal} ({type(error).__name__}: {error}).") from error
        if checkpoint is None:
            return
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():  # which torch doesn't compare
                if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape != parameter.shape:
                    raise ValueError(f"{refusal} (`{name}` is {tuple(value.shape)}, not {tuple(parameter.shape)}).")

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        fault = find_fault_of_weights(best, {} if self.weight_average is None else {AVERAGE_NAME: "ema_decay"})
        if fault is not None:
            raise ValueError(f"`load_best_model_at_end`: the best checkpoint {best} can't be used: {fault}.")
        check_resumed(self.model, best)
        super()._load_best_model()
        if self.weight_average is not None:
            self.weight_average.load_state_dict(load_file(os.path.join(best, AVERAGE_NAME)))
