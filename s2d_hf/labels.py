"""The expressions of the benchmarks, in the order in which their models are trained."""

from collections.abc import Iterable

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


def match_name(name: str, known: Iterable[str]) -> str | None:
    """The one of some names that is meant, in any case and with or without its hyphen; `None` if there is none."""
    wanted = name.lower().replace("-", "")
    return next((other for other in known if other.lower().replace("-", "") == wanted), None)


def find_labels(dataset: str) -> tuple[str, ...]:
    """
    The labels of a benchmark by its name, in any case and with or without its hyphen.

    Raises:
        ValueError: if there is no such benchmark.
    """
    name = match_name(dataset, LABELS)
    if name is None:
        raise ValueError(f"Unknown data set {dataset!r}; the labels of {', '.join(LABELS)} are known.")
    return LABELS[name]
