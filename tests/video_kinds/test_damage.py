"""Files that are cut, damaged or crafted."""

import json
import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor, pipeline

from s2d_hf.video_reading_s2d import read_video

from ..made_videos import case_number, make_video, numbered, plain_decode, plain_rgb
from ..warm_python import WarmPython
from .readers import MARK, check_readers, nearest, scores_of

HOSTILE_CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "hostile"
MEDIA = (".mp4", ".mkv", ".avi", ".png", ".gif")
# The files of shared/cases: the numbers that a player shows.
CASES = {
    "hang_cut.mp4": [*range(248, 324), 325],
    "x.avi": list(range(102)),
    "ok.ts": [*range(201), 203],
    "anam.mp4": list(range(102)),
    "live.webm": list(range(102)),
    "cat.ts": list(range(200)),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(shared, plain, name):
    path = shared / "cases" / name
    if not path.is_file():
        pytest.skip("needs the videos in ../shared/cases")
    numbers = CASES[name]
    assert read_video(path, lambda metadata: [0])[0][0].shape == (3, 360, 640)
    check_readers(path, numbers, [(number - numbers[0]) / 25 for number in numbers], plain, case_number)


@pytest.mark.parametrize("name", CASES)
def test_cases_in_a_pipeline(shared, converted, name):
    """The scores are those of the right frames as arrays."""
    path = shared / "cases" / name
    if not path.is_file():
        pytest.skip("needs the videos in ../shared/cases")
    classifier = pipeline("video-classification", model=str(converted))
    decoded = plain_decode(path)
    times = (np.array(CASES[name]) - CASES[name][0]) / 25
    right = [plain_rgb(decoded[min(allowed)], 640, 360) for allowed in nearest(times, 4)]
    inputs = AutoVideoProcessor.from_pretrained(converted)(right, return_tensors="pt")
    with torch.no_grad():
        probabilities = classifier.model(**inputs).logits.softmax(-1)[0]
    expected = {classifier.model.config.id2label[i]: float(value) for i, value in enumerate(probabilities)}
    assert scores_of(classifier(str(path), top_k=7)) == pytest.approx(expected, abs=1e-4)


HOSTILE = """
import json, logging, resource, sys, time
from s2d_hf import S2DVideoProcessor
from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
for name in ("s2d_hf", "transformers"):
    logging.getLogger(name).addHandler(handler)
plain = S2DVideoProcessor(do_landmarks=False, do_rescale=False, do_normalize=False)

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024

def timeline(path):
    with open_stream(path) as stream:
        return sum(1 for _ in sample_evenly(stream, 8))

ways = {
    "all": lambda path: len(read_video(path, lambda metadata: range(min(300, metadata.total_num_frames)))[0]),
    "processor": lambda path: len(plain(path, return_tensors="pt")["pixel_values"][0]),
    "timeline": timeline,
}
for path in sys.argv[1:]:
    for way, read in ways.items():
        told.clear()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before, start = peak(), time.monotonic()
        try:
            count, error = read(path), None
        except Exception as caught:
            count, error = None, f"{type(caught).__name__}: {caught}"
        took = time.monotonic() - start
        print(json.dumps([path, way, count, error, list(told), took, peak() - before]), flush=True)
"""


def read_hostile(python: WarmPython, files: list[Path]) -> dict[tuple[str, str], tuple[int | None, list[str]]]:
    """Reads files in a process of its own, and checks what holds for all: by name and way, the frames and warnings."""
    run = python.run("-c", HOSTILE, *files, timeout=240)
    found = {}
    for line in run.stdout.splitlines():
        path, way, count, error, told, seconds, megabytes = json.loads(line)
        refused = (error or "").startswith("ValueError: ") and Path(path).name in error
        assert count or refused, (path, way, count, error)
        assert seconds < 20 and megabytes < 600, (path, way, seconds, megabytes)
        found[Path(path).name, way] = (count, [message for message in told if Path(path).name in message])
    assert run.returncode == 0 and len(found) == 3 * len(files), (run.returncode, run.stderr[-2000:])
    return found


WAYS = ("all", "processor", "timeline")


def make_hostile_files(folder: Path) -> list[Path]:
    """Damaged and crafted files, and two that are whole."""
    whole = make_video(folder / "whole.mkv", map(numbered, range(75)), b_frames=2, gop=25)
    data = whole.read_bytes()
    (folder / "cut70.mkv").write_bytes(data[: 7 * len(data) // 10])
    movie = make_video(folder / "movie.mp4", map(numbered, range(75)), container_options={"movflags": "+faststart"})
    data = movie.read_bytes()
    (folder / "cut2.mp4").write_bytes(data[: len(data) // 50])
    (folder / "cut70.mp4").write_bytes(data[: 7 * len(data) // 10])
    make_video(folder / "wide.mp4", map(numbered, range(5)), aspect=Fraction(40, 1))
    Image.new("1", (13000, 13000)).save(folder / "bomb.png")
    (folder / "bomb.gif").write_bytes(b"GIF89a" + struct.pack("<HHBBB", 13000, 13000, 0, 0, 0) + b"\x2c" + bytes(50))
    days = [*range(25), *range(86400 * 250, 86400 * 250 + 25)]
    make_video(folder / "days.mkv", map(numbered, range(50)), pts=days)
    for name, box, value in (("counts.mp4", b"stts", 2**31 - 1), ("sizes.mp4", b"stsz", 5)):
        changed = bytearray(data)
        # how many frames the table of their times, or of their sizes, speaks of
        place = changed.index(box) + 12
        changed[place : place + 4] = struct.pack(">I", value)
        (folder / name).write_bytes(changed)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    for i, kind in enumerate(("libx264", "mpeg4", "libx264")):  # random damage in the middle
        path = make_video(folder / f"damaged{i}{('.mp4', '.avi', '.mkv')[i]}", map(numbered, range(75)), kind, gop=25)
        changed = bytearray(path.read_bytes())
        for place in np.random.default_rng(i).integers(len(changed) // 3, 2 * len(changed) // 3, 40):
            changed[place] ^= 0xFF
        path.write_bytes(changed)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def hostile(warm_python, tmp_path_factory) -> dict[tuple[str, str], tuple[int | None, list[str]]]:
    """What `read_hostile` finds in the files that are made here, and in those of shared/cases/hostile."""
    files = make_hostile_files(tmp_path_factory.mktemp("hostile"))
    if HOSTILE_CASES.is_dir():
        files += sorted(HOSTILE_CASES / name for name in os.listdir(HOSTILE_CASES) if name.endswith(MEDIA))
    return read_hostile(warm_python, files)


def test_hostile_cases(shared, hostile):
    if not HOSTILE_CASES.is_dir():
        pytest.skip("needs the files in ../shared/cases/hostile")
    files = [path for path in HOSTILE_CASES.iterdir() if path.name.endswith(MEDIA)]
    assert len(files) >= 10
    refused = {"fast_mp4__trunc02.mp4", "sar_tkhd_600x1.mp4", "bomb_13000.png", "gif_13000.gif"}
    damaged = {"h264_mkv__trunc70.mkv", "stsz_count5.mp4", "stts_day_ts1.mp4", "frag_mp4__flip_all_64_1.mp4"}
    for path in files:
        for way in WAYS:
            count, told = hostile[path.name, way]
            assert (count is None) == (path.name in refused), (path.name, way, count)
            assert bool(told) == (path.name in damaged), (path.name, way, told)
        if path.name in refused | damaged:
            continue
        # as many frames as a plain decode finds, and none is repeated for days
        decodable = len(plain_decode(path))
        assert hostile[path.name, "all"][0] == min(300, decodable), path.name
        assert hostile[path.name, "timeline"][0] <= decodable + 2 * MARK, path.name


def test_hostile_kinds(hostile):
    """The same kinds, made here."""
    for way in WAYS:
        for name in ("cut2.mp4", "wide.mp4", "bomb.png", "bomb.gif", "noise.mp4"):
            assert hostile[name, way][0] is None, (name, way)
        for name in ("cut70.mkv", "cut70.mp4", "sizes.mp4", "damaged0.mp4", "damaged1.avi", "damaged2.mkv"):
            assert hostile[name, way][0] and hostile[name, way][1], (name, way)
    for name in ("whole.mkv", "movie.mp4", "counts.mp4"):
        assert hostile[name, "all"] == (75, []) and hostile[name, "timeline"] == (24, []), name
    assert hostile["days.mkv", "all"] == (50, [])
    assert 15 <= hostile["days.mkv", "timeline"][0] <= 18
