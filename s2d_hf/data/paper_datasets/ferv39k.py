"""FERV39k: clips of 22 kinds of scenes, 7 expressions, one split."""

import re
from pathlib import Path

from ...labels import LABELS
from ..sources import Sample
from .layout import Row, find_file, find_folder, index_label, read_labels
from .registry import AuthorsScores, ExpectedCounts, PaperDataset, SplitContents, register

# of the authors of S2D, and as distributed
FILES = ("Annotation/{split}.csv", "{split}.csv", "4_setups/All_scenes/{split}_All.csv", "{split}_All.csv")


def read_ferv39k(root: Path, split: str, fold: str) -> SplitContents:
    """
    The clips of the split over all scenes.

    Read is the first of `FILES` that exists: either as the authors of S2D release it, with the columns `path` and
    `id`, an index from 0, or as it is distributed, with lines like `Crime/Angry/0063 Angry`. A clip is the folder of
    frames `2_ClipsforFaceCrop/Crime/Angry/0063`, and its label must be the one in that path.

    Raises:
        FileNotFoundError: if the folder or the file is missing.
        ValueError: if the file is malformed, a label is unknown, or it is another than the path's.
    """
    clips = find_folder(root, ("2_ClipsforFaceCrop",), "clips")
    path = find_file(root, [file.format(split=split) for file in FILES], f"the {split} split")
    return SplitContents([_read_row(row, clips) for row in read_labels(path, ("path", "id"))], path)


def _read_row(row: Row, clips: Path) -> Sample:
    labels = LABELS["FERV39k"]
    parts = row.name.split("/")
    # also keeps a path from leading out of the folder
    if len(parts) != 3 or not all(re.fullmatch(r"[\w-]+", part) for part in parts):
        raise ValueError(f"{row.place}: expected a path like Crime/Angry/0063, got {row.name!r}.")
    label = index_label(row.label, labels, row.place)
    if parts[1].lower() != labels[label]:
        raise ValueError(
            f"{row.place}: {row.name} is labelled {row.label}, which stands for {labels[label]}; the indices 0 to "
            f"{len(labels) - 1} stand for {', '.join(labels)}."
        )
    return Sample(row.name, label, path=clips / row.name)


FERV39K = register(
    PaperDataset(
        name="FERV39k",
        kind="video",
        reader=read_ferv39k,
        citation=(
            "Wang et al., FERV39k: A Large-Scale Multi-Scene Dataset for Facial Expression Recognition in Videos, "
            "CVPR 2022"
        ),
        expected={("1", "train"): ExpectedCounts(31_088), ("1", "test"): ExpectedCounts(7_847)},
        reported={
            "plain": AuthorsScores.of_folds([(41.28, 52.56)], (41.28, 52.56)),
            "oversampling": AuthorsScores.of_folds([(43.97, 46.21)], (43.97, 46.21)),
        },
    )
)
