"""
S2D's forward pass written down plainly, one operation after the other, as a yardstick for the speed of the model.

It uses the parameters of an [`S2DForVideoClassification`] and none of its code: eager attention with its probabilities
written out, 1x1 convolutions on feature maps, tokens split and joined around every prompter, all blocks computed for
all tokens.
"""

import torch
from torch import nn

from s2d_hf import S2DForVideoClassification


def plain_logits(
    model: S2DForVideoClassification, pixel_values: torch.Tensor, landmark_features: torch.Tensor
) -> torch.Tensor:
    """
    The logits `(batch_size, num_labels)` of a model with the prompt type "deep".

    Args:
        model ([`S2DForVideoClassification`]): Whose parameters are used.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`).
        landmark_features (`torch.Tensor` of shape `(batch_size, num_frames, channels, cells, cells)`): `cells` patches
            lie along each edge.
    """
    base, num_frames = model.s2d, pixel_values.shape[1]
    embeddings = base.embeddings
    patch_embeddings = embeddings.patch_embeddings
    frames = pixel_values.flatten(0, 1)
    x = nn.functional.conv2d(frames, patch_embeddings.weight, patch_embeddings.bias, stride=patch_embeddings.stride)
    x = _to_tokens(x)
    prompt = _to_tokens(_pointwise(landmark_features.flatten(0, 1), base.landmark_embeddings))
    x, prompt = _prompt_layer(base, 0, x, prompt, num_frames)
    x = torch.cat((embeddings.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + embeddings.position_embeddings
    width = x.shape[-1]
    x = x.view(-1, num_frames, *x.shape[1:]) + embeddings.temporal_embeddings.unsqueeze(2)
    x = x.view(-1, x.shape[2], width)
    for i, layer in enumerate(base.layers):
        if i > 0:
            patches, prompt = _prompt_layer(base, i, x[:, 1:], prompt, num_frames)
            x = torch.cat((x[:, :1], patches), dim=1)
        x = x + _attention(layer.attention, layer.layernorm_before(x))
        hidden = nn.functional.gelu(nn.functional.linear(layer.layernorm_after(x), *_weights(layer.mlp.fc1)))
        x = x + nn.functional.linear(hidden, *_weights(layer.mlp.fc2))
    x = base.layernorm(x)
    features = x[:, 0].view(-1, num_frames, width).mean(dim=1)
    return model.classifier(features)


def _prompt_layer(
    base: nn.Module, index: int, x: torch.Tensor, prompt: torch.Tensor, num_frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    layer = base.prompt_layers[index]
    appearance, prompt = base.prompt_norms[max(index - 1, 0)](x), base.prompt_norms[0](prompt)
    prompter = layer.prompter
    seen = _pointwise(_to_map(appearance), prompter.appearance_proj)
    fovea = (seen.flatten(2) * prompter.fovea_scale).softmax(dim=-1).view_as(seen)
    fused = seen * fovea + _pointwise(_to_map(prompt), prompter.landmark_proj)
    prompt = _to_tokens(_pointwise(fused, prompter.output_proj))
    return x + _adapter(layer.temporal_adapter, appearance, num_frames) + prompt, prompt


def _adapter(adapter: nn.Module, x: torch.Tensor, num_frames: int) -> torch.Tensor:
    num_patches = x.shape[1]
    x = nn.functional.gelu(nn.functional.linear(x, *_weights(adapter.temporal_down)))
    x = x.view(-1, num_frames, num_patches, x.shape[-1]).transpose(1, 2).reshape(-1, num_frames, x.shape[-1])
    x = _attention(adapter.temporal_attention, x)
    x = x.view(-1, num_patches, num_frames, x.shape[-1]).transpose(1, 2).reshape(-1, num_patches, x.shape[-1])
    x = adapter.layernorm(nn.functional.linear(x, *_weights(adapter.temporal_up)))
    x = nn.functional.gelu(nn.functional.linear(x, *_weights(adapter.spatial_down)))
    return nn.functional.linear(x, *_weights(adapter.spatial_up))


def _attention(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    number, length, width = x.shape
    heads = attention.num_heads
    qkv = nn.functional.linear(x, *_weights(attention.qkv)).view(number, length, 3, heads, width // heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    probabilities = (query * (width // heads) ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
    x = (probabilities @ value).transpose(1, 2).reshape(number, length, width)
    return nn.functional.linear(x, *_weights(attention.proj))


def _weights(module: nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    return module.weight, module.bias


def _pointwise(maps: torch.Tensor, module: nn.Linear) -> torch.Tensor:
    return nn.functional.conv2d(maps, module.weight[..., None, None], module.bias)


def _to_map(tokens: torch.Tensor) -> torch.Tensor:
    size = int(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, size, size)


def _to_tokens(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(2).transpose(1, 2)


__all__ = ["plain_logits"]
