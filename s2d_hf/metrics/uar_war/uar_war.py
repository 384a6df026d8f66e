"""
UAR, WAR, macro F1 and recalls as a module of Hugging Face's evaluate: `evaluate.load("PATH/TO/uar_war")`.

It stands alone, so that this folder can be published as it is; see its README.md.
"""

from collections.abc import Sequence
from typing import Any, cast

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score

_DESCRIPTION = """
The scores that papers on facial expressions report: UAR (unweighted average recall, the mean of the recalls of the
classes), WAR (weighted average recall, which is the accuracy), macro F1, and the recall of each class. Classes that
don't occur in the references are left out of the means.
"""

_CITATION = """
@inproceedings{jiang2020dfew,
  title={DFEW: A Large-Scale Database for Recognizing Dynamic Facial Expressions in the Wild},
  author={Jiang, Xingxun and Zong, Yuan and Zheng, Wenming and Tang, Chuangao and Xia, Wanchuang and Lu, Cheng and
    Liu, Jiateng},
  booktitle={Proceedings of the 28th ACM International Conference on Multimedia},
  year={2020},
  note={arXiv 2008.05924}
}
"""

_INPUTS = """
Args:
    predictions (list or array of `int`): The predicted classes, as indices from 0.
    references (list or array of `int`): The true classes, as indices from 0.
    label_names (list of `str`, optional): The names of the classes in the order of their indices.
    num_labels (`int`, optional): The number of classes, where there are no names. By default, the classes are those up
        to the highest index that occurs.

Returns:
    `dict` of fractions in [0, 1]: `uar`, `war`, `f1`, and `recall_<name>` (without names, `recall_<index>`) for each
    class, NaN for one that doesn't occur in the references.

Raises:
    ValueError: if inputs are no class indices, are out of range or differ in number, there are none, names repeat, or
        `num_labels` is not their number.

Examples:
    >>> metric = evaluate.load("uar_war")
    >>> metric.compute(predictions=[0, 1, 1, 0], references=[0, 1, 1, 1], label_names=["sad", "happy"])
    {'uar': 0.8333333333333333, 'war': 0.75, 'f1': 0.7333333333333334, 'recall_sad': 1.0, 'recall_happy': 0.6666666666666666}
"""  # noqa: E501


def score_classes(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> dict[str, Any]:
    """
    UAR, WAR, macro F1 and recalls of predicted classes.

    Args:
        predictions, references (`np.ndarray` of shape `(N,)`): Class indices, 0 to `num_labels` - 1; N is not 0.
        num_labels (`int`): The number of classes.

    Returns:
        `"uar"`, `"war"` and `"f1"`, fractions, and `"recalls"`, an array of shape `(num_labels,)`, NaN for classes
        that don't occur in `references`.
    """
    # which classes count is said to every function: scikit-learn would also count classes that are only predicted
    present = np.unique(references)
    recalls = np.full(num_labels, np.nan)
    recalls[present] = recall_score(references, predictions, labels=present, average=None)
    return {
        "uar": float(recall_score(references, predictions, labels=present, average="macro")),
        "war": float(accuracy_score(references, predictions)),
        "f1": float(f1_score(references, predictions, labels=present, average="macro")),
        "recalls": recalls,
    }


# more classes than these are no class indices, as a rule, but a column of other numbers
_MAX_UNNAMED = 10_000


class UarWar(evaluate.Metric):
    """UAR, WAR, macro F1 and recalls; what [`compute`] takes and gives is said in its docstring."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
            reference_urls=["https://arxiv.org/abs/2008.05924"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Adds predicted and true classes, for [`compute`] at the end."""
        # evaluate itself would cut 1.7 to 1
        predictions, references = _read_classes("predictions", predictions), _read_classes("references", references)
        if len(predictions) != len(references):
            raise ValueError(f"There are {len(predictions)} `predictions` and {len(references)} `references`.")
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Adds one predicted and one true class, for [`compute`] at the end."""
        (prediction,) = _read_classes("prediction", None if prediction is None else [prediction])
        (reference,) = _read_classes("reference", None if reference is None else [reference])
        super().add(prediction=prediction, reference=reference, **kwargs)

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        label_names: Sequence[str] | None = None,
        num_labels: int | None = None,
    ) -> dict[str, float]:
        classes = {"predictions": np.asarray(predictions), "references": np.asarray(references)}
        if not len(classes["references"]):
            raise ValueError("There are no `predictions` and `references`: give at least one of each.")
        if label_names is None and num_labels is None:
            num_labels = 1 + max(int(values.max()) for values in classes.values())
            if num_labels > _MAX_UNNAMED:
                raise ValueError(
                    f"`predictions` and `references` go up to {num_labels - 1}: if these are class indices, give "
                    "`num_labels`."
                )
        names = _read_names(label_names, num_labels)
        for argument, values in classes.items():
            outside = np.flatnonzero((values < 0) | (values >= len(names)))
            if outside.size:
                raise ValueError(
                    f"`{argument}` must be from 0 to {len(names) - 1}, but {outside.size} of {len(values)} are not, "
                    f"the first one, {values[outside[0]]}, at index {outside[0]}."
                )
        scores = score_classes(**classes, num_labels=len(names))
        recalls = scores.pop("recalls")
        return scores | {f"recall_{name}": float(value) for name, value in zip(names, recalls, strict=True)}


def _read_classes(argument: str, values: Any) -> np.ndarray:
    """Class indices as an int64 array of shape (N,)."""
    if values is None:
        raise ValueError(f"`{argument}` is missing.")
    try:
        classes = np.asarray(values if hasattr(values, "__array__") else list(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{argument}` must be class indices, one for each sample: {error}") from error
    if classes.ndim != 1:
        raise ValueError(
            f"`{argument}` must be class indices of shape (N,), got shape {classes.shape}; of logits, take the argmax."
        )
    if classes.size and not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"`{argument}` must be class indices, integers from 0; got an array of {classes.dtype}.")
    return classes.astype(np.int64)


def _read_names(label_names: Sequence[str] | None, num_labels: int | None) -> list[str]:
    """What results call the classes: their names, or else their indices."""
    if num_labels is not None and (not isinstance(num_labels, int) or num_labels < 1):
        raise ValueError(f"`num_labels` must be a whole number, at least 1, got {num_labels!r}.")
    if label_names is None:
        return [str(index) for index in range(cast(int, num_labels))]  # one of the two is given
    names = list(label_names)
    if not names or isinstance(label_names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`label_names` must be a list of strings, one for each class, got {label_names!r}.")
    repeated = sorted({name if name.isprintable() else repr(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"`label_names` must differ from each other, but {', '.join(repeated)} repeats.")
    if num_labels is not None and num_labels != len(names):
        raise ValueError(f"`num_labels` is {num_labels}, and `label_names` has {len(names)} names.")
    return names
