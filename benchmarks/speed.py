"""
Measures how fast S2D is, side by side with its forward pass written down plainly, with VideoMAE and with itself as it
was at a commit.

    python -m benchmarks.speed [--parts forward training processors scaling] [--modes float32 bfloat16 ...]
        [--against COMMIT] [--rounds 7] [--device cuda --batch-sizes 1 8 64] [--output outputs/speed]
    python -m benchmarks.speed --parts timeline archive [--heights 360 720 1080 2160] [--faces 1 2 6] [--seconds 10]
        [--kind video] [--precisions bfloat16 int8] [--detector yunet --detector-weights FILE] [--against COMMIT]

Writes `results.json`, `results.md` and `speed.png`. Everything runs in one process, and the candidates take turns, so
that ratios hold where the times move with the machine; only peak memory, a commit's timeline and an archive's videos
have processes of their own. Weights and clips are random: of what a model says, its speed doesn't depend. A part that
fails stops no other one, and makes the exit code 1. `--quick` tries the command with tiny models.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from s2d_hf import __version__
from s2d_hf.face_detection_s2d import FACE_DETECTORS

from .commits import find_commit
from .measuring import CLOCKS
from .modes import MODES
from .report import render
from .settings import PRECISIONS, Settings

# The modules that measure, each by `measure_PART(settings)`: imported when they are asked for, as each needs packages
# of its own. The whole pipeline is measured with the processors, whose stages it goes through.
PARTS = {
    "forward": "forward",
    "training": "training",
    "processors": "processors",
    "scaling": "scaling",
    "timeline": "timeline",
    "archive": "archive",
    "profile": "profiling",
}
DEFAULT_PARTS = ("forward", "training", "processors", "scaling")
MEASURE_A_COMMIT = ("forward", "training", "timeline")
VIDEO_PARTS = ("timeline", "archive")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=DEFAULT_PARTS)
    parser.add_argument("--modes", nargs="+", choices=[*MODES], default=tuple(MODES), help="by default all")
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="of this repository, which is measured beside (forward, training, timeline)",
    )
    parser.add_argument("--rounds", type=int, default=7, help="how often every call is timed (default: 7)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(1,), help="clips at a time (default: 1)")
    parser.add_argument("--training-batch-size", type=int, default=1, help="clips of a training step (default: 1)")
    parser.add_argument(
        "--reference-device",
        choices=("cpu", "cuda"),
        help="where the float32 logits are computed from which errors are measured; by default that of --device",
    )
    parser.add_argument("--clips", type=int, default=2, help="clips over which errors are measured (default: 2)")
    parser.add_argument("--threads", type=int, help="threads of a CPU; by default PyTorch's choice")
    parser.add_argument(
        "--clock",
        choices=[*CLOCKS],
        default="wall",
        help="`cpu` counts the processor's time over all threads, for one thread on a busy machine",
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    videos = parser.add_argument_group(
        "whole videos", "for the parts timeline and archive; an archive has the first ones"
    )
    videos.add_argument("--heights", type=int, nargs="+", help="of the frames, in pixels (default: 1080)")
    videos.add_argument("--faces", type=int, nargs="+", default=(1, 2), help="at a time (default: 1 2)")
    videos.add_argument("--seconds", type=float, help="of each video (default: 10)")
    videos.add_argument(
        "--kind", choices=("image", "video"), default="image", help="of model: averaged over frames, or with adapters"
    )
    videos.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of the timeline (default: all)"
    )
    videos.add_argument("--videos", type=int, help="of an archive (default: 8)")
    videos.add_argument("--detector", choices=FACE_DETECTORS, default=FACE_DETECTORS[0], help="of faces")
    videos.add_argument(
        "--detector-weights",
        metavar="FILE",
        help="by default the file that face-alignment has kept; without one, the boxes are known, and no time counts",
    )
    parser.add_argument("--quick", action="store_true", help="tiny models: tries the command and measures nothing")
    parser.add_argument("--output", type=Path, default=Path("outputs/speed"), help="folder (default: outputs/speed)")
    options = parser.parse_args(arguments)
    # one clip's logits alone have no spread
    for name, least in (("rounds", 1), ("clips", 2), ("threads", 1), ("training-batch-size", 1), ("videos", 1)):
        value = getattr(options, name.replace("-", "_"))
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    if min(options.batch_sizes) < 1:
        parser.error("--batch-sizes must be at least 1")
    # the timeline looks at 8 frames a second, and drops faces that are there for less than half a second
    if options.seconds is None:
        options.seconds = 1.0 if options.quick else 10.0
    options.heights = options.heights or ((120,) if options.quick else (1080,))
    options.videos = options.videos or (2 if options.quick else 8)
    if not 1 <= options.seconds <= 3600:
        parser.error(f"--seconds must be 1 to 3600, got {options.seconds:g}")
    if any(height % 2 or not 120 <= height <= 4320 for height in options.heights):
        parser.error("--heights must be even numbers from 120 to 4320")
    if not all(1 <= faces <= 12 for faces in options.faces):
        parser.error("--faces must be 1 to 12")
    if options.detector_weights is not None and not Path(options.detector_weights).expanduser().is_file():
        parser.error(f"--detector-weights: there is no file {options.detector_weights}")
    for name in ("device", "reference_device"):
        if getattr(options, name) == "cuda" and not torch.cuda.is_available():
            parser.error(f"--{name.replace('_', '-')} cuda: PyTorch sees no GPU here")
    if options.device == "cuda" and options.clock == "cpu":
        parser.error("--clock cpu doesn't see what a GPU does")
    if options.clock == "cpu" and {*VIDEO_PARTS} & {*options.parts}:
        parser.error(f"--clock cpu doesn't see the processes of the parts {' and '.join(VIDEO_PARTS)}")
    if options.against is not None:
        if not {*MEASURE_A_COMMIT} & {*options.parts}:
            parser.error(f"--against needs one of the parts {', '.join(MEASURE_A_COMMIT)}, which measure a commit")
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
            "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        }
    return found | {"threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability()}


def main(arguments: Sequence[str] | None = None) -> Path:
    """
    Runs the command, prints the tables and returns the folder of the results.

    Raises:
        SystemExit: if arguments are wrong, or, at the end, if a part could not be measured.
    """
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
        reference_device=options.reference_device,
        training_batch=options.training_batch_size,
        heights=tuple(options.heights),
        faces=tuple(options.faces),
        seconds=options.seconds,
        kind=options.kind,
        precisions=tuple(options.precisions),
        videos=options.videos,
        detector=options.detector,
        detector_weights=options.detector_weights,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    with _empty_compiler_cache():
        results = measure(settings, options.parts, options.output)
    text = render(results)
    (options.output / "results.md").write_text(text)
    print(text)
    try:
        from .plots import plot_speed

        plot_speed(results, options.output / "speed.png")
    except ImportError as error:
        print(f"Nothing was drawn: {error}", file=sys.stderr)
    if results["not_measured"]:
        sys.exit(f"Not measured, see above: {', '.join(results['not_measured'])}.")
    return options.output


def measure(settings: Settings, parts: Sequence[str], output: Path) -> dict[str, Any]:
    """
    Measures the parts and returns what it writes to `results.json` in the folder `output`: after every part, and
    within those that yield what they have so far, as a run takes long. What failed is in `not_measured`.
    """
    results: dict[str, Any] = {"provenance": find_provenance(), "settings": asdict(settings), "not_measured": {}}

    def save() -> None:
        # never there by half, whenever it is stopped
        partial = output / "results.json.partial"
        partial.write_text(json.dumps(results, indent=1) + "\n")
        partial.replace(output / "results.json")

    for part, module in PARTS.items():
        if part not in parts:
            continue
        try:
            found = getattr(importlib.import_module(f".{module}", __package__), f"measure_{part}")(settings)
            for results[part] in found if isinstance(found, Iterator) else [found]:
                save()
        except Exception as error:  # the other parts are too dear to lose
            traceback.print_exc()
            results["not_measured"][part] = f"{type(error).__name__}: {error}"
            save()
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
