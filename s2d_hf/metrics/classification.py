"""The scores of expression recognition: UAR, WAR, recalls, F1 and the confusion matrix."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import EvalPrediction


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """
    What [`classification_report`] finds. Rates are fractions in [0, 1], not percent.

    Attributes:
        label_names (`tuple[str, ...]`): Names of the C classes, in the order of the scores.
        uar (`float`): Unweighted average recall: the mean of the recalls of the classes that occur in the labels.
        war (`float`): Weighted average recall, which is the accuracy: the fraction of samples classified correctly.
        f1 (`float`): Macro F1: the mean of the F1 of the classes that occur in the labels.
        recall (`dict[str, float | None]`): Recall of each class; `None` for one that doesn't occur.
        support (`dict[str, int]`): Number of samples of each class.
        absent_labels (`tuple[str, ...]`): Names of the classes that don't occur, which `uar` and `f1` leave out.
        confusion_matrix (`np.ndarray` of shape `(C, C)`): Counts of samples; rows are the true classes, columns the
            predicted ones.
    """

    label_names: tuple[str, ...]
    uar: float
    war: float
    f1: float
    recall: dict[str, float | None]
    support: dict[str, int]
    absent_labels: tuple[str, ...]
    confusion_matrix: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain Python values that JSON can hold."""
        return {
            "label_names": list(self.label_names),
            "uar": self.uar,
            "war": self.war,
            "f1": self.f1,
            "recall": dict(self.recall),
            "support": dict(self.support),
            "absent_labels": list(self.absent_labels),
            "confusion_matrix": self.confusion_matrix.tolist(),
        }


def classification_report(
    logits_or_scores: ArrayLike, labels: ArrayLike, label_names: Sequence[str]
) -> ClassificationReport:
    """
    Holds a model's scores against the true classes.

    UAR and WAR are what papers on expressions in videos report, defined with DFEW (Jiang et al. 2020,
    [arXiv 2008.05924](https://arxiv.org/abs/2008.05924)). A class without samples has no recall: UAR and F1 are means
    over the classes that occur in `labels`, and the report names the others in `absent_labels`.

    Args:
        logits_or_scores (array or tensor of shape `(N, C)`): Logits or probabilities. The highest one is the
            prediction, of equal ones the first.
        labels (integer array or tensor of shape `(N,)`): The true classes, 0 to C - 1.
        label_names (`Sequence[str]`): The names of the C classes, in order.

    Raises:
        ValueError: if shapes or lengths don't fit, there are no samples, scores are NaN or infinite, labels are not
            integers or out of range, or names repeat; the message names the argument.
        ImportError: if evaluate or scikit-learn is not installed.

    Example:
    ```python
    >>> report = classification_report([[2.0, 1.0], [0.5, 0.1], [0.1, 0.9], [0.2, 0.8]], [0, 1, 1, 1], ["sad", "fear"])
    >>> report.war, report.recall["sad"], report.confusion_matrix.tolist()
    (0.75, 1.0, [[1, 0], [1, 2]])
    ```
    """
    names = _read_label_names(label_names)
    predicted, true = _read_classes(logits_or_scores, labels, names)
    module = _import_module()
    from sklearn.metrics import confusion_matrix

    scores = module.score_classes(predicted, true, len(names))
    matrix = confusion_matrix(true, predicted, labels=np.arange(len(names)))
    support = matrix.sum(axis=1).tolist()
    recalls = [float(recall) if count else None for recall, count in zip(scores["recalls"], support, strict=True)]
    return ClassificationReport(
        label_names=names,
        uar=scores["uar"],
        war=scores["war"],
        f1=scores["f1"],
        recall=dict(zip(names, recalls, strict=True)),
        support=dict(zip(names, support, strict=True)),
        absent_labels=tuple(name for name, count in zip(names, support, strict=True) if not count),
        confusion_matrix=matrix,
    )


