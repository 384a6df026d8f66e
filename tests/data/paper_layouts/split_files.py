"""Reads the miniatures and changes their split files."""

from pathlib import Path

from s2d_hf.data import LabelledSamples
from s2d_hf.data.paper_datasets import PaperDataset

# an array of numpy whose header claims 36 TB
HUGE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<U1', 'fortran_order': False, 'shape': (9999999999999,), }".ljust(118)


def pairs(samples: LabelledSamples) -> list[tuple[str, int]]:
    return [(sample.name, sample.label) for sample in samples]


def read(dataset: PaperDataset, root: Path, split: str = "train", fold: str | None = None, **arguments):
    fold = fold or dataset.folds[0]
    return dataset.read(root, split, fold, **({"check_counts": False} | arguments))


def replace(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def write_rows(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
