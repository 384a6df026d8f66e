"""
The modules of the S2D models: the paper's prompter MCP (section 3.2) with its fovea is [`S2DPrompter`], the temporal
adapter TMA (section 3.3) [`S2DTemporalAdapter`]; both together stand before a ViT block ([`S2DLayer`]) as its
[`S2DPromptLayer`].

The docstrings' equations are for one frame, whose tokens are the rows of a matrix:

    x   appearance: the frame's N patch tokens, of width D (for the blocks, behind the class token)
    a   landmarks: the frame's N embedded landmark features, and from the second block on the prompt before
    p   the prompt that MCP makes of x and a
    t   what TMA makes of x, over the T frames of a clip

Tokens are `(..., tokens, width)` with leading `(batch_size, num_frames)` for videos and `(batch_size,)` for images;
linear layers get them with one leading axis, which quantised ones ask for.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_s2d import S2DConfig


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Plain attention, softmax(q k^T / sqrt(d)) v: `(..., heads, S, d)` in, `(..., S, heads, d)` and the probabilities
    `(..., heads, S, S)` out.
    """
    scores = (query * scaling) @ key.transpose(-2, -1)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    attended = nn.functional.dropout(weights, p=dropout, training=module.training) @ value
    return attended.transpose(-3, -2), weights


class S2DAttention(nn.Module):
    """Multi-head self-attention over the tokens of `(..., S, width)`, through transformers' attention interface."""

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
        self, hidden_states: torch.Tensor, first_only: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        What the tokens attend to, `(..., S, width)`, or the first one alone, `(..., 1, width)`, with `first_only`; and
        the probabilities, if the implementation gives them.
        """
        *batch_shape, length, width = hidden_states.shape
        qkv = self.qkv(hidden_states.flatten(0, -3)).view(*batch_shape, length, 3, self.num_heads, self.head_dim)
        query, key, value = (each.transpose(-3, -2) for each in qkv.unbind(-3))
        if first_only:
            query = query[..., :1, :]
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        if attend is not eager_attention_forward:  # the others know one leading axis
            query, key, value = (each.flatten(0, -4) for each in (query, key, value))
        attended, weights = attend(
            self, query, key, value, None, scaling=self.scaling, dropout=self.dropout if self.training else 0.0
        )
        attended = self.proj(attended.reshape(-1, query.shape[-2], width))
        return attended.view(*batch_shape, query.shape[-2], width), weights


class S2DMLP(nn.Module):
    """Two linear layers with the activation between."""

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class S2DLayer(GradientCheckpointingLayer):
    """
    Pre-norm ViT block, on the 1 + N tokens of each frame:

        x <- x + Attention(LayerNorm(x)),    x <- x + MLP(LayerNorm(x))
    """

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = S2DAttention(
            config,
            config.hidden_size,
            config.num_attention_heads,
            config.qkv_bias,
            config.attention_probs_dropout_prob,
        )
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = S2DMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, class_token_only: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        The tokens `(..., 1 + num_patches, hidden_size)`, or the class token alone, `(..., 1, hidden_size)`, with
        `class_token_only`; and the attention's probabilities, if there are any.
        """
        attended, weights = self.attention(self.layernorm_before(hidden_states), class_token_only)
        if class_token_only:
            hidden_states = hidden_states[..., :1, :]
        hidden_states = hidden_states + self.dropout(attended)
        normed = self.layernorm_after(hidden_states)
        hidden_states = hidden_states + self.dropout(self.mlp(normed.flatten(0, -3)).view_as(normed))
        return hidden_states, weights


