"""
Measures how fast S2D is, side by side with its forward pass written down plainly, with VideoMAE and with itself as it
was at a commit.

    python -m benchmarks.speed [--parts forward training processors scaling] [--modes float32 bfloat16 ...]
        [--against COMMIT] [--rounds 7] [--device cuda --batch-sizes 1 8 64] [--output outputs/speed]

Writes `results.json`, `results.md` and `speed.png`. Everything runs in one process, and the candidates take turns, so
that ratios hold where the times move with the machine; only peak memory is measured in processes of their own. Weights
and clips are random: of what a model says, its speed doesn't depend. `--quick` tries the command with tiny models.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from s2d_hf import __version__

from .commits import find_commit
from .forward import measure_forward
from .measuring import CLOCKS
from .modes import MODES
from .plots import plot_speed
from .processors import measure_processors
from .profiling import measure_profile
from .report import render
from .scaling import measure_scaling
from .settings import Settings
from .training import measure_training

# The whole pipeline is measured with the processors, whose stages it goes through.
PARTS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "forward": measure_forward,
    "training": measure_training,
    "processors": measure_processors,
    "scaling": measure_scaling,
    "profile": measure_profile,
}
DEFAULT_PARTS = ("forward", "training", "processors", "scaling")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=DEFAULT_PARTS)
    parser.add_argument("--modes", nargs="+", choices=[*MODES], default=tuple(MODES), help="by default all")
    parser.add_argument(
        "--against", metavar="COMMIT", help="of this repository, whose model is measured beside (forward, training)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="how often every call is timed (default: 7)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(1,), help="clips at a time (default: 1)")
    parser.add_argument("--clips", type=int, default=2, help="clips over which errors are measured (default: 2)")
    parser.add_argument("--threads", type=int, help="threads of a CPU; by default PyTorch's choice")
    parser.add_argument(
        "--clock",
        choices=[*CLOCKS],
        default="wall",
        help="`cpu` counts the processor's time over all threads, for one thread on a busy machine",
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--quick", action="store_true", help="tiny models: tries the command and measures nothing")
    parser.add_argument("--output", type=Path, default=Path("outputs/speed"), help="folder (default: outputs/speed)")
    options = parser.parse_args(arguments)
    # one clip's logits alone have no spread
    for name, least in (("rounds", 1), ("clips", 2), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    if min(options.batch_sizes) < 1:
        parser.error("--batch-sizes must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here")
    if options.device == "cuda" and options.clock == "cpu":
        parser.error("--clock cpu doesn't see what a GPU does")
    if options.against is not None:
        if not {"forward", "training"} & {*options.parts}:
            parser.error("--against needs the forward or the training part, the only ones that measure a commit")
        try:
            options.against = find_commit(options.against)
        except ValueError as error:
            parser.error(f"--against: {error}")
    return options


def find_provenance() -> dict[str, Any]:
    """Versions, hardware and commit; without accelerate, what can be told without it."""
    try:
        from s2d_hf.trainer.provenance import provenance

        found: dict[str, Any] = dict(provenance())
    except ImportError:
        found = {
            "s2d_hf": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
    return found | {"threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability()}


def main(arguments: Sequence[str] | None = None) -> Path:
    """Runs the command, prints the tables and returns the folder of the results."""
    options = parse_arguments(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    settings = Settings(
        size_name="tiny" if options.quick else "paper",
        device=options.device,
        rounds=options.rounds,
        clock_name=options.clock,
        with_memory=not options.no_memory,
        modes=tuple(options.modes),
        batch_sizes=tuple(options.batch_sizes),
        num_clips=options.clips,
        against=options.against,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    with _empty_compiler_cache():
        results = measure(settings, options.parts, options.output)
    text = render(results)
    (options.output / "results.md").write_text(text)
    plot_speed(results, options.output / "speed.png")
    print(text)
    return options.output


def measure(settings: Settings, parts: Sequence[str], output: Path) -> dict[str, Any]:
    """Measures the parts and returns what it writes to `results.json` in the folder `output`."""
    results: dict[str, Any] = {"provenance": find_provenance(), "settings": asdict(settings)}
    for part in PARTS:
        if part in parts:
            results[part] = PARTS[part](settings)
            # after every part: a run takes long
            (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


@contextmanager
def _empty_compiler_cache() -> Iterator[None]:
    """Compiles anew what earlier runs left on the disk, so that a cold start is one."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


if __name__ == "__main__":
    main()
