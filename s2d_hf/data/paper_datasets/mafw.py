"""MAFW: clips of movies, shows and short videos, 11 single expressions, 5 folds."""

from pathlib import Path

from ...labels import LABELS
from ..sources import Sample
from .layout import find_file, find_folder, index_label, parse_integer, read_labels
from .registry import AuthorsScores, ExpectedCounts, PaperDataset, SplitContents, register

FRAMES = ("frames_crop_align_224", "data/frames/frames_crop_align_224")
# of the authors of S2D, as distributed, as others unpack it, and right in the root
SPLITS = (
    "anno/single/no_caption/",
    "Train & Test Set/single/no_caption/",
    "split/single/no_caption/",
    "single/no_caption/",
    "",
)


def read_mafw(root: Path, split: str, fold: str) -> SplitContents:
    """
    The clips of a fold that have a single expression.

    Read is `set_{fold}/{split}.csv`, as the authors of S2D release it, with the columns `video_name` (a number, with
    or without leading zeros) and `labels`, an index from 0 into the expressions by alphabet; or else, as it is
    distributed, `set_{fold}/{split}.txt`, with lines like `00025.mp4 anger`. They lie in one of the folders of
    `SPLITS`. A clip is the folder of frames `00025` in one of those of `FRAMES`.

    Raises:
        FileNotFoundError: if the folder or the file is missing.
        ValueError: if the file is malformed, or a label is unknown, as the compound ones are.
    """
    clips = find_folder(root, FRAMES, "frames")
    path = find_file(
        root,
        [f"{folder}set_{fold}/{split}{suffix}" for folder in SPLITS for suffix in (".csv", ".txt")],
        f"the {split} split of fold {fold}",
    )
    samples = []
    for row in read_labels(path, ("video_name", "labels")):
        name = f"{parse_integer(row.name.removesuffix('.mp4'), row.place, 'video_name'):05d}"
        samples.append(Sample(name, index_label(row.label, LABELS["MAFW"], row.place), path=clips / name))
    return SplitContents(samples, path)


# https://github.com/MSA-LMC/S2D: lengths of its split files. Of one expression the number is checked too: the order in
# which other code has the expressions can't be told from indices otherwise.
NUM_TRAIN = {"1": (7_333, 857), "2": (7_335, 857), "3": (7_339, 858), "4": (7_340, 858), "5": (7_341, 858)}
NUM_TEST = {"1": (1_839, 215), "2": (1_837, 215), "3": (1_833, 214), "4": (1_832, 214), "5": (1_831, 214)}

MAFW = register(
    PaperDataset(
        name="MAFW",
        kind="video",
        reader=read_mafw,
        citation=(
            "Liu et al., MAFW: A Large-scale, Multi-modal, Compound Affective Database for Dynamic Facial Expression "
            "Recognition in the Wild, ACM Multimedia 2022"
        ),
        folds=("1", "2", "3", "4", "5"),
        expected={
            (fold, split): ExpectedCounts(count, per_class={"surprise": surprised})
            for split, counts in (("train", NUM_TRAIN), ("test", NUM_TEST))
            for fold, (count, surprised) in counts.items()
        },
        reported={
            "plain": AuthorsScores.of_folds(
                [(32.78, 46.76), (40.43, 55.96), (47.01, 62.08), (45.66, 62.61), (43.45, 59.42)], (41.86, 57.37)
            ),
            "oversampling": AuthorsScores.of_folds(
                [(36.16, 44.21), (41.94, 51.22), (48.08, 61.48), (47.67, 60.64), (43.16, 58.55)], (43.40, 55.22)
            ),
        },
    )
)
