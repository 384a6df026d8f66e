"""The picture of a confusion matrix."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ..colors import text_colour
from .classification import ClassificationReport

_CELL = 0.78  # inches
_DPI = 160


def plot_confusion_matrix(report: ClassificationReport, path: str | Path, title: str | None = None) -> None:
    """
    Draws the confusion matrix of a report.

    Each cell shows how many percent of its true class were predicted as what its column says, and in small print how
    many samples these are. Rows of classes without samples are hatched. It leaves pyplot's state alone.

    Args:
        report (`ClassificationReport`): What to draw.
        path (`str` or `Path`): The PNG file to write; folders that are missing are made.
        title (`str`, *optional*): A line above UAR and WAR, which stand in the title in any case.

    Raises:
        ValueError: if `path` doesn't end in ".png".
        ImportError: if matplotlib is not installed.

    Example:
    ```python
    plot_confusion_matrix(classification_report(logits, labels, label_names), "confusion.png", title="DFEW, fold 1")
    ```
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"`path` must end in .png, got {str(path)!r}.")
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import ListedColormap, to_hex
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError as error:
        raise ImportError('Plots need matplotlib; install it with `pip install "s2d-hf[train]"`.') from error

    counts = report.confusion_matrix
    num_classes = len(report.label_names)
    support = counts.sum(axis=1)
    percent = 100 * counts / np.maximum(support, 1)[:, None]

    side = _CELL * num_classes
    scores = f"UAR {100 * report.uar:.2f} %,  WAR {100 * report.war:.2f} %"
    lines = [] if title is None else textwrap.wrap(title, width=max(24, int(9 * side)))
    figure = Figure(
        figsize=(side + 2.9, side + 2.2 + 0.22 * len(lines)), dpi=_DPI, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # without its darkest end, where fields look alike; a part of a perceptually uniform map is one, too
    colours = ListedColormap(colormaps["magma_r"](np.linspace(0, 0.82, 256)))
    image = axes.imshow(percent, cmap=colours, vmin=0, vmax=100)

    for row, column in np.ndindex(counts.shape):
        if not support[row]:
            continue
        colour = text_colour(to_hex(colours(percent[row, column] / 100)))
        count = f"{counts[row, column]:,}"
        if counts[row, column]:
            above: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 11, "color": colour}
            axes.text(column, row + 0.06, f"{percent[row, column]:.1f}", **above)
            axes.text(column, row + 0.14, count, ha="center", va="top", fontsize=8, color=colour)
        else:
            axes.text(column, row, count, ha="center", va="center", fontsize=8, color="0.4")
    for row in np.flatnonzero(support == 0).tolist():
        axes.add_patch(
            Rectangle((-0.5, row - 0.5), num_classes, 1, facecolor="0.93", edgecolor="0.78", hatch="///", linewidth=0)
        )
        box = {"facecolor": "0.93", "edgecolor": "none", "pad": 2}
        axes.text((num_classes - 1) / 2, row, "no samples", ha="center", va="center", color="0.3", bbox=box)

    # names are not formulas: a "$" stands for itself
    places = np.arange(num_classes)
    axes.set_xticks(places, report.label_names, rotation=35, ha="right", rotation_mode="anchor", parse_math=False)
    rows = [f"{name}\nn = {count:,}" for name, count in zip(report.label_names, support, strict=True)]
    axes.set_yticks(places, rows, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    # white lines between the cells
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted", fontsize=12, labelpad=8)
    axes.set_ylabel("true", fontsize=12, labelpad=8)

    bar = figure.colorbar(image, cax=axes.inset_axes((1 + 0.2 / side, 0, 0.22 / side, 1)), ticks=range(0, 101, 20))
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)

    axes.set_title("\n".join([*lines, scores]), fontsize=13, pad=12, parse_math=False)

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.15)
