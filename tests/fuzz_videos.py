"""
Damaged video files, by the thousand: what the reader makes of them, and what FFmpeg says of them.

    python -m tests.fuzz_videos --files 2000 --seed 0 --report report.json

Small videos of every kind are made on the spot and damaged at random, the same way for the same seed. A worker process
reads them and is watched from outside, so that a crash, a hang or a hunger for memory is a finding and not the end.
"""

import argparse
import contextlib
import json
import logging
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from .damaged_videos import HEIGHT, KINDS, NUM_FRAMES, WIDTH, draw_frames, mutate, write_sources

ROOT = Path(__file__).resolve().parents[1]
# seconds of wall time for one file, and bytes above what the idle worker takes
HANG_SECONDS, MEMORY_LIMIT = 20.0, 1_500_000_000
_BACKSTOP = 6_000_000_000
_BLOCK = 16
# Mean difference of a block, of 255. See `Originals`.
_LEAST_TOLERANCE, _MOST_TOLERANCE = 4.0, 20.0


def block_differences(frame: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The largest mean difference of any block of 16x16 pixels and any colour, `(len(others),)`."""
    difference = np.abs(others.astype(np.int16) - frame)
    # whole rows first, in small integers: ten times as fast as a mean over two axes at once
    rows = difference.reshape(len(others), HEIGHT // _BLOCK, _BLOCK, WIDTH * 3).sum(axis=2, dtype=np.int16)
    blocks = rows.reshape(len(others), HEIGHT // _BLOCK, WIDTH // _BLOCK, _BLOCK, 3).sum(axis=3, dtype=np.int32)
    return blocks.max(axis=(1, 2, 3)) / _BLOCK**2


def as_drawn(frame: np.ndarray) -> np.ndarray:
    """A frame in the size of those that were drawn."""
    if frame.shape[:2] == (HEIGHT, WIDTH):
        return frame
    return cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


class Originals:
    """
    The frames of an undamaged file, as the reader reads them. A frame is right if one of them is so near that no block
    of 16x16 pixels differs on average by more than the codec's own error, the largest of any block against what was
    drawn. A frame of another size is scaled to theirs first.
    """

    def __init__(self, frames: np.ndarray, num_samples: int, is_grey: bool):
        self.frames = frames
        self.num_samples = num_samples
        self._hashes = {frame.tobytes() for frame in frames}
        drawn = np.stack(draw_frames())
        if is_grey:
            drawn = np.stack(
                [np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) for frame in drawn]
            )
        own = max(float(block_differences(a, b[None])[0]) for a, b in zip(frames, drawn, strict=True))
        self.own_error = own
        self.tolerance = float(np.clip(own, _LEAST_TOLERANCE, _MOST_TOLERANCE))

    def is_right(self, frame: np.ndarray) -> bool:
        """Of a frame in the size of those that were drawn."""
        if frame.tobytes() in self._hashes:
            return True
        return bool(block_differences(frame, self.frames).min() <= self.tolerance)


class _Said(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _memory() -> tuple[int, int]:
    """Bytes: resident now, and at most since the last reset."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class _Worker:
    """What runs in the worker process."""

    def __init__(self, sources: Path):
        from s2d_hf import video_pixels_s2d, video_reading_s2d
        from s2d_hf.timeline import streaming

        self.reading, self.streaming, self.pixels = video_reading_s2d, streaming, video_pixels_s2d
        self.usual_jump = video_reading_s2d._WORTH_A_JUMP
        self.said = _Said()
        logger = logging.getLogger("s2d_hf")
        logger.addHandler(self.said)
        logger.propagate = False
        self.originals = {}
        for path, (name, kind) in zip(
            sorted(sources.glob("source_*"), key=lambda path: int(path.stem.split("_")[1])), KINDS.items(), strict=True
        ):
            frames = [self._as_array(frame) for frame in video_reading_s2d.read_video(path)[0]]
            if len(frames) != NUM_FRAMES or self.said.lines:
                raise AssertionError(f"{path}: {len(frames)} frames, {self.said.lines}")
            num_samples = len(list(self._sample(path)[0]))
            self.originals[name] = Originals(np.stack(frames), num_samples, kind.pix_fmt == "gray")

    @staticmethod
    def _as_array(frame: Any) -> np.ndarray:
        return np.ascontiguousarray(frame.permute(1, 2, 0).numpy())

    def _read(self, path: Path, jump: int) -> tuple[Iterator[np.ndarray], int]:
        self.reading._WORTH_A_JUMP = jump
        frames, metadata = self.reading.read_video(path, lambda video: self.reading.spread_evenly(video, 16))
        return (self._as_array(frame) for frame in frames), metadata.total_num_frames

    def _sample(self, path: Path) -> tuple[Iterator[np.ndarray], None]:
        def frames() -> Iterator[np.ndarray]:
            with self.streaming.open_stream(path) as video:
                for frame in self.streaming.sample_evenly(video, 8):
                    yield frame.pixels

        return frames(), None

    def read(self, path: Path, kind: str) -> dict[str, Any]:
        """What came of each way to read a file."""
        # jumps are worth their while only in long files, so that some are made in these short ones, too
        ways = {
            "read_video": lambda: self._read(path, self.usual_jump),
            "read_video, jumping": lambda: self._read(path, 4),
            "sample_evenly": lambda: self._sample(path),
        }
        readings = {name: self._read_one(way, path, self.originals[kind]) for name, way in ways.items()}
        most = {name: max(reading[name] for reading in readings.values()) for name in ("seconds", "memory")}
        return {"readings": readings, **most}

    def _read_one(self, way: Callable[[], tuple[Iterator[np.ndarray], int | None]], path: Path, originals: Originals):
        self.said.lines = []
        error, is_documented, total = None, True, None
        read: list[np.ndarray] = []
        _reset_peak()
        idle, started = _memory()[0], time.monotonic()
        try:
            frames, total = way()
            read.extend(as_drawn(frame) for frame in frames)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
            is_documented = type(caught) in (ValueError, FileNotFoundError) and str(path) in str(caught)
        seconds, memory = time.monotonic() - started, _memory()[1] - idle
        wrong = [frame for frame in read if not originals.is_right(frame)]
        is_silent = error is None and not self.said.lines
        expected = originals.num_samples - 1 if total is None else NUM_FRAMES
        return {
            "error": error,
            "is_documented": is_documented,
            "warnings": self.said.lines,
            "frames": len(read),
            "wrong": len(wrong),
            "is_short": error is None and (len(read) if total is None else total) < expected,
            "invented": self._count_invented(wrong, path, originals.tolerance) if wrong and is_silent else 0,
            "seconds": seconds,
            "memory": memory,
        }

    def _count_invented(self, wrong: list[np.ndarray], path: Path, tolerance: float) -> int:
        """Wrong pictures that FFmpeg does not show either, when it decodes the file from its start to its end."""
        shown = np.stack([as_drawn(self.pixels.turn_upright(*it)) for it in self._decode_plainly(path)])
        return sum(bool(block_differences(frame, shown).min() > tolerance) for frame in wrong)

    def _decode_plainly(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                with contextlib.suppress(av.FFmpegError):
                    for frame in packet.decode():
                        yield frame.to_ndarray(format="rgb24"), self.pixels.display_matrix(frame)


def work(sources: Path) -> None:
    """Reads the files whose paths and kinds come in as lines of JSON; answers are lines, too."""
    # whatever else writes to standard output may not mix with the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = _Worker(sources)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _BACKSTOP, resource.RLIM_INFINITY))
    print(json.dumps({name: [it.own_error, it.tolerance] for name, it in worker.originals.items()}), file=answers)
    answers.flush()
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(worker.read(Path(task["path"]), task["kind"])), file=answers)
        answers.flush()


class WatchedWorker:
    """A worker process, which is started anew after it died or hung."""

    def __init__(self, sources: Path):
        self.sources = sources
        self.process: subprocess.Popen | None = None
        self.errors: dict[str, list[float]] = {}

    def _start(self) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, as it lives as long as the process
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz_videos", "--work", str(self.sources)]
        # in several threads, FFmpeg shows and marks of a damaged file not always the same
        environment = {"OMP_NUM_THREADS": "1", "S2D_DECODER_THREADS": "1", **os.environ}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log
        )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The worker did not start: {self._last_words()}")
        self.errors = json.loads(line)

    def _last_words(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3000:]

    def read(self, path: Path, kind: str) -> dict[str, Any]:
        """See `_Worker.read`; or `{"crash": ...}` or `{"hang": ...}`."""
        if self.process is None:
            self._start()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"path": str(path), "kind": kind}).encode() + b"\n")
            self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], HANG_SECONDS)[0]:
            words = self._stop()
            return {"hang": f"nothing for {HANG_SECONDS:.0f} s {words}".strip()}
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            words = self._stop()
            return {"crash": f"it ended with status {status}: {words}"}
        return json.loads(line)

    def _stop(self) -> str:
        self.process.kill()
        self.process.wait()
        words = self._last_words()
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()
        self.process = None
        return words

    def __enter__(self) -> "WatchedWorker":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process is not None:
            self._stop()


