"""The timeline as it was at a commit of this repository, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from .commits import ROOT, unpack_commit


class CommitTimeline:
    """
    [`TimelineRunner`] with the whole package of a commit; called and closed as often as one likes.

    Args:
        commit (`str`): As git understands it.
        root (`Path`): The repository.
        arguments: Those of [`TimelineRunner`].

    Raises:
        RuntimeError: if the commit's package can't be run by the benchmark of today.
        ValueError: if there is no such commit.
    """

    def __init__(self, commit: str, root: Path = ROOT, **arguments: Any):
        self.commit = commit
        self._folder = unpack_commit(commit, root)
        folder = self._folder.name
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        # -m looks into the folder in which it starts first, where the commit's s2d_hf is, and the benchmark is not;
        # stderr stays the user's
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.timeline_runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )
        try:
            package = Path(self._ask(arguments)["package"])
            if not package.resolve().is_relative_to(Path(folder).resolve()):
                raise RuntimeError(f"commit {commit}: {package} was loaded in its place")
        except BaseException:
            self.close()
            raise

    def __call__(self, **arguments: Any) -> dict[str, Any]:
        """
        As [`TimelineRunner`]'s.

        Raises:
            RuntimeError: whatever goes wrong there.
        """
        return self._ask(arguments)

    def close(self) -> None:
        """Ends the process and deletes the commit's files."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:  # it has ended
            line = ""
        if not line:
            raise RuntimeError(f"commit {self.commit}: its process ended with exit code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"commit {self.commit}: {answer['error']}")
        return answer


__all__ = ["CommitTimeline"]
