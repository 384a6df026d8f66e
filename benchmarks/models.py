"""What is compared: sizes, models with random weights that matter, and clips for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from s2d_hf import S2DConfig, S2DForVideoClassification

Checkpointing = Literal["prompt layers", "no layers", "all layers"]


@dataclass(frozen=True)
class Size:
    """
    How large the models are.

    Args:
        s2d (`dict`): Fields of [`S2DConfig`] that are not its defaults.
        videomae (`dict`): Fields of `VideoMAEConfig`, likewise.
        encoder (`dict`): Arguments of [`MobileFaceNetLandmarkEncoder`].
        matrix (`int`): Rows and columns of the matrices by which a processor's peak is measured.
        batches, frames, pixels (`tuple[int, ...]`): Where the scaling is measured.
    """

    s2d: dict[str, Any] = field(default_factory=dict)
    videomae: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    matrix: int = 4096
    batches: tuple[int, ...] = (1, 2, 4)
    frames: tuple[int, ...] = (8, 16, 32)
    pixels: tuple[int, ...] = (112, 160, 224)


_TINY_VIT = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "num_frames": 4,
}  # fmt: skip

SIZES = {
    "paper": Size(),
    "tiny": Size(
        s2d=_TINY_VIT | {"landmark_channels": 16, "landmark_size": 4, "prompt_hidden_size": 4, "adapter_num_heads": 2},
        videomae=_TINY_VIT,
        encoder={"width": 0.125, "input_size": 32},
        matrix=64,
        batches=(1, 2),
        frames=(2, 4),
        pixels=(16, 32),
    ),
}


def build_s2d(
    size: Size, device: str | torch.device = "cpu", temporal_adapters: bool = True
) -> S2DForVideoClassification:
    """
    A video model in eval mode, or without `temporal_adapters` an image model that is averaged over the frames. Its
    biases, norms, embeddings and adapters all matter: with them as they are at the start of a training, errors would
    hide.
    """
    torch.manual_seed(0)
    fields = {"adapter_init": "random", "classifier_dropout_prob": 0.0, "temporal_adapters": temporal_adapters}
    config = S2DConfig(num_labels=7, **fields, **size.s2d)
    model = S2DForVideoClassification(config)
    _jitter(model)
    return model.to(device).eval()


def build_videomae(size: Size, device: str | torch.device = "cpu") -> VideoMAEForVideoClassification:
    """VideoMAE in eval mode, VideoMAE-base at the paper's size, with random weights."""
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=7, **size.videomae))
    return model.to(device).eval()


@torch.no_grad()
def _jitter(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or "temporal_embeddings" in name:
            parameter.add_(0.05 * torch.randn_like(parameter))


def make_clips(
    config: S2DConfig,
    number: int,
    seed: int = 1,
    device: str | torch.device = "cpu",
    num_frames: int | None = None,
    pixels: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Random clips that differ in colour, shapes and landmarks: `pixel_values` `(number, num_frames, 3, pixels, pixels)`
    and `landmark_features` `(number, num_frames, channels, cells, cells)`.
    """
    generator = torch.Generator().manual_seed(seed)
    num_frames, pixels = num_frames or config.num_frames, pixels or config.image_size
    cells, channels = config.landmark_size, config.landmark_channels

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    shapes = (noise(number, num_frames, 3, 4, 4) + noise(number, 1, 3, 4, 4)).flatten(0, 1)
    shapes = nn.functional.interpolate(shapes, size=(pixels, pixels), mode="bilinear")
    pixel_values = shapes.unflatten(0, (number, num_frames)) + noise(number, 1, 3, 1, 1)
    pixel_values = pixel_values + 0.2 * noise(*pixel_values.shape)
    landmarks = noise(number, num_frames, channels, cells, cells) + 2 * noise(number, 1, channels, 1, 1)
    return pixel_values.to(device), landmarks.to(device)


def train_step(
    model: S2DForVideoClassification,
    logits_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    pixel_values: torch.Tensor,
    landmark_features: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Forward, cross-entropy and backward; the gradients replace those of the step before. Returns the loss."""
    model.zero_grad()
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(logits_of(pixel_values, landmark_features), labels)
        loss.backward()
    return loss.detach()


def set_up_training(model: S2DForVideoClassification, checkpointing: Checkpointing) -> S2DForVideoClassification:
    """Puts a model into training mode with its ViT frozen, and returns it."""
    model.train()
    model.freeze_for_video_tuning()  # turns checkpointing on for the prompt layers
    if checkpointing == "no layers":
        model.gradient_checkpointing_disable()
    elif checkpointing == "all layers":
        model.gradient_checkpointing_enable()
    return model


__all__ = [
    "SIZES",
    "Checkpointing",
    "Size",
    "build_s2d",
    "build_videomae",
    "make_clips",
    "set_up_training",
    "train_step",
]