def listen_to_ffmpeg(path: Path) -> list[str]:
    """What FFmpeg reports while it decodes a file from its start to its end: its errors, and what it marks."""
    reports = []
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture(local=False) as logs:
        try:
            with av.open(f"file:{path}", metadata_errors="replace") as container:
                stream = container.streams.best("video")
                stream.codec_context.thread_count = 1
                for packet in container.demux(stream):
                    reports += ["a packet marked as corrupt"] * packet.is_corrupt
                    try:
                        frames = packet.decode()
                    except (av.FFmpegError, OSError) as error:
                        reports.append(str(error))
                        continue
                    reports += ["a frame marked as corrupt" for frame in frames if frame.is_corrupt]
        except IndexError:
            pass  # PyAV's, at a stream that turns up midway: it is nothing that FFmpeg reports
        except (av.FFmpegError, OSError, ValueError) as error:
            reports.append(str(error))
    return [f"{name}: {message.strip()}" for level, name, message in logs if level <= av.logging.ERROR] + reports


def ask_ffmpeg(path: Path) -> list[str]:
    """`listen_to_ffmpeg` in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzz_videos", "--ask", str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if result.returncode:
        return [f"it ended with status {result.returncode}: {result.stderr[-300:]}"]
    return json.loads(result.stdout.splitlines()[-1])


OUTCOMES = (
    "whole, nothing to say",
    "whole, with a warning",
    "in part or wrong, with a warning",
    "refused with an error",
    "shorter, and nobody reported it",
    "wrong pictures, and nobody reported it",
    "shorter, reported by FFmpeg and not said",
    "wrong pictures, reported by FFmpeg and not said",
)


def judge(result: dict[str, Any], path: Path) -> tuple[str, list[str]]:
    """One of `OUTCOMES`, and what is wrong with the reader."""
    for trouble in ("crash", "hang"):
        if trouble in result:
            return trouble, [f"{trouble}: {result[trouble]}"]
    findings = []
    if result["memory"] > MEMORY_LIMIT:
        findings.append(f"memory: {result['memory']:,} bytes")
    readings = result["readings"]
    for name, reading in readings.items():
        if not reading["is_documented"]:
            findings.append(f"{name}: another exception: {reading['error']}")
        if reading["invented"]:
            findings.append(f"{name}: {reading['invented']} pictures that FFmpeg does not show")
        if sum("is damaged: " in line for line in reading["warnings"]) > 1:
            findings.append(f"{name}: more than one warning: {reading['warnings']}")
    silent = {name: it for name, it in readings.items() if it["error"] is None and not it["warnings"]}
    wrong = [name for name, it in silent.items() if it["wrong"]]
    short = [name for name, it in silent.items() if it["is_short"]]
    if wrong or short:
        what = "wrong pictures" if wrong else "shorter"
        reports = ask_ffmpeg(path)
        result["reports"] = reports[:5]
        if reports:
            findings.append(f"{what} in {wrong or short}, reported by FFmpeg and not said: {reports[:3]}")
            return f"{what}, reported by FFmpeg and not said", findings
        return f"{what}, and nobody reported it", findings
    if len(silent) == len(readings):
        return "whole, nothing to say", findings
    if all(reading["error"] for reading in readings.values()):
        return "refused with an error", findings
    if any(it["error"] or it["wrong"] or it["is_short"] for it in readings.values()):
        return "in part or wrong, with a warning", findings
    return "whole, with a warning", findings


def fuzz(num_files: int, seed: int, keep: Path | None = None, numbers: list[int] | None = None) -> dict[str, Any]:
    """Reads so many damaged files; those with findings are kept in a folder."""
    started = time.monotonic()
    counts, by_mutation, findings = defaultdict(Counter), defaultdict(Counter), []
    most = {"seconds": (0.0, -1), "memory": (0, -1)}
    refused, unequal = Counter(), []  # by which way to read, and where the ways disagree
    with tempfile.TemporaryDirectory(prefix="s2d-fuzz-") as folder:
        sources = write_sources(Path(folder))
        with WatchedWorker(Path(folder)) as worker:
            for done, number in enumerate(range(num_files) if numbers is None else numbers):
                kind = list(KINDS)[number % len(KINDS)]
                source = sources[kind]
                data, mutation = mutate(source.read_bytes(), seed, number)
                path = Path(folder) / f"damaged_{number:05d}{source.suffix}"
                path.write_bytes(data)
                result = worker.read(path, kind)
                outcome, found = judge(result, path)
                counts[kind][outcome] += 1
                by_mutation[mutation][outcome] += 1
                for name in most:
                    most[name] = max(most[name], (result.get(name, 0), number))
                states = {
                    name: ("error" if it["error"] else "warning" if it["warnings"] else "silent")
                    for name, it in result.get("readings", {}).items()
                }
                if len(set(states.values())) > 1:
                    unequal.append([number, kind, mutation, states])
                refused.update(name for name, state in states.items() if state == "error")
                if found or "nobody" in outcome:
                    findings.append([number, kind, mutation, outcome, found, result.get("reports", [])])
                if found:
                    print(f"{number} {kind} ({mutation}): {'; '.join(found)[:600]}", flush=True)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, keep / path.name)
                path.unlink()
                if done % 100 == 99:
                    print(f"{done + 1} files, {time.monotonic() - started:.0f} s", flush=True)
            errors = worker.errors
    return {
        "files": num_files if numbers is None else len(numbers),
        "seed": seed,
        "pyav": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "seconds": round(time.monotonic() - started, 1),
        "kinds": {kind: dict(count) for kind, count in sorted(counts.items())},
        "mutations": {name: dict(count) for name, count in sorted(by_mutation.items())},
        "codecs_error_and_tolerance": errors,
        "most": most,
        "refused_by": dict(refused),
        "failures": [it for it in findings if it[4]],
        "nobody_knew": [it for it in findings if not it[4]],
        "unequal": unequal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--report", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--keep", type=Path, help="a folder for the files that show a failure")
    parser.add_argument("--numbers", type=int, nargs="+", help="only the files of these numbers")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work)
    if arguments.ask:
        return print(json.dumps(listen_to_ffmpeg(arguments.ask)))
    report = fuzz(arguments.files, arguments.seed, arguments.keep, arguments.numbers)
    if arguments.report:
        arguments.report.write_text(json.dumps(report, indent=1))
    total = Counter()
    for kind, count in report["kinds"].items():
        print(f"{kind}: {', '.join(f'{number} {outcome}' for outcome, number in count.items())}")
        total.update(count)
    print(f"all: {', '.join(f'{number} {outcome}' for outcome, number in total.items())}")
    print(f"{len(report['failures'])} failures in {report['seconds']} s; the most: {report['most']}")


if __name__ == "__main__":
    main()
