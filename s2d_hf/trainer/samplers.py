"""The order in which training samples come, epoch by epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


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


class EpochCallback(TrainerCallback):
    """
    Tells every epoch to the training's sampler and data set, if they have a `set_epoch`.

    accelerate's loaders tell the data set only where they find no sampler that has an epoch, and look for the sampler
    through two wrappers, while there are three when several processes resume in the middle of an epoch.
    """

    def __init__(self):
        self._next_epoch = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finds where a resumed training goes on."""
        self._next_epoch = int((state.epoch or 0.0) + 1e-6)

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: DataLoader,
        **kwargs: Any,
    ) -> None:
        """Comes before the loader's workers start."""
        _set_sampler_epoch(train_dataloader, self._next_epoch)
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(self._next_epoch)
        self._next_epoch += 1


def _set_sampler_epoch(loader: DataLoader, epoch: int) -> None:
    sampler = getattr(loader, "batch_sampler", None)
    while sampler is not None:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        sampler = getattr(sampler, "batch_sampler", getattr(sampler, "sampler", None))
