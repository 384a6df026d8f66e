"""Labelled collections of videos and images in one form, from folders, tables and datasets of the Hub."""

import csv
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from ..file_names_s2d import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_url, natural_order
from ..frames_s2d import read_image, scale_to_eight_bit, to_rgb
from ..texts_s2d import listed
from ..video_reading_s2d import check_video, read_video

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)

Kind = Literal["video", "image"]
KINDS: tuple[Kind, ...] = ("video", "image")


@dataclass(frozen=True)
class HubItem:
    """One video or image of a `datasets.Dataset` whose column is not decoded: `{"path": ..., "bytes": ...}`."""

    dataset: "datasets.Dataset"
    column: str
    index: int

    def load(self) -> dict[str, Any]:
        """The stored path and bytes; one of them may be `None`."""
        return self.dataset[self.index][self.column] or {}


@contextmanager
def stored_file(content: bytes, stored_path: str | None) -> Iterator[Path]:
    """A temporary file of a dataset's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        # of the stored name only a plain suffix is used: it comes with the data
        suffix = re.search(r"\.\w{1,8}$", stored_path or "")
        file = Path(folder) / f"video{suffix.group() if suffix else ''}"
        file.write_bytes(content)
        yield file


@dataclass(frozen=True)
class Sample:
    """
    One labelled video or image: at `path` (a file, a folder of frames or an http(s) address), or in `item`.

    `name` tells it apart in messages and predictions, and `label` is an index into the collection's `labels`.
    """

    name: str
    label: int
    path: str | Path | None = None
    item: HubItem | None = None


class LabelledSamples(Sequence[Sample]):
    """
    A sequence of [`Sample`] and the `labels` that their indices name. Slices and [`select`] keep the labels.

    Raises:
        ValueError: if there are no samples, labels repeat, or a sample's label is no index into them.
    """

    def __init__(self, samples: Sequence[Sample], labels: Sequence[str]):
        self.samples = tuple(samples)
        self.labels = _check_labels(labels)
        if not self.samples:
            raise ValueError("There are no samples.")
        for sample in self.samples:
            if not 0 <= sample.label < len(self.labels):
                raise ValueError(
                    f"{sample.name}: the label {sample.label} is outside 0..{len(self.labels) - 1}, the indices of "
                    f"{', '.join(self.labels)}. Labels that count from 1 must be shifted or named."
                )

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "LabelledSamples": ...
    def __getitem__(self, index: int | slice) -> "Sample | LabelledSamples":
        if isinstance(index, slice):
            return LabelledSamples(self.samples[index], self.labels)
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __repr__(self) -> str:
        return f"LabelledSamples({len(self)} samples, labels={self.labels})"

    def select(self, indices: Sequence[int]) -> "LabelledSamples":
        """The samples at `indices`, in that order."""
        return LabelledSamples([self.samples[index] for index in indices], self.labels)


def from_class_folders(
    root: str | Path, kind: Literal["video", "image"] = "video", labels: Sequence[str] | None = None
) -> LabelledSamples:
    """
    A folder with one folder per class, `root/happy/clip1.mp4`.

    Args:
        root (`str` or `Path`): The folder.
        kind (`str`): `"video"`: the classes hold video files, or folders of frames. `"image"`: they hold images.
        labels (`Sequence[str]`, *optional*): The labels in the order of their indices; the folders' names, sorted, if
            not given. There may be more labels than folders, as in a small validation set; a warning names them.

    Returns:
        [`LabelledSamples`] by label and then by the numbers in their names (`clip2` before `clip10`). Names are paths
        below `root`. Hidden files and folders (`.DS_Store`) are passed over; a warning names other files that are no
        videos or images.

    Raises:
        FileNotFoundError: if `root` is no folder.
        ValueError: if a folder is not among `labels`, a class is empty, or folders are nested deeper than above.
    """
    _check_kind(kind)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    folders = {path.name: path for path in _visible(root) if path.is_dir()}
    if not folders:
        raise ValueError(f"{root} holds no folders named by class.")
    labels = _check_labels(sorted(folders) if labels is None else labels)
    unknown = sorted(set(folders) - set(labels))
    if unknown:
        raise ValueError(f"{root} holds folders that are not among `labels`: {listed(unknown, 10)}.")
    missing = [label for label in labels if label not in folders]
    if missing:
        logger.warning(f"{root} holds no samples of {listed(missing, 10)}.")
    samples, passed_over = [], []
    for index, label in enumerate(labels):
        if label not in folders:
            continue
        found, others = _list_class(folders[label], kind)
        if not found:
            raise ValueError(f"The folder {folders[label]} holds no {kind}s.")
        samples += [Sample(path.relative_to(root).as_posix(), index, path=path) for path in found]
        passed_over += [path.relative_to(root).as_posix() for path in others]
    if passed_over:
        logger.warning(f"{root}: passed over files that are no {kind}s: {listed(passed_over, 10)}.")
    return LabelledSamples(samples, labels)


def from_table(
    path: str | Path, root: str | Path | None = None, labels: Sequence[str] | None = None
) -> LabelledSamples:
    """
    A table of paths and labels: a CSV file with a header, separated by commas or semicolons, or a JSONL file with one
    object per line.

    Args:
        path (`str` or `Path`): The `.csv` or `.jsonl` file, in UTF-8, with the columns `path` and `label`; others are
            ignored. Labels are names, in upper or lower case, or indices that count from 0 (`1` or `1.0`).
        root (`str` or `Path`, *optional*): Where relative paths begin; the table's folder if not given. http(s)
            addresses stay as they are.
        labels (`Sequence[str]`, *optional*): The labels in the order of their indices; if not given, the names in the
            table, sorted, or the indices in it as names. The latter must have no gap.

    Returns:
        [`LabelledSamples`] in the table's order. Names are the paths as the table has them. Whether the files exist is
        for [`check_sources`] to find.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: if it is malformed, a label is unknown, or a file has two labels, under one name or several; the
            message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}.")
    readers: dict[str, Callable[[Path], list[tuple[int, str, Any]]]] = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must be a .csv or a .jsonl file.")
    try:
        rows = readers[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error}.") from error
    if not rows:
        raise ValueError(f"{path} has no rows.")
    places = [f"{path}, line {line}" for line, _, _ in rows]
    indices, labels = _index_labels([label for _, _, label in rows], labels, places)
    first_use: dict[str, tuple[int, str, str]] = {}
    samples = []
    root = path.parent if root is None else Path(root)
    for (_, name, _), label, place in zip(rows, indices, places, strict=True):
        # one file may be named in several ways
        file = name if is_url(name) else os.path.realpath(root / name)
        other_label, other_name, other_place = first_use.setdefault(file, (label, name, place))
        if other_label != label:
            other = "" if other_name == name else f"{other_name}, the same file, "
            raise ValueError(
                f"{place}: {name} is labelled {labels[label]}, and {other}{labels[other_label]} in {other_place}."
            )
        samples.append(Sample(name, label, path=name if is_url(name) else root / name))
    return LabelledSamples(samples, labels)


