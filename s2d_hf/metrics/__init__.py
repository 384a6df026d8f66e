"""How good a classifier of expressions is: numbers and pictures."""

from .classification import ClassificationReport, classification_report, compute_metrics_fn
from .confusion_plot import plot_confusion_matrix

__all__ = [
    "ClassificationReport",
    "classification_report",
    "compute_metrics_fn",
    "plot_confusion_matrix",
]