def compute_metrics_fn(label_names: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """
    Makes the function that [`~transformers.Trainer`] takes as `compute_metrics`. It computes them with the module of
    `evaluate` in this package, `uar_war`.

    Args:
        label_names (`Sequence[str]`): The names of the C classes, in order.

    Returns:
        A function from predictions to `"uar"`, `"war"`, `"f1"` and, for each class, `"recall_<label>"`, as in
        [`classification_report`]. The recall of a class that doesn't occur is NaN, so that every evaluation has the
        same keys. Of several outputs of the model, the first one must be the logits `(N, C)`. The function raises
        what [`classification_report`] does.

    Raises:
        ValueError: if `label_names` is empty, or names repeat.
        ImportError: if evaluate or scikit-learn is not installed.

    Example:
    ```python
    trainer = Trainer(model, args, eval_dataset=dataset, compute_metrics=compute_metrics_fn(["sad", "happy"]))
    trainer.evaluate()["eval_uar"]
    ```
    """
    names = _read_label_names(label_names)
    module = _import_module()

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions
        if isinstance(logits, tuple):
            logits = logits[0]
        predicted, true = _read_classes(logits, prediction.label_ids, names)
        # every process computes all: in memory, and in a folder of its own, they don't meet
        with tempfile.TemporaryDirectory() as folder:
            metric = module.UarWar(keep_in_memory=True, cache_dir=folder)
            return metric.compute(predictions=predicted, references=true, label_names=names)

    return compute_metrics


def _import_module() -> ModuleType:
    """The `evaluate` module, when it is needed: whoever doesn't train may lack its imports."""
    try:
        from .uar_war import uar_war
    except ImportError as error:
        raise ImportError(
            'Metrics need evaluate and scikit-learn; install them with `pip install "s2d-hf[train]"`.'
        ) from error
    return uar_war


def _read_classes(
    logits_or_scores: ArrayLike, labels: ArrayLike, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes, each of shape (N,), of the arguments of [`classification_report`]."""
    scores = _read_scores("logits_or_scores", logits_or_scores)
    num_samples, num_classes = scores.shape
    true = _read_integers("labels", labels, num_samples, "logits_or_scores")
    if len(names) != num_classes:
        raise ValueError(
            f"`label_names` has {len(names)} names, but `logits_or_scores` has {num_classes} columns; "
            "give one name for each column."
        )
    outside = np.flatnonzero((true < 0) | (true >= num_classes))
    if outside.size:
        raise ValueError(
            f"`labels` must be from 0 to {num_classes - 1}, but {outside.size} of {num_samples} are not, the first "
            f"one, {true[outside[0]]}, at index {outside[0]}."
        )
    return scores.argmax(axis=1), true


def _read_scores(argument: str, values: ArrayLike) -> np.ndarray:
    """Finite scores as a float64 array of shape (N, C)."""
    try:
        # numpy knows neither bfloat16 nor other devices
        values = values.detach().double().cpu() if isinstance(values, torch.Tensor) else values
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{argument}` must be an array of numbers of shape (N, C): {error}") from error
    if scores.ndim != 2:
        raise ValueError(f"`{argument}` must have shape (N, C), a row for each sample, got shape {scores.shape}.")
    if scores.size == 0:
        raise ValueError(f"`{argument}` is empty, of shape {scores.shape}; give at least one sample.")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if broken.size:
        raise ValueError(
            f"`{argument}` must be finite, but {broken.size} of {len(scores)} rows hold NaN or infinity, the first "
            f"one at index {broken[0]}; check the inputs of these samples, and whether the training diverged."
        )
    return scores


def _read_integers(argument: str, values: ArrayLike, length: int, other: str) -> np.ndarray:
    """Integers as an int64 array of shape (length,), the number of rows of the argument `other`."""
    try:
        integers = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{argument}` must be integers of shape (N,): {error}") from error
    if integers.ndim != 1:
        raise ValueError(f"`{argument}` must have shape (N,), an integer for each sample, got shape {integers.shape}.")
    if len(integers) != length:
        raise ValueError(
            f"`{argument}` has {len(integers)} entries, but `{other}` has {length} rows; give one entry for each row."
        )
    if not np.issubdtype(integers.dtype, np.integer):
        raise ValueError(f"`{argument}` must be integers, got an array of {integers.dtype}.")
    return integers.astype(np.int64)


def _read_label_names(label_names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(label_names)
    if not names or isinstance(label_names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`label_names` must be a list of strings, one for each class, got {label_names!r}.")
    repeated = sorted({name if name.isprintable() else repr(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"`label_names` must differ from each other, but {', '.join(repeated)} repeats.")
    return names
