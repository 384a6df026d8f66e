"""Who has the page open, and which files are theirs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class _Visit:
    connections: int = 0
    seen: float = field(default_factory=time.monotonic)
    files: set[str] = field(default_factory=set)


class Visits:
    """
    The visits of a page, by their session's name. A visit lasts as long as the browser holds a connection.

    Args:
        folder (`Path`): Where uploads and results lie, each in an entry of its own.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._visits: dict[str, _Visit] = {}
        self._lock = threading.Lock()

    @contextmanager
    def connection(self, session: str) -> Iterator[None]:
        """While it is held, the visitor is there."""
        with self._lock:
            visit = self._visits.setdefault(session, _Visit())
            visit.connections += 1
        try:
            yield
        finally:
            with self._lock:
                visit.connections -= 1
                visit.seen = time.monotonic()

    def claim(self, session: str, path: Path) -> None:
        """A file or folder in `folder` belongs to a visit; it may belong to several."""
        with self._lock:
            visit = self._visits.setdefault(session, _Visit())
            visit.seen = time.monotonic()
            visit.files.add(path.relative_to(self.folder).parts[0])

    def is_there(self, session: str, within: float) -> bool:
        """Whether the visitor holds a connection, or did so or asked for something at most `within` seconds ago."""
        with self._lock:
            visit = self._visits.get(session)
            return visit is not None and self._is_there(visit, within)

    def claimed(self, within: float) -> set[str]:
        """The names of the entries of `folder` that belong to those who are there; the other visits are forgotten."""
        with self._lock:
            self._visits = {name: visit for name, visit in self._visits.items() if self._is_there(visit, within)}
            return {name for visit in self._visits.values() for name in visit.files}

    @staticmethod
    def _is_there(visit: _Visit, within: float) -> bool:
        return visit.connections > 0 or time.monotonic() - visit.seen < within
