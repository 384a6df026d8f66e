"""
Merges what several runs of the benchmark found on one machine into one file; see `benchmarks/on_gpu.sh`.

    python -m benchmarks.collect --name-of cuda
    python -m benchmarks.collect FOLDER --output FILE

The first prints the name of this machine's GPU, or, with `cpu`, of its processor, as a file is called. In the second,
FOLDER holds a folder for each step, with `command.txt`, `limit.txt`, and once it has ended `exit.txt` (its exit code,
of `timeout`) and `seconds.txt`; what it printed in `log.txt`, and the benchmark's `results.json`, as far as it came.
"""

import argparse
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMED_OUT = (124, 137)  # exit codes of `timeout`
_LAST_LINES = 25  # of the log of a step that failed


def name_of(device: str) -> str:
    """
    What a file with results of a device is called: letters, digits and hyphens.

    Args:
        device (`str`): `"cuda"` or `"cpu"`.

    Raises:
        RuntimeError: if there is no GPU.
    """
    if device == "cuda":
        import torch  # takes seconds

        name = torch.cuda.get_device_name()
    else:
        name = _processor()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or device


def collect(folder: Path) -> dict[str, Any]:
    """
    What the steps found, in the order of their names.

    Args:
        folder (`Path`): See above.

    Returns:
        `{"failed": [names], "steps": {name: {"command", "limit", "exit_code", "seconds", "error", "results"}}}`;
        `error` is a reason and `None` in a step that went well, and `results` is `None` where it had none.

    Raises:
        FileNotFoundError: if there is no step.
    """
    steps = {path.parent.name: _read_step(path.parent) for path in sorted(folder.glob("*/command.txt"))}
    if not steps:
        raise FileNotFoundError(f"{folder} holds no folder of a step, with a command.txt in it.")
    return {"failed": [name for name, step in steps.items() if step["error"] is not None], "steps": steps}


def _read_step(folder: Path) -> dict[str, Any]:
    step: dict[str, Any] = {
        "command": (folder / "command.txt").read_text().strip(),
        "limit": _number(folder / "limit.txt"),
        "exit_code": _number(folder / "exit.txt"),
        "seconds": _number(folder / "seconds.txt"),
        "error": None,
        "results": None,
    }
    code = step["exit_code"]
    if code is None:
        step["error"] = "it did not end"
    elif code in TIMED_OUT:
        step["error"] = f"it was ended after {step['limit']} s"
    elif code:
        step["error"] = f"exit code {code}"
    try:
        step["results"] = json.loads((folder / "results.json").read_text())
    except FileNotFoundError:
        step["error"] = step["error"] or "it wrote no results"
    except ValueError as error:
        step["error"] = f"{step['error'] or 'it went well'}, and its results.json is damaged: {error}"
    if step["error"] is not None:
        log = folder / "log.txt"
        # a progress bar's states are separated by carriage returns, which are no ends of lines here
        lines = log.read_bytes().decode(errors="replace").split("\n") if log.is_file() else []
        step["log"] = [line.split("\r")[-1] for line in lines][-_LAST_LINES:]
    return step


def _number(path: Path) -> int | None:
    return int(path.read_text()) if path.is_file() and path.read_text().strip() else None


def _processor() -> str:
    """The processor's name, where the system tells it, or else its kind."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="of the steps")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--name-of", choices=("cuda", "cpu"))
    options = parser.parse_args(arguments)
    if options.name_of is not None:
        print(name_of(options.name_of))
        return
    if options.folder is None or options.output is None:
        parser.error("FOLDER and --output are needed, or --name-of")
    try:
        found = collect(options.folder)
    except FileNotFoundError as error:
        parser.error(str(error))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_name(f"{options.output.name}.partial")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    partial.replace(options.output)


if __name__ == "__main__":
    main()


__all__ = ["collect", "main", "name_of"]
