"""What decides how a training ends, kept in its checkpoints, to be compared when one is resumed."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from .recipes import StageArguments

SETTINGS_NAME = "settings.json"
_OF_TRAINING = (
    "seed", "data_seed", "learning_rate", "learning_rate_batch", "layer_decay", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "optim", "max_grad_norm",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16",
    "label_smoothing_factor", "mixup_alpha", "cutmix_alpha", "mixup_switch_prob", "random_erasing_prob",
    "balanced_sampling", "landmark_encoder_dtype", "ema_decay", "anchor_distillation", "anchor_queue_size",
    "anchor_neighbours", "anchor_weight_times", "anchor_weights", "anchor_first_update", "anchor_update_every",
    "anchor_unit", "anchor_start", "anchor_update",
)  # fmt: skip
# where things lie, and what is only looked at
_NOT_OF_DATA = (
    "validation_data", "test_data", "validation_split", "test_split", "data_name", "num_windows", "num_crops",
    "keep_in_memory", "cache_dir", "check_data", "check_counts", "validate_on_test",
)  # fmt: skip


def describe_settings(stage: StageArguments) -> dict[str, Any]:
    """The settings of a stage's model, data and training that decide what it ends with, as JSON can hold them."""
    settings = {name: getattr(stage.training, name, None) for name in _OF_TRAINING}
    settings |= {item.name: getattr(stage.data, item.name) for item in fields(stage.data)}
    for name in _NOT_OF_DATA:
        settings.pop(name, None)
    settings["config_overrides"] = stage.model.config_overrides
    settings["freeze_backbone"] = stage.model.freeze_backbone
    return json.loads(json.dumps(settings, default=lambda value: getattr(value, "value", str(value))))


def find_differences(checkpoint: str | Path, settings: dict[str, Any]) -> list[str]:
    """
    Settings that a checkpoint was written with and that are others now, each in words; of a checkpoint that says
    nothing of them, none.

    Args:
        checkpoint (`str` or `Path`): The folder.
        settings (`dict`): What [`describe_settings`] says of the training that is to go on from it.
    """
    path = Path(checkpoint, SETTINGS_NAME)
    if not path.is_file():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    names = [name for name in settings if name in before and before[name] != settings[name]]
    return [f"`{name}`: {before[name]!r}, and now {settings[name]!r}" for name in names]


__all__ = ["SETTINGS_NAME", "describe_settings", "find_differences"]
