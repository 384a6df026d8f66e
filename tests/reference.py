"""A slow, plain S2D in single tensor operations, from the paper's description: what the models are held against."""

import torch
from torch.nn.functional import gelu, layer_norm, linear

from s2d_hf import S2DConfig

State = dict[str, torch.Tensor]


def _norm(state: State, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _attention(state: State, name: str, x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """`(S, width)`, one sequence and one head at a time."""
    width = x.shape[-1]
    size = width // num_heads
    query, key, value = _linear(state, f"{name}.qkv", x).split(width, dim=-1)
    heads = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (query[:, part] @ key[:, part].T / size**0.5).softmax(-1)
        heads.append(weights @ value[:, part])
    return _linear(state, f"{name}.proj", torch.cat(heads, -1))


def _prompter(state: State, name: str, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    u, v = _linear(state, f"{name}.appearance_proj", x), _linear(state, f"{name}.landmark_proj", a)
    fovea = u * (state[f"{name}.fovea_scale"] * u).softmax(dim=0)  # over the positions
    return _linear(state, f"{name}.output_proj", fovea + v)


def _adapter(state: State, name: str, frames: list[torch.Tensor], num_heads: int) -> list[torch.Tensor]:
    """Each frame `(num_patches, hidden_size)`."""
    down = torch.stack([gelu(_linear(state, f"{name}.temporal_down", x)) for x in frames])
    positions = [_attention(state, f"{name}.temporal_attention", down[:, n], num_heads) for n in range(down.shape[1])]
    mixed = torch.stack(positions, dim=1)
    outputs = []
    for x in mixed:
        x = _norm(state, f"{name}.layernorm", _linear(state, f"{name}.temporal_up", x), 1e-5)
        outputs.append(_linear(state, f"{name}.spatial_up", gelu(_linear(state, f"{name}.spatial_down", x))))
    return outputs


def _block(state: State, name: str, x: torch.Tensor, config: S2DConfig) -> torch.Tensor:
    eps = config.layer_norm_eps
    normed = _norm(state, f"{name}.layernorm_before", x, eps)
    x = x + _attention(state, f"{name}.attention", normed, config.num_attention_heads)
    normed = _norm(state, f"{name}.layernorm_after", x, eps)
    return x + _linear(state, f"{name}.mlp.fc2", gelu(_linear(state, f"{name}.mlp.fc1", normed)))


def reference_logits(
    state: State, config: S2DConfig, pixel_values: torch.Tensor, landmark_features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logits `(batch_size, num_labels)` and class tokens after the final norm `(batch_size, num_frames, hidden_size)`,
    from `(batch_size, num_frames, ...)` inputs whose landmark grid is the patch grid.
    """
    prefix = "s2d."
    backbone = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    logits, features = [], []
    for clip, landmarks in zip(pixel_values, landmark_features, strict=True):
        tokens = _reference_clip(backbone, config, clip, landmarks)
        features.append(torch.stack([frame[0] for frame in tokens]))
        logits.append(_linear(state, "classifier", features[-1].mean(0)))
    return torch.stack(logits), torch.stack(features)


def _reference_clip(
    state: State, config: S2DConfig, clip: torch.Tensor, landmarks: torch.Tensor
) -> list[torch.Tensor]:
    size, eps = config.patch_size, config.layer_norm_eps
    kernel = state["embeddings.patch_embeddings.weight"].flatten(1)
    frames, prompts = [], []
    for image, features in zip(clip, landmarks, strict=True):
        patches = image.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
        frames.append(patches @ kernel.T + state["embeddings.patch_embeddings.bias"])
        if config.prompt_type != "none":
            prompts.append(_linear(state, "landmark_embeddings", features.flatten(1).T))

    def prompt(index: int, frames: list[torch.Tensor], prompts: list[torch.Tensor]):
        name, norm = f"prompt_layers.{index}", f"prompt_norms.{max(index - 1, 0)}"
        normed = [_norm(state, norm, x, eps) for x in frames]
        new_frames = frames
        if config.temporal_adapters:
            added = _adapter(state, f"{name}.temporal_adapter", normed, config.adapter_num_heads)
            new_frames = [x + t for x, t in zip(new_frames, added, strict=True)]
        if config.prompt_type != "none":
            landmark = [_norm(state, "prompt_norms.0", a, eps) for a in prompts]
            prompts = [_prompter(state, f"{name}.prompter", x, a) for x, a in zip(normed, landmark, strict=True)]
            new_frames = [x + p for x, p in zip(new_frames, prompts, strict=True)]
        return new_frames, prompts

    prompted = config.prompt_type != "none" or config.temporal_adapters
    if prompted:
        frames, prompts = prompt(0, frames, prompts)
    tokens = []
    for t, x in enumerate(frames):
        x = torch.cat((state["embeddings.cls_token"][0], x)) + state["embeddings.position_embeddings"][0]
        if config.temporal_adapters:
            x = x + state["embeddings.temporal_embeddings"][0, t]
        tokens.append(x)
    for i in range(config.num_hidden_layers):
        if i >= 1 and prompted and config.prompt_type != "shallow":
            patches, prompts = prompt(i, [x[1:] for x in tokens], prompts)
            tokens = [torch.cat((x[:1], p)) for x, p in zip(tokens, patches, strict=True)]
        tokens = [_block(state, f"layers.{i}", x, config) for x in tokens]
    return [_norm(state, "layernorm", x, eps) for x in tokens]
