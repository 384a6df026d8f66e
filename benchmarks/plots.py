"""The picture of a run: how fast each candidate is, and how the time grows, with what the marks mean."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .candidates import PLAIN, PLAIN_AUTOCAST, VIDEOMAE, VIDEOMAE_FAST, commit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE, _STRONG, _INK, _GREY = "#A9B4BF", "#1F6FB4", "#222222", "#777777"
# what the time is plotted against, and what it grows with
_AXES = {
    "batch": ("clips at a time", "clips"),
    "frames": ("frames of a clip", "frames"),
    "pixels": ("pixels along an edge of a frame", "patches"),
}
_MIB = 2**20


def plot_speed(results: dict[str, Any], path: Path) -> bool:
    """
    Draws what was measured of the forward pass, the training step and the scaling.

    Args:
        results (`dict`): What `results.json` holds.
        path (`Path`): The PNG file to write.

    Returns:
        whether there was anything to draw.
    """
    rows = [name for name in ("forward", "training", "scaling") if name in results]
    if not rows:
        return False
    runs = results["forward"]["runs"] if "forward" in rows else []
    heights = {
        "forward": 0.9 + 0.32 * max([len(run["candidates"]) for run in runs], default=0),
        "training": 0.9 + 0.26 * len(results["training"]["candidates"]) if "training" in rows else 0,
        "scaling": 2.7,
        "caption": 0.75,
    }
    rows.append("caption")
    figure = Figure(
        figsize=(11, sum(heights[name] for name in rows)), dpi=150, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    panels = figure.subfigures(len(rows), 1, height_ratios=[heights[name] for name in rows], squeeze=False)[:, 0]
    for name, panel in zip(rows, panels, strict=True):
        if name == "caption":
            panel.text(0.01, 0.95, caption(results), fontsize=8.5, color=_INK, va="top", linespacing=1.5)
        else:
            {"forward": _draw_forward, "training": _draw_training, "scaling": _draw_scaling}[name](
                panel, results[name]
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def caption(results: dict[str, Any]) -> str:
    """What the bars and points, their colours and their whiskers are."""
    settings = results["settings"]
    lines = [f"Times: medians of {settings['rounds']} rounds, in which all took turns."]
    if settings["rounds"] > 1:
        lines[0] += " Whiskers: from the rounds' first quartile to their third."
    if "training" in results:
        lines[0] += " Memory: of one step."
    if "forward" in results or "training" in results:
        lines.append(
            "Blue: this model. Plain: its forward pass written down plainly (benchmarks/plain_model.py), in float32."
            + (" VideoMAE: that of transformers, in float32." if "forward" in results else "")
        )
    if settings["against"] is not None:
        lines.append(f"Commit {settings['against']}: the model as it was there, with the same weights.")
    return "\n".join(lines)


def _draw_forward(panel: Any, results: dict[str, Any]) -> None:
    runs = results["runs"]
    for run, axes in zip(runs, panel.subplots(1, len(runs), squeeze=False)[0], strict=True):
        candidates = run["candidates"]
        speeds = {name: facts["times_as_fast_as_plain"] for name, facts in candidates.items()}
        _bars(axes, speeds, "times as fast as the plain forward pass in float32")
        axes.axvline(1, color=_GREY, linewidth=0.8, zorder=0)
        axes.set_title(f"Forward pass, batch of {run['batch']}", loc="left", fontsize=11)


def _draw_training(panel: Any, results: dict[str, Any]) -> None:
    candidates = results["candidates"]
    has_memory = all(facts.get("memory") for facts in candidates.values())
    panels = panel.subplots(1, 2, squeeze=False)[0]
    speeds = {name: facts["times_as_fast_as_plain"] for name, facts in candidates.items()}
    _bars(panels[0], speeds, "times as fast as the plain step in float32")
    panels[0].set_title("Training step, ViT frozen", loc="left", fontsize=11)
    if has_memory:
        sizes = {name: facts["memory"]["call"] / _MIB for name, facts in candidates.items()}
        label, title = "MiB above the loaded model", "Peak memory of a training step"
    else:
        sizes = {name: facts["saved_bytes"] / _MIB for name, facts in candidates.items()}
        label, title = "MiB", "Kept for the backward pass"
    _bars(panels[1], {name: {"median": size, "quartiles": [size, size]} for name, size in sizes.items()}, label, 0)
    panels[1].set_title(title, loc="left", fontsize=11)


def _is_yardstick(name: str) -> bool:
    return name in (PLAIN, PLAIN_AUTOCAST, VIDEOMAE, VIDEOMAE_FAST) or commit_of(name) is not None


def _label(name: str) -> str:
    """A candidate's name without the letter that the report's tables use for it."""
    return re.sub(r" \([ab]\)", "", name)


def _bars(axes: "Axes", summaries: dict[str, dict[str, Any]], label: str, digits: int = 2) -> None:
    places = np.arange(len(summaries))
    medians = [summary["median"] for summary in summaries.values()]
    low, high = np.transpose([summary["quartiles"] for summary in summaries.values()])
    colours = [_PALE if _is_yardstick(name) else _STRONG for name in summaries]
    axes.barh(places, medians, color=colours, height=0.68)
    is_spread = high > low
    if is_spread.any():
        middle, middles = np.asarray(medians)[is_spread], places[is_spread]
        reach = np.abs(np.stack([middle - low[is_spread], high[is_spread] - middle]))
        axes.errorbar(middle, middles, xerr=reach, fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
    for place, median, end in zip(places, medians, high, strict=True):
        axes.annotate(
            f"{median:,.{digits}f}", (max(median, end), place), (5, 0), textcoords="offset points", va="center", size=9
        )
    axes.set_yticks(places, [_label(name) for name in summaries], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(high))
    axes.set_xlabel(label, fontsize=9)
    _clean(axes)
    axes.tick_params(axis="y", length=0)


def _draw_scaling(panel: Any, results: dict[str, Any]) -> None:
    for (axis, (label, amount)), axes in zip(_AXES.items(), panel.subplots(1, 3), strict=True):
        measured = results[axis]
        x, medians = np.asarray(measured["x"]), np.array([entry["median"] for entry in measured["seconds"]])
        low, high = np.transpose([entry["quartiles"] for entry in measured["seconds"]])
        between = np.linspace(x.min(), x.max(), 50)
        # the line of the pixels is one over the patches
        amounts = (between / measured["patch_size"]) ** 2 if axis == "pixels" else between
        fitted = measured["fit"]["slope"] * amounts + measured["fit"]["intercept"]
        axes.plot(between, fitted, color=_PALE, linewidth=1.5, zorder=1)
        reach = np.abs(np.stack([medians - low, high - medians]))
        axes.errorbar(x, medians, yerr=reach, fmt="o", color=_STRONG, markersize=5, capsize=2)
        for place, median in zip(x, medians, strict=True):
            axes.annotate(f"{median:.3g} s", (place, median), (-4, 6), textcoords="offset points", ha="right", size=8)
        axes.set_xlim(x.min() - 0.28 * np.ptp(x), x.max() + 0.08 * np.ptp(x))
        axes.set_ylim(0, 1.18 * high.max())
        axes.set_xticks(x, [str(value) for value in x])
        axes.set_xlabel(label, fontsize=9)
        axes.set_title(f"Time as {amount} to the power {measured['fit']['exponent']:.2f}", loc="left", fontsize=10)
        if axis == "batch":
            axes.set_ylabel("seconds, float32", fontsize=9)
        _clean(axes)


def _clean(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


__all__ = ["caption", "plot_speed"]
