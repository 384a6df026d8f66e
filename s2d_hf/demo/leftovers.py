"""The page's folder in the temporary one: locked while the server lives, and deleted when nobody needs it any more."""

import os
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from transformers.utils import logging

from .visits import Visits

logger = logging.get_logger(__name__)

PREFIX = "s2d-hf-demo-"
LOCK = "lock"
SWEEP_SECONDS = 20.0
# A file whose visitor has left, or that nobody has asked for yet, may still be wanted: a page is loaded anew, a phone
# has been put away. An upload that goes on is written to more often than this.
KEEP_SECONDS = 120.0


@contextmanager
def page_folder() -> Iterator[Path]:
    """
    A folder that only this user may read, and whose lock this process holds. At the end it is deleted, as those of
    servers that were killed are now.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    remove_dead_folders(temporary)
    # under its final name only once it is locked, so that no other server takes it for a dead one; Windows does not
    # rename a folder with an open file
    hidden = "" if os.name == "nt" else "."
    unlocked = Path(tempfile.mkdtemp(prefix=hidden + PREFIX, dir=temporary))
    lock = open(unlocked / LOCK, "xb")  # noqa: SIM115
    if not _lock(lock):
        raise OSError(f"The file {lock.name} could not be locked.")
    folder = temporary / unlocked.name.removeprefix(hidden)
    if folder != unlocked:
        os.rename(unlocked, folder)
    try:
        yield folder
    finally:
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def remove_dead_folders(temporary: Path) -> list[Path]:
    """
    Deletes the folders of servers that are dead: real folders of this user with a lock that nobody holds. What has no
    lock is left alone.

    Returns:
        `list[Path]`: what was deleted.
    """
    removed = []
    for folder in sorted(temporary.glob(f"{PREFIX}*")):
        try:
            if not (_is_own(folder, stat.S_ISDIR) and _is_own(folder / LOCK, stat.S_ISREG)):
                continue
            with open(folder / LOCK, "r+b") as lock:
                if not _lock(lock):
                    continue
                if os.name != "nt":  # where the lock can't be deleted while it is open
                    shutil.rmtree(folder)
            if os.name == "nt":
                shutil.rmtree(folder)
            removed.append(folder)
        except OSError as error:  # another server deletes it at the same time, or it may not be deleted
            logger.debug(f"{folder} was left: {error}")
    return removed


@contextmanager
def swept(visits: Visits) -> Iterator[None]:
    """Meanwhile, the files of visitors who have left are deleted."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(SWEEP_SECONDS):
            try:
                sweep(visits)
            except Exception:
                logger.exception("Files of visitors who have left could not be deleted.")

    threading.Thread(target=go_on, name="sweeper", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def sweep(visits: Visits, keep: float = KEEP_SECONDS) -> None:
    """Deletes what is `keep` seconds old and belongs to nobody who is there, as uploads that were broken off."""
    claimed = visits.claimed(keep)
    for name in _names_in(visits.folder):
        if name not in claimed and time.time() - _last_change(visits.folder / name) >= keep:
            _remove(visits.folder / name)


def remove_unfinished(folder: Path) -> None:
    """Deletes uploads that were broken off: plain files, as those that are complete lie in folders."""
    for name in _names_in(folder):
        if not (folder / name).is_dir():
            _remove(folder / name)


def _names_in(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _last_change(path: Path) -> float:
    """Of a file or folder and what is in it, in seconds since 1970."""
    latest = 0.0
    for each in (path, *path.rglob("*")):
        try:
            latest = max(latest, each.lstat().st_ctime, each.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return latest


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of a kind, not a link to one, and this user's."""
    status = path.lstat()
    return is_kind(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _lock(file: BinaryIO) -> bool:
    """Takes a file's lock, which the system releases when the process ends, however it ends. `False`: it is held."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
