"""PyTorch S2D models: a ViT guided by facial landmarks, for still images and, with temporal adapters, for videos.

Chen, Li, Shan, Wang, Hong: "From Static to Dynamic: Adapting Landmark-Aware Image Models for Facial Expression
Recognition in Videos", IEEE TAFFC 2024, arXiv 2312.05447.
"""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401

# isort: split
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN, GELUActivation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import can_return_tuple, logging

from .configuration_s2d import S2DConfig

logger = logging.get_logger(__name__)

# `pipeline` reports every class missing from these tables as unsupported, also when it loads and runs.
MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.setdefault(S2DConfig.model_type, "S2DForImageClassification")
MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES.setdefault(S2DConfig.model_type, "S2DForVideoClassification")

# What a saved folder offers to the Auto classes when it is loaded with `trust_remote_code=True`.
AUTO_MAP = {
    "AutoConfig": "configuration_s2d.S2DConfig",
    "AutoModel": "modeling_s2d.S2DModel",
    "AutoModelForImageClassification": "modeling_s2d.S2DForImageClassification",
    "AutoModelForVideoClassification": "modeling_s2d.S2DForVideoClassification",
}


@dataclass
class S2DClassifierOutput(ModelOutput):
    """
    Output of the S2D classifiers.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Returned when `labels` are given.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Scores before the softmax.
        pooler_output (`torch.Tensor` of shape `(batch_size, hidden_size)`): The clip (or image) feature that enters
            the classifier, before its dropout.
        hidden_states (`tuple` of `num_hidden_layers + 1` tensors, *optional*): Returned when `output_hidden_states`.
            The embeddings and the output of every block, each `(batch_size, num_frames, 1 + num_patches,
            hidden_size)`, or without `num_frames` for images. The last one has gone through the final layer norm.
        attentions (`tuple` of `num_hidden_layers` tensors, *optional*): Returned when `output_attentions`. Each
            `(batch_size, num_frames, num_heads, 1 + num_patches, 1 + num_patches)`, or without `num_frames`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention: `(N, heads, S, d)` in, `(N, S, heads, d)` and the probabilities `(N, heads, S, S)` out."""
    scores = (query * scaling) @ key.transpose(-2, -1)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    attended = nn.functional.dropout(weights, p=dropout, training=module.training) @ value
    return attended.transpose(1, 2), weights


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks anywhere in the module see what goes in and out, which must then be what they expect."""
    return _has_hooks(module) or any(_is_watched(part) for part in module._modules.values() if part is not None)


def _is_untouched(*modules: nn.Module) -> bool:
    """
    Whether linear layers and norms do what their class says and nothing else, so that their weights may be used
    without calling them: no LoRA around them, no quantised or offloaded weights, no hooks.
    """
    return all(
        type(module) in (nn.Linear, nn.LayerNorm)
        and type(module.weight) is nn.Parameter
        and not _has_hooks(module)
        and "forward" not in vars(module)
        for module in modules
    )


@cache
def onednn_precisions() -> tuple[torch.dtype, ...]:
    """What oneDNN's linear layers can compute on this CPU."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return ()  # not tried on other processors
    if not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return (torch.float32,)
    return (torch.float32, torch.bfloat16)


# In float32, PyTorch asks another library for products, which is slower on many processors, but not for fewer
# floating-point operations than these.
_ONEDNN_FLOAT32_OPERATIONS = 5e8


def _is_for_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether oneDNN can multiply them, on a CPU and in their common precision, and faster than PyTorch's choice."""
    return (
        inputs.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and type(inputs) in (torch.Tensor, nn.Parameter)
        and torch.backends.mkldnn.enabled
        and inputs.dtype in onednn_precisions()
        and weight.dtype == inputs.dtype
        and (inputs.dtype != torch.float32 or 2 * inputs.numel() * weight.shape[0] >= _ONEDNN_FLOAT32_OPERATIONS)
    )


def _suits_onednn(inputs: torch.Tensor, *modules: nn.Linear) -> bool:
    """Whether oneDNN can compute the layers in the inputs' precision, and the first one is large enough to gain."""
    return (
        _is_untouched(*modules)
        and all(module.weight.dtype == inputs.dtype for module in modules)
        and _is_for_onednn(inputs, modules[0].weight)
    )


