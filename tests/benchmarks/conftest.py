import subprocess

import pytest

from benchmarks.commits import ROOT, find_commit


@pytest.fixture(scope="session")
def head() -> str:
    """The short hash of the commit that is checked out, whose model is the installed one."""
    try:
        commit = find_commit("HEAD")
    except ValueError as error:  # the source without its history
        pytest.skip(str(error))
    changed = subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", "s2d_hf"], check=False)
    if changed.returncode:
        pytest.skip("s2d_hf has changes that are not committed")
    return commit
