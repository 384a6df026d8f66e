"""
What a long run costs: thousands of clips through a pipeline, and an hour of video through the timeline.

    python -m benchmarks.long_run [--clips 10000] [--hours 1] [--model FOLDER] [--face-detector-weights FILE]

The process's memory, threads and open files are looked at after every fortieth part. They must not grow, a clip must
have the same scores wherever it stands among others, and the timeline must follow the face to the end; else the exit
code is 1. Without --model, a small model with random weights is run: what it costs is ours alone.
"""

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import torch
from tqdm import tqdm
from transformers import pipeline

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DConfig, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.demo.example import write_example
from s2d_hf.timeline import S2DTimeline

LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
NUM_LOOKS = 40
# of the first looks, while caches fill
WARMING_UP = 8
# bytes that a run may have more at its end than after its beginning
SLACK = 32 * 2**20
DIFFERENT_CLIPS = 24
# of probabilities
TOLERANCE = 1e-6


@dataclass
class Course:
    """What the process held in the course of a run."""

    memory: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Takes down what is held now."""
        gc.collect()
        process = psutil.Process()
        self.memory.append(process.memory_info().rss)
        self.threads.append(process.num_threads())
        self.files.append(process.num_fds())

    def growth(self) -> dict[str, float]:
        """The median of the last looks less that of the first ones after warming up."""
        looks = {"memory (MB)": [size / 2**20 for size in self.memory], "threads": self.threads, "files": self.files}
        return {
            name: statistics.median(values[-WARMING_UP:]) - statistics.median(values[WARMING_UP : 2 * WARMING_UP])
            for name, values in looks.items()
        }

    def faults(self) -> list[str]:
        """What has grown."""
        growth = self.growth()
        limits = {"memory (MB)": SLACK / 2**20, "threads": 0, "files": 0}
        return [f"{name} grew by {growth[name]:.1f}" for name, limit in limits.items() if growth[name] > limit]


def write_model(folder: Path) -> Path:
    """A small video model with random weights that matter."""
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model = S2DForVideoClassification(S2DConfig(**size, **names, num_frames=4, adapter_num_heads=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    encoder = MobileFaceNetLandmarkEncoder()
    S2DVideoProcessor(landmark_encoder=encoder, num_frames=4, face_detector="yunet").save_pretrained(folder)
    return folder


def write_clips(folder: Path) -> list[Path]:
    """Short videos, each of another noise, colour and length."""
    paths = []
    for number in range(DIFFERENT_CLIPS):
        draw = np.random.default_rng(number)
        picture = draw.integers(0, 256, size=(12, 16, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        path = folder / f"clip{number}.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            for shift in range(8 + number % 5):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, 3 * shift, axis=1), format="rgb24")
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        paths.append(path)
    return paths


def write_long_video(path: Path, seconds: float) -> Path:
    """A real face, towards which a camera moves and back, over and over: the example's packets, repeated."""
    example = write_example(path.with_name("example.mp4"))
    if example is None:
        raise ImportError("The face of the long video is in scikit-image: pip install scikit-image.")
    with av.open(str(example)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        # whatever unit the containers have
        step = int(Fraction(1, 24) / stream.time_base)
        copy = output.add_stream_from_template(stream)
        length = step * len(packets)
        for repetition in range(max(1, round(seconds * float(1 / stream.time_base) / length))):
            for packet in packets:
                times = packet.pts, packet.dts
                packet.pts, packet.dts = (time + repetition * length for time in times)
                packet.stream = copy
                output.mux(packet)
                packet.stream, (packet.pts, packet.dts) = copy, times
                packet.time_base = stream.time_base
    return path


def run_clips(model: Path, clips: list[Path], count: int) -> tuple[Course, list[str]]:
    """Clips in random order and in lists of several lengths through the pipeline, which takes them one by one."""
    classify = pipeline("video-classification", model=str(model), trust_remote_code=True, device="cpu")
    alone = {clip: _scores(classify([str(clip)], top_k=len(LABELS))[0]) for clip in clips}
    draw, course, largest = random.Random(0), Course(), 0.0
    with tqdm(total=count, desc="clips", unit="clip") as bar:
        for part in _parts(count):
            done = 0
            while done < part:
                batch = draw.choices(clips, k=min(draw.choice((1, 2, 3, 5, 8)), part - done))
                answers = classify([str(clip) for clip in batch], top_k=len(LABELS))
                for clip, answer in zip(batch, answers, strict=True):
                    largest = max(largest, float(np.abs(_scores(answer) - alone[clip]).max()))
                done += len(batch)
                bar.update(len(batch))
            course.look()
    print(f"largest difference of a clip's probabilities in another list or order: {largest:.1e}")
    return course, [] if largest <= TOLERANCE else [f"scores differ by {largest:.1e}"]


def run_timeline(model: Path, video: Path, weights: str | None) -> tuple[Course, list[str]]:
    """A long video through the timeline."""
    analyse = S2DTimeline.from_pretrained(model, face_detector="yunet", face_detector_weights=weights, device="cpu")
    with av.open(str(video)) as container:
        duration = container.duration / av.time_base
    course = Course()
    looks = iter([duration * (number + 1) / NUM_LOOKS for number in range(NUM_LOOKS)])
    following = next(looks)

    def look(seconds: float) -> None:
        nonlocal following
        if seconds >= following:
            course.look()
            following = next(looks, float("inf"))

    timeline = analyse(video, on_progress=look)
    covered = sum(face.end - face.start for face in timeline.tracks)
    print(f"{len(timeline.tracks)} face(s), {covered / duration:.1%} of {duration:.0f} s covered")
    return course, [] if covered > 0.95 * duration else [f"the face is followed for {covered / duration:.1%}"]


def _scores(answer: list[dict]) -> np.ndarray:
    found = {entry["label"]: entry["score"] for entry in answer}
    return np.array([found[label] for label in LABELS])


def _parts(count: int) -> Iterator[int]:
    for number in range(NUM_LOOKS):
        yield count * (number + 1) // NUM_LOOKS - count * number // NUM_LOOKS


def _report(name: str, run: Callable[[], tuple[Course, list[str]]]) -> bool:
    started = time.monotonic()
    course, faults = run()
    faults += course.faults()
    memory = [round(size / 2**20) for size in course.memory]
    print(f"{name}: {time.monotonic() - started:.0f} s; memory in MB {memory}")
    print(
        f"  threads {min(course.threads)} to {max(course.threads)}, files {min(course.files)} to {max(course.files)}"
    )
    growth = ", ".join(f"{what} {value:+.1f}" for what, value in course.growth().items())
    print(f"  from the second fifth to the last: {growth}; {'; '.join(faults) or 'nothing grew'}", flush=True)
    return not faults


def main(argv: list[str] | None = None) -> int:
    """Runs both; see `--help`. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000, help="default: 10000; 0 for none")
    parser.add_argument("--hours", type=float, default=1.0, help="of video, default: 1; 0 for none")
    parser.add_argument("--model", type=Path, help="a folder with a video model of the seven expressions")
    parser.add_argument("--face-detector-weights", metavar="FILE", help="of YuNet (default: downloaded once)")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or write_model(folder / "model")
        is_fine = True
        if arguments.clips:
            clips = write_clips(folder)
            is_fine &= _report(f"{arguments.clips} clips", lambda: run_clips(model, clips, arguments.clips))
        if arguments.hours:
            video = write_long_video(folder / "long.mp4", 3600 * arguments.hours)
            weights = arguments.face_detector_weights
            is_fine &= _report(f"{arguments.hours:g} h of video", lambda: run_timeline(model, video, weights))
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
