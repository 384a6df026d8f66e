"""What a training takes of the weights where it starts: misfits are listed, and random weights are never frozen."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from ..configuration_s2d import S2DConfig

logger = logging.get_logger(__name__)


def check_start(model: PreTrainedModel, info: Mapping[str, Any], start: str, start_config: S2DConfig) -> None:
    """
    Warns of weights that start new although the model where the training starts has such, and of those of it that are
    not used, and refuses to train around new ones. Temporal adapters, prompters and a classifier that it never had are
    no surprise.

    Args:
        model ([`PreTrainedModel`]): The model as it will be trained, what is frozen included.
        info (`Mapping`): What `from_pretrained` says with `output_loading_info=True`.
        start (`str`): What was loaded, as the user named it.
        start_config ([`S2DConfig`]): Its configuration.

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
    surprising = {name: reason for name, reason in new.items() if not _is_expected(name, start_config)}
    if surprising:
        logger.warning(f"These weights start new, as {start} has none that fit:\n{_listed(surprising)}")
    unused = {name: "not used" for name in info["unexpected_keys"] if not _is_left_out(name, model.config)}
    if unused:
        logger.warning(f"These weights of {start} have no place in the model:\n{_listed(unused)}")


def check_resumed(model: PreTrainedModel, weights: str | Path) -> None:
    """
    Args:
        model ([`PreTrainedModel`]): The model that is trained.
        weights (`str` or `Path`): The safetensors file of a checkpoint from which the training is to go on.

    Raises:
        ValueError: if its weights are not those of the model.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(weights, framework="pt") as file:
        given = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    reasons = {name: "missing" for name in own if name not in given}
    reasons |= {name: "not used" for name in given if name not in own}
    reasons |= {
        name: f"{given[name]}, expected {own[name]}" for name in own if given.get(name, own[name]) != own[name]
    }
    if reasons:
        raise ValueError(f"{weights} is of another model than the one that is trained:\n{_listed(reasons)}")


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


def _is_expected(name: str, start_config: S2DConfig) -> bool:
    """Whether the model where the training starts is not of the kind that has such weights."""
    if name.startswith("classifier."):  # of which a message of its own tells
        return True
    if "temporal" in name:
        return not start_config.temporal_adapters
    if "prompt" in name or "landmark" in name:
        return start_config.prompt_type != "deep"
    return False


def _is_left_out(name: str, config: S2DConfig) -> bool:
    """Whether the configuration asks for a model without such weights."""
    if "temporal" in name:
        return not config.temporal_adapters
    return ("prompt" in name or "landmark" in name) and config.prompt_type != "deep"


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


__all__ = ["check_resumed", "check_start", "refuse_new_weights"]
