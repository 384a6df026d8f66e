"""What a training takes of the weights where it starts: misfits are listed, and random weights are never frozen."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    logging,
)

from ..configuration_s2d import S2DConfig

logger = logging.get_logger(__name__)


# Fields that change what weights compute, and not their shapes.
_SHAPELESS = ("num_attention_heads", "hidden_act", "layer_norm_eps")


def check_overrides(overrides: Mapping[str, Any], start: str, start_config: S2DConfig) -> None:
    """
    Args:
        overrides (`Mapping`): The user's `config_overrides`.
        start (`str`): Where the training starts, as the user named it.
        start_config ([`S2DConfig`]): Its configuration.

    Raises:
        ValueError: if an override makes something else of weights that fit by their shapes.
    """
    names = _SHAPELESS + (("adapter_num_heads",) if start_config.temporal_adapters else ())
    for name in names:
        was = getattr(start_config, name)
        if overrides.get(name, was) != was:
            raise ValueError(
                f"`config_overrides` has `{name}` {overrides[name]!r}, and the weights of {start} were trained with "
                f"{was!r}: with another one they compute nonsense."
            )


def check_start(
    model: PreTrainedModel,
    info: Mapping[str, Any],
    start: str,
    start_config: S2DConfig,
    overrides: Mapping[str, Any],
    has_new_labels: bool = False,
) -> None:
    """
    Warns of weights that start new although the model where the training starts has such, and of those of it that are
    not used, and refuses to train around new ones. Temporal adapters, prompters and a classifier that it never had are
    no surprise.

    Args:
        model ([`PreTrainedModel`]): The model as it will be trained, what is frozen included.
        info (`Mapping`): What `from_pretrained` says with `output_loading_info=True`.
        start (`str`): What was loaded, as the user named it.
        start_config ([`S2DConfig`]): Its configuration.
        overrides (`Mapping`): The user's `config_overrides`, which may ask for a model without such weights.
        has_new_labels (`bool`): Whether the classifier must be new.

    Raises:
        ValueError: if weights would be new and frozen.
    """
    misfits = {name: f"{tuple(theirs)} there, {tuple(ours)} here" for name, theirs, ours in info["mismatched_keys"]}
    new = dict.fromkeys(info["missing_keys"], "missing") | misfits
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen &= set(new)
    if frozen:
        raise ValueError(
            f"{start} doesn't fit the model that is to be trained, and what it doesn't give would stay random, as it "
            f"is frozen:\n{_listed({name: new[name] for name in frozen})}\nLet `config_overrides` agree with it, or "
            "train everything (`freeze_backbone: false`)."
        )
    surprising = {name: reason for name, reason in new.items() if not _is_expected(name, start_config, has_new_labels)}
    if surprising:
        logger.warning(f"These weights start new, as {start} has none that fit:\n{_listed(surprising)}")
    unused = {name: "not used" for name in info["unexpected_keys"] if not _is_left_out(name, overrides)}
    if unused:
        logger.warning(f"These weights of {start} have no place in the model:\n{_listed(unused)}")


def check_resumed(model: PreTrainedModel, checkpoint: str | Path) -> None:
    """
    Of FSDP's and DeepSpeed's checkpoints, and of adapters, nothing is checked here.

    Args:
        model ([`PreTrainedModel`]): The model that is trained.
        checkpoint (`str` or `Path`): The folder from which its weights are to be read.

    Raises:
        ValueError: if its weights are not those of the model.
    """
    given = _read_shapes(Path(checkpoint))
    if given is None:
        return
    own = {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in model.state_dict().items()}
    reasons = {name: "missing" for name in own if name not in given}
    reasons |= {name: "not used" for name in given if name not in own}
    for name in own.keys() & given.keys():
        if given[name][0] != own[name][0]:
            reasons[name] = f"{given[name][0]}, expected {own[name][0]}"
        elif given[name][1] != own[name][1]:
            reasons[name] = "not in floating point" if own[name][1] else "in floating point"
    if reasons:
        raise ValueError(f"{checkpoint} is of another model than the one that is trained:\n{_listed(reasons)}")


def _read_shapes(checkpoint: Path) -> dict[str, tuple[tuple[int, ...], bool]] | None:
    """Shape of each weight, and whether it is in floating point."""
    files = [checkpoint / SAFE_WEIGHTS_NAME]
    for index in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        if not files[0].is_file() and (checkpoint / index).is_file():
            parts = json.loads((checkpoint / index).read_text(encoding="utf-8"))["weight_map"].values()
            files = [checkpoint / part for part in sorted(set(parts))]
    if not files[0].is_file():
        files = [checkpoint / WEIGHTS_NAME]
    if not files[0].is_file():
        return None
    shapes = {}
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    part = opened.get_slice(name)
                    shapes[name] = (tuple(part.get_shape()), "F" in part.get_dtype())  # F32, BF16, ...
        else:
            state = torch.load(file, map_location="meta", weights_only=True)
            shapes |= {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in state.items()}
    return shapes


def refuse_new_weights(info: Mapping[str, Any], source: str) -> None:
    """
    Args:
        info (`Mapping`): What `from_pretrained` says with `output_loading_info=True`.
        source (`str`): What was loaded, as the user named it.

    Raises:
        ValueError: if a model that is to predict as it is lacks weights.
    """
    new = dict.fromkeys(info["missing_keys"], "missing")
    new |= {name: f"{tuple(theirs)}, expected {tuple(ours)}" for name, theirs, ours in info["mismatched_keys"]}
    if new:
        raise ValueError(f"{source} lacks weights, which would be random:\n{_listed(new)}")


def _is_expected(name: str, start_config: S2DConfig, has_new_labels: bool) -> bool:
    """Whether the model where the training starts is not of the kind that has such weights."""
    if name.startswith("classifier."):
        return has_new_labels
    if "temporal" in name:
        return not start_config.temporal_adapters
    if "prompt" in name or "landmark" in name:
        return start_config.prompt_type != "deep"
    return False


def _is_left_out(name: str, overrides: Mapping[str, Any]) -> bool:
    """Whether the user has asked for a model without such weights."""
    if "temporal" in name:
        return "temporal_adapters" in overrides
    return ("prompt" in name or "landmark" in name) and "prompt_type" in overrides


def _listed(weights: Mapping[str, str]) -> str:
    """A line for each kind of weights, those of several layers together."""
    kinds: dict[tuple[str, str], int] = {}
    for name, reason in sorted(weights.items()):
        kind = (re.sub(r"\.\d+\.", ".*.", name), reason)
        kinds[kind] = kinds.get(kind, 0) + 1
    return "\n".join(_lines(kinds.items()))


def _lines(kinds: Iterable[tuple[tuple[str, str], int]]) -> Iterable[str]:
    for (name, reason), count in kinds:
        yield f"- {name}: {reason}" + (f" ({count} layers)" if count > 1 else "")


__all__ = ["check_overrides", "check_resumed", "check_start", "refuse_new_weights"]
