"""Models small enough for a test, and inputs for them."""

import torch

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DConfig

TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "landmark_channels": 6,
    "landmark_size": 5,
    "prompt_hidden_size": 4,
    "num_frames": 4,
    "adapter_num_heads": 2,
    "adapter_init": "random",
    "num_labels": 5,
}


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives every parameter a random value that matters, also those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else 0.15 * noise)
            if name.endswith("fovea_scale"):
                parameter.copy_(5 + noise)
    return model


def random_encoder(width: float, input_size: int = 112, seed: int = 0) -> MobileFaceNetLandmarkEncoder:
    """With weights whose features and points depend on the frame, and are of the order of 1."""
    encoder = MobileFaceNetLandmarkEncoder(width=width, input_size=input_size)
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter[0].numel() ** -0.5 * torch.randn(parameter.shape, generator=generator))
    return encoder


def random_inputs(config: S2DConfig, batch_size: int, video: bool = True, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    leading = (batch_size, config.num_frames) if video else (batch_size,)
    size, cells = config.image_size, config.landmark_size
    return {
        "pixel_values": torch.randn(*leading, 3, size, size, generator=generator),
        "landmark_features": torch.randn(*leading, config.landmark_channels, cells, cells, generator=generator),
    }
