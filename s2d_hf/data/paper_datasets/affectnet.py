"""AffectNet: images of faces from the internet, 8 expressions, or 7 without contempt, one split."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ...file_names_s2d import natural_order
from ...labels import LABELS
from ..sources import Sample
from .layout import find_folder, index_label
from .registry import ExpectedCounts, PaperDataset, SplitContents, register

SUFFIX = "_exp.npy"
# the validation set is what is published for tests: the test set has no labels
FOLDERS = {"train": "train_set", "test": "val_set"}


def read_affectnet(root: Path, split: str, fold: str, labels: Sequence[str]) -> SplitContents:
    """
    The faces of a split whose expression is among `labels`, the first of the eight.

    Read are the files `{train,val}_set/annotations/{number}_exp.npy`, each an array of one string or integer, the code
    of the expression; none is unpickled. That image is `{train,val}_set/images/{number}.jpg`. Samples are in the order
    of their numbers.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if there are no such files, one can't be read, or its code is not 0 to 7.
    """
    annotations = find_folder(root, (f"{FOLDERS[split]}/annotations",), f"annotations of the {split} split")
    images = find_folder(root, (f"{FOLDERS[split]}/images",), f"images of the {split} split")
    paths = [path for path in annotations.iterdir() if path.name.endswith(SUFFIX)]
    if not paths:
        raise ValueError(f"{annotations} holds no files that end in {SUFFIX}.")
    paths.sort(key=lambda path: natural_order(path.name))
    chunks = [paths[start : start + 500] for start in range(0, len(paths), 500)]
    with ThreadPoolExecutor(8) as pool:  # they may be behind a network
        codes = [code for codes in pool.map(_read_codes, chunks) for code in codes]
    samples = []
    for path, code in zip(paths, codes, strict=True):
        if code < len(labels):
            name = f"{path.name.removesuffix(SUFFIX)}.jpg"
            samples.append(Sample(f"{FOLDERS[split]}/{name}", code, path=images / name))
    return SplitContents(samples, annotations)


def _read_codes(paths: Sequence[Path]) -> list[int]:
    return [_read_code(path) for path in paths]


def _read_code(path: Path) -> int:
    try:
        text = _parse_annotation(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    return index_label(text, LABELS["AffectNet-8"], str(path))


# hundreds of thousands of files have one of eight contents
@lru_cache(maxsize=64)
def _parse_annotation(content: bytes) -> str:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, MemoryError) as error:  # a header may claim to be of any size
        raise ValueError(f"no array of numpy without pickled objects: {error}") from error
    if array.size != 1 or array.dtype.kind not in "Uiu":
        raise ValueError("must hold one string or integer, the code of an expression.")
    return str(array.item())


CITATION = (
    "Mollahosseini, Hasani and Mahoor, AffectNet: A Database for Facial Expression, Valence, and Arousal Computing in "
    "the Wild, IEEE Transactions on Affective Computing 2019"
)
# https://github.com/coder-xinxiaohai/AffectNet_Processing for seven expressions; published for eight are 287,651 and
# 4,000 images, and where people count the files of the validation set, they find 3,999, one of contempt less
TRAIN_LABELS = dict(
    zip(LABELS["AffectNet-8"], (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750), strict=True)
)
TRAIN_LABELS_7 = {label: TRAIN_LABELS[label] for label in LABELS["AffectNet-7"]}
TEST_LABELS_7 = dict.fromkeys(LABELS["AffectNet-7"], 500)

AFFECTNET_7 = register(
    PaperDataset(
        name="AffectNet-7",
        kind="image",
        reader=partial(read_affectnet, labels=LABELS["AffectNet-7"]),
        citation=CITATION,
        expected={
            ("1", "train"): ExpectedCounts(283_901, per_class=TRAIN_LABELS_7),
            ("1", "test"): ExpectedCounts(3_500, per_class=TEST_LABELS_7),
        },
    )
)
AFFECTNET_8 = register(
    PaperDataset(
        name="AffectNet-8",
        kind="image",
        reader=partial(read_affectnet, labels=LABELS["AffectNet-8"]),
        citation=CITATION,
        expected={
            ("1", "train"): ExpectedCounts(287_651, per_class=TRAIN_LABELS),
            ("1", "test"): ExpectedCounts(4_000, distributed=3_999, per_class=TEST_LABELS_7),
        },
    )
)
