"""Training of S2D models on transformers' Trainer. Needs the extra `train`."""

from .arguments import S2DTrainingArguments
from .samplers import ClassBalancedSampler
from .trainer import S2DTrainer

__all__ = ["ClassBalancedSampler", "S2DTrainer", "S2DTrainingArguments"]