def _needs_gradient(inputs: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and inputs.requires_grad


def _is_trained(*modules: nn.Linear) -> bool:
    return torch.is_grad_enabled() and any(
        parameter.requires_grad for module in modules for parameter in module.parameters()
    )


def onednn_linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`torch.nn.functional.linear` by oneDNN, in one of [`onednn_precisions`], without gradients."""
    return torch.ops.mkldnn._linear_pointwise(inputs.contiguous(), weight, bias, "none", [], "")


def _multiply(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`torch.nn.functional.linear`, in the fastest way there is."""
    if not torch.is_grad_enabled() and _is_for_onednn(inputs, weight):
        return onednn_linear(inputs, weight, bias)
    return nn.functional.linear(inputs, weight, bias)


class _FrozenLinear(torch.autograd.Function):
    """A linear layer that is not trained: nothing but its weights is kept for the gradient."""

    @staticmethod
    def forward(ctx, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return onednn_linear(inputs, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return onednn_linear(gradient, weight.T, None), None, None


class _FrozenMLP(torch.autograd.Function):
    """Two linear layers that are not trained, with a GELU between, some frames at a time."""

    @staticmethod
    def forward(ctx, inputs: torch.Tensor, chunk: int, *weights: torch.Tensor | None) -> torch.Tensor:
        weight1, bias1, weight2, bias2 = weights
        outputs, kept = torch.empty_like(inputs), []
        for frames, place in zip(inputs.split(chunk), outputs.split(chunk), strict=True):
            kept.append(onednn_linear(frames, weight1, bias1))
            # two frames at a time: larger gaps between what is kept would not be filled again
            for hidden, part in zip(kept[-1].split(2), place.split(2), strict=True):
                part.copy_(onednn_linear(nn.functional.gelu(hidden), weight2, bias2))
        ctx.save_for_backward(weight1, weight2, *kept)
        ctx.chunk = chunk
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight1, weight2, *kept = ctx.saved_tensors
        result = torch.empty_like(gradient)
        for hidden, frames, place in zip(kept, gradient.split(ctx.chunk), result.split(ctx.chunk), strict=True):
            inner = torch.ops.aten.gelu_backward(onednn_linear(frames, weight2.T, None), hidden)
            place.copy_(onednn_linear(inner, weight1.T, None))
        return result, None, None, None, None, None


class _BFloat16Attention(torch.autograd.Function):
    """
    Attention with scores and probabilities in bfloat16 while they are in the cache; `(N, S, 3, heads, d)` in and
    `(N, S, heads, d)` out. The gradient computes both again.
    """

    @staticmethod
    def forward(ctx, qkv: torch.Tensor, scaling: float) -> torch.Tensor:
        ctx.save_for_backward(qkv)
        ctx.scaling = scaling
        outputs = torch.empty_like(qkv[:, :, 0], memory_format=torch.contiguous_format)
        chunk = _attended_at_a_time(qkv)
        with torch.autocast("cpu", enabled=False):
            for part, place in zip(qkv.split(chunk), outputs.split(chunk), strict=True):
                query, key, value = (_by_heads(each) for each in part.unbind(2))
                attended = _probabilities_in_bfloat16(query, key, scaling) @ value
                _by_heads(place, attended)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (qkv,) = ctx.saved_tensors
        result = torch.empty_like(qkv)
        chunk = _attended_at_a_time(qkv)
        with torch.autocast("cpu", enabled=False):
            for part, outer, place in zip(*(x.split(chunk) for x in (qkv, gradient, result)), strict=True):
                query, key, value = (_by_heads(each) for each in part.unbind(2))
                outer = _by_heads(outer)
                probabilities = _probabilities_in_bfloat16(query, key, ctx.scaling)
                scores = outer @ value.transpose(1, 2)
                scores = torch.ops.aten._softmax_backward_data(scores, probabilities, -1, scores.dtype)
                _by_heads(place[:, :, 0], _scaled_product(scores, key, ctx.scaling))
                _by_heads(place[:, :, 1], _scaled_product(scores.transpose(1, 2), query, ctx.scaling))
                _by_heads(place[:, :, 2], probabilities.transpose(1, 2) @ outer)
        return result, None


def _by_heads(tokens: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
    """`(N, S, heads, d)` as `(N * heads, S, d)`; with `values` of that shape, they are written to the tokens."""
    heads = tokens.transpose(1, 2)
    if values is None:
        return heads.flatten(0, 1)
    return heads.copy_(values.view(heads.shape))


def _probabilities_in_bfloat16(query: torch.Tensor, key: torch.Tensor, scaling: float) -> torch.Tensor:
    return _scaled_product(query, key.transpose(1, 2), scaling).softmax(dim=-1)


def _scaled_product(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    zero = left.new_zeros(()).expand(len(left), left.shape[1], right.shape[2])
    return torch.baddbmm(zero, left, right, beta=0, alpha=scaling)


def _attended_at_a_time(qkv: torch.Tensor) -> int:
    """For how many of the `(N, S, 3, heads, d)` the probabilities may exist at a time."""
    _, length, _, heads, _ = qkv.shape
    return max(1, _CHUNK_BYTES // (heads * length**2 * qkv.element_size()))


def _linear(module: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """`module(inputs)`, in the fastest way there is."""
    if _suits_onednn(inputs, module) and not _is_trained(module):
        compute = _FrozenLinear.apply if _needs_gradient(inputs) else onednn_linear
        return compute(inputs, module.weight, module.bias)
    return module(inputs)


# Intermediate results up to this size stay in a CPU's cache, and their memory is used again: larger ones are fetched
# from the system for every layer.
_CHUNK_BYTES = 10 * 2**20


def _frames_at_a_time(inputs: torch.Tensor, width: int) -> int:
    """How many of the `(N, length, ...)` inputs may become `width` wide at a time."""
    return max(1, _CHUNK_BYTES // (inputs.shape[1] * width * inputs.element_size()))


class ProjectedTokens(NamedTuple):
    """
    Tokens `values @ weight.T + bias` that are not written out, as they may be summed, or normed and projected, for
    less; with `weight=None`, `values` are the tokens.
    """

    values: torch.Tensor
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    @classmethod
    def of(cls, projection: nn.Linear, values: torch.Tensor) -> "ProjectedTokens":
        """`projection(values)`, not yet computed if that can wait."""
        if not _is_untouched(projection):
            return cls(projection(values))
        return cls(values, projection.weight, projection.bias)

    def expand(self) -> torch.Tensor:
        """The tokens."""
        return self.values if self.weight is None else nn.functional.linear(self.values, self.weight, self.bias)


# How many floating-point operations take as long as the dozen small ones by which two projections become one.
_FOLDING_COST = {"cpu": 2e7}
_FOLDING_COST_OF_OTHERS = 3e10  # estimated for a large GPU, not measured


def _is_folding_cheaper(values: torch.Tensor, width: int) -> bool:
    """Whether it pays to pass over the tokens of `width` that are made from the `values`, to tokens as narrow."""
    device = values.device.type
    if device == "cpu" and torch.compiler.is_compiling():
        return True  # an exported model may be asked for any number of frames
    saved = 4 * values.numel() * (width - values.shape[-1])
    return saved > _FOLDING_COST.get(device, _FOLDING_COST_OF_OTHERS)


def _project_normed(tokens: ProjectedTokens, norm: nn.LayerNorm, down: nn.Linear) -> torch.Tensor:
    """
    `down(norm(tokens.expand()))`, `(..., width)` in and `(..., down's outputs)` out.

    With tokens `W x + b`, whose mean is `mean(W) x + mean(b)`, centred tokens are `C x + c`; their variance is a
    quadratic form of `x`, and `down` of them another matrix product of `x`: the tokens of full width never exist.
    """
    values = tokens.values
    if (
        tokens.weight is None
        or not _is_untouched(norm, down)
        or not _is_folding_cheaper(values, norm.normalized_shape[-1])
    ):
        return down(norm(tokens.expand()))
    centred = tokens.weight - tokens.weight.mean(dim=0)
    offset = tokens.bias - tokens.bias.mean()
    scaled = down.weight * norm.weight
    shift = nn.functional.linear(norm.bias, down.weight, down.bias)
    width = values.shape[-1]
    gram = centred.T @ centred / centred.shape[0]
    slope = 2 * (offset @ centred) / centred.shape[0]
    both = _multiply(
        values, torch.cat((gram, scaled @ centred)), torch.cat((slope, nn.functional.linear(offset, scaled)))
    )
    quadratic, projected = both.split((width, both.shape[-1] - width), dim=-1)
    exact = torch.promote_types(values.dtype, torch.float32)
    variance = (quadratic.to(exact) * values.to(exact)).sum(dim=-1, keepdim=True) + offset.to(exact).square().mean()
    return projected * (variance.clamp(min=0) + norm.eps).rsqrt().to(projected.dtype) + shift


def _project_jointly(modules: list[nn.Linear], inputs: torch.Tensor) -> list[torch.Tensor]:
    """What each of the layers makes of the same inputs, in one matrix product."""
    if len(modules) == 1 or not _is_untouched(*modules):
        return [module(inputs) for module in modules]
    weight, bias = (torch.cat([getattr(module, name) for module in modules]) for name in ("weight", "bias"))
    return list(_multiply(inputs, weight, bias).split([module.out_features for module in modules], dim=-1))


def _add_projected(
    hidden_states: torch.Tensor, terms: list[ProjectedTokens], prefix: int, in_place: bool
) -> torch.Tensor:
    """
    `hidden_states` `(N, prefix + num_patches, width)` with tokens `(N, num_patches, width)` added behind the first
    `prefix`, in one matrix product.
    """
    if any(term.weight is None for term in terms):
        return hidden_states + nn.functional.pad(sum(term.expand() for term in terms), (0, 0, prefix, 0))
    # A column of ones carries the biases, but not to the first tokens; further ones, without weight, align the rows.
    values = terms[0].values
    width = sum(term.values.shape[-1] for term in terms)
    ones = values.new_ones(*values.shape[:-1], 8 - width % 8)
    values = torch.cat([*(term.values for term in terms), ones], dim=-1)
    values = nn.functional.pad(values, (0, 0, prefix, 0)).flatten(0, 1)
    bias = sum(term.bias for term in terms)
    weight = torch.cat([*(term.weight for term in terms), bias.unsqueeze(1)], dim=1)
    weight = nn.functional.pad(weight, (0, ones.shape[-1] - 1))
    flat = hidden_states.reshape(-1, hidden_states.shape[-1])
    device = flat.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        total = flat + nn.functional.linear(values, weight)  # `addmm` would round `flat`, too
    elif in_place:
        total = flat.addmm_(values, weight.T)
    else:
        total = torch.addmm(flat, values, weight.T)
    return total.view(hidden_states.shape)


class S2DAttention(nn.Module):
    """Multi-head self-attention over the middle axis of `(N, S, width)`, through transformers' attention interface."""

    def __init__(self, config: S2DConfig, width: int, num_heads: int, qkv_bias: bool, dropout: float):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = dropout
        self.is_causal = False
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(
        self, hidden_states: torch.Tensor, first_only: bool = False, project: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        With `first_only`, what the first token attends to, `(N, 1, width)`, and no probabilities. Without `project`,
        the output projection is left to the caller.
        """
        if first_only:
            return self._attend_from_first(hidden_states), None
        batch_size, length, width = hidden_states.shape
        qkv = _linear(self.qkv, hidden_states).view(batch_size, length, 3, self.num_heads, self.head_dim)
        if self._may_multiply_in_bfloat16(qkv):
            attended, weights = _BFloat16Attention.apply(qkv, self.scaling), None
        else:
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, eager_attention_forward
            )
            attended, weights = attend(
                self,
                query,
                key,
                value,
                None,
                scaling=self.scaling,
                dropout=self.dropout if self.training else 0.0,
            )
        attended = attended.reshape(batch_size, length, width)
        return _linear(self.proj, attended) if project else attended, weights

    def _may_multiply_in_bfloat16(self, qkv: torch.Tensor) -> bool:
        """Whether separate products are faster than `sdpa`, whose are small: on CPUs that multiply bfloat16."""
        return (
            self.config._attn_implementation == "sdpa"
            and qkv.dtype == torch.bfloat16
            and qkv.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and not (self.training and self.dropout)
            and qkv.dtype in onednn_precisions()
        )

    def _attend_from_first(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Attention of one token, without keys and values: the query goes through the key's weights backwards (the key's
        bias adds the same to all scores, and so nothing to the probabilities), the value's weights see the mean only.
        """
        batch_size, _, width = hidden_states.shape
        heads = (self.num_heads, self.head_dim)
        if not _is_untouched(self.qkv):
            qkv = self.qkv(hidden_states).unflatten(-1, (3, *heads))
            query, key, value = qkv[:, 0, 0], qkv[:, :, 1].permute(0, 2, 3, 1), qkv[:, :, 2].transpose(1, 2)
            scores = (query * self.scaling).unsqueeze(2) @ key
            return self.proj((self._probabilities(scores) @ value).reshape(batch_size, 1, width))
        query_weight, key_weight, value_weight = self.qkv.weight.unflatten(0, (3, *heads)).unbind(0)
        query = nn.functional.linear(hidden_states[:, 0], query_weight.flatten(0, 1)).unflatten(-1, heads)
        if self.qkv.bias is not None:
            query_bias, _, value_bias = self.qkv.bias.unflatten(0, (3, *heads)).unbind(0)
            query = query + query_bias
        # (num_heads, N, head_dim) @ (num_heads, head_dim, width)
        seen = ((query * self.scaling).transpose(0, 1) @ key_weight).transpose(0, 1)
        mean = self._probabilities(seen @ hidden_states.transpose(1, 2)) @ hidden_states
        attended = (mean.transpose(0, 1) @ value_weight.transpose(1, 2)).transpose(0, 1)
        if self.qkv.bias is not None:
            attended = attended + value_bias
        return self.proj(attended.reshape(batch_size, 1, width))

    def _probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
        return nn.functional.dropout(weights, p=self.dropout, training=self.training)


class S2DMLP(nn.Module):
    """Two linear layers with the activation between."""

    def __init__(self, config: S2DConfig, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        fc1, fc2 = self.fc1, self.fc2
        is_gelu = type(self.activation) is GELUActivation and not _has_hooks(self.activation)
        if not is_gelu or not _suits_onednn(hidden_states, fc1, fc2) or _is_trained(fc1, fc2):
            return fc2(self.activation(fc1(hidden_states)))
        if _needs_gradient(hidden_states):
            chunk = _frames_at_a_time(hidden_states, fc1.out_features)
            return _FrozenMLP.apply(hidden_states, chunk, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        hidden_states = torch.ops.aten.gelu_(onednn_linear(hidden_states, fc1.weight, fc1.bias))
        return onednn_linear(hidden_states, fc2.weight, fc2.bias)


# What these compute is known, and may be computed otherwise where that takes less.
_KNOWN_ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


class S2DLayer(GradientCheckpointingLayer):
    """Pre-norm ViT block on the tokens of each frame, `(batch_size * num_frames, 1 + num_patches, hidden_size)`."""

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.config = config
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = S2DAttention(
            config,
            config.hidden_size,
            config.num_attention_heads,
            config.qkv_bias,
            config.attention_probs_dropout_prob,
        )
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = S2DMLP(config, config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, class_token_only: bool = False, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        With `class_token_only`, the class tokens alone, `(batch_size * num_frames, 1, hidden_size)`; with `in_place`,
        `hidden_states` may be written over.
        """
        if class_token_only or not self._may_be_chunked(hidden_states):
            return self._forward(hidden_states, class_token_only)
        chunks = hidden_states.split(_frames_at_a_time(hidden_states, self.config.intermediate_size))
        if not in_place:
            return torch.cat([self._forward(frames, False)[0] for frames in chunks]), None
        for frames in chunks:
            self._forward(frames, False, in_place=True)
        return hidden_states, None

    def _forward(
        self, hidden_states: torch.Tensor, class_token_only: bool, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        add = torch.Tensor.add_ if in_place else torch.Tensor.add
        attended, weights = self.attention(self.layernorm_before(hidden_states), first_only=class_token_only)
        if class_token_only:
            hidden_states = hidden_states[:, :1]
        hidden_states = add(hidden_states, self.dropout(attended))
        hidden_states = add(hidden_states, self.dropout(self.mlp(self.layernorm_after(hidden_states))))
        return hidden_states, weights

    def _may_be_chunked(self, hidden_states: torch.Tensor) -> bool:
        return (
            self.config._attn_implementation == "sdpa"
            and _suits_onednn(hidden_states, self.mlp.fc1, self.mlp.fc2)
            and not _is_trained(self.mlp.fc1)
            and not _is_watched(self)
        )


class S2DPrompter(nn.Module):
    """Multi-view complementary prompter (MCP, paper section 3.2): fuses appearance and landmark tokens to a prompt."""

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.initial_fovea_scale = float(config.prompt_fovea_scale)
        # 1x1 convolutions of the paper's code, as the matrix products they are
        self.appearance_proj = nn.Linear(config.hidden_size, config.prompt_hidden_size)
        self.landmark_proj = nn.Linear(config.hidden_size, config.prompt_hidden_size)
        self.fovea_scale = nn.Parameter(torch.full((1,), self.initial_fovea_scale))
        self.output_proj = nn.Linear(config.prompt_hidden_size, config.hidden_size)
        for projection in (self.appearance_proj, self.landmark_proj, self.output_proj):
            projection.starts_as = "xavier"  # see `_init_weights`

    def fuse(self, appearance: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """The prompt before its output projection, from both projections; all `(N, num_patches, width)`."""
        # the fovea weighs each channel over the positions
        fovea = (appearance * self.fovea_scale).softmax(dim=1, dtype=torch.float32).to(appearance.dtype)
        return appearance * fovea + landmarks


class S2DTemporalAdapter(nn.Module):
    """
    Temporal-modeling adapter (TMA, paper section 3.3): attention over the frames at every position, then a layer norm,
    then a bottleneck for each token. Neither part has a residual connection.
    """

    def __init__(self, config: S2DConfig):
        super().__init__()
        width = config.adapter_hidden_size
        self.activation = ACT2FN[config.hidden_act]
        self.temporal_down = nn.Linear(config.hidden_size, width)
        self.temporal_attention = S2DAttention(config, width, config.adapter_num_heads, qkv_bias=False, dropout=0.0)
        self.temporal_up = nn.Linear(width, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=1e-5)
        self.spatial_down = nn.Linear(config.hidden_size, width)
        self.spatial_up = nn.Linear(width, config.hidden_size)
        if config.adapter_init == "zero":
            self.spatial_up.starts_as = "zero"  # see `_init_weights`

    def adapt(self, hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Everything between the first and the last projection; `(batch_size * num_frames, num_patches, width)`."""
        hidden_states = self.activation(hidden_states)
        _, num_patches, width = hidden_states.shape
        hidden_states = hidden_states.view(-1, num_frames, num_patches, width).transpose(1, 2)
        attention, up = self.temporal_attention, self.temporal_up
        folds = (
            _is_untouched(attention.proj, up)
            and not _has_hooks(attention)
            and _is_folding_cheaper(hidden_states, up.out_features)
        )
        hidden_states, _ = attention(hidden_states.reshape(-1, num_frames, width), project=not folds)
        hidden_states = hidden_states.view(-1, num_patches, num_frames, width).transpose(1, 2)
        hidden_states = hidden_states.reshape(-1, num_patches, width)
        tokens = ProjectedTokens.of(up, hidden_states)
        if folds:  # both projections in one
            bias = nn.functional.linear(attention.proj.bias, up.weight, up.bias)
            tokens = tokens._replace(weight=up.weight @ attention.proj.weight, bias=bias)
        return self.activation(_project_normed(tokens, self.layernorm, self.spatial_down))


class S2DPromptLayer(GradientCheckpointingLayer):
    """The prompter and the temporal adapter that stand before one ViT block; either may be missing."""

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.prompter = S2DPrompter(config) if config.prompt_type != "none" else None
        self.temporal_adapter = S2DTemporalAdapter(config) if config.temporal_adapters else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        appearance_norm: nn.LayerNorm,
        prompt_values: torch.Tensor | None,
        prompt_weight: torch.Tensor | None,
        prompt_bias: torch.Tensor | None,
        prompt_norm: nn.LayerNorm,
        num_frames: int,
        prefix: int,
        in_place: bool = False,
    ) -> tuple[torch.Tensor | None, ...]:
        """
        Adds the prompt and what the adapter makes to the patch tokens.

        Args:
            hidden_states (`torch.Tensor`): `(batch_size * num_frames, prefix + num_patches, hidden_size)`.
            appearance_norm (`nn.LayerNorm`): Their norm.
            prompt_values, prompt_weight, prompt_bias: The prompt of the layer before, or the embedded landmark
                features: [`ProjectedTokens`] of shape `(batch_size * num_frames, num_patches, hidden_size)`, taken
                apart for gradient checkpointing.
            prompt_norm (`nn.LayerNorm`): The prompt's norm.
            num_frames (`int`): Frames of each clip.
            prefix (`int`): Tokens of each frame before its patches, which stay as they are.
            in_place (`bool`): `hidden_states` may be written over.

        Returns:
            The new `hidden_states`, and the new prompt's values, weight and bias.
        """
        adapter, prompter = self.temporal_adapter, self.prompter
        downs = [] if adapter is None else [adapter.temporal_down]
        downs += [] if prompter is None else [prompter.appearance_proj]
        projected = [tokens[:, prefix:] for tokens in _project_jointly(downs, appearance_norm(hidden_states))]
        terms = []
        if adapter is not None:
            terms.append(ProjectedTokens.of(adapter.spatial_up, adapter.adapt(projected[0], num_frames)))
        prompt: tuple[torch.Tensor | None, ...] = (None, None, None)
        if prompter is not None:
            landmarks = _project_normed(
                ProjectedTokens(prompt_values, prompt_weight, prompt_bias), prompt_norm, prompter.landmark_proj
            )
            terms.append(ProjectedTokens.of(prompter.output_proj, prompter.fuse(projected[-1], landmarks)))
            values, weight, bias = terms[-1]
            # copies: the next layer uses them when those of this one may be sharded again
            prompt = (values, None if weight is None else weight.clone(), None if bias is None else bias.clone())
        return (_add_projected(hidden_states, terms, prefix, in_place), *prompt)


class S2DEmbeddings(nn.Module):
    """Patch, class, position and temporal embeddings."""

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.config = config
        self.patch_embeddings = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + config.num_patches, config.hidden_size))
        if config.temporal_adapters:
            self.temporal_embeddings = nn.Parameter(torch.zeros(1, config.num_frames, config.hidden_size))
        else:
            self.temporal_embeddings = None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def embed_patches(self, frames: torch.Tensor) -> torch.Tensor:
        """`(N, channels, height, width)` to `(N, num_patches, hidden_size)`."""
        return self.patch_embeddings(frames.to(self.patch_embeddings.weight.dtype)).flatten(2).transpose(1, 2)

    def interpolated_positions(self, rows: int, columns: int) -> torch.Tensor:
        """Position embeddings for a grid of `rows` x `columns` patches, `(1, 1 + rows * columns, hidden_size)`."""
        grid = self.config.grid_size
        if (rows, columns) == (grid, grid):
            return self.position_embeddings
        patches = self.position_embeddings[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
        patches = nn.functional.interpolate(
            patches.float(), size=(rows, columns), mode="bicubic", align_corners=False
        ).to(patches.dtype)
        return torch.cat((self.position_embeddings[:, :1], patches.flatten(2).transpose(1, 2)), dim=1)

    def interpolated_times(self, num_frames: int) -> torch.Tensor:
        """Temporal embeddings for `num_frames` frames that span the same clip, `(1, num_frames, hidden_size)`."""
        if num_frames == self.config.num_frames:
            return self.temporal_embeddings
        times = self.temporal_embeddings.transpose(1, 2)
        times = nn.functional.interpolate(times.float(), size=num_frames, mode="linear", align_corners=True)
        return times.to(self.temporal_embeddings.dtype).transpose(1, 2)

    def forward(self, patches: torch.Tensor, num_frames: int, rows: int, columns: int) -> torch.Tensor:
        """`(batch_size * num_frames, num_patches, hidden_size)` to the tokens with the class token in front."""
        cls_tokens = self.cls_token.to(patches.dtype).expand(patches.shape[0], -1, -1)
        hidden_states = torch.cat((cls_tokens, patches), dim=1)
        hidden_states = self.dropout(hidden_states + self.interpolated_positions(rows, columns))
        if self.temporal_embeddings is not None:
            hidden_states = hidden_states.unflatten(0, (-1, num_frames))
            hidden_states = (hidden_states + self.interpolated_times(num_frames).unsqueeze(2)).flatten(0, 1)
        return hidden_states


class S2DPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving that the S2D models share."""

    config: S2DConfig
    config_class = S2DConfig
    base_model_prefix = "s2d"
    main_input_name = "pixel_values"
    input_modalities = ("image", "video")
    supports_gradient_checkpointing = True
    # the losses below are means over the batch; the Trainer must not divide them again
    accepts_loss_kwargs = False
    # the patch embedding (Conv2d) by itself, since it runs before `S2DEmbeddings.forward`: FSDP2 gathers by module
    _no_split_modules = ["Conv2d", "S2DEmbeddings", "S2DLayer", "S2DPromptLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the authors' code leaves new modules, but for what `adapter_init="zero"` keeps out at first."""
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            start = getattr(module, "starts_as", "convolution" if isinstance(module, nn.Conv2d) else "linear")
            # PyTorch's own for convolutions: 1 over the root of what enters an output
            bound = module.weight[0].numel() ** -0.5
            if start == "zero":
                init.zeros_(module.weight)
            elif start == "xavier":
                init.xavier_uniform_(module.weight)
            elif start == "convolution":
                init.uniform_(module.weight, -bound, bound)
            else:
                init.trunc_normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None and start in ("xavier", "convolution"):
                init.uniform_(module.bias, -bound, bound)
            elif module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, S2DEmbeddings):
            init.trunc_normal_(module.cls_token, mean=0.0, std=std)
            init.trunc_normal_(module.position_embeddings, mean=0.0, std=std)
            if module.temporal_embeddings is not None and self.config.adapter_init == "zero":
                init.zeros_(module.temporal_embeddings)
            elif module.temporal_embeddings is not None:
                init.trunc_normal_(module.temporal_embeddings, mean=0.0, std=std)
        elif isinstance(module, S2DPrompter):
            init.constant_(module.fovea_scale, module.initial_fovea_scale)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        See [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: also if weights are NaN or infinite; the message names them.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        _refuse_broken_weights(model.state_dict(), f"{pretrained_model_name_or_path} can't be used")
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """
        Saves the model so that every Auto class loads it, with `trust_remote_code=True` also where `s2d_hf` is not
        installed. See [`~transformers.PreTrainedModel.save_pretrained`].

        Raises:
            ValueError: if weights are NaN or infinite, before anything is written; the message names them.
        """
        _refuse_broken_weights(kwargs.get("state_dict") or self.state_dict(), f"Nothing is saved to {save_directory}")
        self.config.auto_map = dict(AUTO_MAP)
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_vit_pretrained(cls, pretrained_model_name_or_path: str, **kwargs) -> "S2DPreTrainedModel":
        """
        Starts an S2D model from a ViT or ViT-MAE checkpoint of the Hub (paper section 4.2: the image model starts
        from a masked autoencoder). The landmark embedding, prompters and classifier are new.

        Args:
            pretrained_model_name_or_path (`str`): A checkpoint whose model type is `vit` or `vit_mae`, e.g.
                `"facebook/vit-mae-base"`; a name on the Hub or a folder.
            kwargs: Fields of [`S2DConfig`] (`num_labels`, `id2label`, `prompt_type`, ...), and `dtype` and
                `attn_implementation` of the new model; what is none is handed to `AutoModel.from_pretrained`
                (`revision`, `token`, `cache_dir`, ...).

        Raises:
            ValueError: if the checkpoint is of another model type, or its weights do not fit the configuration, or are
                NaN or infinite.

        Example:
        ```python
        model = S2DForImageClassification.from_vit_pretrained("facebook/vit-mae-base", num_labels=7)
        ```
        """
        dtype, attention = kwargs.pop("dtype", None), kwargs.pop("attn_implementation", None)
        own_fields = S2DConfig().to_dict() | {"num_labels": None}
        overrides = {name: kwargs.pop(name) for name in list(kwargs) if name in own_fields}
        vit_config = AutoConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)
        if vit_config.model_type not in ("vit", "vit_mae"):
            raise ValueError(
                f"{pretrained_model_name_or_path} is a {vit_config.model_type!r} checkpoint; "
                "an S2D model can start from 'vit' or 'vit_mae'."
            )
        if vit_config.model_type == "vit":
            kwargs["add_pooling_layer"] = False  # its pooler has no place here
        try:
            vit = AutoModel.from_pretrained(pretrained_model_name_or_path, **kwargs)
        except RuntimeError as error:  # what transformers raises of weights that don't fit their own configuration
            raise ValueError(f"The weights of {pretrained_model_name_or_path} don't fit its configuration.") from error
        _refuse_broken_weights(vit.state_dict(), f"{pretrained_model_name_or_path} can't be used")
        shared = (
            "image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads",
            "intermediate_size", "hidden_act", "qkv_bias", "layer_norm_eps",
        )  # fmt: skip
        fields = {name: getattr(vit_config, name) for name in shared}
        if cls is S2DForImageClassification:
            fields["temporal_adapters"] = False
        model = cls(S2DConfig(**(fields | overrides)))
        base = model.base_model
        num_layers = min(base.config.num_hidden_layers, vit_config.num_hidden_layers)
        if num_layers < vit_config.num_hidden_layers:
            logger.warning(
                f"Of the {vit_config.num_hidden_layers} blocks of {pretrained_model_name_or_path} the first "
                f"{num_layers} are used, as `num_hidden_layers` says."
            )
        state = _vit_state_dict(vit, num_layers)
        own = base.state_dict()
        wrong = [
            f"{name}: {tuple(tensor.shape)}, expected {tuple(own[name].shape) if name in own else 'no such weight'}"
            for name, tensor in state.items()
            if name not in own or own[name].shape != tensor.shape
        ]
        # what only S2D has is new, and nothing else
        shared_parts = ("embeddings.cls_", "embeddings.p", "layers.", "layernorm.")
        wrong += [f"{name}: missing" for name in own if name.startswith(shared_parts) and name not in state]
        if wrong:
            raise ValueError(f"{pretrained_model_name_or_path} does not fit the configuration:\n" + "\n".join(wrong))
        base.load_state_dict(state, strict=False)
        if attention is not None:
            model.set_attn_implementation(attention)
        return model.to(dtype).eval() if dtype is not None else model.eval()

    def freeze_for_video_tuning(self) -> "S2DPreTrainedModel":
        """
        Leaves trainable what the paper tunes in the video stage (section 3.3): temporal embedding, prompters and
        their norms, landmark embedding, temporal adapters, final norm and classifier. The ViT is frozen. At the
        paper's size 9,258,451 of 95,055,571 parameters stay trainable.

        With the ViT frozen, most of what a training keeps for the gradient are intermediate results of prompters and
        adapters, which are cheap to compute again: transformers' gradient checkpointing is turned on for them alone.
        Its switches turn it on and off for all layers, as for any model.

        Returns:
            the model itself.
        """
        base = self.base_model
        self.requires_grad_(False)
        tuned = [base.landmark_embeddings, base.prompt_norms, base.prompt_layers, base.layernorm]
        for module in [*tuned, getattr(self, "classifier", None)]:
            if module is not None:
                module.requires_grad_(True)
        if base.embeddings.temporal_embeddings is not None:
            base.embeddings.temporal_embeddings.requires_grad_(True)
        for layer in base.prompt_layers:
            if not layer.gradient_checkpointing:
                # the two attributes by which `GradientCheckpointingLayer` is turned on
                layer.gradient_checkpointing = True
                layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        return self


def _refuse_broken_weights(state_dict: dict[str, torch.Tensor], refusal: str) -> None:
    """
    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    broken = []
    for name, tensor in state_dict.items():
        # of other classes are quantised and sharded weights; PyTorch has no `isfinite` of 8-bit floats
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.is_meta or tensor.element_size() == 1:
            continue
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            broken.append(name)
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ValueError(f"{refusal}: weights are NaN or infinite, {', '.join(broken[:3])}{more}.")


def _vit_state_dict(vit: PreTrainedModel, num_layers: int) -> dict[str, torch.Tensor]:
    """The weights of a transformers `ViTModel` or `ViTMAEModel` under the names of `S2DModel`."""
    source = vit.state_dict()
    state = {
        "embeddings.cls_token": source["embeddings.cls_token"],
        "embeddings.position_embeddings": source["embeddings.position_embeddings"],
        "embeddings.patch_embeddings.weight": source["embeddings.patch_embeddings.projection.weight"],
        "embeddings.patch_embeddings.bias": source["embeddings.patch_embeddings.projection.bias"],
        "layernorm.weight": source["layernorm.weight"],
        "layernorm.bias": source["layernorm.bias"],
    }
    same = ("layernorm_before", "layernorm_after", "mlp.fc1", "mlp.fc2")
    for i in range(num_layers):
        for kind in ("weight", "bias"):
            qkv = [source.get(f"layers.{i}.attention.{letter}_proj.{kind}") for letter in "qkv"]
            if all(part is not None for part in qkv):
                state[f"layers.{i}.attention.qkv.{kind}"] = torch.cat(qkv)
            state[f"layers.{i}.attention.proj.{kind}"] = source[f"layers.{i}.attention.o_proj.{kind}"]
            for name in same:
                state[f"layers.{i}.{name}.{kind}"] = source[f"layers.{i}.{name}.{kind}"]
    return state


class S2DModel(S2DPreTrainedModel):
    """
    The S2D backbone, without a classifier: a video model, or an image model if `config.temporal_adapters` is False.

    The order of operations is that of the authors' code, including the prompt norms' sharing: the first norm serves
    both streams at the first two blocks and the landmark stream at every block, and the last norm is never used.
    """

    def __init__(self, config: S2DConfig):
        super().__init__(config)
        self.embeddings = S2DEmbeddings(config)
        has_prompts = config.prompt_type != "none"
        self.landmark_embeddings = nn.Linear(config.landmark_channels, config.hidden_size) if has_prompts else None
        if self.landmark_embeddings is not None:
            self.landmark_embeddings.starts_as = "convolution"  # of 1x1, in the paper's code; see `_init_weights`
        self.prompt_norms = nn.ModuleList(
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(config.num_prompt_layers)
        )
        self.prompt_layers = nn.ModuleList(S2DPromptLayer(config) for _ in range(config.num_prompt_layers))
        self.layers = nn.ModuleList(S2DLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding."""
        return self.embeddings.patch_embeddings

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        landmark_features: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        interpolate_temporal_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        pooled_only: bool = False,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`): RGB frames in [0, 1],
                normalised with ImageNet's mean and standard deviation, as [`S2DVideoProcessor`] gives them. Without
                temporal adapters also images, `(batch_size, 3, height, width)`.
            landmark_features (`torch.Tensor`, *optional*): What the processor computes beside `pixel_values`:
                `(batch_size, num_frames, landmark_channels, landmark_size, landmark_size)`, without `num_frames` for
                images. Only a model with `prompt_type="none"` does without.
            interpolate_pos_encoding (`bool`): Accept frames of another size than `config.image_size`, with the
                position embeddings interpolated to their grid.
            interpolate_temporal_encoding (`bool`): Accept another number of frames than `config.num_frames`, with
                the temporal embedding interpolated.
            output_hidden_states (`bool`, *optional*): Return the output of every block.
            output_attentions (`bool`, *optional*): Return the attention probabilities of every block; needs
                `attn_implementation="eager"`.
            pooled_only (`bool`): Return `pooler_output` alone, and compute the last block for the class tokens only;
                without effect where hidden states or attentions are asked for, or hooks watch that block.

        Returns:
            `last_hidden_state` after the final norm, `(batch_size, num_frames, 1 + num_patches, hidden_size)`;
            `pooler_output`, the mean over the frames of their class tokens, `(batch_size, hidden_size)`; and
            `hidden_states` and `attentions` as in [`S2DClassifierOutput`].

        Raises:
            ValueError: if a shape does not fit the configuration, or `landmark_features` are missing.
        """
        config = self.config
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_attentions and config._attn_implementation != "eager":
            raise ValueError(
                f"`output_attentions=True` needs the eager attention, and this model uses "
                f"{config._attn_implementation!r}: call `model.set_attn_implementation('eager')` first."
            )
        self._check_inputs(pixel_values, landmark_features, interpolate_pos_encoding, interpolate_temporal_encoding)

        pooled_only = (
            pooled_only
            and not output_hidden_states
            and not output_attentions
            and config._attn_implementation in _KNOWN_ATTENTIONS
            and not _is_watched(self.layers[-1])
        )
        in_place = (
            not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not output_hidden_states
            and not _is_watched(self)
        )
        is_video = pixel_values.ndim == 5
        num_frames = pixel_values.shape[1] if is_video else 1
        frames = pixel_values.flatten(0, 1) if is_video else pixel_values
        rows, columns = frames.shape[-2] // config.patch_size, frames.shape[-1] // config.patch_size

        patches = self.embeddings.embed_patches(frames)
        prompt = None
        if self.landmark_embeddings is not None:
            features = landmark_features.flatten(0, 1) if is_video else landmark_features
            prompt = self._embed_landmarks(features.to(patches.dtype), rows, columns)
        if self.prompt_layers:
            patches, prompt = self._apply_prompt_layer(0, patches, prompt, num_frames, 0, in_place)
        hidden_states = self.embeddings(patches, num_frames, rows, columns)

        all_hidden_states = (hidden_states,) if output_hidden_states else None
        all_attentions = () if output_attentions else None
        for i, layer in enumerate(self.layers):
            if 1 <= i < len(self.prompt_layers):
                hidden_states, prompt = self._apply_prompt_layer(i, hidden_states, prompt, num_frames, 1, in_place)
            class_token_only = pooled_only and i + 1 == len(self.layers)
            hidden_states, weights = layer(hidden_states, class_token_only, in_place)
            if output_hidden_states:
                all_hidden_states += (hidden_states,)
            if output_attentions:
                all_attentions += (weights,)
        hidden_states = self._with_unused_norm(self.layernorm(hidden_states))
        if output_hidden_states:
            all_hidden_states = (*all_hidden_states[:-1], hidden_states)

        pooled = hidden_states[:, 0]
        if is_video:
            shape = (-1, num_frames)
            hidden_states = hidden_states.unflatten(0, shape)
            pooled = pooled.unflatten(0, shape).mean(dim=1)
            if output_hidden_states:
                all_hidden_states = tuple(states.unflatten(0, shape) for states in all_hidden_states)
            if output_attentions:
                all_attentions = tuple(weights.unflatten(0, shape) for weights in all_attentions)
        return BaseModelOutputWithPooling(
            last_hidden_state=None if pooled_only else hidden_states,
            pooler_output=pooled,
            hidden_states=all_hidden_states,
            attentions=all_attentions,
        )

    def _with_unused_norm(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        The same values, from which the last prompt norm gets a gradient of zeros: DDP waits for a gradient of every
        trained parameter, and a resumed FSDP2 training for its optimizer's state.
        """
        norms = self.prompt_norms[-1:] if torch.is_grad_enabled() else []
        unused = [parameter for norm in norms for parameter in norm.parameters() if parameter.requires_grad]
        for parameter in unused:
            if not parameter.is_meta:  # as offloaded ones are, which are not trained
                # the sum of no elements, which is 0 whatever the weights are
                hidden_states = hidden_states + parameter[:0].sum().to(hidden_states.device)
        return hidden_states

    def _embed_landmarks(self, features: torch.Tensor, rows: int, columns: int) -> ProjectedTokens:
        if features.shape[-2:] != (rows, columns):
            features = nn.functional.interpolate(features, size=(rows, columns), mode="bilinear", align_corners=False)
        return ProjectedTokens.of(self.landmark_embeddings, features.flatten(2).transpose(1, 2))

    def _apply_prompt_layer(
        self,
        index: int,
        hidden_states: torch.Tensor,
        prompt: ProjectedTokens | None,
        num_frames: int,
        prefix: int,
        in_place: bool,
    ) -> tuple[torch.Tensor, ProjectedTokens | None]:
        parts = (None, None, None) if prompt is None else prompt
        appearance_norm = self.prompt_norms[max(index - 1, 0)]
        hidden_states, *parts = self.prompt_layers[index](
            hidden_states, appearance_norm, *parts, self.prompt_norms[0], num_frames, prefix, in_place
        )
        return hidden_states, None if prompt is None else ProjectedTokens(*parts)

    def _check_inputs(
        self,
        pixel_values: torch.Tensor,
        landmark_features: torch.Tensor | None,
        interpolate_pos_encoding: bool,
        interpolate_temporal_encoding: bool,
    ) -> None:
        config = self.config
        shape = tuple(pixel_values.shape)
        if pixel_values.ndim == 4 and config.temporal_adapters:
            raise ValueError(
                "This is a video model: `pixel_values` must be (batch_size, num_frames, channels, height, width), "
                f"got {shape}."
            )
        if pixel_values.ndim not in (4, 5) or shape[-3] != config.num_channels:
            raise ValueError(
                f"`pixel_values` must be (batch_size, num_frames, {config.num_channels}, height, width), or without "
                f"num_frames for images, got {shape}."
            )
        height, width = shape[-2:]
        if (height, width) != (config.image_size, config.image_size):
            if not interpolate_pos_encoding:
                raise ValueError(
                    f"`pixel_values` are {height}x{width} pixels, and the model takes {config.image_size}x"
                    f"{config.image_size}: resize them, or pass `interpolate_pos_encoding=True`."
                )
            if height % config.patch_size or width % config.patch_size:
                raise ValueError(
                    f"`pixel_values` are {height}x{width} pixels; both must be multiples of the patch size "
                    f"{config.patch_size}."
                )
        if config.temporal_adapters and shape[1] != config.num_frames and not interpolate_temporal_encoding:
            raise ValueError(
                f"`pixel_values` have {shape[1]} frames, and the model was trained with {config.num_frames}: sample "
                f"{config.num_frames}, or pass `interpolate_temporal_encoding=True`."
            )
        if config.prompt_type == "none":
            return
        if landmark_features is None:
            raise ValueError(
                "`landmark_features` are missing. The S2D processors return them beside `pixel_values`: pass on both, "
                "`model(**processor(video, return_tensors='pt'))`."
            )
        expected = (*shape[:-3], config.landmark_channels, config.landmark_size, config.landmark_size)
        if tuple(landmark_features.shape) != expected:
            raise ValueError(f"`landmark_features` must be {expected}, got {tuple(landmark_features.shape)}.")


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: S2DConfig) -> torch.Tensor:
    """
    Mean loss of a batch.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`).
        labels (`torch.Tensor`): With `config.problem_type="single_label_classification"` class indices
            `(batch_size,)` or class probabilities `(batch_size, num_labels)`, as mixup and label smoothing give them,
            for cross-entropy; with `"multi_label_classification"` 0 and 1 for every class, `(batch_size, num_labels)`,
            for binary cross-entropy; with `"regression"` targets of the logits' shape for the mean squared error.

            With `None`, as in all of transformers: regression if there is one label, else class indices if the labels
            are integers `(batch_size,)`, and 0 and 1 for every class if they aren't.

    Raises:
        ValueError: if the labels' shape fits none of these.
    """
    labels = labels.to(logits.device)
    logits = logits.float()
    problem_type = config.problem_type
    if problem_type is None:
        are_indices = labels.ndim == 1 and not labels.is_floating_point()
        problem_type = "single_label_classification" if are_indices else "multi_label_classification"
        if config.num_labels == 1:
            problem_type = "regression"
    if problem_type == "regression" and labels.numel() == logits.numel():
        return nn.functional.mse_loss(logits, labels.view_as(logits).float())
    if problem_type == "multi_label_classification" and labels.shape == logits.shape:
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    if problem_type == "single_label_classification":
        if labels.ndim == 1 and not labels.is_floating_point() and labels.shape[0] == logits.shape[0]:
            return nn.functional.cross_entropy(logits, labels.long())
        if labels.shape == logits.shape and labels.is_floating_point():
            return nn.functional.cross_entropy(logits, labels.float())
        raise ValueError(
            f"`labels` must be class indices ({logits.shape[0]},) or floating-point class probabilities "
            f"{tuple(logits.shape)}, got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    raise ValueError(
        f"`labels` must have the shape of the logits, {tuple(logits.shape)}, for a {problem_type} model, got "
        f"{tuple(labels.shape)}."
    )


class _S2DClassifier(S2DPreTrainedModel):
    """Backbone, dropout and linear head."""

    pixel_axes: tuple[str, ...]

    def __init__(self, config: S2DConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.s2d = S2DModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        landmark_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        interpolate_temporal_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> S2DClassifierOutput:
        r"""
        Args:
            pixel_values (`torch.Tensor`): `(batch_size, num_frames, 3, height, width)` for videos, `(batch_size, 3,
                height, width)` for images. See [`S2DModel.forward`] for this and the arguments not named here.
            labels (`torch.Tensor`, *optional*): Class indices, class probabilities or 0 and 1 for every class; see
                [`classification_loss`].

        Returns:
            [`S2DClassifierOutput`]

        Raises:
            ValueError: if a shape does not fit the configuration, or `landmark_features` are missing.
        """
        if pixel_values.ndim != len(self.pixel_axes):
            raise ValueError(
                f"`pixel_values` of {type(self).__name__} must be ({', '.join(self.pixel_axes)}), got "
                f"{tuple(pixel_values.shape)}."
            )
        outputs = self.s2d(
            pixel_values,
            landmark_features,
            interpolate_pos_encoding=interpolate_pos_encoding,
            interpolate_temporal_encoding=interpolate_temporal_encoding,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            pooled_only=True,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        return S2DClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class S2DForVideoClassification(_S2DClassifier):
    """
    S2D for the classification of videos.

    From static to dynamic, a video model starts from an image model in one call, and at first gives for a clip of a
    still image the image model's scores (unless `adapter_init="random"`):

    ```python
    model = S2DForVideoClassification.from_pretrained(IMAGE_CHECKPOINT, num_frames=16, temporal_adapters=True)
    model.freeze_for_video_tuning()
    ```

    Loaded from an image checkpoint without these arguments, it averages the image model over the frames.
    """

    pixel_axes = ("batch_size", "num_frames", "3", "height", "width")


class S2DForImageClassification(_S2DClassifier):
    """
    S2D for the classification of still images: the static model of the paper (section 3.2).

    Raises:
        ValueError: if the configuration has `temporal_adapters`, as a video model's has.
    """

    pixel_axes = ("batch_size", "3", "height", "width")

    def __init__(self, config: S2DConfig):
        if config.temporal_adapters:
            raise ValueError(
                "`temporal_adapters` is True in the configuration, so this is a video model: use "
                "S2DForVideoClassification, or pass `temporal_adapters=False` for an image model."
            )
        super().__init__(config)


# by the names in `architectures` of a configuration
CLASSIFIERS = {each.__name__: each for each in (S2DForImageClassification, S2DForVideoClassification)}

S2DModel.register_for_auto_class("AutoModel")
S2DForImageClassification.register_for_auto_class("AutoModelForImageClassification")
S2DForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")

__all__ = ["S2DForImageClassification", "S2DForVideoClassification", "S2DModel", "S2DPreTrainedModel"]
