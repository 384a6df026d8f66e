"""Configuration of the S2D image and video models."""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401
from .texts_s2d import listed

# isort: split
from collections import Counter
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

_MAX_LABELS = 2**16
_PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


@strict
class S2DConfig(PreTrainedConfig):
    r"""
    Configuration of S2D (From Static to Dynamic, [arXiv 2312.05447](https://arxiv.org/abs/2312.05447)).

    One class serves both models. The image model is the video model without its temporal modules:
    `temporal_adapters=False`. The defaults are the paper's video model (ViT-B/16, 16 frames).

    Args:
        image_size (`int`): Height and width of the input frames, in pixels.
        patch_size (`int`): Height and width of a patch, in pixels.
        num_channels (`int`): Colour channels of the input.
        hidden_size (`int`): Width D of the ViT.
        num_hidden_layers (`int`): Number L of transformer blocks.
        num_attention_heads (`int`): Attention heads of each block; divides `hidden_size`.
        intermediate_size (`int`): Hidden width of each block's MLP.
        hidden_act (`str`): Activation of the MLPs and of the temporal adapters.
        qkv_bias (`bool`): Whether the query, key and value projections of the ViT have a bias.
        layer_norm_eps (`float`): Epsilon of the ViT's and the prompters' layer norms.
        hidden_dropout_prob (`float`): Dropout after the embeddings, attention and MLPs.
        attention_probs_dropout_prob (`float`): Dropout of the ViT's attention probabilities.
        initializer_range (`float`): Standard deviation of new linear layers, class token, position and temporal
            embeddings. New prompters, landmark and patch embeddings start as in the authors' code, by their sizes.
        landmark_channels (`int`): Channels of `landmark_features`; 128 for MobileFaceNet, 256 (or 68) for FAN.
        landmark_size (`int`): Height and width of `landmark_features`, in cells.
        prompt_type (`"deep"`, `"shallow"` or `"none"`): Landmark-guided prompters (MCP, paper section 3.2) at every
            block, at the first one only, or nowhere. `"shallow"` also leaves only the first temporal adapter, as in
            the authors' code; with `"none"` the landmark features are not used and need not be given.
        prompt_hidden_size (`int`): Hidden width of the prompters.
        prompt_fovea_scale (`float`): Initial value of the learned scalar that sharpens the fovea's softmax.
        temporal_adapters (`bool`): Whether the model has temporal-modeling adapters (TMA, paper section 3.3) and a
            temporal embedding, that is, whether it is a video model.
        num_frames (`int`): Frames T of a clip: the length of the temporal embedding, and what
            `pipeline("video-classification")` samples. Without temporal adapters any number of frames can be
            averaged.
        adapter_ratio (`float`): Width of the adapters relative to `hidden_size`.
        adapter_num_heads (`int`): Heads of the adapters' attention over time; divides
            `adapter_ratio * hidden_size`.
        adapter_init (`"zero"` or `"random"`): `"zero"` starts the last projection of each adapter and the temporal
            embedding at zero, so that a video model made from an image model computes at first what the image model
            computes. `"random"` is what the authors' code does.
        classifier_dropout_prob (`float`): Dropout before the classifier, in training.

    Raises:
        ValueError: if fields contradict each other; the message names them.

    Example:
    ```python
    >>> from s2d_hf import S2DConfig

    >>> video = S2DConfig(num_labels=7)
    >>> image = S2DConfig(num_labels=7, temporal_adapters=False)
    >>> video.adapter_hidden_size, video.num_patches
    (192, 196)
    ```
    """

    model_type = "s2d"
    keys_to_ignore_at_inference = ["pooler_output", "hidden_states", "attentions"]

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    landmark_channels: int = 128
    landmark_size: int = 14
    prompt_type: Literal["deep", "shallow", "none"] = "deep"
    prompt_hidden_size: int = 8
    prompt_fovea_scale: float | int = 10.0
    temporal_adapters: bool = True
    num_frames: int = 16
    adapter_ratio: float | int = 0.25
    adapter_num_heads: int = 8
    adapter_init: Literal["zero", "random"] = "zero"
    classifier_dropout_prob: float | int = 0.5

    def __post_init__(self, **kwargs):
        if kwargs.get("num_labels") is None:
            kwargs.pop("num_labels", None)
        self._check_classes(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)
        self._check_fields()

    def _check_classes(self, num_labels: int | None) -> None:
        """What transformers makes a table of the classes' names from."""
        if num_labels is not None and (type(num_labels) is not int or not 1 <= num_labels <= _MAX_LABELS):
            raise ValueError(f"`num_labels` must be a positive integer, {_MAX_LABELS} at most, got {num_labels!r}.")
        if self.id2label is None:
            return
        pairs = self.id2label.items() if isinstance(self.id2label, dict) else [(None, None)]
        if not pairs or not all(str(index).isdecimal() and isinstance(label, str) for index, label in pairs):
            raise ValueError(
                f"`id2label` must be a dict from the classes' indices to their names, got {self.id2label}."
            )

    def _check_fields(self) -> None:
        # Far above what any model has. A damaged or crafted file asks for more, and would fill the memory.
        most = {
            "image_size": 2**14, "patch_size": 2**14, "num_channels": 2**10, "hidden_size": 2**16,
            "num_hidden_layers": 2**10, "num_attention_heads": 2**10, "intermediate_size": 2**18,
            "landmark_channels": 2**14, "landmark_size": 2**12, "prompt_hidden_size": 2**16, "num_frames": 2**14,
            "adapter_num_heads": 2**10,
        }  # fmt: skip
        for name, limit in most.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise ValueError(f"`{name}` must be a positive integer, {limit} at most, got {value!r}.")
        self._check_labels()
        ranges = {
            "layer_norm_eps": (1e-12, 1), "initializer_range": (1e-12, 1e3), "prompt_fovea_scale": (-1e6, 1e6),
            "adapter_ratio": (0, 1e3),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:  # nor if it is not a number
                raise ValueError(f"`{name}` must be {low:g} to {high:g}, got {getattr(self, name)!r}.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 0 and less than 1, got {getattr(self, name)!r}.")
        if self.prompt_type not in ("deep", "shallow", "none"):
            raise ValueError(f'`prompt_type` must be "deep", "shallow" or "none", got {self.prompt_type!r}.')
        if self.adapter_init not in ("zero", "random"):
            raise ValueError(f'`adapter_init` must be "zero" or "random", got {self.adapter_init!r}.')
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` must be one of {', '.join(sorted(ACT2FN))}, got {self.hidden_act!r}.")
        if self.problem_type not in (None, *_PROBLEM_TYPES):
            raise ValueError(f"`problem_type` must be one of {', '.join(_PROBLEM_TYPES)}, got {self.problem_type!r}.")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` ({self.image_size}) must be a multiple of `patch_size` ({self.patch_size})."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )
        if self.temporal_adapters:
            width = self.adapter_ratio * self.hidden_size
            if width < 1 or abs(width - round(width)) > 1e-6:
                raise ValueError(
                    f"`adapter_ratio` ({self.adapter_ratio}) times `hidden_size` ({self.hidden_size}) must be a "
                    f"positive whole number, got {width}."
                )
            if self.adapter_hidden_size % self.adapter_num_heads:
                raise ValueError(
                    f"The adapter width {self.adapter_hidden_size} (`adapter_ratio` * `hidden_size`) must be a "
                    f"multiple of `adapter_num_heads` ({self.adapter_num_heads})."
                )

    def _check_labels(self) -> None:
        indices, labels = list(self.id2label), list(self.id2label.values())
        if sorted(indices) != list(range(len(indices))):
            raise ValueError(
                f"`id2label` must name the classes 0 to {len(indices) - 1}, and names {_shown(sorted(indices))}."
            )
        repeated = sorted(str(label) for label, count in Counter(labels).items() if count > 1)
        if repeated:
            raise ValueError(f"`id2label` gives several classes the same name: {_shown(repeated)}.")

    @property
    def adapter_hidden_size(self) -> int:
        """Width of the temporal adapters."""
        return round(self.adapter_ratio * self.hidden_size)

    @property
    def grid_size(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of a frame."""
        return self.grid_size**2

    @property
    def num_prompt_layers(self) -> int:
        """Blocks that have a prompter or a temporal adapter before them."""
        if self.prompt_type == "shallow":
            return 1
        if self.prompt_type == "none" and not self.temporal_adapters:
            return 0
        return self.num_hidden_layers

    @property
    def num_prompt_norms(self) -> int:
        """Norms before the prompt layers; the first one serves the first two layers."""
        return min(self.num_prompt_layers, max(self.num_prompt_layers - 1, 1))


def _shown(items: list) -> str:
    return listed((str(item) if str(item).isprintable() else repr(item) for item in items), 5)


S2DConfig.register_for_auto_class()

__all__ = ["S2DConfig"]