def from_hub(
    name_or_dataset: "str | datasets.Dataset",
    split: str | None = None,
    column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
) -> LabelledSamples:
    """
    A dataset of the Hugging Face Hub, or any `datasets.Dataset`, with a column of videos or images. They are read by
    this package: torchcodec is not needed.

    Args:
        name_or_dataset (`str` or `datasets.Dataset`): A dataset, or what `datasets.load_dataset` takes.
        split (`str`, *optional*): The split to load; needed with a name.
        column (`str`, *optional*): The column of videos or images; the only one of these types if not given.
        label_column (`str`, *optional*): The column of `ClassLabel`, strings or integers; if not given, the only
            `ClassLabel`, or the column `label` or `labels`.
        labels (`Sequence[str]`, *optional*): The labels in the order of their indices; if not given, the names of the
            `ClassLabel`, or the names in the column, sorted. A `ClassLabel` is matched to them by name.

    Returns:
        [`LabelledSamples`] in the dataset's order, named `train[0]`, `train[1]` and so on.

    Raises:
        ImportError: if `datasets` is not installed.
        ValueError: if columns are missing or ambiguous, or a row has no label or an unknown one.
        TypeError: if it is no `datasets.Dataset`, as with streaming.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Reading datasets of the Hub needs the library datasets: pip install datasets.") from error
    if isinstance(name_or_dataset, str):
        if split is None:
            raise ValueError(f"`split` must say which split of {name_or_dataset} to load, such as 'train'.")
        dataset = datasets.load_dataset(name_or_dataset, split=split)
    else:
        dataset = name_or_dataset
    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(
            f"Expected the name of a dataset or a `datasets.Dataset`, got {type(dataset).__name__}; choose one split, "
            "without streaming."
        )
    dataset = dataset.with_format(None)
    features = dataset.features
    column = _choose_column(
        column, [name for name, feature in features.items() if _is_media(feature, datasets)], features, "column"
    )
    if not _is_media(features[column], datasets):
        raise ValueError(f"The column {column!r} holds {features[column]}, and no videos or images.")
    class_labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    by_name = [name for name in ("label", "labels") if name in features and name != column]
    label_column = _choose_column(label_column, class_labels or by_name[:1], features, "label_column")

    values = list(dataset[label_column])
    place = str(split or dataset.split or "dataset")
    names = [f"{place}[{index}]" for index in range(len(values))]
    feature = features[label_column]
    if isinstance(feature, datasets.ClassLabel):
        for value, name in zip(values, names, strict=True):
            if value is None or not 0 <= value < feature.num_classes:
                raise ValueError(
                    f"{name} has no label: {label_column!r} is {value}, as test splits without labels have."
                )
        values = [feature.names[value] for value in values]
        labels = feature.names if labels is None else labels
    indices, labels = _index_labels(values, labels, names, only_names=isinstance(feature, datasets.ClassLabel))
    media = dataset.select_columns([column]).cast_column(column, type(features[column])(decode=False))
    samples = [
        Sample(name, label, item=HubItem(media, column, index))
        for index, (name, label) in enumerate(zip(names, indices, strict=True))
    ]
    return LabelledSamples(samples, labels)


def read_sample(
    sample: Sample,
    kind: Kind = "video",
    choose: Callable[[VideoMetadata], Sequence[int] | np.ndarray] | None = None,
    backend: str = "pyav",
) -> list[torch.Tensor]:
    """
    Frames of a sample.

    Args:
        sample ([`Sample`]): What to read.
        kind (`str`): `"video"`, or `"image"` for one frame.
        choose (`Callable`, *optional*): From the video's metadata to ascending frame indices, as in [`read_video`].
        backend (`"pyav"` or `"decord"`): What decodes videos; see [`read_video`].

    Returns:
        `list[torch.Tensor]`: RGB frames `(3, height, width)`, uint8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no readable video or image; the message names the sample.
    """
    _check_kind(kind)
    with _named_errors(sample):
        place, name = _locate(sample)
        if kind == "video":
            frames, _ = read_video(place, choose, backend, name)
        else:
            if not isinstance(place, bytes) and not is_url(str(place)) and not Path(place).is_file():
                raise FileNotFoundError(f"There is no image file {place}.")  # `read_image` would go on to try base64
            frames = [to_rgb(read_image(place))]
        frames = scale_to_eight_bit(frames)
    return [frame.round().to(torch.uint8) if frame.is_floating_point() else frame for frame in frames]


def check_sources(
    samples: LabelledSamples,
    kind: Kind = "video",
    num_workers: int | None = None,
    on_broken: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    backend: str = "pyav",
) -> tuple[LabelledSamples, list[tuple[str, str]]]:
    """
    Reads every video or image before training does, from its start to its end.

    Args:
        samples ([`LabelledSamples`]): What to check.
        kind (`str`): `"video"` or `"image"`.
        num_workers (`int`, *optional*): Threads; as many as there are processors, at most 8, if not given.
        on_broken (`str`): `"raise"`, or `"skip"` to go on without the broken ones.
        progress (`bool`): Show a progress bar.
        backend (`"pyav"` or `"decord"`): What decodes videos; see [`read_video`].

    Returns:
        The good samples in their order, and the name of each broken one with the reason.

    Raises:
        ValueError: with `on_broken="raise"`, if any is broken: one message with the first ten and their number. In
            either case if none is good.
    """
    _check_kind(kind)
    if on_broken not in ("raise", "skip"):
        raise ValueError(f"`on_broken` must be 'raise' or 'skip', got {on_broken!r}.")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"`num_workers` must be at least 1, got {num_workers}.")

    unsure: list[int] = []

    def reason_if_broken(index: int) -> str | None:
        sample = samples[index]
        try:
            if not _check_sample(sample, kind, backend):
                unsure.append(index)
        except ImportError:  # the decoder is not installed, which is not the file's fault
            raise
        except Exception as error:  # whatever stops training must be found here
            return str(error).removeprefix(f"{sample.name}: ") or type(error).__name__
        return None

    with ThreadPoolExecutor(num_workers or min(8, os.cpu_count() or 1)) as pool:
        checks = pool.map(reason_if_broken, range(len(samples)))
        reasons = list(tqdm(checks, total=len(samples), desc=f"Checking {kind}s", disable=not progress))
    for index in list(unsure):  # one by one, whoever is damaged is known
        reasons[index] = reason_if_broken(index)
    broken = [(sample.name, reason) for sample, reason in zip(samples, reasons, strict=True) if reason is not None]
    if broken and (on_broken == "raise" or len(broken) == len(samples)):
        lines = listed((f"{name}: {reason}" for name, reason in broken), 10, between="\n")
        raise ValueError(f"{len(broken)} of {len(samples)} {kind}s can't be read:\n{lines}")
    return samples.select([i for i, reason in enumerate(reasons) if reason is None]), broken


def _check_sample(sample: Sample, kind: Kind, backend: str) -> bool:
    """Reads all of a sample and keeps nothing; see [`check_video`]. Its errors are those of [`read_sample`]."""
    if kind == "image" or backend == "decord":
        read_sample(sample, kind, lambda metadata: [0], backend)
    if kind == "image":
        return True
    with _named_errors(sample):
        return check_video(*_locate(sample))


@contextmanager
def _named_errors(sample: Sample) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, TypeError, ValueError, Image.DecompressionBombError) as error:
        message = f"{sample.name}: {error}"
        raise (FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError)(message) from error


def _locate(sample: Sample) -> tuple[str | Path | bytes, str | None]:
    """A sample's path or bytes, and what messages call it."""
    if sample.item is None:
        if sample.path is None:
            raise ValueError("the sample has neither a path nor an item")
        return sample.path, None
    stored = sample.item.load()
    path, content = stored.get("path"), stored.get("bytes")
    if content is not None:
        return content, path or "the stored file"
    if not path:
        raise ValueError(f"the column {sample.item.column!r} is empty here")
    if "://" in path and not is_url(path):
        raise ValueError(f"{path} is not on this machine: load the dataset without streaming")
    return path, None


