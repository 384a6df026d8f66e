"""What can be set for a training, beside all that transformers' TrainingArguments have."""

import inspect
import os
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import HubStrategy, SchedulerType

from ..losses import AnchorSchedule


@dataclass
class S2DTrainingArguments(TrainingArguments):
    """
    [`~transformers.TrainingArguments`] and what the paper's training adds. `label_smoothing_factor` is theirs.

    Raises:
        ValueError: if a value is out of range; the message names it. Or if torchrun has started several processes that
            don't know of each other.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop what the model's forward does not name; the frames must stay."}
    )
    # a loss that is NaN stops the training, and must not be logged as 0
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log the mean of the finite losses where one is not; S2DTrainer stops there."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Let DDP look for parameters without gradient in each step: there are none."}
    )
    # a push at the end is checked; those during the training are Trainer's own
    hub_strategy: HubStrategy | str = field(
        default="end",
        metadata={
            "help": "When `push_to_hub` uploads. `end`, the default here: once, and checked. `every_save`, "
            "`checkpoint`, `all_checkpoints`: also during the training, as Trainer does, unchecked and with "
            "`training_args.bin`, a pickle, and the last two with the optimizer's state."
        },
    )
    learning_rate_batch: int | None = field(
        default=None,
        metadata={
            "help": "Batch that `learning_rate` is meant for (8 in the paper's recipe): the rate is scaled linearly "
            "with the batch over all processes and accumulation steps. Not scaled if not given."
        },
    )
    layer_decay: float | None = field(
        default=None,
        metadata={
            "help": "Factor by which the learning rate shrinks from each block of the ViT to the one below it (0.65 "
            "to 0.75 are usual for fine-tuning). The same rate everywhere if not given."
        },
    )
    balanced_sampling: bool = field(
        default=False, metadata={"help": "Draw training samples so that every class comes equally often."}
    )
    mixup_alpha: float = field(default=0.0, metadata={"help": "Mixup's beta distribution (0.8 in the paper); 0: off."})
    cutmix_alpha: float = field(
        default=0.0, metadata={"help": "Cutmix's beta distribution (1.0 in the paper); 0: off."}
    )
    mixup_switch_prob: float = field(
        default=0.5, metadata={"help": "Share of batches that get cutmix where both are on."}
    )
    random_erasing_prob: float = field(
        default=0.0, metadata={"help": "Share of training clips in which a box is erased (0.25 in the paper)."}
    )
    landmark_encoder_dtype: str = field(
        default="float32",
        metadata={
            "help": "What the landmark encoder computes in while the model trains. `bfloat16` takes less time where "
            "the processor has instructions for it, and its features are off by some percent. Evaluation, cached "
            "features and saved weights stay in float32.",
            "choices": ["float32", "bfloat16"],
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate and save an exponential moving average of the weights, with this decay for each "
            "optimizer step (0.999, for instance). Off if not given."
        },
    )
    anchor_distillation: bool = field(
        default=False, metadata={"help": "Add the emotion-anchors self-distillation loss (paper section 3.4)."}
    )
    anchor_queue_size: int = field(default=16, metadata={"help": "Anchors that each class keeps."})
    anchor_neighbours: int = field(default=2, metadata={"help": "Nearest anchors of each class in a soft target."})
    anchor_start: str = field(
        default="empty",
        metadata={
            "help": "`empty`: a class takes part once its queue is full. `random`: as the authors' code starts, with "
            "queues full of random numbers.",
            "choices": ["empty", "random"],
        },
    )
    anchor_update: str = field(
        default="before",
        metadata={
            "help": "How a batch enters the anchors. `before`: its un-augmented clips, in evaluation mode, before the "
            "step. `after`: as in the authors' code, its augmented clips, in training mode, after the step.",
            "choices": ["before", "after"],
        },
    )
    anchor_weight_times: list[float] = field(
        default_factory=lambda: [0, 30, 50, 60, 80], metadata={"help": "When each of `anchor_weights` begins."}
    )
    anchor_weights: list[float] = field(
        default_factory=lambda: [0.0, 0.01, 0.1, 0.5, 1.0], metadata={"help": "Weights of the anchor loss."}
    )
    anchor_first_update: float = field(default=20, metadata={"help": "When the anchors are filled first."})
    anchor_update_every: float = field(default=40, metadata={"help": "Time between two updates of the anchors."})
    anchor_unit: str = field(
        default="epochs",
        metadata={
            "help": "What the anchors' times are: `epochs`, or `fraction` of the whole training, 0 to 1.",
            "choices": ["epochs", "fraction"],
        },
    )

    def __post_init__(self):
        super().__post_init__()
        started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1
        if self.world_size == 1 < started:
            raise ValueError(
                f"{started} processes were started, and without a GPU each of them would train by itself: pass "
                "`use_cpu` (`--use_cpu true`), and they train together on the CPU."
            )
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # torch would warn that it can't
        self._check_schedule()
        if self.resume_from_checkpoint == "":
            raise ValueError("`resume_from_checkpoint` is empty: `true`, or the folder of a checkpoint.")
        if self.learning_rate_batch is not None and self.learning_rate_batch < 1:
            raise ValueError(f"`learning_rate_batch` must be at least 1, got {self.learning_rate_batch}.")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"`layer_decay` must be over 0 and at most 1, got {self.layer_decay}.")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name in ("mixup_switch_prob", "random_erasing_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be 0 to 1, got {getattr(self, name)}.")
        if self.ema_decay is not None:
            if not 0 < self.ema_decay < 1:
                raise ValueError(f"`ema_decay` must be between 0 and 1, got {self.ema_decay}.")
            if self.push_to_hub and self.hub_strategy != HubStrategy.END:
                raise ValueError(
                    "With `ema_decay` and `push_to_hub`, `hub_strategy` must be 'end', got "
                    f"{self.hub_strategy.value!r}: pushes during the training upload weights that are not averaged."
                )
        if len(self.anchor_weight_times) != len(self.anchor_weights):
            raise ValueError(
                f"`anchor_weight_times` and `anchor_weights` belong together, but are {len(self.anchor_weight_times)} "
                f"and {len(self.anchor_weights)} values."
            )
        if self.landmark_encoder_dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"`landmark_encoder_dtype` must be 'float32' or 'bfloat16', got {self.landmark_encoder_dtype!r}."
            )
        if self.anchor_update not in ("before", "after"):
            raise ValueError(f"`anchor_update` must be 'before' or 'after', got {self.anchor_update!r}.")
        if self.anchor_distillation:
            self.anchor_schedule  # noqa: B018  # refuses impossible schedules before anything is loaded

    def _check_schedule(self) -> None:
        """Trainer itself would find out when everything is loaded."""
        kind = SchedulerType(self.lr_scheduler_type)
        taken = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[kind]).parameters
        unknown = sorted(set(self.lr_scheduler_kwargs or {}) - set(taken))
        if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            raise ValueError(f"`lr_scheduler_kwargs` has {unknown[0]}, which the schedule {kind.value} doesn't take.")

    @property
    def anchor_schedule(self) -> AnchorSchedule:
        """When the anchors count and are updated."""
        return AnchorSchedule(
            weights=tuple(zip(self.anchor_weight_times, self.anchor_weights, strict=True)),
            first_update=self.anchor_first_update,
            update_every=self.anchor_update_every,
            unit=self.anchor_unit,
        )
