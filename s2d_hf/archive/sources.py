"""What an archive consists of: videos of a folder, of a table of paths, or of a dataset of the Hub."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd

from ..data.sources import HubItem, stored_file
from ..file_names_s2d import VIDEO_SUFFIXES, is_url, natural_order, printable
from ..texts_s2d import listed

if TYPE_CHECKING:
    import datasets

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
# Columns that are looked for where `path_column` isn't given.
PATH_COLUMNS = ("path", "video")


@dataclass(frozen=True)
class ArchiveItem:
    """
    One video of an archive: at `path` (a file or an http(s) address), or in `stored`, a row of a dataset.

    `name` is unique in the archive and stays the same from run to run.
    """

    name: str
    path: str | None = None
    stored: HubItem | None = None

    @contextmanager
    def open(self) -> Iterator[str]:
        """
        A path or an address to read the video from, as long as the context lasts: bytes of a dataset are written to a
        temporary file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the dataset holds nothing at this place.
        """
        if self.stored is None:
            yield _existing(cast(str, self.path))  # the one or the other is there
            return
        content = self.stored.load()
        path = content.get("path")
        if content.get("bytes") is None:
            if not path:
                raise ValueError(f"the column {self.stored.column!r} is empty here")
            yield _existing(path)
            return
        with stored_file(content["bytes"], path) as file:
            yield str(file)


def list_videos(
    source: "str | os.PathLike | datasets.Dataset", path_column: str | None = None, split: str | None = None
) -> list[ArchiveItem]:
    """
    The videos of an archive. None of them is opened, and files in tables need not exist: that is found out one by one.

    Args:
        source (`str`, `Path` or `datasets.Dataset`): One of

            - a folder: all files in it and its folders that have a video's suffix, in the order of the numbers in
              their names (`clip2` before `clip10`). Hidden files and folders are passed over, links to folders are not
              followed. Names are paths below it.
            - a `.csv` file with a header, a `.jsonl` file with one object per line, or a `.parquet` file, with a
              column of paths, which begin in the table's folder, or of http(s) addresses. Names are the paths as the
              table has them.
            - a dataset of the Hugging Face Hub, or any `datasets.Dataset`, with a column of videos, or of paths and
              addresses. Names are `train[0]`, `train[1]` and so on.
        path_column (`str`, *optional*): The column of a table or a dataset. If not given, `path` or `video`; in a
            dataset, the only one of the type Video.
        split (`str`, *optional*): The split of a dataset's name; not needed where there is one only.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ImportError: if a dataset is named and the library `datasets` is not installed.
        ValueError: if there are no videos, a column is missing, a path is empty or there twice, or an argument
            doesn't go with the source.
    """
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    is_table = path is not None and path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()
    if split is not None and path is not None and (is_table or path.exists()):
        raise ValueError(f"`split` is for datasets of the Hub, and {source} is a file or folder.")
    if path is not None and is_table:
        items = _list_table(path, path_column)
    elif path is not None and path.is_dir():
        if path_column is not None:
            raise ValueError(f"`path_column` is for tables and datasets, and {source} is a folder.")
        items = _list_folder(path)
    elif path is not None and (path.exists() or not _may_be_hub_name(source)):
        message = f"must be a folder, a table ({', '.join(TABLE_SUFFIXES)}) or the name of a dataset of the Hub"
        raise (
            ValueError(f"{source} {message}.")
            if path.exists()
            else FileNotFoundError(f"There is no file or folder {source}: it {message}.")
        )
    else:
        items = _list_dataset(source, path_column, split)
    if not items:
        raise ValueError(f"{source} holds no videos.")
    return items


def _list_folder(root: Path) -> list[ArchiveItem]:
    root = root.absolute()
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(folder) / name
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES
        ]
    # file systems allow names that are no text, and tables don't
    names = {path: printable(path.relative_to(root).as_posix()) for path in found}
    return [ArchiveItem(names[path], path=str(path)) for path in sorted(found, key=lambda p: natural_order(names[p]))]


def _list_table(path: Path, column: str | None) -> list[ArchiveItem]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}.")
    table = _read_table(path)
    column = _choose_column(column, list(map(str, table.columns)), str(path))
    root = path.absolute().parent
    names = table[column].tolist()
    for row, name in enumerate(names, start=1):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}, row {row}: the column {column!r} must hold a path, got {name!r}.")
    # `a.mp4` and `./a.mp4` are one file
    keys = [name if is_url(name) else os.path.normpath(name) for name in names]
    counts = Counter(keys)
    repeated = list(dict.fromkeys(name for name, key in zip(names, keys, strict=True) if counts[key] > 1))
    if repeated:
        raise ValueError(f"{path} names videos more than once: {listed(repeated, 10)}.")
    return [ArchiveItem(name, path=name if is_url(name) else str(root / name)) for name in names]


def _read_table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        if path.suffix.lower() == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False, convert_dates=False)
        # without `index_col=False`, a row with too many fields would shift the columns
        return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pyarrow's and pandas' errors are ValueErrors
        raise ValueError(f"{path} can't be read as a {path.suffix.lower()} table: {error}") from error


def _list_dataset(
    source: "str | os.PathLike | datasets.Dataset", column: str | None, split: str | None
) -> list[ArchiveItem]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Reading datasets of the Hub needs the library datasets: pip install datasets.") from error
    dataset = source
    if isinstance(source, (str, os.PathLike)):
        try:
            split = split or _only_split(str(source))
            dataset = datasets.load_dataset(str(source), split=split)
        except OSError as error:  # not found on the Hub, or the Hub not reached
            raise FileNotFoundError(
                f"There is no folder or table {source} here, and no dataset of that name could be had from the Hub: "
                f"{error}"
            ) from error
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"Expected one split of a dataset, without streaming, and {source} is a {type(dataset).__name__}."
        )
    where = f"the dataset {source}" if isinstance(source, (str, os.PathLike)) else "the dataset"
    dataset = dataset.with_format(None)
    videos = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Video)]
    if column is None and len(videos) == 1:
        column = videos[0]
    column = _choose_column(column, list(dataset.features), where)
    names = [f"{split or dataset.split or 'dataset'}[{index}]" for index in range(len(dataset))]
    if column in videos:
        media = dataset.select_columns([column]).cast_column(column, datasets.Video(decode=False))
        return [ArchiveItem(name, stored=HubItem(media, column, index)) for index, name in enumerate(names)]
    paths = dataset[column][:]
    for name, path in zip(names, paths, strict=True):
        if not isinstance(path, str) or not path:
            raise ValueError(f"{where}, {name}: the column {column!r} must hold videos or paths, got {path!r}.")
    return [
        ArchiveItem(name, path=path if is_url(path) else os.path.abspath(path))
        for name, path in zip(names, paths, strict=True)
    ]


def _only_split(name: str) -> str:
    import datasets

    splits = datasets.get_dataset_split_names(name)
    if len(splits) != 1:
        raise ValueError(f"`split` must say which split of {name} to take, one of {', '.join(map(str, splits))}.")
    return str(splits[0])


def _choose_column(given: str | None, columns: list[str], where: str) -> str:
    candidates = PATH_COLUMNS if given is None else (given,)
    for name in candidates:
        if name in columns:
            return name
    raise ValueError(
        f"There is no column {' or '.join(candidates)} in {where}: pass `path_column`, one of {', '.join(columns)}."
    )


def _may_be_hub_name(source: str | os.PathLike) -> bool:
    return isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source) is not None


def _existing(path: str) -> str:
    if is_url(path):
        return path
    if "://" in path:
        raise ValueError(f"{path} is not on this machine: load the dataset without streaming")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    return path


__all__ = ["ArchiveItem", "list_videos"]