def _visible(folder: Path) -> list[Path]:
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: natural_order(path.name))


def _list_class(folder: Path, kind: str) -> tuple[list[Path], list[Path]]:
    """The videos or images of a class, and the files that are neither."""
    suffixes = IMAGE_SUFFIXES if kind == "image" else VIDEO_SUFFIXES
    found, others = [], []
    for path in _visible(folder):
        if path.is_dir():
            if kind == "image":
                raise ValueError(f"{path} is a folder, and images lie right in the folders of their class.")
            inner = [entry for entry in _visible(path) if entry.is_dir() or entry.suffix.lower() in VIDEO_SUFFIXES]
            if inner:
                raise ValueError(f"{path} must be a folder of frames, and it holds {inner[0].name}.")
            found.append(path)
        elif path.suffix.lower() in suffixes:
            found.append(path)
        elif kind == "video" and path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(
                f"{path} is an image: frames of a video lie in a folder of their own; or use kind='image'."
            )
        else:
            others.append(path)
    return found, others


def _read_csv(path: Path) -> list[tuple[int, str, str]]:
    """Line number, path and label of each row."""
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = ";" if ";" in header and "," not in header else ","
        reader = csv.DictReader(file, strict=True, delimiter=delimiter, skipinitialspace=True)
        try:
            for column in ("path", "label"):
                if list(reader.fieldnames or ()).count(column) != 1:
                    raise ValueError(f"{path} must begin with a header that names path and label, each once.")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: not as many fields as the header has.")
                if not row["path"] or not row["label"].strip():
                    raise ValueError(f"{path}, line {reader.line_num}: path or label is empty.")
                rows.append((reader.line_num, row["path"], row["label"].strip()))
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    return rows


