"""PyTorch S2D models: a ViT guided by facial landmarks, for still images and, with temporal adapters, for videos.

Chen, Li, Shan, Wang, Hong: "From Static to Dynamic: Adapting Landmark-Aware Image Models for Facial Expression
Recognition in Videos", IEEE TAFFC 2024, arXiv 2312.05447.

From the paper to this file: the prompter MCP (section 3.2) is [`S2DPrompter`], the temporal adapter TMA (section 3.3)
[`S2DTemporalAdapter`]; both together stand before a ViT block ([`S2DLayer`]) as its [`S2DPromptLayer`], and
[`S2DModel.forward`] puts them in their order.

The docstrings' equations are for one frame, whose tokens are the rows of a matrix:

    x   appearance: the frame's N patch tokens, of width D (for the blocks, behind the class token)
    a   landmarks: the frame's N embedded landmark features, and from the second block on the prompt before
    p   the prompt that MCP makes of x and a
    t   what TMA makes of x, over the T frames of a clip

Tokens are `(..., tokens, width)` with leading `(batch_size, num_frames)` for videos and `(batch_size,)` for images;
linear layers get them with one leading axis, which quantised ones ask for.
"""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401

# isort: split
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import can_return_tuple, logging

from .access_tokens_s2d import refuse_access_tokens
from .classification_loss_s2d import classification_loss
from .configuration_s2d import S2DConfig
from .finite_weights_s2d import refuse_broken_weights
from .input_checks_s2d import check_floats, check_inputs
from .vit_weights_s2d import fill_with_vit, load_vit

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
        hidden_states (`tuple` of `num_hidden_layers + 1` tensors, *optional*): Returned when `output_hidden_states`.
            The embeddings and the output of every block, each `(batch_size, num_frames, 1 + num_patches,
            hidden_size)`, or without `num_frames` for images. The last one has gone through the final layer norm.
        attentions (`tuple` of `num_hidden_layers` tensors, *optional*): Returned when `output_attentions`, by the
            eager attention. Each `(batch_size, num_frames, num_heads, 1 + num_patches, 1 + num_patches)`, or without
            `num_frames`.
        pooler_output (`torch.Tensor` of shape `(batch_size, hidden_size)`): The clip (or image) feature that enters
            the classifier, before its dropout.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    pooler_output: torch.Tensor | None = None


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
            projection.starts_as = "xavier"  # see `_init_weights`

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
            self.spatial_up.starts_as = "zero"  # see `_init_weights`

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
        prompt = None if self.prompter is None else self.prompter(appearance, landmarks)
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
            self.temporal_embeddings = nn.Parameter(torch.zeros(1, config.num_frames, config.hidden_size))
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
        """Temporal embeddings for `num_frames` frames that span the same clip, `(1, num_frames, hidden_size)`."""
        if num_frames == self.config.num_frames:
            return self.temporal_embeddings
        times = self.temporal_embeddings.transpose(1, 2)
        times = nn.functional.interpolate(times.float(), size=num_frames, mode="linear", align_corners=True)
        return times.to(self.temporal_embeddings.dtype).transpose(1, 2)


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
        refuse_broken_weights(model.state_dict(), f"{pretrained_model_name_or_path} can't be used")
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """
        Saves the model so that every Auto class loads it, with `trust_remote_code=True` also where `s2d_hf` is not
        installed. See [`~transformers.PreTrainedModel.save_pretrained`].

        Raises:
            ValueError: if weights are NaN or infinite, or an access token stands in the configuration, before anything
                is written.
        """
        refusal = f"Nothing is saved to {save_directory}"
        refuse_broken_weights(kwargs.get("state_dict") or self.state_dict(), refusal)
        refuse_access_tokens(self.config.to_json_string(), refusal)
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
        if cls is S2DForImageClassification:
            overrides = {"temporal_adapters": False} | overrides
        fields, weights = load_vit(pretrained_model_name_or_path, **kwargs)
        model = cls(S2DConfig(**(fields | overrides)))
        fill_with_vit(model.base_model, weights, pretrained_model_name_or_path)
        if attention is not None:
            model.set_attn_implementation(attention)
        return model.to(dtype).eval() if dtype is not None else model.eval()

    def freeze_for_video_tuning(self) -> "S2DPreTrainedModel":
        """
        Leaves trainable what the paper tunes in the video stage (section 3.3): temporal embedding, prompters and
        their norms, landmark embedding, temporal adapters, final norm and classifier. The ViT is frozen. At the
        paper's size 9,256,915 of 95,054,035 parameters stay trainable.

        With the ViT frozen, most of what a training keeps for the gradient are intermediate results of prompters and
        adapters, which are cheap to compute again: transformers' gradient checkpointing is turned on for them, and
        left as it is for the blocks. Its switches turn it on and off for all layers, as for any model.

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
        if not base.gradient_checkpointing:
            # the two attributes by which transformers turns it on
            base.gradient_checkpointing = True
            base._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        return self


class S2DModel(S2DPreTrainedModel):
    """
    The S2D backbone, without a classifier: a video model, or an image model if `config.temporal_adapters` is False.

    The order of operations is that of the authors' code, including the prompt norms' sharing: the first norm serves
    both streams at the first two blocks and the landmark stream at every block. (The authors' model has one more
    norm, which it never uses.)
    """

    # whether prompts are computed again for the gradient, norms included; the blocks have their own switches
    gradient_checkpointing = False

    def __init__(self, config: S2DConfig):
        super().__init__(config)
        self.embeddings = S2DEmbeddings(config)
        has_prompts = config.prompt_type != "none"
        self.landmark_embeddings = nn.Linear(config.landmark_channels, config.hidden_size) if has_prompts else None
        if self.landmark_embeddings is not None:
            self.landmark_embeddings.starts_as = "convolution"  # of 1x1, in the paper's code; see `_init_weights`
        self.prompt_norms = nn.ModuleList(
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(config.num_prompt_norms)
        )
        self.prompt_layers = nn.ModuleList(S2DPromptLayer(config) for _ in range(config.num_prompt_layers))
        self.layers = nn.ModuleList(S2DLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # the authors' unused norm, which files of version 0.1 and converted ones may hold
        self._keys_to_ignore_on_load_unexpected = [rf"prompt_norms\.{config.num_prompt_norms}\."]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding."""
        return self.embeddings.patch_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the patch embedding."""
        self.embeddings.patch_embeddings = value

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
        Before each block i the prompts, then the block:

            (t + p, p) = PromptLayer_i(norm_j(x), norm_0(a)),    x <- x + t + p,    a <- p

        with j = i - 1, and j = 0 at the first block. x are the patch tokens; the class token is left out.
        The class token and the embeddings of positions and frames come between the first prompts and the first block.

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
            output_attentions (`bool`, *optional*): Return the attention probabilities of every block. Only
                `attn_implementation="eager"` has them; with others there is a warning, and `attentions` is None.
            pooled_only (`bool`): Return `pooler_output` alone, and compute the last block for the class tokens only;
                without effect where hidden states or attentions are asked for.

        Returns:
            `last_hidden_state` after the final norm, `(batch_size, num_frames, 1 + num_patches, hidden_size)`;
            `pooler_output`, the mean over the frames of their class tokens, `(batch_size, hidden_size)`; and
            `hidden_states` and `attentions` as in [`S2DClassifierOutput`].

        Raises:
            ValueError: if a shape does not fit the configuration, or `landmark_features` are missing.
            TypeError: if they or the pixels are no floating-point tensors.
        """
        config = self.config
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_attentions and config._attn_implementation != "eager":
            logger.warning_once(
                f"`output_attentions=True` needs the eager attention, and this model uses "
                f"{config._attn_implementation!r}: no attentions are returned. Call "
                "`model.set_attn_implementation('eager')` first."
            )
            output_attentions = False
        pooled_only = pooled_only and not output_hidden_states and not output_attentions
        check_inputs(config, pixel_values, landmark_features, interpolate_pos_encoding, interpolate_temporal_encoding)
        is_video = pixel_values.ndim == 5
        rows, columns = (size // config.patch_size for size in pixel_values.shape[-2:])

        prompt_layer = self._prompt
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            prompt_layer = partial(self._gradient_checkpointing_func, self._prompt)

        patches = self._embed_patches(pixel_values)
        prompt = self._embed_landmarks(landmark_features, rows, columns, patches.dtype)
        if self.prompt_layers:
            added, prompt = prompt_layer(0, patches, prompt)
            patches = patches + added
        hidden_states = self.embeddings(patches, rows, columns)

        all_hidden_states = (hidden_states,) if output_hidden_states else None
        all_attentions = () if output_attentions else None
        for i, layer in enumerate(self.layers):
            if 1 <= i < len(self.prompt_layers):
                added, prompt = prompt_layer(i, hidden_states, prompt)
                hidden_states = hidden_states + nn.functional.pad(added, (0, 0, 1, 0))  # the class token stays
            is_last = i + 1 == len(self.layers)
            hidden_states, weights = layer(hidden_states, pooled_only and is_last)
            if output_hidden_states and not is_last:
                all_hidden_states += (hidden_states,)
            if output_attentions:
                all_attentions += (weights,)
        hidden_states = self.layernorm(hidden_states)
        if output_hidden_states:
            all_hidden_states += (hidden_states,)
        pooled = hidden_states[..., 0, :]
        return BaseModelOutputWithPooling(
            last_hidden_state=None if pooled_only else hidden_states,
            pooler_output=pooled.mean(dim=1) if is_video else pooled,
            hidden_states=all_hidden_states,
            attentions=all_attentions,
        )

    def _embed_patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(..., channels, height, width)` to `(..., num_patches, hidden_size)`."""
        embed = self.embeddings.patch_embeddings
        patches = embed(pixel_values.flatten(0, -4).to(embed.weight.dtype))
        return patches.flatten(2).transpose(1, 2).unflatten(0, pixel_values.shape[:-3])

    def _embed_landmarks(
        self, features: torch.Tensor | None, rows: int, columns: int, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """`(..., channels, cells, cells)` to `(..., num_patches, hidden_size)`, on the patches' grid."""
        if self.landmark_embeddings is None:
            return None
        shape, features = features.shape[:-3], features.flatten(0, -4).to(dtype)
        if features.shape[-2:] != (rows, columns):
            features = nn.functional.interpolate(features, size=(rows, columns), mode="bilinear", align_corners=False)
        return self.landmark_embeddings(features.flatten(2).transpose(1, 2)).unflatten(0, shape)

    def _prompt(
        self, index: int, hidden_states: torch.Tensor, prompt: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What a prompt layer adds to the patch tokens, t + p, and the new prompt p alone."""
        appearance = self.prompt_norms[max(index - 1, 0)](hidden_states)
        if index > 0:
            appearance = appearance[..., 1:, :]  # without the class token, which the first layer doesn't have yet
        if prompt is not None:
            prompt = self.prompt_norms[0](prompt)
        return self.prompt_layers[index](appearance, prompt)


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
            ValueError: if a shape or label does not fit the configuration, or `landmark_features` are missing.
            TypeError: if pixels or features are no floating-point tensors, or labels none of numbers.
        """
        check_floats("pixel_values", pixel_values)
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
