"""
A Python that has imported what takes seconds, and forks for each run. The rest of a run is as in a new process, with
its own arguments, environment, folder, streams and modules.

It has imported libraries alone, and none that reads the variables that tests set or knows the Hub.
"""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLOW_IMPORTS = ("torch", "torch._dynamo", "torchvision", "scipy.optimize", "pandas", "av", "cv2")


class WarmPython:
    """`run` is for tests whose subject is not the start of Python itself. The process ends with the `with` block."""

    def __enter__(self) -> "WarmPython":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_python"],
            cwd=ROOT, env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()  # closes its input, which ends it

    def run(
        self, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path = ROOT, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """
        As `python *arguments`, which begin with `-c CODE`, `-m MODULE` or a script's path.

        Raises:
            subprocess.TimeoutExpired: after `timeout` seconds. The process ends with the fork, and the next run fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            job = {"arguments": [str(argument) for argument in arguments], "folder": folder, "cwd": str(cwd)}
            self._process.stdin.write(json.dumps(job | {"env": dict(os.environ if env is None else env)}) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(job["arguments"], timeout)
            answer = self._process.stdout.readline()
            assert answer, f"the process that forks for {job['arguments']} has ended"
            texts = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(job["arguments"], int(answer), *texts)


def _run(arguments: Sequence[str]) -> None:
    kind, *rest = arguments
    if kind == "-c":
        sys.argv[:], sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv[:], sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:], sys.path[0] = arguments, str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


def _become(job: Mapping[str, object]) -> None:
    """Makes this fork the process that was asked for."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(job["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    code = 0
    try:
        _run(job["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in SLOW_IMPORTS:
        __import__(name)
    assert not {"transformers", "huggingface_hub", "s2d_hf"} & set(sys.modules)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # to unload it all takes seconds, too


if __name__ == "__main__":
    main()
