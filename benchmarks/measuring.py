"""Times of several calls that take turns, and what is said of them."""

import gc
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def synchronize(device: str | torch.device) -> None:
    """Waits until a GPU has done what it was told; nothing to do on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def time_once(call: Callable[[], Any], clock: Callable[[], float], device: str | torch.device = "cpu") -> float:
    """Seconds that a call takes until its results are there, without garbage collection."""
    synchronize(device)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        call()
        synchronize(device)
        return clock() - start
    finally:
        if was_enabled:
            gc.enable()


def time_in_turns(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    device: str | torch.device = "cpu",
    seed: int = 0,
    after_call: Callable[[str], Any] | None = None,
) -> dict[str, list[float]]:
    """
    Times each call once a round, in an order that is drawn anew for every round: what disturbs the machine for a
    while disturbs them all alike.

    Args:
        calls (`Mapping[str, Callable]`): By name. They should have been called once before.
        rounds (`int`): How often each is called.
        clock (`Callable`): Gives the time in seconds.
        device (`str` or `torch.device`): Whose work is waited for.
        seed (`int`): Of the orders.
        after_call (`Callable`, *optional*): Called with the name after each call, such as for a progress bar.

    Returns:
        `dict[str, list[float]]`: seconds of every round, by name.

    Raises:
        ValueError: if `rounds` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}.")
    order, generator = list(calls), random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            times[name].append(time_once(calls[name], clock, device))
            if after_call is not None:
                after_call(name)
    return times


def summarise(values: list[float]) -> dict[str, float | list[float]]:
    """Median, quartiles and the values themselves."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return {"median": float(median), "quartiles": [float(low), float(high)], "values": [float(v) for v in values]}


def ratio(above: list[float], below: list[float]) -> dict[str, float | list[float]]:
    """The ratio of two calls' times round by round, summarised."""
    return summarise([a / b for a, b in zip(above, below, strict=True)])


def fit_line(x: list[float], seconds: list[float]) -> dict[str, float]:
    """
    The line `slope * x + intercept` through the times, by least squares; the largest distance of a time from it,
    relative to that time; and the exponent of the power of `x` that the times follow best.
    """
    points, times = np.asarray(x, float), np.asarray(seconds, float)
    slope, intercept = np.polyfit(points, times, 1)
    residual = np.abs(slope * points + intercept - times) / times
    exponent = np.polyfit(np.log(points), np.log(times), 1)[0]
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "largest_residual": float(residual.max()),
        "exponent": float(exponent),
    }


__all__ = ["CLOCKS", "fit_line", "ratio", "summarise", "synchronize", "time_in_turns", "time_once"]
