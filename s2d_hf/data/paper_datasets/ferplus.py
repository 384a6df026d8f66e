"""FERPlus (FER+): the images of FER2013 with new labels, votes of ten people, 8 expressions, one split."""

import re
from collections.abc import Sequence
from pathlib import Path

from ...labels import LABELS
from ..sources import Sample
from .layout import find_file, find_folder, parse_integer, read_csv
from .registry import ExpectedCounts, PaperDataset, SplitContents, register

HEADER = ("Usage", "Image name", *LABELS["FERPlus"], "unknown", "NF")
# names of the rows' usage, and of the folder that their images are extracted to
USAGES = {
    "train": ("Training", "FER2013Train"),
    "validation": ("PublicTest", "FER2013Valid"),
    "test": ("PrivateTest", "FER2013Test"),
}


def find_majority(votes: Sequence[int]) -> int | None:
    """
    The expression that most people voted for, as the authors of FER+ take it where they train with the majority
    (Barsoum et al., ICMI 2016; `src/ferplus.py` of https://github.com/microsoft/FERPlus): votes of a single person are
    left out, and of the others one choice must have more than half. So there are no ties: they are left out, as images
    without a majority are.

    Args:
        votes (`Sequence[int]`): Of the eight expressions, for "unknown" and for "not a face".

    Returns:
        The index of the expression, or `None` if there is no majority, or it is "unknown" or "not a face".
    """
    counted = [vote if vote > 1 else 0 for vote in votes]
    most = max(counted)
    index = counted.index(most)
    return index if 2 * most > sum(counted) and index < len(LABELS["FERPlus"]) else None


def read_ferplus(root: Path, split: str, fold: str) -> SplitContents:
    """
    The images of a split that have a majority; see [`find_majority`].

    Read is `fer2013new.csv`, in the root or `data`, with the columns of `HEADER`. Of its `Usage`, Training is the
    train split, PublicTest the validation split and PrivateTest the test split. Rows without an image's name are left
    out: theirs is no face. Images are those that the authors' `generate_training_data.py` extracts from FER2013, such
    as `FER2013Train/fer0000000.png`, in the root, `data` or `images`.

    Raises:
        FileNotFoundError: if the folder or the file is missing.
        ValueError: if the file is malformed.
    """
    usage, folder = USAGES[split]
    path = find_file(root, ("fer2013new.csv", "data/fer2013new.csv"), "labels")
    images = find_folder(root, [f"{parent}{folder}" for parent in ("", "data/", "images/")], f"the {split} images")
    known = [name for name, _ in USAGES.values()]
    samples, num_rows = [], 0
    for place, row_usage, name, *texts in read_csv(path, HEADER):
        if row_usage not in known:
            raise ValueError(f"{place}: the usage must be one of {', '.join(known)}, got {row_usage!r}.")
        if name and re.fullmatch(r"fer[0-9]+\.png", name) is None:
            raise ValueError(f"{place}: expected an image's name like fer0000000.png, got {name!r}.")
        choices = zip(HEADER[2:], texts, strict=True)
        votes = [parse_integer(text, place, f"number of votes for {choice}") for choice, text in choices]
        if row_usage != usage:
            continue
        num_rows += 1
        label = find_majority(votes)
        if name and label is not None:
            samples.append(Sample(name, label, path=images / name))
    return SplitContents(samples, path, num_rows)


FERPLUS = register(
    PaperDataset(
        name="FERPlus",
        kind="image",
        reader=read_ferplus,
        citation=(
            "Barsoum et al., Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label "
            "Distribution, ICMI 2016"
        ),
        splits=("train", "validation", "test"),
        # Goodfellow et al., Challenges in Representation Learning, 2013; how many have a majority is not published
        expected={
            ("1", "train"): ExpectedCounts(rows=28_709),
            ("1", "validation"): ExpectedCounts(rows=3_589),
            ("1", "test"): ExpectedCounts(rows=3_589),
        },
    )
)
