"""Training of S2D models on transformers' Trainer. Needs the extra `train`."""

from .arguments import S2DTrainingArguments
from .checkpoints import find_last_checkpoint
from .finite import NotFiniteError
from .landmark_encoder_training import (
    LandmarkPointsDataset,
    mirror_landmarks,
    normalized_mean_error,
    train_landmark_encoder,
)
from .recipes import DataArguments, ModelArguments, Recipe, RunArguments, StageArguments, read_recipe
from .samplers import ClassBalancedSampler, EpochCallback
from .stages import StageResult, run_recipe, run_stage
from .trainer import S2DTrainer
from .weight_average import WeightAverage

__all__ = [
    "ClassBalancedSampler",
    "DataArguments",
    "EpochCallback",
    "LandmarkPointsDataset",
    "ModelArguments",
    "NotFiniteError",
    "Recipe",
    "RunArguments",
    "S2DTrainer",
    "S2DTrainingArguments",
    "StageArguments",
    "StageResult",
    "WeightAverage",
    "find_last_checkpoint",
    "mirror_landmarks",
    "normalized_mean_error",
    "read_recipe",
    "run_recipe",
    "run_stage",
    "train_landmark_encoder",
]
