"""A running average of the weights in training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """
    Exponential moving average of a model's trained weights, in float32.

    Its decay grows with the steps, `min(decay, (1 + step) / (10 + step))`, so that a short training forgets its start.
    Parameters that require no gradients when the average is made, and buffers, are not part of it.

    Args:
        model (`torch.nn.Module`): The average starts with its weights.
        decay (`float`): How much of the average stays at each step, between 0 and 1.

    Raises:
        ValueError: if `decay` is out of range, or no parameter requires gradients.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"`decay` must be between 0 and 1, got {decay}.")
        self.decay = decay
        self.weights: dict[str, torch.Tensor] = {
            name: parameter.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        if not self.weights:
            raise ValueError("No parameter of the model requires gradients: there is nothing to average.")

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """
        Takes in the model's weights after an optimizer step.

        Args:
            model (`torch.nn.Module`): The model that the average was made for.
            step (`int`): Optimizer steps done, from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [parameter.detach().float() for parameter in self._parameters(model)]
        get_ema_multi_avg_fn(decay)(list(self.weights.values()), current, None)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """
        Within this context the model has the averaged weights; after it, also after an error, its own again.

        Args:
            model (`torch.nn.Module`): The model that the average was made for.
        """
        parameters = self._parameters(model)
        own = [parameter.detach().clone() for parameter in parameters]
        # values are copied, and no tensor is exchanged: wrapped and compiled models keep hold of theirs
        try:
            with torch.no_grad():
                torch._foreach_copy_(parameters, list(self.weights.values()))
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averaged weights by the names of their parameters."""
        return dict(self.weights)

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """
        Goes on from an average that was saved.

        Raises:
            ValueError: if it is not of the same parameters.
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        given = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        if wanted != given:
            differing = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
            raise ValueError(
                f"The average is of other weights than those that are trained now: {len(differing)} of them are "
                f"missing, too many or of another shape, {', '.join(differing[:3])} among them."
            )
        for name, tensor in self.weights.items():
            tensor.copy_(state_dict[name])

    def _parameters(self, model: nn.Module) -> list[torch.Tensor]:
        parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
        return [parameters[name] for name in self.weights]
