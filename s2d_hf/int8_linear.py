"""
Matrix products in int8 on CPUs, put into a trained model from outside.

[`use_int8`] replaces the linear layers of a model's ViT blocks. Weights become int8, each output channel with a scale
of its own; their inputs become int8 as they come, each token with a scale of its own, so that what a clip gives does
not depend on the others of its batch. Everything else stays in the model's precision.
"""

import platform
from typing import Any

import torch
from torch import nn

from .modeling_s2d import S2DPreTrainedModel

_LARGEST = 127
# Tokens at a time: what lies between the steps stays in the processor's cache.
_CHUNK = 512


def use_int8(model: S2DPreTrainedModel) -> S2DPreTrainedModel:
    """
    Replaces the linear layers of the ViT blocks by [`Int8Linear`], for predictions: no parameter of such a model needs
    a gradient, and saving it is refused.

    Args:
        model ([`S2DPreTrainedModel`]): On the CPU; it is changed in place.

    Returns:
        the model itself.

    Raises:
        ValueError: if the model is on another device, or this PyTorch can't multiply in int8 on this CPU.
    """
    if model.device.type != "cpu":
        raise ValueError(f"int8 is for CPUs, and the model is on {model.device}: take bfloat16 there.")
    _check_products()

    def refuse_saving(*arguments: Any, **options: Any) -> None:
        raise ValueError("A model in int8 can't be saved: save the one that it was made of.")

    model.requires_grad_(False)
    model.save_pretrained = refuse_saving  # type: ignore[method-assign]  # of this one model
    for layer in model.base_model.layers:
        for block in (layer.attention, layer.mlp):
            for name, module in list(block.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(block, name, Int8Linear(module))
    return model


class Int8Linear(nn.Module):
    """
    A linear layer with int8 weights and inputs, without gradients.

        W ~ c Q,    x ~ s q             c per output channel, s per token, both so that the largest entry is 127
        y = s c (Q q) + b               Q q is exact, in int32

    Args:
        linear (`nn.Linear`): Whose weights are taken.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = _scale_of(weight)
        # (in, out), as the product takes it
        self.register_buffer("weight", _to_int8(weight, scale).t().contiguous())
        self.register_buffer("weight_scale", scale.flatten())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    @torch.no_grad()
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`, in the input's precision."""
        tokens = input.reshape(-1, self.in_features)
        output = tokens.new_empty(len(tokens), self.out_features)
        for start in range(0, len(tokens), _CHUNK):
            some = tokens[start : start + _CHUNK]
            scale = _scale_of(some)
            product = torch._int_mm(_to_int8(some, scale), self.weight)
            product = (product * scale).mul_(self.weight_scale)
            output[start : start + _CHUNK] = product if self.bias is None else product.add_(self.bias)
        return output.view(*input.shape[:-1], self.out_features)


def _scale_of(rows: torch.Tensor) -> torch.Tensor:
    """`(rows, columns)` to `(rows, 1)`, float32; of a row of zeros it is not zero."""
    return rows.abs().amax(dim=-1, keepdim=True).float().clamp(min=torch.finfo(torch.float32).tiny * 1e3) / _LARGEST


def _to_int8(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (rows / scale).round_().to(torch.int8)


def _check_products() -> None:
    """
    Tries PyTorch's product of int8 matrices, which is not among its documented functions.

    Raises:
        ValueError: if it is missing, fails, or is not exact.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randint(-_LARGEST, _LARGEST + 1, shape, generator=generator, dtype=torch.int8)
        for shape in ((33, 768), (768, 64))
    )
    left[0], right[:, 0] = _LARGEST, _LARGEST  # the largest sum
    try:
        is_exact = torch.equal(torch._int_mm(left, right).long(), left.long() @ right.long())
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"PyTorch {torch.__version__} doesn't multiply in int8 on this {platform.machine()} CPU "
            f"({str(error).splitlines()[0]}): choose another `dtype`."
        ) from error
    if not is_exact:
        raise ValueError(
            f"PyTorch {torch.__version__} multiplies wrongly in int8 on this CPU: choose another `dtype`."
        )


__all__ = ["Int8Linear", "use_int8"]
