"""The expressions of the data sets, in the order in which their models are trained."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from transformers import PretrainedConfig

LABELS: dict[str, tuple[str, ...]] = {
    "DFEW": ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"),
    "FERV39k": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "MAFW": (
        "anger", "anxiety", "contempt", "disappointment", "disgust", "fear", "happiness", "helplessness", "neutral",
        "sadness", "surprise",
    ),
    # the codes of AffectNet's annotation files, 0 to 6 and 0 to 7
    "AffectNet-7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
    "AffectNet-8": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
    # as its label file counts them, 1 to 7
    "RAF-DB": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    # the columns of its votes
    "FERPlus": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
}  # fmt: skip


# how names of files mention them, in lower case, as words of their own
_MENTIONS = {
    "DFEW": r"dfew",
    "FERV39k": r"ferv[-_ ]?39k?",
    "MAFW": r"mafw",
    "AffectNet": r"affect[-_ ]?net(?:[-_ ]?([78])(?![0-9]))?",
    "RAF-DB": r"raf[-_ ]?db",
    "FERPlus": r"fer[-_ ]?(?:plus|\+)",
}
# Beside a mention, these may say that it is not the data set of the classes: prepositions, and other data sets.
_DOUBTS = re.compile(
    r"(?<![a-z])(?:no|not|non|without|from|on|to|for|vs|than|and|or|fine-?tuned?|transfer(?:red)?|aff-?wild|afew|sfew|caer|"
    r"casme|ck\+?|crema|emotionet|expw|fer-?2013|jaffe|kdef|mmi|oulu|ravdess|samm|smic)(?![a-z])"
)


def label_names(config: "PretrainedConfig") -> tuple[str, ...]:
    """The names of a model's labels, in the order of its classes."""
    return tuple(config.id2label[i] for i in sorted(config.id2label))


def match_name(name: str, known: Iterable[str]) -> str | None:
    """The one of some names that is meant, in any case and with or without its hyphen; `None` if there is none."""
    wanted = name.lower().replace("-", "")
    return next((other for other in known if other.lower().replace("-", "") == wanted), None)


def find_labels(dataset: str) -> tuple[str, ...]:
    """
    The labels of a data set by its name, in any case and with or without its hyphen.

    Raises:
        ValueError: if there is no such data set.
    """
    name = match_name(dataset, LABELS)
    if name is None:
        raise ValueError(f"Unknown data set {dataset!r}; the labels of {', '.join(LABELS)} are known.")
    return LABELS[name]


def dataset_in_name(name: str | Path, num_classes: int) -> str | None:
    """
    The data set whose name stands in a checkpoint's, if that is unmistakable.

    Three of them have 7 classes, each in an order of its own, so nothing is guessed: there must be just one, and its
    number of classes that of the checkpoint.

    Args:
        name (`str` or `Path`): A file, whose own name counts, or an address, of which the path within the repository
            counts as well.
        num_classes (`int`): Of the checkpoint's classifier.

    Returns:
        `str`: a key of [`LABELS`], or `None`.

    Example:
    ```python
    >>> dataset_in_name("ckpts/pretrain-AffectNet-7.pth", 7), dataset_in_name("DFEW_from_AffectNet-7.pth", 7)
    ('AffectNet-7', None)
    ```
    """
    name = str(name)
    where = urlsplit(name).path.split("/", 2)[-1] if "://" in name else Path(name).name
    where = where.lower()
    if _DOUBTS.search(where):
        return None
    found = {
        dataset: list(re.finditer(rf"(?<![a-z0-9]){pattern}(?![a-z])", where))
        for dataset, pattern in _MENTIONS.items()
    }
    said = [dataset for dataset, mentions in found.items() if mentions]
    if len(said) != 1:
        return None
    dataset = said[0]
    if dataset == "AffectNet":
        # without a number, the classes say which of the two it is
        numbers = {mention.group(1) for mention in found[dataset]} - {None} or {str(num_classes)}
        dataset = f"AffectNet-{numbers.pop()}" if len(numbers) == 1 else ""
    return dataset if len(LABELS.get(dataset, ())) == num_classes else None
