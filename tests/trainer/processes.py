"""Starts scripts of the tests on several processes, on this machine's CPUs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def launch(processes: int, *command: str, timeout: float = 300) -> str:
    """
    Runs `python COMMAND` in that many processes, which torchrun joins into a group, and returns what they printed.
    All are killed when the time (in seconds) is up, and the test fails, as it does with a process that fails.
    """
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, text=True, cwd=ROOT, env=environment, start_new_session=True, **pipes) as run:
        try:
            output, errors = run.communicate(timeout=timeout)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)  # torchrun's processes would outlive it
            raise
    assert run.returncode == 0, errors[-5000:]
    return output
