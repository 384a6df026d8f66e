"""Small videos of every kind, made on the spot and damaged at random, the same way for the same seed."""

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

NUM_FRAMES, HEIGHT, WIDTH = 36, 96, 128
_HEADER = 2048
_EXTREMES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)


class Kind(NamedTuple):
    """How one source file is made."""

    suffix: str
    codec: str
    pix_fmt: str = "yuv420p"
    container: str | None = None
    muxing: dict[str, str] = {}
    coding: dict[str, str] = {}


_X264 = {"crf": "23", "g": "9", "bf": "2", "threads": "1"}
KINDS = {
    "mp4, index at the end": Kind(".mp4", "libx264", coding=_X264),
    "mp4, faststart": Kind(".mp4", "libx264", muxing={"movflags": "faststart"}, coding=_X264),
    "mp4, fragmented": Kind(".mp4", "libx264", muxing={"movflags": "frag_keyframe+empty_moov"}, coding=_X264),
    "mkv, h264": Kind(".mkv", "libx264", coding=_X264),
    "webm, vp9": Kind(".webm", "libvpx-vp9", coding={"g": "9", "deadline": "realtime", "cpu-used": "8", "crf": "20"}),
    "avi, mpeg4 with B-frames": Kind(".avi", "mpeg4", coding={"bf": "2", "g": "9", "qmax": "8"}),
    "avi, mjpeg": Kind(".avi", "mjpeg", "yuvj420p", coding={"qmax": "6"}),
    "mpegts, h264": Kind(".ts", "libx264", coding=_X264),
    "mpg, mpeg2": Kind(".mpg", "mpeg2video", coding={"bf": "2", "g": "9", "qmax": "8"}),
    "flv": Kind(".flv", "flv", coding={"g": "9", "qmax": "8"}),
    "wmv": Kind(".wmv", "wmv2", container="asf", coding={"g": "9", "qmax": "8"}),
    "gif": Kind(".gif", "gif", "gray"),
}


@functools.cache
def draw_frames() -> list[np.ndarray]:
    """RGB frames that tell their number: large digits on moving waves, with grains that no other frame has."""
    rng = np.random.default_rng(0)
    frames = []
    across, down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    for number in range(NUM_FRAMES):
        waves = [np.sin((across + 5 * number) / 13), np.sin((down - 6 * number) / 11), np.sin((across + down) / 17)]
        brightness = 125 + 30 * waves[0] + 25 * waves[1] + rng.integers(-8, 9, (HEIGHT, WIDTH))
        colours = [brightness + 15 * waves[2], brightness, brightness - 15 * waves[0]]
        frame = np.stack(colours, -1).clip(0, 255).astype(np.uint8)
        cv2.putText(frame, f"{number:02d}", (14, 72), cv2.FONT_HERSHEY_SIMPLEX, 2.4, (230, 230, 230), 11)
        cv2.putText(frame, f"{number:02d}", (14, 72), cv2.FONT_HERSHEY_SIMPLEX, 2.4, (40, 40, 40), 5)
        frames.append(frame)
    return frames


def write_source(path: Path, kind: Kind) -> Path:
    """Writes the frames of `draw_frames`, at 25 a second; the same bytes each time."""
    with av.open(str(path), "w", format=kind.container, options={"fflags": "+bitexact", **kind.muxing}) as container:
        stream = container.add_stream(kind.codec, rate=25, options={"flags": "+bitexact", **kind.coding})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, kind.pix_fmt
        for image in draw_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_sources(folder: Path) -> dict[str, Path]:
    """One file of each kind."""
    return {
        name: write_source(folder / f"source_{number}{kind.suffix}", kind)
        for number, (name, kind) in enumerate(KINDS.items())
    }


def _any_place(data: bytearray, rng: random.Random) -> tuple[int, int]:
    return 0, len(data)


def _header_place(data: bytearray, rng: random.Random) -> tuple[int, int]:
    return 0, min(_HEADER, len(data))


def _edge_place(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """The first bytes or, as some formats have their index there, the last ones."""
    return (max(0, len(data) - _HEADER), len(data)) if rng.random() < 0.3 else (0, min(_HEADER, len(data)))


def _flip(data: bytearray, rng: random.Random, num_bytes: int, start: int, stop: int) -> None:
    for _ in range(num_bytes):
        data[rng.randrange(start, stop)] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])


def _overwrite(data: bytearray, rng: random.Random, start: int, stop: int, with_zeros: bool) -> None:
    length = min(stop - start, int(10 ** rng.uniform(0.5, 3.3)))
    first = rng.randrange(start, stop - length + 1)
    data[first : first + length] = bytes(length) if with_zeros else rng.randbytes(length)


def _chunk(data: bytearray, rng: random.Random) -> tuple[int, int]:
    length = min(len(data) // 3, int(10 ** rng.uniform(0, 4)))
    start = rng.randrange(0, len(data) - length)
    return start, start + max(1, length)


def _few_flips(data: bytearray, rng: random.Random) -> None:
    _flip(data, rng, rng.randint(1, 5), *_any_place(data, rng))


def _many_flips(data: bytearray, rng: random.Random) -> None:
    _flip(data, rng, rng.randint(20, 400), *_any_place(data, rng))


def _random_run(data: bytearray, rng: random.Random) -> None:
    _overwrite(data, rng, *_any_place(data, rng), with_zeros=False)


def _zero_run(data: bytearray, rng: random.Random) -> None:
    _overwrite(data, rng, *_any_place(data, rng), with_zeros=True)


def _remove(data: bytearray, rng: random.Random) -> None:
    start, stop = _chunk(data, rng)
    del data[start:stop]


def _duplicate(data: bytearray, rng: random.Random) -> None:
    start, stop = _chunk(data, rng)
    place = rng.choice([stop, rng.randrange(len(data))])
    data[place:place] = data[start:stop]


def _swap(data: bytearray, rng: random.Random) -> None:
    start, stop = _chunk(data, rng)
    length = stop - start
    other = rng.randrange(0, len(data) - length)
    data[start:stop], data[other : other + length] = data[other : other + length], data[start:stop]


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def _header_flips(data: bytearray, rng: random.Random) -> None:
    _flip(data, rng, rng.randint(1, 8), *_header_place(data, rng))


def _header_run(data: bytearray, rng: random.Random) -> None:
    start, stop = _edge_place(data, rng)
    length = rng.randint(1, min(32, stop - start))
    first = rng.randrange(start, stop - length + 1)
    data[first : first + length] = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)


def _extreme_fields(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        start, stop = _any_place(data, rng) if rng.random() < 0.2 else _edge_place(data, rng)
        place = rng.randrange(start, max(start + 1, stop - 4))
        data[place : place + 4] = rng.choice(_EXTREMES).to_bytes(4, rng.choice(["big", "little"]))


MUTATIONS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "few bytes changed": _few_flips,
    "many bytes changed": _many_flips,
    "a run overwritten at random": _random_run,
    "a run overwritten with zeros": _zero_run,
    "a piece removed": _remove,
    "a piece duplicated": _duplicate,
    "two pieces swapped": _swap,
    "truncated": _truncate,
    "header: bytes changed": _header_flips,
    "header or end: a run overwritten": _header_run,
    "32-bit fields at extremes": _extreme_fields,
}


def mutate(data: bytes, seed: int, number: int) -> tuple[bytes, str]:
    """The file of this number, damaged, and how; the same for the same seed."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(list(MUTATIONS))
    changed = bytearray(data)
    while bytes(changed) == data:
        changed = bytearray(data)
        MUTATIONS[name](changed, rng)
    return bytes(changed), name
