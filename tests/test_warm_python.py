"""Forks of a warm Python end, print and find things as new processes do."""

import os
import signal
import subprocess
import sys

import pytest

from .warm_python import WarmPython

CODE = """
import json, os, sys
print(json.dumps([sys.argv, __name__, os.getcwd(), dict(os.environ), os.path.basename(sys.path[0]), sys.stdin.read()]))
print("an error", file=sys.stderr)
{end}
"""
ENDS = ["", "sys.exit(3)", "sys.exit('said')", "1 / 0", "os.kill(os.getpid(), 9)", "os._exit(5)", "sys.exit(None)"]


@pytest.mark.parametrize(("kind", "end"), [*(("-c", end) for end in ENDS), ("-m", ENDS[1]), ("script", ENDS[1])])
def test_a_fork_is_as_a_new_process(warm_python, tmp_path, kind, end):
    code = CODE.replace("{end}", f"sys.stdout.flush()\n{end}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "module.py").write_text(code)
    start = {"-c": ["-c", code], "-m": ["-m", "module"], "script": [tmp_path / "module.py"]}[kind]
    arguments = [*start, "--option", "a b"]
    cwd = tmp_path / "folder" if kind == "script" else tmp_path
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "OF_THE_TEST": "1", "PYTHONUNBUFFERED": "1"}
    fork = warm_python.run(*arguments, env=environment, cwd=cwd)
    command = [sys.executable, *arguments]
    new = subprocess.run(
        command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (fork.returncode, fork.stdout) == (new.returncode, new.stdout)
    assert fork.stderr.splitlines()[:1] == ["an error"] and fork.stderr.splitlines()[-1] == new.stderr.splitlines()[-1]


def test_runs_know_nothing_of_each_other(warm_python):
    code = "import sys, torch; sys.exit(3 if hasattr(torch, 'mark') else setattr(torch, 'mark', 1))"
    assert [warm_python.run("-c", code).returncode for _ in range(2)] == [0, 0]


def test_a_fork_that_hangs_is_ended():
    with WarmPython() as python:
        with pytest.raises(subprocess.TimeoutExpired):
            python.run("-c", "import time; print('begun'); time.sleep(1000)", timeout=0.1)
        assert python._process.wait(10) == -signal.SIGKILL
        with pytest.raises((AssertionError, BrokenPipeError)):
            python.run("-c", "")
