"""
Peak memory of one call, in a process of its own: what others left behind doesn't count.

    python -m benchmarks.memory '{"part": "training", "name": "ours", "size": "paper", "device": "cpu", "batch": 1}'
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

_ROOT = Path(__file__).resolve().parents[1]


def peak_memory(call: Callable[[], Any], device: str | torch.device = "cpu") -> dict[str, int] | None:
    """
    Bytes at the height of a call: `peak`, of the whole process (on a GPU, of all tensors), and `call`, over what was
    there before. `None` where the system doesn't tell: on a CPU, everywhere but on Linux.

    The call is made once beforehand, so that what is built once and kept (gradients, compiled code) is there before;
    what a library keeps to use it again is there before, too, and missing in `call`.
    """
    call()
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        return {"peak": peak, "call": peak - before}
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory that was given back to the allocator, but not to the system
        Path("/proc/self/clear_refs").write_text("5")  # from here on, the height is a new one
        before = _status("VmRSS")
        call()
        peak = _status("VmHWM")
    except (OSError, AttributeError):
        return None
    return {"peak": peak, "call": peak - before}


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}.")


def measure_in_own_process(part: str, name: str, size: str, device: str, batch: int = 1) -> dict[str, int] | None:
    """
    [`peak_memory`] of a candidate, measured by this file as a program. Where that fails, `None`, and the end of what
    the program wrote goes to stderr: what else was measured is too dear to lose.

    Args:
        part (`"forward"` or `"training"`), name (`str`): The candidate, a commit's model, too.
        size (`str`): A key of `SIZES`.
        device (`str`), batch (`int`).
    """
    request = {"part": part, "name": name, "size": size, "device": device, "batch": batch}
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", json.dumps(request)],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env=environment,
        check=False,
    )
    if run.returncode:
        tqdm.write(f"The peak memory of {name} could not be measured:\n{run.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(run.stdout.splitlines()[-1])


def measure(part: str, name: str, size: str, device: str, batch: int) -> dict[str, int] | None:
    """[`peak_memory`] of a candidate in this process; the arguments are those of [`measure_in_own_process`]."""
    from .candidates import prepare_forward, prepare_step
    from .models import SIZES, build_s2d, make_clips

    if part == "training":
        model, _, step = prepare_step(name, SIZES[size], device)
        clips = make_clips(model.config, batch, device=device)
        labels = torch.arange(batch, device=device) % model.config.num_labels
        return peak_memory(lambda: step(*clips, labels), device)
    model = build_s2d(SIZES[size], device)
    clips = make_clips(model.config, batch, device=device)
    forward = prepare_forward(name, model, SIZES[size])
    del model  # a mode may have made something smaller of its copy
    with torch.no_grad():
        return peak_memory(lambda: forward(*clips), device)


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


__all__ = ["measure", "measure_in_own_process", "peak_memory"]
