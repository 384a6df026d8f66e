"""The data sets by name: how each is split and read, how large it is, and what the authors of S2D reported on it.

To add one, see `__init__.py`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ...labels import LABELS, match_name
from ...texts_s2d import listed
from ..sources import LabelledSamples, Sample
from .layout import find_missing


class Score(NamedTuple):
    """Mean of the recall of the classes (UAR) and accuracy (WAR), in percent."""

    uar: float
    war: float


@dataclass(frozen=True)
class AuthorsScores:
    """What the authors of S2D reported: on each fold, by its name, and their mean. Not a result of this package."""

    folds: Mapping[str, Score]
    mean: Score

    @classmethod
    def of_folds(cls, scores: Sequence[tuple[float, float]], mean: tuple[float, float]) -> "AuthorsScores":
        """From UAR and WAR of the folds `"1"`, `"2"` and so on, and their mean."""
        return cls({str(fold): Score(*score) for fold, score in enumerate(scores, start=1)}, Score(*mean))


@dataclass(frozen=True)
class ExpectedCounts:
    """
    How large a split of a fold is.

    Args:
        samples (`int`, *optional*): Samples as published; not known if not given.
        distributed (`int`, *optional*): Samples in the files that are distributed, where these are not as many. Both
            numbers are accepted.
        per_class (`Mapping[str, int]`): Samples of labels; those of which it is known.
        rows (`int`, *optional*): Rows of the split in the annotation file, where not each of them is a sample.
    """

    samples: int | None = None
    distributed: int | None = None
    per_class: Mapping[str, int] = field(default_factory=dict)
    rows: int | None = None


@dataclass(frozen=True)
class SplitContents:
    """
    What the reader of a data set found.

    Args:
        samples (`list[Sample]`): The samples, whose files need not exist.
        source (`Path`): The annotation file, or the folder of annotations, for messages.
        num_rows (`int`, *optional*): Rows of the split in it, where not each of them is a sample.
    """

    samples: list[Sample]
    source: Path
    num_rows: int | None = None


@dataclass(frozen=True, eq=False)
class PaperDataset:
    """
    A data set in the layout in which it is distributed.

    Args:
        name (`str`): The name.
        kind (`str`): `"video"` or `"image"`.
        reader (`Callable`): From the root folder, the split and the fold to [`SplitContents`].
        citation (`str`): The paper of the data.
        folds (`tuple[str, ...]`): Names of the folds; a data set with a fixed split has one, `"1"`.
        splits (`tuple[str, ...]`): Names of the splits of each fold.
        expected (`Mapping[tuple[str, str], ExpectedCounts]`): Sizes by fold and split, where they are known.
        reported (`Mapping[str, AuthorsScores]`): The scores of the authors of S2D, `"plain"` and with
            `"oversampling"`, where they are known.
        own_labels (`tuple[str, ...]`, *optional*): The labels in the order of their indices, where they are not
            `LABELS[name]`, which has those of the authors' checkpoints.
    """

    name: str
    kind: Literal["video", "image"]
    reader: Callable[[Path, str, str], SplitContents]
    citation: str
    folds: tuple[str, ...] = ("1",)
    splits: tuple[str, ...] = ("train", "test")
    expected: Mapping[tuple[str, str], ExpectedCounts] = field(default_factory=dict)
    reported: Mapping[str, AuthorsScores] = field(default_factory=dict)
    own_labels: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in the order of their indices."""
        return LABELS[self.name] if self.own_labels is None else self.own_labels

    def read(
        self,
        root: str | Path,
        split: str,
        fold: str | int | None = None,
        check: bool = True,
        check_counts: bool = True,
    ) -> LabelledSamples:
        """
        The samples of a split, in the order of its annotations.

        Args:
            root (`str` or `Path`): The folder of the data set.
            split (`str`): One of `splits`.
            fold (`str` or `int`, *optional*): One of `folds`; needed if there are several.
            check (`bool`): Look whether each clip or image exists, by listing the folders that they lie in. Nothing is
                decoded; [`check_sources`] does that.
            check_counts (`bool`): Compare the numbers of samples with the published ones. For a part of a data set,
                pass `False`.

        Returns:
            [`LabelledSamples`] with the data set's labels. Videos are folders of frames.

        Raises:
            FileNotFoundError: if folders or annotation files are not where they are distributed, or clips or images
                are missing; the message says what was looked for, or names the first ten and their number.
            ValueError: if there is no such split or fold, annotations are malformed or contradict each other, or the
                numbers of samples are not the published ones.
        """
        root = Path(root)
        if split not in self.splits:
            raise ValueError(f"{self.name} has the splits {', '.join(self.splits)}, and not {split!r}.")
        fold = self._choose_fold(fold)
        if not root.is_dir():
            raise FileNotFoundError(f"{self.name}: there is no folder {root}.")
        contents = self.reader(root, split, fold)
        place = f"{self.name}, {split} split" + (f" of fold {fold}" if len(self.folds) > 1 else "")
        if not contents.samples:
            raise ValueError(f"{place}: {contents.source} holds no samples of it.")
        self._check_contradictions(contents)
        if check_counts:
            self._check_counts(contents, self.expected.get((fold, split), ExpectedCounts()), place)
        if check:
            missing = find_missing(contents.samples, self.kind)
            if missing:
                what = "folders of frames" if self.kind == "video" else "images"
                lines = listed((f"{sample.name}: {sample.path}" for sample in missing), 10, between="\n")
                raise FileNotFoundError(
                    f"{place}: {len(missing)} of {len(contents.samples)} {what} are missing:\n{lines}"
                )
        return LabelledSamples(contents.samples, self.labels)

    def _choose_fold(self, fold: str | int | None) -> str:
        if fold is None and len(self.folds) == 1:
            return self.folds[0]
        if str(fold) not in self.folds:
            missing = "pass `fold`, one of them" if fold is None else f"and not {fold!r}"
            raise ValueError(f"{self.name} has the folds {', '.join(self.folds)}: {missing}.")
        return str(fold)

    def _check_contradictions(self, contents: SplitContents) -> None:
        label_of: dict[str, int] = {}
        for sample in contents.samples:
            other = label_of.setdefault(sample.name, sample.label)
            if other != sample.label:
                raise ValueError(
                    f"{contents.source}: {sample.name} is labelled {self.labels[other]} and "
                    f"{self.labels[sample.label]}."
                )

    def _check_counts(self, contents: SplitContents, expected: ExpectedCounts, place: str) -> None:
        problems = []
        accepted = [count for count in (expected.samples, expected.distributed) if count is not None]
        if accepted and len(contents.samples) not in accepted:
            either = " or ".join(f"{count:,}" for count in accepted)
            problems.append(f"expected {either} samples, found {len(contents.samples):,}")
        if expected.rows is not None and contents.num_rows != expected.rows:
            problems.append(f"expected {expected.rows:,} rows, found {contents.num_rows:,}")
        counts = Counter(self.labels[sample.label] for sample in contents.samples)
        for label, count in expected.per_class.items():
            if counts[label] != count:
                problems.append(f"expected {count:,} samples of {label}, found {counts[label]:,}")
        if problems:
            raise ValueError(
                f"{place}: {'; '.join(problems)}, in {contents.source}. To read a part of {self.name}, pass "
                "`check_counts=False`."
            )


PAPER_DATASETS: dict[str, PaperDataset] = {}


def register(dataset: PaperDataset) -> PaperDataset:
    """
    Makes a data set known by its name, and gives it back.

    Raises:
        ValueError: if the name is taken, or there are no labels.
    """
    if dataset.name in PAPER_DATASETS:
        raise ValueError(f"There already is a data set {dataset.name!r}.")
    if dataset.own_labels is None and dataset.name not in LABELS:
        raise ValueError(f"{dataset.name!r} needs `own_labels`: `LABELS` has none.")
    PAPER_DATASETS[dataset.name] = dataset
    return dataset


def find_paper_dataset(name: str) -> PaperDataset:
    """
    A data set by its name, in any case and with or without its hyphen.

    Raises:
        ValueError: if there is no such data set.
    """
    known = match_name(name, PAPER_DATASETS)
    if known is None:
        raise ValueError(f"Unknown data set {name!r}; {', '.join(PAPER_DATASETS)} are known.")
    return PAPER_DATASETS[known]


__all__ = [
    "PAPER_DATASETS",
    "AuthorsScores",
    "ExpectedCounts",
    "PaperDataset",
    "Score",
    "SplitContents",
    "find_paper_dataset",
    "register",
]
