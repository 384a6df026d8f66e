"""The forward pass: the plain one, VideoMAE's, ours in every mode and a commit's, with their errors."""

import copy
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from s2d_hf import S2DForVideoClassification
from s2d_hf.fast_cpu import onednn_is_faster, onednn_linear

from .candidates import PLAIN, VIDEOMAE, VIDEOMAE_FAST, Forward, commit_name, forward_names, prepare_forward
from .counting import count_flops, count_page_faults
from .measuring import ratio, summarise, synchronize, time_in_turns
from .memory import measure_in_own_process
from .models import build_s2d, make_clips
from .modes import MODES, precision_of
from .plain_model import plain_logits
from .settings import Settings

EAGER = "float32"  # the mode whose operations are counted for all


@torch.no_grad()
def measure_forward(settings: Settings) -> dict[str, Any]:
    """
    Returns `{"runs": [one of each batch size], "unavailable": {name: reason}, "num_clips": ..., "onednn_is_faster":
    {precision: whether the fast path asks it}, "reference_device": ...}`; a run is `{"batch", "candidates": {name:
    {...}}, "peaks", "matrix_products"}`, the last two of them FLOP/s by precision, and by precision and library.
    """
    model = build_s2d(settings.size, settings.device)
    unavailable: dict[str, str] = {}
    runs = []
    for batch in settings.batch_sizes:
        run = _Run(model, settings, batch, unavailable)
        runs.append(run.measure())
        del run
        gc.collect()
        if settings.device == "cuda":
            torch.cuda.empty_cache()
    asked = {}
    if settings.device == "cpu":
        asked = {name: onednn_is_faster(getattr(torch, name)) for name in ("float32", "bfloat16")}
    return {
        "runs": runs,
        "unavailable": unavailable,
        "num_clips": settings.num_clips,
        "onednn_is_faster": asked,
        "reference_device": settings.reference_device or settings.device,
    }


