"""The expressions of the benchmarks, in the order in which their models are trained."""

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


def find_labels(dataset: str) -> tuple[str, ...]:
    """
    The labels of a benchmark by its name, in any case and with or without its hyphen.

    Raises:
        ValueError: if there is no such benchmark.
    """
    wanted = dataset.lower().replace("-", "")
    for name, labels in LABELS.items():
        if name.lower().replace("-", "") == wanted:
            return labels
    raise ValueError(f"Unknown data set {dataset!r}; the labels of {', '.join(LABELS)} are known.")
