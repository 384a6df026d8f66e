"""One training step with a frozen ViT: trained the plain way, and ours."""

from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from .candidates import PLAIN, TRAINING, prepare_step
from .counting import count_flops, count_page_faults, count_saved_bytes
from .measuring import ratio, summarise, time_in_turns
from .memory import measure_in_own_process
from .models import make_clips
from .settings import Settings


def measure_training(settings: Settings) -> dict[str, Any]:
    """Returns `{"batch", "candidates": {name: {...}}}`."""
    device, batch = settings.device, 1
    calls, facts, gradients = {}, {}, {}
    for name in tqdm(TRAINING, desc="preparing, training"):
        model, forward, step = prepare_step(name, settings.size, device)
        clips = make_clips(model.config, batch, device=device)
        labels = torch.arange(batch, device=device) % model.config.num_labels

        def call(step=step, clips=clips, labels=labels) -> torch.Tensor:
            return step(*clips, labels)

        facts[name] = {
            "flops": count_flops(call),
            "saved_bytes": count_saved_bytes(model, lambda forward=forward, clips=clips: forward(*clips)),
        }
        call()
        gradients[name] = collect_gradients(model)
        facts[name]["trained_parameters"] = sum(gradient.numel() for gradient in gradients[name].values())
        facts[name]["largest_gradient_error"] = largest_difference(gradients[name], gradients[PLAIN])
        calls[name] = call
    with tqdm(total=len(calls) * settings.rounds, desc="training") as bar:
        times = time_in_turns(calls, settings.rounds, settings.clock, device, after_call=lambda _: bar.update())
    for name in calls:
        facts[name]["seconds"] = summarise(times[name])
        facts[name]["times_as_fast_as_plain"] = ratio(times[PLAIN], times[name])
        facts[name]["page_faults"] = count_page_faults(calls[name])
    if settings.with_memory:
        for name in tqdm(TRAINING, desc="memory, training"):
            facts[name]["memory"] = measure_in_own_process("training", name, settings.size_name, device, batch)
    return {"batch": batch, "candidates": facts}


def collect_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the gradients by parameter, but for zeros, as the unused prompt norm has."""
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
