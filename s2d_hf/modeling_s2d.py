"""PyTorch S2D models: a ViT guided by facial landmarks, for still images and, with temporal adapters, for videos.

Chen, Li, Shan, Wang, Hong: "From Static to Dynamic: Adapting Landmark-Aware Image Models for Facial Expression
Recognition in Videos", IEEE TAFFC 2024, arXiv 2312.05447.

The paper's modules, the prompter MCP with its fovea and the temporal adapter TMA, stand in `layers_s2d.py` with the
letters that the equations have here; [`S2DModel.forward`] puts them in their order.
"""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401

# isort: split
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
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
from .layers_s2d import (  # all of them, since pickles of earlier versions look for them here
    S2DMLP,  # noqa: F401
    S2DAttention,  # noqa: F401
    S2DEmbeddings,
    S2DLayer,
    S2DPrompter,
    S2DPromptLayer,
    S2DTemporalAdapter,  # noqa: F401
    eager_attention_forward,  # noqa: F401
)
from .vit_weights_s2d import fill_with_vit, load_vit

logger = logging.get_logger(__name__)

Model = TypeVar("Model", bound="S2DPreTrainedModel")

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
    def from_pretrained(cls: type[Model], pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Model:
        """
        See [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: also if weights are NaN or infinite; the message names them.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        refuse_broken_weights(model.state_dict(), f"{pretrained_model_name_or_path} can't be used")
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
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
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_vit_pretrained(cls: type[Model], pretrained_model_name_or_path: str, **kwargs: Any) -> Model:
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
            # a mark for `_init_weights`: of 1x1, in the paper's code
            self.landmark_embeddings.starts_as = "convolution"  # type: ignore[assignment]  # as above
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

    def set_input_embeddings(self, value: nn.Conv2d) -> None:
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
        **kwargs: Any,
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

        all_hidden_states: tuple[torch.Tensor, ...] = (hidden_states,) if output_hidden_states else ()
        all_attentions: tuple[torch.Tensor, ...] = ()
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
            hidden_states=all_hidden_states if output_hidden_states else None,
            attentions=all_attentions if output_attentions else None,
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
        if self.landmark_embeddings is None or features is None:  # both or neither, as was checked
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
        **kwargs: Any,
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