class S2DPrompter(nn.Module):
    """
    Multi-view complementary prompter (MCP, paper section 3.2): fuses appearance x and landmarks a to the prompt p.

        u = W_u x,    v = W_v a                   both of width h = `prompt_hidden_size`
        fovea(u) = u * softmax_N(s u)             per channel over the N positions; s is learned
        p = W_p (fovea(u) + v)

    W_u, W_v and W_p are 1x1 convolutions with biases in the paper, written here as the linear layers that they are.
    """

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.initial_fovea_scale = float(config.prompt_fovea_scale)
        self.appearance_proj = nn.Linear(config.hidden_size, config.prompt_hidden_size)
        self.landmark_proj = nn.Linear(config.hidden_size, config.prompt_hidden_size)
        self.fovea_scale = nn.Parameter(torch.full((1,), self.initial_fovea_scale))
        self.output_proj = nn.Linear(config.prompt_hidden_size, config.hidden_size)
        for projection in (self.appearance_proj, self.landmark_proj, self.output_proj):
            projection.starts_as = "xavier"  # type: ignore[assignment]  # a mark for `_init_weights`

    def forward(self, appearance: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """The prompt, like both inputs `(..., num_patches, hidden_size)`."""
        shape = appearance.shape
        appearance = self.appearance_proj(appearance.flatten(0, -3))
        landmarks = self.landmark_proj(landmarks.flatten(0, -3))
        fovea = (self.fovea_scale * appearance).softmax(dim=-2, dtype=torch.float32).to(appearance.dtype)
        return self.output_proj(appearance * fovea + landmarks).view(shape)


class S2DTemporalAdapter(nn.Module):
    """
    Temporal-modeling adapter (TMA, paper section 3.3): makes t of the appearance x, over the frames of a clip.

        y = W_2 Attention_T(GELU(W_1 x))          at each position over the T frames
        t = W_4 GELU(W_3 LayerNorm(y))            for each token

    W_1 and W_3 lead down to the width r D (r is `adapter_ratio`), W_2 and W_4 back up. Neither part has a residual
    connection of its own.
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
            self.spatial_up.starts_as = "zero"  # type: ignore[assignment]  # a mark for `_init_weights`

    def forward(self, appearance: torch.Tensor) -> torch.Tensor:
        """What is added to the patch tokens; `(batch_size, num_frames, num_patches, hidden_size)` in and out."""
        shape = appearance.shape
        hidden_states = self.activation(self.temporal_down(appearance.flatten(0, 1))).unflatten(0, shape[:2])
        # the frames become the tokens that attend to each other
        hidden_states, _ = self.temporal_attention(hidden_states.transpose(1, 2))
        hidden_states = self.layernorm(self.temporal_up(hidden_states.transpose(1, 2).flatten(0, 1)))
        return self.spatial_up(self.activation(self.spatial_down(hidden_states))).view(shape)


class S2DPromptLayer(nn.Module):
    """
    What stands before one ViT block, the prompter and the temporal adapter:

        p = MCP(x, a),    t = TMA(x)

    Without `temporal_adapters` there is no t (the image model), with `prompt_type="none"` no p.
    """

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.prompter = S2DPrompter(config) if config.prompt_type != "none" else None
        self.temporal_adapter = S2DTemporalAdapter(config) if config.temporal_adapters else None

    def forward(
        self, appearance: torch.Tensor, landmarks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        What is added to the patch tokens, t + p, and the prompt p alone; all `(..., num_patches, hidden_size)`, as
        both inputs are, which have gone through their norms.
        """
        # where there is no prompter, there is an adapter
        prompt: Any = None if self.prompter is None else self.prompter(appearance, landmarks)
        if self.temporal_adapter is None:
            return prompt, prompt
        adapted = self.temporal_adapter(appearance)
        return (adapted, None) if prompt is None else (adapted + prompt, prompt)


class S2DEmbeddings(nn.Module):
    """Patch, class, position and temporal embeddings."""

    def __init__(self, config: S2DConfig):
        super().__init__()
        self.config = config
        # called by the model, since the first prompt layer stands before everything else here
        self.patch_embeddings = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + config.num_patches, config.hidden_size))
        if config.temporal_adapters:
            self.temporal_embeddings: nn.Parameter | None = nn.Parameter(
                torch.zeros(1, config.num_frames, config.hidden_size)
            )
        else:
            self.temporal_embeddings = None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """
        `(..., rows * columns, hidden_size)` to the tokens with the class token in front, its position added to each
        token and its time to each frame.
        """
        cls_tokens = self.cls_token.to(patches.dtype).expand(*patches.shape[:-2], -1, -1)
        hidden_states = torch.cat((cls_tokens, patches), dim=-2)
        hidden_states = self.dropout(hidden_states + self.interpolated_positions(rows, columns))
        if self.temporal_embeddings is not None:
            hidden_states = hidden_states + self.interpolated_times(patches.shape[1]).unsqueeze(2)
        return hidden_states

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
        """
        Temporal embeddings for `num_frames` frames that span the same clip, `(1, num_frames, hidden_size)`.

        Raises:
            ValueError: if there are none, as in an image model.
        """
        if self.temporal_embeddings is None:
            raise ValueError("There are no temporal embeddings: `temporal_adapters` is off in the configuration.")
        if num_frames == self.config.num_frames:
            return self.temporal_embeddings
        times = self.temporal_embeddings.transpose(1, 2)
        times = nn.functional.interpolate(times.float(), size=num_frames, mode="linear", align_corners=True)
        return times.to(self.temporal_embeddings.dtype).transpose(1, 2)


__all__ = [
    "S2DMLP",
    "S2DAttention",
    "S2DEmbeddings",
    "S2DLayer",
    "S2DPromptLayer",
    "S2DPrompter",
    "S2DTemporalAdapter",
    "eager_attention_forward",
]