class _Run:
    def __init__(self, model: S2DForVideoClassification, settings: Settings, batch: int, unavailable: dict[str, str]):
        self.model, self.settings, self.batch, self.unavailable = model, settings, batch, unavailable
        self.device = settings.device
        self.batches = [
            make_clips(model.config, batch, seed=1 + i, device=self.device)
            for i in range(-(-settings.num_clips // batch))
        ]
        self.forwards: dict[str, Forward] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def measure(self) -> dict[str, Any]:
        reference = self._reference()
        names = forward_names(self.settings.modes, self.settings.against)
        for name in tqdm(names, desc=f"preparing, batch {self.batch}"):
            self._prepare(name, reference)
        calls: dict[Any, Callable[[], Any]] = {name: partial(self._call, name) for name in self.forwards}
        products = self._matrix_products()
        calls |= products
        with tqdm(total=len(calls) * self.settings.rounds, desc=f"forward, batch {self.batch}") as bar:
            times = time_in_turns(
                calls, self.settings.rounds, self.settings.clock, self.device, after_call=lambda _: bar.update()
            )
        operations = 2 * self.settings.size.matrix**3
        products_per_second = {pair: operations / summarise(times[pair])["median"] for pair in products}
        peaks: dict[str, float] = {}
        for (_, precision), speed in products_per_second.items():
            peaks[precision] = max(speed, peaks.get(precision, 0.0))
        for name in self.forwards:
            self._add_times(name, times, peaks)
        if self.settings.with_memory:
            for name in tqdm(list(self.forwards), desc="memory"):
                self.facts[name]["memory"] = measure_in_own_process(
                    "forward", name, self.settings.size_name, self.device, self.batch
                )
        named = {f"{precision}, {library}": speed for (library, precision), speed in products_per_second.items()}
        return {"batch": self.batch, "candidates": self.facts, "peaks": peaks, "matrix_products": named}

    def _call(self, name: str) -> None:
        """What is timed; the page faults are those of the last round."""
        forward = self.forwards[name]
        self.facts[name]["page_faults"] = count_page_faults(lambda: forward(*self.batches[0]))

    def _reference(self) -> torch.Tensor:
        """
        The plain logits `(clips, num_labels)`. The classifier's bias is moved by their mean first: with random weights
        all clips would otherwise fall into one class, and every mode would agree.
        """
        device = self.settings.reference_device or self.device
        model = self.model if device == self.device else copy.deepcopy(self.model).to(device)
        batches = [[tensor.to(device) for tensor in clips] for clips in self.batches]
        logits = torch.cat([plain_logits(model, *clips) for clips in batches])
        self.model.classifier.bias -= logits.mean(dim=0).to(self.device)
        return logits - logits.mean(dim=0)

    def _prepare(self, name: str, reference: torch.Tensor) -> None:
        if name in self.unavailable:
            return
        facts: dict[str, Any] = {}

        def compute(clips: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return forward(*clips).to(reference, copy=True)  # a CUDA graph writes every result to the same place

        start = time.perf_counter()
        try:
            forward = prepare_forward(name, self.model, self.settings.size)
            logits = [compute(self.batches[0])]
            synchronize(self.device)
        except Exception as error:  # whatever a package or a compiler raises: the mode is listed with it
            if name == EAGER or name not in (*MODES, VIDEOMAE_FAST):
                raise
            needs = MODES[name].needs if name in MODES else "a CPU"
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            self.unavailable[name] = reason if needs is None else f"needs {needs} ({reason})"
            return
        facts["cold_start"] = time.perf_counter() - start
        facts["precision_note"] = MODES[name].precision_note if name in MODES else precision_of(name)
        later = self.batches[1:] or self.batches
        if name == EAGER or name not in MODES:  # the counter would get in a compiler's way
            facts["flops"] = count_flops(lambda: logits.extend(map(compute, later))) // len(later)
        else:
            logits.extend(map(compute, later))
        if name not in (VIDEOMAE, VIDEOMAE_FAST):
            found = torch.cat(logits[: len(self.batches)])
            facts["largest_error"] = float((found - reference).abs().max())
            facts["agreement"] = float((found.argmax(-1) == reference.argmax(-1)).float().mean())
            facts["logits_spread"] = float(reference.std(dim=0).mean())
        if name == PLAIN:
            facts["largest_error_of_float32"] = self._rounding(reference)
        self.forwards[name], self.facts[name] = forward, facts

    def _rounding(self, reference: torch.Tensor) -> float:
        """How far the plain float32 logits of the first clip are from those in float64."""
        double = build_s2d(self.settings.size, self.device).double()
        double.classifier.bias.copy_(self.model.classifier.bias)
        pixels, landmarks = (tensor[:1].double() for tensor in self.batches[0])
        return float(
            (plain_logits(double, pixels, landmarks).to(reference.device) - reference[:1].double()).abs().max()
        )

    def _matrix_products(self) -> dict[tuple[str, str], Callable[[], Any]]:
        """By library and precision. On a CPU, PyTorch's own choice for float32 is not the fastest everywhere."""
        size = self.settings.size.matrix
        precisions = {precision_of(name) for name in self.forwards} - {None} | {"float32", "bfloat16"}
        calls: dict[tuple[str, str], Callable[[], Any]] = {}
        for precision in sorted(precisions):
            a, b = torch.randn(2, size, size, device=self.device).to(getattr(torch, precision))
            calls["matmul", precision] = lambda a=a, b=b: torch.mm(a, b)
            if self.device == "cpu" and onednn_is_faster(getattr(torch, precision)):
                calls["oneDNN", precision] = lambda a=a, b=b: onednn_linear(a, b, None)
        for call in calls.values():
            call()
        return calls

    def _add_times(self, name: str, times: dict[str, list[float]], peaks: dict[str, float]) -> None:
        facts = self.facts[name]
        facts["seconds"] = summarise(times[name])
        facts["clips_per_hour"] = 3600 * self.batch / facts["seconds"]["median"]
        facts["times_as_fast_as_plain"] = ratio(times[PLAIN], times[name])
        facts["time_over_videomae"] = ratio(times[name], times[VIDEOMAE])
        flops = facts.get("flops", self.facts.get(EAGER, {}).get("flops"))
        precision = precision_of(name)
        if self.settings.against is not None and precision is not None:
            before = commit_name(self.settings.against, precision)
            if before in times:
                facts["times_as_fast_as_commit"] = ratio(times[before], times[name])
        if flops is not None and precision is not None:
            facts["share_of_peak"] = flops / facts["seconds"]["median"] / peaks[precision]


__all__ = ["EAGER", "measure_forward"]
