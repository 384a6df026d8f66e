"""
Time and memory for 16 frames, evenly chosen, of made 1080p videos: this package's reader beside decord's, in turns.

    python -m benchmarks.decoding [--rounds 5] [--seconds 10 600]

Each reading has a process of its own, so that peaks of memory are its own; importing does not count.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import av
from tqdm import tqdm

from .made_video import write_made_video

_READ = """
import json, resource, sys, time
import numpy as np
from s2d_hf.video_reading_s2d import read_video, spread_evenly

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

reader, path = sys.argv[1:]
import decord
before, started = peak(), time.perf_counter()
if reader == "decord":
    video = decord.VideoReader(path)
    video.get_batch(np.linspace(0, len(video) - 1, 16).round().astype(int)).asnumpy()
else:
    read_video(path, lambda metadata: spread_evenly(metadata, 16))
print(json.dumps([time.perf_counter() - started, peak() - before]))
"""
_PIECE = 10  # seconds that are encoded; longer videos repeat them


def write_long_video(path: Path, seconds: int) -> Path:
    """A made 1080p video with a key frame every ten seconds."""
    with tempfile.TemporaryDirectory() as folder:
        piece = write_made_video(Path(folder) / "piece.mp4", 1920, 1080, min(seconds, _PIECE))
        with av.open(str(path), "w") as output:
            stream, shift = None, 0
            for _ in range(max(1, seconds // _PIECE)):
                end = 0
                with av.open(str(piece)) as source:
                    stream = stream or output.add_stream_from_template(source.streams.video[0])
                    for packet in source.demux(video=0):
                        if packet.dts is None:
                            continue
                        end = max(end, packet.pts + packet.duration)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        output.mux(packet)
                shift += end
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 600])
    options = parser.parse_args()
    print("| 16 frames of 1080p | reader | seconds (median) | of decord's | MiB above idle |")
    print("| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in options.seconds:
            video = write_long_video(Path(folder) / f"{seconds}.mp4", seconds)
            runs: dict[str, list[list[float]]] = {"decord": [], "s2d_hf": []}
            for _ in tqdm(range(options.rounds), desc=f"{seconds} s"):
                for reader, found in runs.items():
                    command = [sys.executable, "-c", _READ, reader, str(video)]
                    found.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
            base = median(time for time, _ in runs["decord"])
            for reader, found in runs.items():
                time, memory = (median(values) for values in zip(*found, strict=True))
                print(f"| {seconds} s | {reader} | {time:.2f} | {time / base:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
