"""Whether what a model is given fits its configuration."""

import torch

from .configuration_s2d import S2DConfig


def check_inputs(
    config: S2DConfig,
    pixel_values: torch.Tensor,
    landmark_features: torch.Tensor | None,
    interpolate_pos_encoding: bool,
    interpolate_temporal_encoding: bool,
) -> None:
    """
    Raises:
        ValueError: if pixels or landmark features are missing or don't have the shape that the model takes; the
            message says which. The arguments are those of `S2DModel.forward`.
        TypeError: if they are no floating-point tensors.
    """
    check_floats("pixel_values", pixel_values)
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
    if 0 in shape:
        raise ValueError(f"`pixel_values` hold nothing: their shape is {shape}.")
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
    check_floats("landmark_features", landmark_features)
    expected = (*shape[:-3], config.landmark_channels, config.landmark_size, config.landmark_size)
    if tuple(landmark_features.shape) != expected:
        raise ValueError(f"`landmark_features` must be {expected}, got {tuple(landmark_features.shape)}.")


def check_floats(name: str, values: torch.Tensor) -> None:
    """
    Raises:
        TypeError: if `values`, an argument of this name, are no floating-point tensor.
    """
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        what = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"`{name}` must be a floating-point tensor, as the S2D processors give it, got {what}.")


__all__ = ["check_floats", "check_inputs"]
