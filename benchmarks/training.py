"""One training step with a frozen ViT: the plain one, ours with more and less checkpointing, and a commit's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from .candidates import PLAIN, Forward, commit_name, prepare_step, training_names
from .counting import count_flops, count_page_faults, watch_saved_tensors
from .measuring import ratio, summarise, time_in_turns
from .memory import measure_in_own_process
from .models import make_clips, train_step
from .settings import Settings


def measure_training(settings: Settings) -> dict[str, Any]:
    """Returns `{"batch", "candidates": {name: {...}}}`."""
    device, batch = settings.device, settings.training_batch
    names = training_names(settings.against)
    calls: dict[str, Callable[[], Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    gradients = {}
    for name in tqdm(names, desc="preparing, training"):
        model, forward, step = prepare_step(name, settings.size, device)
        clips = make_clips(model.config, batch, device=device)
        labels = torch.arange(batch, device=device) % model.config.num_labels

        facts[name] = _count_step(model, forward, clips, labels)
        gradients[name] = collect_gradients(model)
        facts[name]["trained_parameters"] = sum(gradient.numel() for gradient in gradients[name].values())
        facts[name]["largest_gradient_error"] = largest_difference(gradients[name], gradients[PLAIN])

        def call(facts=facts[name], step=step, clips=clips, labels=labels) -> None:
            # those of the last round stay
            facts["page_faults"] = count_page_faults(lambda: step(*clips, labels))

        calls[name] = call
    with tqdm(total=len(calls) * settings.rounds, desc="training") as bar:
        times = time_in_turns(calls, settings.rounds, settings.clock, device, after_call=lambda _: bar.update())
    for name in calls:
        facts[name]["seconds"] = summarise(times[name])
        facts[name]["times_as_fast_as_plain"] = ratio(times[PLAIN], times[name])
        if settings.against is not None:
            facts[name]["times_as_fast_as_commit"] = ratio(times[commit_name(settings.against)], times[name])
    if settings.with_memory:
        for name in tqdm(names, desc="memory, training"):
            facts[name]["memory"] = measure_in_own_process("training", name, settings.size_name, device, batch)
    return {"batch": batch, "candidates": facts}


def _count_step(
    model: nn.Module, forward: Forward, clips: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor
) -> dict[str, Any]:
    """Operations of one step, and the bytes that its forward pass keeps; its gradients stay with the model."""
    facts: dict[str, Any] = {}

    def watched(*clips: torch.Tensor) -> torch.Tensor:
        with watch_saved_tensors(model) as kept:
            logits = forward(*clips)
        facts["saved_bytes"] = sum(kept.values())
        return logits

    facts["flops"] = count_flops(lambda: train_step(model, watched, *clips, labels))
    return facts


def collect_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the gradients by parameter, but for zeros: of a norm that earlier commits have and never use."""
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    return {key: gradient.clone() for key, gradient in gradients.items() if gradient.any()}


def largest_difference(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """
    Over all parameters, the largest norm of a gradient's difference relative to the expected gradient's norm.

    Raises:
        ValueError: if the parameters that have gradients differ.
    """
    if gradients.keys() != expected.keys():
        raise ValueError(f"Gradients of different parameters: {sorted(gradients.keys() ^ expected.keys())}.")
    # a gradient that is zero but for rounding has no digits to compare
    floor = 1e-6 * max(float(gradient.norm()) for gradient in expected.values())
    return max(
        float((gradients[key] - gradient).norm()) / max(float(gradient.norm()), floor)
        for key, gradient in expected.items()
    )


__all__ = ["collect_gradients", "largest_difference", "measure_training"]