def _read_jsonl(path: Path) -> list[tuple[int, str, Any]]:
    """Line number, path and label of each row."""
    rows = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not valid JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: not an object with path and label.")
            if not isinstance(row.get("path"), str) or not row["path"]:
                raise ValueError(f"{path}, line {number}: `path` must be a string that is not empty.")
            rows.append((number, row["path"], row.get("label")))
    return rows


def _index_labels(
    values: Sequence[Any], labels: Sequence[str] | None, places: Sequence[str], only_names: bool = False
) -> tuple[list[int], tuple[str, ...]]:
    """Names or indices to indices, and the labels; `places` says in messages where the values come from."""
    values = [_whole_number(value) for value in values]
    for value, place in zip(values, places, strict=True):
        is_negative = isinstance(value, int) and value < 0
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "" or is_negative:
            raise ValueError(f"{place}: the label must be a name or an index from 0 up, got {value!r}.")
    if labels is not None:
        labels = _check_labels(labels)
    # where labels are themselves named by numbers, numbers are names
    only_names = only_names or any(label.isdecimal() for label in labels or ())
    if not only_names and all(str(value).isdecimal() for value in values):
        indices = [int(value) for value in values]
        if labels is None:
            # no more gaps need to be looked for than there are values
            gaps = sorted(set(range(min(max(indices), len(indices)) + 1)) - set(indices))
            if gaps:
                raise ValueError(
                    f"The labels are indices from 0 up, and none is {listed(gaps, 10)}: pass `labels`, the names in "
                    "the order of their indices."
                )
            labels = tuple(str(index) for index in range(max(indices) + 1))
        return indices, labels  # `LabelledSamples` checks their range
    if labels is None:
        labels = tuple(sorted({str(value) for value in values}))
        _refuse_case_twins(labels)
    known = {label: index for index, label in enumerate(labels)}
    in_any_case = {label.casefold(): index for label, index in known.items()}
    if len(in_any_case) < len(known):  # they are told apart by it
        in_any_case = {}
    indices = []
    for value, place in zip(values, places, strict=True):
        index = known.get(str(value), in_any_case.get(str(value).casefold()))
        if index is None:
            raise ValueError(f"{place}: the label {value!r} is not among {listed(labels, 10)}.")
        indices.append(index)
    return indices, labels


