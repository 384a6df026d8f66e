"""The repositories of the Hub of the tests: files, commits, branches and tags, all in memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".bin", ".ckpt", ".h5", ".npy", ".npz", ".onnx", ".pkl", ".pt", ".pth", ".safetensors", ".zip")
LFS_SIZE = 10 * 2**20  # bytes
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


class Refusal(Exception):
    """An answer that isn't success. `code` is the Hub's name of the error, which the client turns into a class."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.headers |= {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Blob:
    """The content of one file, and whether Git or Git LFS keeps it."""

    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """Git's hash: of the content, or of the pointer to it."""
        data = self.data
        if self.lfs:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def entry(self, path: str) -> dict[str, Any]:
        """As the calls `tree` and `paths-info` describe a file."""
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": self.oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


@dataclass(frozen=True)
class Commit:
    """A snapshot of all files."""

    message: str
    files: Mapping[str, Blob]
    parent: "Commit | None" = None
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"))

    @property
    def id(self) -> str:
        parts = [self.message, self.date, self.parent.id if self.parent else ""]
        parts += [f"{path} {blob.oid}" for path, blob in sorted(self.files.items())]
        return hashlib.sha1("\n".join(parts).encode()).hexdigest()

    def history(self) -> "list[Commit]":
        """This commit and those before it, newest first."""
        return [self, *(self.parent.history() if self.parent else [])]

    def folders(self) -> set[str]:
        return {str(parent) for path in self.files for parent in Path(path).parents} - {"."}


@dataclass
class Repository:
    """A model repository: its branches and tags."""

    id: str
    branches: dict[str, Commit]
    tags: dict[str, Commit] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag or a full commit id. Refuses other revisions."""
        refs = self.branches | self.tags
        found = refs.get(revision) or refs.get(revision.removeprefix("refs/heads/"))
        for ref in refs.values() if found is None else ():
            found = found or next((commit for commit in ref.history() if commit.id == revision), None)
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub wants a file in Git LFS: by its name, if it is large, and if it isn't text."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE or b"\0" in sample
