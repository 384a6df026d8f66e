"""
What is known of an archive's videos, in a folder that survives kills.

    OUTPUT/settings.json            what the results were computed with
    OUTPUT/windows/KEY.parquet      the windows of one video
    OUTPUT/videos/done/KEY.json     the outcome of one video: here, or in `no_face` or `failed`
    OUTPUT/attempts/KEY.jsonl       a video that was begun: one line for each time
    OUTPUT/videos.parquet           all outcomes          } written by `summarise`
    OUTPUT/failures.csv             those without results }
    OUTPUT/job.lock, running.json   a job is at work here, and which

Every file but the attempts is written under another name first, so none is ever there by half. What is done is known
from the names of files alone, and looked through for damage when a job begins.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from transformers.utils import logging

from ..file_names_s2d import natural_order, on_one_line, printable
from ..texts_s2d import listed
from ..timeline.results import TABLE_FIELDS, VideoTimeline
from .sources import ArchiveItem

logger = logging.get_logger(__name__)

FORMAT_VERSION = 1
# In this order: a video that has several outcomes, for it was done after it had failed, has the first of them.
STATUSES = ("done", "no_face", "failed")
# Of a video that was begun and has no outcome.
UNFINISHED = "unfinished"
METADATA_KEY = b"s2d_hf"

VIDEOS_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        "path": pa.string(),
        "attempts": pa.int64(),
        "seconds": pa.float64(),
        "finished": pa.string(),
        "duration": pa.float64(),
        "width": pa.int64(),
        "height": pa.int64(),
        "fps": pa.float64(),
        "cuts": pa.list_(pa.float64()),
        "num_tracks": pa.int64(),
        "num_windows": pa.int64(),
        "damage": pa.string(),
    }
)
FAILURE_COLUMNS = ["name", "status", "reason", "path", "attempts"]
# Of damaged files, so many are named.
_MAX_NAMED = 5
# At a time; they wait for the disk, or for the network.
_READERS = 16


@dataclass(frozen=True)
class ArchiveSummary:
    """
    What has become of an archive's videos.

    Args:
        num_videos (`int`): All that were begun.
        num_done (`int`): Of these, the ones that were analysed to the end.
        num_without_face (`int`): Of the latter, the ones in which no face was found.
        num_failed (`int`): The ones without a result.
        failures (`dict[str, str]`): Their names and the reasons.
    """

    num_videos: int
    num_done: int
    num_without_face: int
    num_failed: int
    failures: dict[str, str] = field(default_factory=dict)


class RecordsError(OSError):
    """The records can't be written, as on a full disk. That is no video's fault, and the job stops."""


class JobRunningError(RuntimeError):
    """Another job writes into the same folder."""


@contextlib.contextmanager
def locked(output: str | os.PathLike) -> Iterator[None]:
    """
    The folder of an archive for one job alone, as long as the context lasts or the process lives.

    Raises:
        JobRunningError: if another job is at work in it.
    """
    folder = Path(output).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(folder / "job.lock"), folder / "running.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            job = _read_json(note)
            which = f" (process {job['pid']} on {job['host']}, since {job['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            which = ""
        raise JobRunningError(
            f"Another job{which} is at work in {output}: let it end, or use another output folder. Several processes "
            "share one archive if `accelerate launch` or Ray starts them."
        ) from None
    try:
        note.write_bytes(_to_json({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


class ArchiveRecords:
    """
    The output folder of an archive.

    Several processes may write into it at once, if each video is in the hands of one at a time: those of one job, see
    [`locked`].

    Args:
        output (`str` or `Path`): The folder; it is made if need be.
        settings (`Mapping`, *optional*): What the results depend on, of plain values; others are taken as text. If
            not given, the folder must have been made before.

    Raises:
        FileNotFoundError: if `settings` is not given and the folder has none.
        ValueError: if the folder has been made with other settings, or its settings can't be read.
    """

    def __init__(self, output: str | os.PathLike, settings: Mapping[str, Any] | None = None):
        self.folder = Path(output).absolute()
        self._settings_path = self.folder / "settings.json"
        if settings is None and not self._settings_path.is_file():
            raise FileNotFoundError(f"{output} is no folder of an archive: it has no settings.json.")
        for name in ("windows", "attempts", "partial", *(f"videos/{status}" for status in STATUSES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if settings is not None:
            self._agree_on_settings(json.loads(json.dumps(dict(settings), default=str)))
            self._remove_leftovers()
        self.settings = self._read_settings()

    def statuses(self) -> dict[str, str]:
        """The outcome (`"done"`, `"no_face"` or `"failed"`) of each video that has one, by [`file_key`]."""
        return {key: status for status in reversed(STATUSES) for key in self._keys(status)}

    def pending(self, items: Sequence[ArchiveItem], retry_failed: bool = True) -> list[int]:
        """
        The indices of the items that are still to be done: first those never begun, then those that failed (with
        `retry_failed`), and at last those during which a process died, so that they stop no others.
        """
        statuses = self.statuses()
        begun = _keys_of_files(self.folder / "attempts", ".jsonl")
        groups: tuple[list[int], list[int], list[int]] = ([], [], [])
        for index, item in enumerate(items):
            key = file_key(item.name)
            status = statuses.get(key)
            if status is None:
                groups[2 if key in begun else 0].append(index)
            elif status == "failed" and retry_failed:
                groups[1].append(index)
        return [index for group in groups for index in group]

    def repair(self) -> list[str]:
        """
        Finds outcomes and windows that are damaged, truncated or gone, and removes the outcomes, so that their videos
        are to be done again, with a warning that names them.

        Returns:
            `list[str]`: the files at fault, with the reasons.
        """
        entries = [(key, status) for status in STATUSES for key in self._keys(status)]
        with ThreadPoolExecutor(_READERS) as pool:
            faults = list(pool.map(lambda entry: self._find_fault(*entry), entries))
        found = []
        for (key, status), fault in zip(entries, faults, strict=True):
            if fault is not None:
                found.append(fault)
                (self.folder / "videos" / status / f"{key}.json").unlink()
        if found:
            logger.warning(
                f"Records in {self.folder} are damaged, and their videos are analysed again: "
                f"{listed(found, _MAX_NAMED, between='; ')}."
            )
        return found

    def is_done(self, name: str) -> bool:
        """Whether a video has been analysed to the end."""
        return any(self._outcome_path(name, status).exists() for status in ("done", "no_face"))

    def begin(self, name: str) -> int:
        """Notes that work on a video begins; returns how many times it has begun without coming to an outcome."""
        line = {"name": name, "time": _now(), "host": socket.gethostname(), "pid": os.getpid()}
        path = self._attempts_path(name)
        with open(path, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
        self._outcome_path(name, "failed").unlink(missing_ok=True)
        return len(path.read_bytes().splitlines())

    def withdraw(self, name: str) -> None:
        """Takes the last [`begin`] back: work was stopped for a reason that is not the video's."""
        path = self._attempts_path(name)
        with contextlib.suppress(FileNotFoundError):
            lines = path.read_bytes().splitlines(keepends=True)
            if len(lines) > 1:
                self._write(path, b"".join(lines[:-1]))
            else:
                path.unlink()

    def save(self, name: str, timeline: VideoTimeline, path: str, attempts: int, seconds: float) -> str:
        """
        Writes a video's windows and then its outcome, `"done"` or `"no_face"`, and returns the latter.

        Args:
            name (`str`): The video, as it is named in the table.
            timeline (`VideoTimeline`): What was found.
            path (`str`): Where the video was read from.
            attempts (`int`): How many times it was begun.
            seconds (`float`): How long it took.
        """
        timeline = dataclasses.replace(timeline, source=name)
        known: dict[str, Any] = {key: float(getattr(timeline, key)) for key in ("duration", "fps")}
        known |= {key: int(getattr(timeline, key)) for key in ("width", "height")}
        known |= {"cuts": [float(time) for time in timeline.cuts], "labels": list(timeline.labels)}
        known |= {"damage": timeline.damage}
        frame = timeline.to_dataframe()
        table = pa.Table.from_pandas(frame, schema=_windows_schema(frame.columns), preserve_index=False)
        metadata = {"name": name, **known, "settings": self.settings}
        table = table.replace_schema_metadata({METADATA_KEY: _to_json(metadata)})
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getvalue().to_pybytes()
        self._write(self._windows_path(file_key(name)), content)
        counts: dict[str, Any] = {"num_tracks": len(timeline.tracks), "num_windows": len(frame)}
        counts["windows_sha256"] = hashlib.sha256(content).hexdigest()
        status = "done" if timeline.tracks else "no_face"
        self._save_outcome(name, status, path=path, attempts=attempts, seconds=seconds, **known, **counts)
        return status

    def save_failure(
        self, name: str, reason: str, path: str, attempts: int, seconds: float | None = None, trace: str | None = None
    ) -> None:
        """Writes that a video failed and why; the arguments are those of [`save`]."""
        self._save_outcome(
            name, "failed", reason=reason, path=path, attempts=attempts, seconds=seconds, traceback=trace
        )

    def summarise(self) -> ArchiveSummary:
        """See the function [`summarise`]."""
        outcomes = self._read_outcomes()
        table = pa.Table.from_pylist(outcomes, schema=VIDEOS_SCHEMA)
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        self._write(self.folder / "videos.parquet", buffer.getvalue().to_pybytes())
        lost = [outcome for outcome in outcomes if outcome["status"] in ("failed", UNFINISHED)]
        text = pd.DataFrame(lost, columns=FAILURE_COLUMNS).to_csv(index=False)
        self._write(self.folder / "failures.csv", text.encode())
        return ArchiveSummary(
            num_videos=len(outcomes),
            num_done=len(outcomes) - len(lost),
            num_without_face=sum(outcome["status"] == "no_face" for outcome in outcomes),
            num_failed=len(lost),
            failures={outcome["name"]: outcome["reason"] for outcome in lost},
        )

    def read_windows(self) -> pd.DataFrame:
        """See [`read_archive`]."""
        keys = [key for key, status in self.statuses().items() if status != "failed"]
        paths = [self._windows_path(key) for key in keys]
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(_read_windows_file, paths))
        if not tables:
            return pd.DataFrame(columns=list(TABLE_FIELDS))
        for path, table in zip(paths, tables, strict=True):
            if table.schema != tables[0].schema:
                raise ValueError(
                    f"{path} has other columns than {paths[0]}: {', '.join(table.column_names)}, and not "
                    f"{', '.join(tables[0].column_names)}. Has the model been replaced under the same name?"
                )
        filled = [table for table in tables if len(table)]
        filled.sort(key=lambda table: natural_order(table["video"][0].as_py()))
        return pa.concat_tables(filled or tables[:1]).to_pandas(ignore_metadata=True)

    def _keys(self, status: str) -> set[str]:
        return _keys_of_files(self.folder / "videos" / status, ".json")

    def _read_outcome(self, key: str, status: str) -> dict[str, Any]:
        """
        Raises:
            ValueError: if the file is damaged; the message names it.
        """
        path = self.folder / "videos" / status / f"{key}.json"
        try:
            outcome = _read_json(path)
            if file_key(outcome["name"]) != key or outcome["status"] != status:
                raise ValueError("it is the outcome of another video")
            if status == "failed" and not isinstance(outcome["reason"], str):
                raise ValueError("it has no reason")
            pa.Table.from_pylist([outcome], schema=VIDEOS_SCHEMA)
            return outcome
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({on_one_line(str(error)) or type(error).__name__})") from error

    def _find_fault(self, key: str, status: str) -> str | None:
        """What is wrong with what was written of a video."""
        try:
            outcome = self._read_outcome(key, status)
            if status != "failed":
                _check_windows(self._windows_path(key), outcome.get("windows_sha256"))
        except ValueError as error:
            return str(error)
        return None

    def _read_outcomes(self) -> list[dict[str, Any]]:
        statuses = self.statuses()
        try:
            with ThreadPoolExecutor(_READERS) as pool:
                outcomes = list(pool.map(lambda entry: self._read_outcome(*entry), statuses.items()))
        except ValueError as error:
            raise ValueError(f"{error}. Run the job again: it makes anew what is damaged.") from error
        for key in _keys_of_files(self.folder / "attempts", ".jsonl") - set(statuses):
            lines = (self.folder / "attempts" / f"{key}.jsonl").read_bytes().splitlines()
            if lines:
                reason = f"begun {_times(len(lines))} and not finished: the process died, or is still at it"
                try:
                    name = json.loads(lines[0])["name"]
                    name = name if file_key(name) == key else key
                except (LookupError, RecursionError, TypeError, ValueError):  # a kill or a full disk cut it off
                    name = key
                outcomes.append({"name": name, "status": UNFINISHED, "reason": reason, "attempts": len(lines)})
        return sorted(outcomes, key=lambda outcome: natural_order(outcome["name"]))

    def _save_outcome(self, name: str, status: str, **fields: Any) -> None:
        texts = {key: printable(value) for key, value in fields.items() if isinstance(value, str)}
        outcome = {"name": name, "status": status, "finished": _now(), **fields, **texts}
        self._write(self._outcome_path(name, status), _to_json(outcome))
        for other in STATUSES:
            if other != status:
                self._outcome_path(name, other).unlink(missing_ok=True)
        self._attempts_path(name).unlink(missing_ok=True)

    def _agree_on_settings(self, settings: dict[str, Any]) -> None:
        # a run that came to nothing, as with a model that isn't there, binds nobody
        is_unused = not self.statuses() and not _keys_of_files(self.folder / "attempts", ".jsonl")
        if not self._settings_path.exists() and not is_unused:
            raise ValueError(
                f"{self.folder} holds results, and its settings.json, which said what they were computed with, is "
                "gone: put it back, or use another output folder."
            )
        if not self._settings_path.exists() or is_unused:
            self._write(self._settings_path, _to_json({"format_version": FORMAT_VERSION, "settings": settings}))
            return
        recorded = self._read_settings()
        missing = object()
        differing = [
            f"{name} was {_show(recorded, name)} and is {_show(settings, name)} now"
            for name in sorted({*recorded, *settings})
            if recorded.get(name, missing) != settings.get(name, missing)
        ]
        if differing:
            raise ValueError(
                f"{self.folder} was begun with other settings: {'; '.join(differing)}. Use the same ones to go on, or "
                "another output folder."
            )

    def _read_settings(self) -> dict[str, Any]:
        try:
            stored = _read_json(self._settings_path)
            if stored["format_version"] != FORMAT_VERSION:
                raise ValueError(f"its format_version is {stored['format_version']}, and {FORMAT_VERSION} is known")
            return dict(stored["settings"])
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{self._settings_path} can't be read: {error}. Use another output folder.") from error

    def _write(self, path: Path, content: bytes) -> None:
        temporary = self.folder / "partial" / uuid.uuid4().hex
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise RecordsError(f"{path} can't be written: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _remove_leftovers(self) -> None:
        """Removes what kills have left half written. Others may be writing now, which takes no hour."""
        for path in (self.folder / "partial").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > 3600:
                    path.unlink()

    def _windows_path(self, key: str) -> Path:
        return self.folder / "windows" / f"{key}.parquet"

    def _outcome_path(self, name: str, status: str) -> Path:
        return self.folder / "videos" / status / f"{file_key(name)}.json"

    def _attempts_path(self, name: str) -> Path:
        return self.folder / "attempts" / f"{file_key(name)}.jsonl"


def file_key(name: str) -> str:
    """
    The name of a video's files without their suffix: what is plain of its name, and a hash of all of it. It is safe
    and short on any file system, and no two videos share it.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")
    return f"{plain[-80:].lstrip('._-') or 'video'}-{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"


def summarise(output: str | os.PathLike) -> ArchiveSummary:
    """
    Gathers the outcomes of an archive's videos into `videos.parquet`, and those without a result, with their reasons,
    into `failures.csv`. The jobs do so at their end; after one that was killed, this tells how far it came.

    Raises:
        FileNotFoundError: if `output` is no folder of an archive.
        ValueError: if a record is damaged.
    """
    return ArchiveRecords(output).summarise()


def read_archive(output: str | os.PathLike) -> pd.DataFrame:
    """
    The windows of all videos of an archive that are done: the table of `VideoTimeline.to_dataframe`, with the videos'
    names in the archive under `video`, in the order of the numbers in them.

    Raises:
        FileNotFoundError: if `output` is no folder of an archive.
        ValueError: if a file is gone or damaged, or the videos' tables have different columns.
    """
    return ArchiveRecords(output).read_windows()


def _windows_schema(columns: Sequence[str]) -> pa.Schema:
    """The columns' types, which an empty table doesn't tell by itself."""
    types = {"video": pa.string(), "label": pa.string(), "segment": pa.string(), "track": pa.int64()}
    return pa.schema({name: types.get(name, pa.float64()) for name in columns})


def _read_windows_file(path: Path) -> pa.Table:
    """
    Raises:
        ValueError: if the file is gone or damaged; the message names it.
    """
    try:
        # not `read_table`, which opens a file twice: it may be replaced in between
        with pq.ParquetFile(path) as file:
            return file.read().replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is gone or damaged ({on_one_line(str(error))}). Run the job again.") from error


def _check_windows(path: Path, sha256: str | None) -> None:
    """
    Raises:
        ValueError: if the file is gone or not what was written; the message names it.
    """
    if sha256 is None:  # written by version 0.1
        _read_windows_file(path)
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged (another SHA-256 than when it was written)")


def _keys_of_files(folder: Path, suffix: str) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name.removesuffix(suffix) for entry in entries if entry.name.endswith(suffix)}


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _show(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not set"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds")


__all__ = [
    "ArchiveRecords",
    "ArchiveSummary",
    "JobRunningError",
    "RecordsError",
    "file_key",
    "locked",
    "read_archive",
    "summarise",
]
