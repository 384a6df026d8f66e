"""The order in which training samples come."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class ClassBalancedSampler(Sampler[int]):
    """
    Draws samples with replacement so that every class comes equally often ("oversampling" in the paper's recipe).

    Every process draws the same sequence, from the seed and the epoch alone, so that accelerate can share it out.

    Args:
        labels (`Sequence[int]`): Class of each sample.
        seed (`int`): Of all epochs.

    Raises:
        ValueError: if there are no labels.
    """

    def __init__(self, labels: Sequence[int], seed: int = 0):
        if len(labels) == 0:
            raise ValueError("`labels` is empty: there is nothing to sample.")
        classes = torch.as_tensor(labels)
        self.weights = 1.0 / classes.bincount()[classes].double()
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate and the Trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist()

    def __len__(self) -> int:
        return len(self.weights)