def _whole_number(value: Any) -> Any:
    """`1.0`, as spreadsheets write indices, becomes 1; everything else stays."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]+\.0+", value):
        return value.partition(".")[0]
    return value


def _refuse_case_twins(labels: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for label in labels:
        other = first.setdefault(label.casefold(), label)
        if other != label:
            raise ValueError(
                f"The labels {other!r} and {label!r} differ in upper and lower case alone: write them alike, or pass "
                "`labels` if they are two."
            )


def _is_media(feature: Any, datasets: Any) -> bool:
    return isinstance(feature, (datasets.Video, datasets.Image))


def _choose_column(given: str | None, candidates: list[str], columns: Sequence[str], argument: str) -> str:
    if given is None and len(candidates) == 1:
        return candidates[0]
    if given is None or given not in columns:
        what = f"has no column {given!r}" if given is not None else "does not show which column to take"
        raise ValueError(f"The dataset {what}: pass `{argument}`, one of {', '.join(columns)}.")
    return given


def _check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ValueError(f"`labels` must be a sequence of names, got the string {labels!r}.")
    labels = tuple(labels)
    repeated = sorted(label for label, count in Counter(labels).items() if count > 1)
    if repeated:
        raise ValueError(f"`labels` holds {listed(repeated, 10)} more than once.")
    return labels


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")


__all__ = [
    "HubItem",
    "LabelledSamples",
    "Sample",
    "check_sources",
    "from_class_folders",
    "from_hub",
    "from_table",
    "read_sample",
]
