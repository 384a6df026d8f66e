"""RAF-DB: images of faces from the internet, 7 basic expressions, one split."""

import re
from pathlib import Path

from ...labels import LABELS
from ..sources import Sample
from .layout import find_file, find_folder, index_label, read_labels
from .registry import ExpectedCounts, PaperDataset, SplitContents, register

# the folder of the basic expressions itself, or the one around it; or only the two that are read
LABEL_FILES = tuple(f"{folder}list_patition_label.txt" for folder in ("EmoLabel/", "basic/EmoLabel/", ""))
ALIGNED_FOLDERS = ("Image/aligned", "basic/Image/aligned", "aligned")


def read_raf_db(root: Path, split: str, fold: str) -> SplitContents:
    """
    The aligned faces of a split.

    Read is `list_patition_label.txt` (spelled so), in one of the places of `LABEL_FILES`, with lines like
    `train_00001.jpg 5`; labels count from 1. That image is `train_00001_aligned.jpg` in one of the folders of
    `ALIGNED_FOLDERS`.

    Raises:
        FileNotFoundError: if the folder or the file is missing.
        ValueError: if the file is malformed, or a label is not 1 to 7.
    """
    images = find_folder(root, ALIGNED_FOLDERS, "aligned faces")
    path = find_file(root, LABEL_FILES, "labels")
    samples = []
    for row in read_labels(path):
        match = re.fullmatch(r"((train|test)_[0-9]+)\.jpg", row.name)
        if match is None:
            raise ValueError(f"{row.place}: expected a name like train_00001.jpg, got {row.name!r}.")
        label = index_label(row.label, LABELS["RAF-DB"], row.place, base=1)
        if match[2] == split:
            name = f"{match[1]}_aligned.jpg"
            samples.append(Sample(name, label, path=images / name))
    return SplitContents(samples, path)


# The totals are those of the paper. Public code for RAF-DB that weights the expressions has these numbers of each, and
# they add up to the totals.
TRAIN_LABELS = dict(zip(LABELS["RAF-DB"], (1_290, 281, 717, 4_772, 1_982, 705, 2_524), strict=True))
TEST_LABELS = dict(zip(LABELS["RAF-DB"], (329, 74, 160, 1_185, 478, 162, 680), strict=True))

RAF_DB = register(
    PaperDataset(
        name="RAF-DB",
        kind="image",
        reader=read_raf_db,
        citation=(
            "Li, Deng and Du, Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition "
            "in the Wild, CVPR 2017"
        ),
        expected={
            ("1", "train"): ExpectedCounts(12_271, per_class=TRAIN_LABELS),
            ("1", "test"): ExpectedCounts(3_068, per_class=TEST_LABELS),
        },
    )
)
