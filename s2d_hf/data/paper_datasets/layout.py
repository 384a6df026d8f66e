"""What the readers of the data sets share: finding folders and files, reading tables, and looking what is missing."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from ...texts_s2d import shorten
from ..sources import Sample


class Row(NamedTuple):
    """One line of an annotation file: where it stands, for messages, and its two fields."""

    place: str
    name: str
    label: str


def find_folder(root: Path, candidates: Sequence[str], what: str) -> Path:
    """
    The first of some folders below `root` that exists.

    Raises:
        FileNotFoundError: if there is none; the message says what was looked for.
    """
    return _find(root, candidates, what, "folder")


def find_file(root: Path, candidates: Sequence[str], what: str) -> Path:
    """
    The first of some files below `root` that exists.

    Raises:
        FileNotFoundError: if there is none; the message says what was looked for.
    """
    return _find(root, candidates, what, "file")


def read_csv(path: Path, header: Sequence[str]) -> list[list[str]]:
    """
    The rows of a CSV file in UTF-8, as stripped strings; each is preceded by its place, for messages.

    Raises:
        ValueError: if its first line is not `header` (in any case), or a row is malformed.
    """
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            first = [name.strip() for name in next(reader, [])]
            if [name.lower() for name in first] != [name.lower() for name in header]:
                raise ValueError(
                    f"{path} must begin with the header {','.join(header)}, and begins with "
                    f"{shorten(','.join(first), 80)!r}."
                )
            for fields in reader:
                if not fields:
                    continue
                place = f"{path}, line {reader.line_num}"
                if len(fields) != len(header):
                    raise ValueError(f"{place}: expected {len(header)} fields, found {len(fields)}.")
                rows.append([place, *(text.strip() for text in fields)])
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not in UTF-8: {error}.") from error
    return rows


def read_labels(path: Path, header: tuple[str, str] | None = None) -> list[Row]:
    """
    The rows of a text file in UTF-8: a name and a label with a space or tab between them, and no header. Blank lines
    are passed over. With `header`, a file with a comma in its first line is read as CSV with that header instead.

    Raises:
        ValueError: if the header is another, or a row has not two fields.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error}.") from error
    if header is not None and lines and "," in lines[0]:
        return read_labels_csv(path, header)
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        place = f"{path}, line {number}"
        if len(fields) != 2:
            other = f", or a file with the header {','.join(header)}" if header is not None else ""
            got = shorten(line.strip(), 80)
            raise ValueError(f"{place}: expected a name and a label with a space between them{other}, got {got!r}.")
        rows.append(Row(place, *fields))
    return rows


def read_labels_csv(path: Path, header: tuple[str, str]) -> list[Row]:
    """
    The rows of a CSV file of names and labels; see [`read_csv`].

    Raises:
        ValueError: if the header is another, or a row is malformed.
    """
    return [Row(*row) for row in read_csv(path, header)]


def parse_integer(text: str, place: str, what: str) -> int:
    """
    A whole number that is not negative.

    Raises:
        ValueError: if it is no such number; the message begins with `place`.
    """
    # beyond nine digits Python may refuse to convert, and no file has such numbers
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ValueError(f"{place}: the {what} must be a whole number, got {shorten(text, 80)!r}.")
    return int(text)


def index_label(text: str, labels: Sequence[str], place: str, base: int = 0) -> int:
    """
    The index of a label that is given by its name, in any case, or by a number that counts from `base`.

    Raises:
        ValueError: if it is neither; the message begins with `place`.
    """
    if text.lower() in labels:
        return labels.index(text.lower())
    if not text.isdecimal():
        raise ValueError(f"{place}: the label {shorten(text, 80)!r} is not among {', '.join(labels)}.")
    index = parse_integer(text, place, "label") - base
    if not 0 <= index < len(labels):
        raise ValueError(
            f"{place}: the label {text} is outside {base}..{base + len(labels) - 1}, which stand for "
            f"{', '.join(labels)}."
        )
    return index


def find_missing(samples: Iterable[Sample], kind: Literal["video", "image"]) -> list[Sample]:
    """
    The samples whose file, or folder of frames for `"video"`, does not exist. Each parent folder is listed once, which
    is faster than to ask for every file.
    """
    seen: dict[Path, set[str]] = {}
    missing = []
    for sample in samples:
        path = Path(cast(str | Path, sample.path))  # the Hub's samples alone have none
        if path.parent not in seen:
            seen[path.parent] = _list_names(path.parent, kind)
        if path.name not in seen[path.parent]:
            missing.append(sample)
    return missing


def _find(root: Path, candidates: Sequence[str], what: str, kind: Literal["folder", "file"]) -> Path:
    for candidate in candidates:
        path = root / candidate
        if path.is_dir() if kind == "folder" else path.is_file():
            return path
    raise FileNotFoundError(f"There is no {kind} of {what} in {root}: looked for {', '.join(candidates)}.")


def _list_names(folder: Path, kind: Literal["video", "image"]) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if (entry.is_dir() if kind == "video" else entry.is_file())}
    except (FileNotFoundError, NotADirectoryError):
        return set()
