"""What an S2D model takes over from a ViT or ViT-MAE checkpoint."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from .finite_weights_s2d import refuse_broken_weights

logger = logging.get_logger(__name__)

# fields that S2DConfig has under the names of transformers' ViTs
_SHARED_FIELDS = (
    "image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size", "hidden_act", "qkv_bias", "layer_norm_eps",
)  # fmt: skip


def load_vit(name: str, **kwargs: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """
    The fields of `S2DConfig` that a ViT checkpoint sets, and its weights under the names of `S2DModel`.

    Args:
        name (`str`): A name on the Hub or a folder; its model type is `vit` or `vit_mae`.
        kwargs: For `AutoConfig.from_pretrained` and `AutoModel.from_pretrained`.

    Raises:
        ValueError: if the checkpoint is of another model type, or its weights don't fit its own configuration, or are
            NaN or infinite.
    """
    config = AutoConfig.from_pretrained(name, **kwargs)
    if config.model_type not in ("vit", "vit_mae"):
        raise ValueError(
            f"{name} is a {config.model_type!r} checkpoint; an S2D model can start from 'vit' or 'vit_mae'."
        )
    if config.model_type == "vit":
        kwargs["add_pooling_layer"] = False  # its pooler has no place here
    try:
        vit = AutoModel.from_pretrained(name, **kwargs)
    except RuntimeError as error:  # what transformers raises of weights that don't fit their own configuration
        raise ValueError(f"The weights of {name} don't fit its configuration.") from error
    refuse_broken_weights(vit.state_dict(), f"{name} can't be used")
    fields = {field: getattr(config, field) for field in _SHARED_FIELDS}
    return fields, _rename(vit.state_dict(), config.num_hidden_layers)


def fill_with_vit(model: nn.Module, weights: dict[str, torch.Tensor], name: str) -> None:
    """
    Puts the weights of [`load_vit`] into an `S2DModel`, whose other modules stay as they are; blocks that it lacks
    are left out, with a warning.

    Raises:
        ValueError: if weights are missing, superfluous or of another shape; the message lists them.
    """
    config: Any = model.config
    num_layers = config.num_hidden_layers
    used = {
        key: weight
        for key, weight in weights.items()
        if not key.startswith("layers.") or int(key.split(".")[1]) < num_layers
    }
    if len(used) < len(weights):
        logger.warning(f"Of the blocks of {name}, the first {num_layers} are used, as `num_hidden_layers` says.")
    own = model.state_dict()
    wrong = [
        f"{key}: {tuple(weight.shape)}, expected {tuple(own[key].shape) if key in own else 'no such weight'}"
        for key, weight in used.items()
        if key not in own or own[key].shape != weight.shape
    ]
    # what only S2D has is new, and nothing else
    vit_parts = ("embeddings.cls_", "embeddings.p", "layers.", "layernorm.")
    wrong += [f"{key}: missing" for key in own if key.startswith(vit_parts) and key not in used]
    if wrong:
        raise ValueError(f"{name} does not fit the configuration:\n" + "\n".join(wrong))
    model.load_state_dict(used, strict=False)


def _rename(source: dict[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    """The weights of a transformers `ViTModel` or `ViTMAEModel` under the names of `S2DModel`."""
    weights = {
        "embeddings.cls_token": source["embeddings.cls_token"],
        "embeddings.position_embeddings": source["embeddings.position_embeddings"],
        "embeddings.patch_embeddings.weight": source["embeddings.patch_embeddings.projection.weight"],
        "embeddings.patch_embeddings.bias": source["embeddings.patch_embeddings.projection.bias"],
        "layernorm.weight": source["layernorm.weight"],
        "layernorm.bias": source["layernorm.bias"],
    }
    for i in range(num_layers):
        for kind in ("weight", "bias"):
            names = [f"layers.{i}.attention.{letter}_proj.{kind}" for letter in "qkv"]
            if all(name in source for name in names):
                weights[f"layers.{i}.attention.qkv.{kind}"] = torch.cat([source[name] for name in names])
            weights[f"layers.{i}.attention.proj.{kind}"] = source[f"layers.{i}.attention.o_proj.{kind}"]
            for same in ("layernorm_before", "layernorm_after", "mlp.fc1", "mlp.fc2"):
                weights[f"layers.{i}.{same}.{kind}"] = source[f"layers.{i}.{same}.{kind}"]
    return weights


__all__ = ["fill_with_vit", "load_vit"]
