"""A small S2D image model on disk, to start trainings from."""

from pathlib import Path

import torch

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DConfig, S2DForImageClassification, S2DImageProcessor
from tests.small_models import TINY


def write_image_model(folder: Path, num_labels: int = 2) -> Path:
    """Of 32x32 pixels, with its processor and landmark encoder; all weights are random."""
    torch.manual_seed(0)
    encoder = MobileFaceNetLandmarkEncoder(width=0.125, input_size=32)
    config = TINY | {
        "temporal_adapters": False, "landmark_channels": encoder.num_channels, "landmark_size": encoder.feature_size,
        "num_labels": num_labels, "initializer_range": 0.1,
    }  # fmt: skip
    S2DForImageClassification(S2DConfig(**config)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    S2DImageProcessor(landmark_encoder=encoder, size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder
