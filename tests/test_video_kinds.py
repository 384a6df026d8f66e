"""
Videos of every kind, read by everything that reads videos. What is right is burnt into the pictures, or comes from a
plain decode from the start.
"""

import ctypes
import itertools
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor, pipeline

from s2d_hf import S2DVideoProcessor
from s2d_hf.data.dataset import ClipDataset
from s2d_hf.data.sources import LabelledSamples, Sample, from_hub
from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_files_s2d import VideoFile, open_video
from s2d_hf.video_reading_s2d import read_video

from .made_videos import (
    HEIGHT,
    WIDTH,
    as_array,
    case_number,
    copy_packets,
    make_video,
    number_of,
    numbered,
    plain_decode,
    plain_rgb,
    yuv_to_rgb,
)
from .videos import turn_video, write_timed_video, write_video

HOSTILE_CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "hostile"
MEDIA = (".mp4", ".mkv", ".avi", ".png", ".gif")
MARK = 8  # samples a second in the timeline


@pytest.fixture(scope="module")
def plain() -> S2DVideoProcessor:
    """16 frames as they are, in 0..255."""
    return S2DVideoProcessor(
        do_landmarks=False, do_rescale=False, do_normalize=False, do_resize=False, do_center_crop=False
    )


# tests whose files are damaged, or may be
MAY_WARN = (
    "test_cases", "test_cases_in_a_pipeline", "test_hostile_cases", "test_hostile_kinds",
    "test_cuts_in_the_middle_of_a_group", "test_recordings_one_behind_the_other",
    "test_times_that_start_again_with_sound", "test_open_groups_whose_first_one_is_cut_off", "test_lost_packets",
    "test_movies_that_refer_to_other_files", "test_files_that_break_off",
    "test_names_in_warnings",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_false_warnings(request, caplog) -> Iterator[None]:
    """Nothing is said of files that are whole."""
    yield
    if request.function.__name__ not in MAY_WARN:
        records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
        assert [record.getMessage() for record in records if record.name.startswith("s2d_hf")] == []


def whole_clip(clip: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """An augmentation that does nothing."""
    return clip


def dataset_of(path: Path | str, num_frames: int = 16) -> ClipDataset:
    samples = LabelledSamples([Sample("the sample", 0, path=path)], ["a", "b"])
    return ClipDataset(samples, num_frames, augmentation=whole_clip)


def nearest(times: list[float], num_frames: int = 16, within: float = 1e-4) -> list[set[int]]:
    """For each of the times that divide a video evenly, the indices of the frames that are nearest (two in a tie)."""
    times = np.asarray(times)
    distances = np.abs(times - np.linspace(times[0], times[-1], num_frames)[:, None])
    return [set(np.flatnonzero(row <= row.min() + 2 * within).tolist()) for row in distances]


def check_even(found: list[int], numbers: list[int], times: list[float], within: float = 1e-4) -> None:
    if len(times) <= len(found):
        assert found == [numbers[min(i, len(numbers) - 1)] for i in range(len(found))]
        return
    for number, allowed in zip(found, nearest(times, len(found), within), strict=True):
        assert number in {numbers[i] for i in allowed}


def check_timeline(path: Path, numbers: list[int], times: list[float], number, within: float) -> None:
    """`times` are those of a player; frames must not lie further apart than two seconds."""
    with open_stream(path) as stream:
        samples = list(sample_evenly(stream, MARK))
    at = [sample.time for sample in samples]
    first = round(at[0] * MARK)
    assert at == pytest.approx((first + np.arange(len(at))) / MARK)
    assert at[0] <= times[0] + 1 / MARK and at[-1] >= times[-1] - 1 / MARK
    for sample in samples:
        distances = np.abs(np.asarray(times) - sample.time)
        allowed = {numbers[i] for i in np.flatnonzero(distances <= distances.min() + 2 * within)}
        assert number(sample.pixels) in allowed, (sample.time, number(sample.pixels), allowed)


def check_readers(
    path: Path,
    numbers: list[int],
    times: list[float],
    plain,
    number=number_of,
    starts_at: float = 0.0,
    within: float = 1e-4,
) -> None:
    """
    Everything that reads videos finds these numbers at these times, which count from the first frame; `within` says
    how well the file can tell which of two frames is the nearer one.
    """
    frames, metadata = read_video(path)
    assert [number(frame) for frame in frames] == numbers
    np.testing.assert_allclose(metadata.frame_times, times, atol=0.0015)
    assert metadata.total_num_frames == len(numbers)
    rng = np.random.default_rng(len(numbers))
    for _ in range(3):
        chosen = np.sort(rng.integers(0, len(numbers), 4))
        frames, metadata = read_video(path, lambda metadata, chosen=chosen: chosen)
        assert [number(frame) for frame in frames] == [numbers[i] for i in chosen]
        np.testing.assert_allclose(metadata.timestamps, np.asarray(times)[chosen], atol=0.0015)
    clip = plain(path, return_tensors="pt")["pixel_values"][0]
    check_even([number(frame) for frame in clip], numbers, times, within)
    torch.testing.assert_close(dataset_of(path)[0]["frames"].float(), clip.float(), atol=0, rtol=0)
    check_timeline(path, numbers, [starts_at + seconds for seconds in times], number, within)


def scores_of(entries: list[dict]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in entries}


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


def read_hostile(files: list[Path]) -> dict[tuple[str, str], tuple[int | None, list[str]]]:
    """Reads files in a process of its own, and checks what holds for all: by name and way, the frames and warnings."""
    command = [sys.executable, "-c", HOSTILE, *map(str, files)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
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
def hostile(tmp_path_factory) -> dict[tuple[str, str], tuple[int | None, list[str]]]:
    """What `read_hostile` finds in the files that are made here, and in those of shared/cases/hostile."""
    files = make_hostile_files(tmp_path_factory.mktemp("hostile"))
    if HOSTILE_CASES.is_dir():
        files += sorted(HOSTILE_CASES / name for name in os.listdir(HOSTILE_CASES) if name.endswith(MEDIA))
    return read_hostile(files)


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


# suffix, codec, and what else `make_video` is given
KINDS = {
    "mp4-h264": (".mp4", "libx264", {"gop": 12, "b_frames": 2}),
    "mp4-fragmented": (".mp4", "libx264", {"gop": 12, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mp4-hevc": (".mp4", "libx265", {"gop": 12}),
    "mov-mjpeg": (".mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "mov-prores": (".mov", "prores_ks", {"pix_fmt": "yuv422p10le"}),
    "mkv-vp8": (".mkv", "libvpx", {"gop": 12}),
    "mkv-h264": (".mkv", "libx264", {"gop": 12, "b_frames": 2}),
    "webm-vp9": (".webm", "libvpx-vp9", {"gop": 12}),
    "webm-live": (".webm", "libvpx-vp9", {"gop": 12, "container_options": {"live": "1"}}),
    "webm-av1": (".webm", "libsvtav1", {"gop": 12}),
    "avi-mpeg4": (".avi", "mpeg4", {"gop": 12}),
    "avi-xvid": (".avi", "mpeg4", {"gop": 12, "b_frames": 2, "prepare": lambda context: tag(context, "XVID")}),
    "avi-xvid-10": (".avi", "mpeg4", {"gop": 12, "b_frames": 2, "rate": 10}),
    "avi-h264": (".avi", "libx264", {"gop": 12, "b_frames": 2}),
    "avi-mjpeg": (".avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "ts-h264": (".ts", "libx264", {"gop": 12, "b_frames": 2}),
    "ts-hevc": (".ts", "libx265", {"gop": 12}),
    "m2ts-h264": (".m2ts", "libx264", {"gop": 12, "b_frames": 2}),
    "ts-mpeg2": (".ts", "mpeg2video", {"gop": 12, "b_frames": 2}),
    "mpg-mpeg2": (".mpg", "mpeg2video", {"gop": 12, "b_frames": 2}),
    "mpg-mpeg1": (".mpg", "mpeg1video", {"gop": 12, "b_frames": 2}),
    "flv-flv1": (".flv", "flv", {"gop": 12}),
    "flv-h264": (".flv", "libx264", {"gop": 12, "b_frames": 2}),
    "wmv-wmv2": (".wmv", "wmv2", {"gop": 12}),
    "ogv-theora": (".ogv", "libtheora", {"gop": 12}),
    "ogv-vp8": (".ogv", "libvpx", {"gop": 12}),
    "gif": (".gif", "gif", {"pix_fmt": "rgb8"}),
    "apng": (".apng", "apng", {"pix_fmt": "rgb24"}),
    "raw-h264": (".h264", "libx264", {"gop": 12, "b_frames": 2}),
    "raw-hevc": (".hevc", "libx265", {"gop": 12}),
    "raw-mjpeg": (".mjpeg", "mjpeg", {"pix_fmt": "yuvj420p"}),
    "raw-mpeg2": (".m2v", "mpeg2video", {"gop": 12, "b_frames": 2, "container_format": "mpeg2video"}),
    "obu-av1": (".obu", "libsvtav1", {"gop": 12}),
    "ivf-vp8": (".ivf", "libvpx", {"gop": 12}),
    "nut-ffv1": (".nut", "ffv1", {}),
    "mkv-ffv1": (".mkv", "ffv1", {}),
    "mxf-mpeg2": (".mxf", "mpeg2video", {"gop": 12}),
    "y4m": (".y4m", "rawvideo", {"container_format": "yuv4mpegpipe"}),
}


def tag(context, name: str) -> None:
    context.codec_tag = name


def make_or_skip(path: Path, pictures, codec: str, **options) -> Path:
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    return make_video(path, pictures, codec, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path, plain, kind):
    suffix, codec, options = KINDS[kind]
    path = make_or_skip(tmp_path / f"video{suffix}", map(numbered, range(90)), codec, **options)
    times = np.arange(90) / options.get("rate", 25)
    check_readers(path, list(range(90)), times.tolist(), plain)
    if kind == "webm-live":
        with av.open(str(path)) as container:
            assert container.duration is None and container.streams.video[0].duration is None


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_animated_pictures(tmp_path, plain, suffix):
    path = tmp_path / f"moving{suffix}"
    pictures = [Image.fromarray(numbered(i)) for i in range(40)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)


def test_pixels_that_are_not_square(tmp_path, plain):
    for name, aspect, size in (("wide", Fraction(16, 9), (284, 96)), ("high", Fraction(1, 2), (80, 96))):
        path = make_video(tmp_path / f"{name}.mp4", map(numbered, range(40)), aspect=aspect)
        check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)
        with open_stream(path) as stream:
            (first, *_) = sample_evenly(stream, MARK)
            assert (stream.width, stream.height) == size and first.pixels.shape == (size[1], size[0], 3)
        clip = plain(path, return_tensors="pt")["pixel_values"]
        assert clip.shape == (1, 16, 3, size[1], size[0])
        assert dataset_of(path)[0]["frames"].shape == clip.shape[1:]


def test_recordings_one_behind_the_other(tmp_path, plain):
    parts = [
        make_video(tmp_path / f"{i}.ts", map(numbered, range(50 * i, 50 * i + 50)), gop=25, b_frames=2) for i in (0, 1)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    check_readers(both, list(range(100)), (np.arange(100) / 25).tolist(), plain)
    with open_video(both) as video:
        assert [i for i, frame in enumerate(video.frames()) if frame.after_cut] == [50]


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory) -> dict[str, Path]:
    """600 frames with a key frame every 50, in closed and open groups of pictures."""
    folder = tmp_path_factory.mktemp("long")
    videos = {}
    for kind, parameters in {"closed": "open-gop=0", "open": "open-gop=1"}.items():
        parameters += ":scenecut=0:keyint=50:min-keyint=50"
        for suffix in ("mp4", "mkv"):
            videos[f"{kind}-{suffix}"] = make_video(
                folder / f"{kind}.{suffix}", map(numbered, range(600)), gop=50, b_frames=3,
                options={"x264-params": parameters},
            )  # fmt: skip
    return videos


@pytest.mark.parametrize("kind", ["closed-mp4", "closed-mkv", "open-mp4", "open-mkv"])
def test_jumps_to_key_frames(long_videos, monkeypatch, kind):
    path = long_videos[kind]
    decoded = plain_decode(path)
    with av.open(str(path)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert sum(keys) == 12 and len(decoded) == 600
    jumps = []
    original = VideoFile.decoded_from
    monkeypatch.setattr(VideoFile, "decoded_from", lambda self, pts: jumps.append(pts) or original(self, pts))
    rng = np.random.default_rng(0)
    chosen = [np.sort(rng.integers(0, 600, count)) for count in (1, 2, 3, 5, 8, 16)]
    chosen += [np.array(indices) for indices in ([599], [0, 599], [50], [49, 350], [99, 100, 101], [548, 550, 552])]
    # the last frames before and the first ones at each key frame, where open groups reach into each other
    chosen += [np.array([0, *range(key - 4, key + 4)]) for key in (200, 350, 550)]
    for indices in chosen:
        frames, metadata = read_video(path, lambda metadata, indices=indices: indices)
        assert [number_of(frame) for frame in frames] == indices.tolist()
        np.testing.assert_allclose(metadata.timestamps, indices / 25, atol=0.0015)
        for frame, index in zip(frames, indices, strict=True):
            np.testing.assert_array_equal(as_array(frame), plain_rgb(decoded[index]))
    assert len(jumps) >= 10


X265 = "log-level=none:open-gop=1:keyint=50:min-keyint=50:bframes=3:scenecut=0"
ALTREF = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "8"}
JUMPED = {
    "vp8.webm": ("libvpx", {"options": ALTREF}),
    "vp9.webm": ("libvpx-vp9", {"options": ALTREF}),
    "av1.mp4": ("libsvtav1", {}),
    "av1.mkv": ("libsvtav1", {}),
    "hevc.mp4": ("libx265", {"options": {"x265-params": X265}}),
    "hevc.mkv": ("libx265", {"options": {"x265-params": X265}}),
    "mpeg4.mp4": ("mpeg4", {"b_frames": 2}),
    "mpeg2.mkv": ("mpeg2video", {"b_frames": 2}),
    "fragmented.mp4": ("libx264", {"b_frames": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "refreshed.mp4": ("libx264", {"b_frames": 0, "options": {"x264-params": "intra-refresh=1:keyint=50"}}),
    "sound.mp4": ("libx264", {"b_frames": 2, "sound": ("aac", 0.0, 8.0)}),
    "sound.mkv": ("libx264", {"b_frames": 2, "sound": ("aac", 0.0, 8.0)}),
    "late.mp4": ("libx264", {"b_frames": 2, "pts": range(100, 300)}),
    "late.mkv": ("libx264", {"b_frames": 2, "pts": range(100, 300)}),
    "live.mkv": ("libx264", {"b_frames": 2, "container_options": {"live": "1"}}),
    "negative.mp4": ("libx264", {"b_frames": 2, "container_options": {"movflags": "negative_cts_offsets"}}),
    "video.ts": ("libx264", {"b_frames": 2}),
    "video.avi": ("mpeg4", {"b_frames": 2}),
    "video.mpg": ("mpeg2video", {"b_frames": 2}),
    "video.flv": ("libx264", {"b_frames": 2}),
    "video.wmv": ("wmv2", {}),
}


@pytest.mark.parametrize("name", JUMPED)
def test_chosen_frames_of_longer_videos(tmp_path, name):
    """Chosen frames are those of a plain decode, pixel for pixel, whatever the codec."""
    codec, options = JUMPED[name]
    path = make_or_skip(tmp_path / name, map(numbered, range(200)), codec, gop=50, **options)
    decoded = plain_decode(path)
    assert len(decoded) == 200
    for indices in ([199], [0, 150], [51, 149, 150], [0, 199], [97, 98, 99, 100, 101], [3, 180], [120, 120]):
        frames, metadata = read_video(path, lambda metadata, indices=indices: indices)
        assert [number_of(frame) for frame in frames] == indices
        np.testing.assert_allclose(metadata.timestamps, np.array(indices) / 25, atol=0.0015)
        for frame, index in zip(frames, indices, strict=True):
            np.testing.assert_array_equal(as_array(frame), plain_rgb(decoded[index]))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "libsvtav1", "libvpx-vp9"])
def test_key_frames_that_are_none(tmp_path, codec):
    """Without its table of key frames, an MP4 file says that every frame is one."""
    path = make_or_skip(tmp_path / "a.mp4", map(numbered, range(200)), codec, gop=50)
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    decoded = plain_decode(path)
    for indices in ([199], [140], [0, 120], [133, 134, 180]):
        frames, _ = read_video(path, lambda metadata, indices=indices: indices)
        for frame, index in zip(frames, indices, strict=True):
            np.testing.assert_array_equal(as_array(frame), plain_rgb(decoded[index]))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_files_that_break_off(tmp_path, plain, caplog, suffix):
    """Everything up to the break is there, with a warning."""
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    path = make_video(
        tmp_path / f"a{suffix}", map(numbered, range(200)), gop=50, b_frames=2, container_options=options
    )
    data = path.read_bytes()
    path.write_bytes(data[: 8 * len(data) // 10])
    decoded = plain_decode(path)
    count = len(decoded)
    assert 140 < count < 180
    frames, _ = read_video(path)
    if suffix != ".ts":  # which doesn't state how long it is
        assert "is damaged" in caplog.text
    assert count - 3 <= len(frames) <= count + 1  # those behind the last whole one may be lost
    for chosen in (list(range(count - 2)), [0, count - 3], [120]):
        frames, _ = read_video(path, lambda metadata, chosen=chosen: chosen)
        assert [number_of(frame) for frame in frames] == chosen
    clip = plain(path, return_tensors="pt")["pixel_values"][0]
    assert number_of(clip[0]) == 0 and abs(number_of(clip[8]) - count * 8 / 15) < 3


def test_videos_that_are_read_at_once(long_videos):
    """Threads do not mix up what they read."""

    def read(path: Path) -> tuple[list[int], list[int]]:
        chosen = [3, 199, 200, 420, 599]
        some, _ = read_video(path, lambda metadata: chosen)
        first, _ = read_video(path, lambda metadata: range(60))
        return [number_of(frame) for frame in some], [number_of(frame) for frame in first]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(read, list(long_videos.values()) * 2):
            assert found == ([3, 199, 200, 420, 599], list(range(60)))


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx264", ".mp4"), ("libx264", ".mkv"), ("libx265", ".mp4"), ("libx265", ".mkv"), ("libx265", ".ts")],
)
def test_open_groups_whose_first_one_is_cut_off(tmp_path, plain, codec, suffix):
    """The frames that lead to the first key frame need what is gone."""
    parameters = {"x265-params": X265} if codec == "libx265" else {"x264-params": X265.replace("log-level=none:", "")}
    whole = make_or_skip(tmp_path / "a.mp4", map(numbered, range(150)), codec, gop=50, b_frames=3, options=parameters)
    with av.open(str(whole)) as container:
        keys = [packet.dts * packet.time_base for packet in container.demux(video=0) if packet.is_keyframe]
    path = copy_packets(
        whole, tmp_path / f"b{suffix}", 0.4 - float(keys[1]),
        keeps=lambda packet: packet.dts * packet.time_base >= keys[1],
    )  # fmt: skip
    decoded = plain_decode(path)
    numbers = [number_of(plain_rgb(frame)) for frame in decoded]
    assert numbers[-100:] == list(range(50, 150))
    check_readers(path, numbers, [frame.time - decoded[0].time for frame in decoded], plain)


def test_lost_packets(tmp_path, plain, caplog):
    """A recording of which the middle has not arrived: what is left, with its times and a warning."""
    path = make_video(tmp_path / "a.ts", map(numbered, range(200)), gop=25, b_frames=2)
    data = path.read_bytes()
    packets = len(data) // 188
    path.write_bytes(data[: 188 * (packets // 3)] + data[188 * (packets // 2) :])
    decoded = plain_decode(path)
    right = np.array([frame.time for frame in decoded])
    frames, metadata = read_video(path)
    assert "is damaged" in caplog.text
    assert len(frames) == len(decoded)
    # one frame comes late out of the decoder, between frames of a later time
    np.testing.assert_allclose(metadata.frame_times[:60], right[:60] - right[0], atol=0.0015)
    np.testing.assert_allclose(metadata.frame_times[-90:], right[-90:] - right[0], atol=0.0015)
    assert (np.diff(metadata.frame_times) > 0).all()
    for frame, as_decoded in zip(frames, decoded, strict=True):
        np.testing.assert_array_equal(as_array(frame), plain_rgb(as_decoded))


@pytest.fixture(scope="module")
def uncut(tmp_path_factory) -> Path:
    """150 frames in closed groups of 25, with B-frames."""
    path = tmp_path_factory.mktemp("uncut") / "uncut.mp4"
    return make_video(path, map(numbered, range(150)), gop=25, b_frames=2, options={"x264-params": "scenecut=0"})


PLACES = list(range(3, 143, 7))  # 20 frames to cut at


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_cuts_with_an_edit_list(uncut, tmp_path, plain, suffix):
    """What lies between the key frame and the cut is in the file, and not shown."""
    for place in PLACES:
        key = place // 25 * 25
        path = copy_packets(
            uncut, tmp_path / f"{place}{suffix}", -place / 25,
            keeps=lambda packet, key=key: round(packet.pts * packet.time_base * 25) >= key,
        )  # fmt: skip
        numbers = list(range(place, 150))
        frames, metadata = read_video(path)
        assert [number_of(frame) for frame in frames] == numbers, place
        np.testing.assert_allclose(metadata.frame_times, np.arange(len(numbers)) / 25, atol=0.0015)
        if place in (3, 45, 101):
            check_readers(path, numbers, (np.arange(len(numbers)) / 25).tolist(), plain)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_cuts_in_the_middle_of_a_group(uncut, tmp_path, plain, suffix):
    """Whatever a plain decode shows, at the same times."""
    for place in PLACES:
        path = copy_packets(
            uncut, tmp_path / f"{place}{suffix}", -place / 25 + 1,
            keeps=lambda packet, place=place: round(packet.dts * packet.time_base * 25) >= place,
        )  # fmt: skip
        decoded = plain_decode(path)
        if not decoded:  # there is no key frame any more
            assert place > 125
            with pytest.raises(ValueError, match=f"{place}{suffix} could not be decoded"):
                read_video(path)
            continue
        frames, metadata = read_video(path)
        times = [frame.time - decoded[0].time for frame in decoded]
        np.testing.assert_allclose(metadata.frame_times, times, atol=0.0015, err_msg=str(place))
        for frame, right in zip(frames, decoded, strict=True):
            np.testing.assert_array_equal(as_array(frame), plain_rgb(right))
        if place in (17, 45):
            with av.open(str(path)) as container:
                waits = decoded[0].time - container.start_time / av.time_base  # for the first key frame
            starts_at = waits if waits > 0.05 else 0.0
            check_readers(path, [number_of(plain_rgb(frame)) for frame in decoded], times, plain, starts_at=starts_at)


CORNERS = np.zeros((64, 96, 3), np.uint8)
CORNERS[:32, :48], CORNERS[:32, 48:], CORNERS[32:, :48] = (250, 20, 20), (20, 20, 250), (20, 250, 20)
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def turned(picture: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Each pixel at the place where the matrix puts it."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    new_x, new_y = a * x + c * y, b * x + d * y
    result = np.zeros((height, width, 3) if a else (width, height, 3), picture.dtype)
    result[np.rint(new_y - new_y.min()).astype(int), np.rint(new_x - new_x.min()).astype(int)] = picture
    return result


@pytest.mark.parametrize("matrix", MATRICES)
def test_turned_and_mirrored(tmp_path, plain, matrix):
    upright = write_video(tmp_path / "a.mp4", [CORNERS] * 4)
    path = turn_video(upright, tmp_path / "b.mp4", *matrix)
    right = turned(CORNERS, *matrix).astype(int)
    with open_stream(path) as stream:
        assert (stream.height, stream.width) == right.shape[:2]
        pictures = [sample.pixels for sample in sample_evenly(stream, MARK)]
    pictures += [as_array(frame) for frame in read_video(path)[0]]
    pictures += [as_array(frame) for frame in plain(path, return_tensors="pt")["pixel_values"][0]]
    pictures += [as_array(frame) for frame in dataset_of(path, 4)[0]["frames"]]
    assert len(pictures) == 2 + 4 + 16 + 4
    for picture in pictures:
        assert picture.shape == right.shape
        assert np.median(np.abs(picture.astype(int) - right)) <= 4
        assert (np.abs(picture.astype(int) - right).max(axis=-1) > 40).mean() < 0.05


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_frames_that_are_bunched_in_time(tmp_path, plain, suffix):
    pts = [*range(60), *range(80, 580, 50), *range(600, 640)]  # hundredths of a second
    path = make_video(
        tmp_path / f"a{suffix}", map(numbered, range(len(pts))), pts=pts, time_base=Fraction(1, 100), rate=100
    )
    times = (np.array(pts) / 100).tolist()
    check_readers(path, list(range(len(pts))), times, plain)
    chosen = [number_of(frame) for frame in plain(path, return_tensors="pt")["pixel_values"][0]]
    assert np.abs(np.array(times)[chosen] - np.linspace(0, times[-1], 16)).max() <= 0.2501


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".flv"])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), 120, 1])
def test_rates(tmp_path, plain, rate, suffix):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = make_video(tmp_path / f"a{suffix}", map(numbered, range(40)), codec, rate=rate, gop=12, b_frames=2)
    times = np.arange(40) / float(rate)
    check_readers(path, list(range(40)), times.tolist(), plain, within=0.0006)
    assert read_video(path)[1].fps == pytest.approx(float(rate), rel=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_time_lapse(tmp_path, plain, suffix):
    """A frame every five seconds: each is shown, and none through the seconds until the next one."""
    pts = range(0, 150, 5)
    path = make_video(tmp_path / f"a{suffix}", map(numbered, range(30)), pts=pts, rate=1, b_frames=0)
    frames, metadata = read_video(path)
    assert [number_of(frame) for frame in frames] == list(range(30))
    np.testing.assert_allclose(metadata.frame_times, pts, atol=0.0015)
    clip = plain(path, return_tensors="pt")["pixel_values"][0]
    check_even([number_of(frame) for frame in clip], list(range(30)), list(pts))
    with open_stream(path) as stream:
        samples = list(sample_evenly(stream, MARK))
    assert {number_of(sample.pixels) for sample in samples} == set(range(30))
    for sample in samples:
        assert 0 <= sample.time - pts[number_of(sample.pixels)] <= 2
    cuts = [sample.time for sample in samples if sample.after_cut]
    assert cuts == list(pts[1:])


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animated_pictures_of_uneven_times(tmp_path, plain, suffix):
    durations = [40, 200, 500, 100, 1000, 60] * 4
    pictures = [Image.fromarray(numbered(i)) for i in range(24)]
    path = tmp_path / f"a{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations)
    times = np.cumsum([0, *durations[:-1]]) / 1000
    check_readers(path, list(range(24)), times.tolist(), plain)


def test_edit_lists(uncut, tmp_path, plain):
    """A picture that begins later than the file, by an empty edit."""
    path = copy_packets(uncut, tmp_path / "late.mp4", 1.0)
    assert b"elst" in path.read_bytes()
    check_readers(path, list(range(150)), (np.arange(150) / 25).tolist(), plain)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_gap(tmp_path, plain, suffix):
    """A frame stands for two seconds of a gap of five, and is not repeated through it."""
    pts = [*range(50), *range(175, 225)]  # the last frame before it at 1.96, the first one after it at 7.0 s
    path = make_video(tmp_path / f"a{suffix}", map(numbered, range(100)), pts=pts)
    times = np.array(pts) / 25
    frames, metadata = read_video(path)
    assert [number_of(frame) for frame in frames] == list(range(100))
    np.testing.assert_allclose(metadata.frame_times, times, atol=0.0015)
    with open_video(path) as video:
        told = list(video.frames())
    assert [i for i, frame in enumerate(told) if frame.after_cut] == [50]
    with open_stream(path) as stream:
        samples = list(sample_evenly(stream, MARK))
    assert [sample.time for sample in samples if sample.after_cut] == [7.0]
    assert not [sample.time for sample in samples if 1.96 + 2.0 < sample.time < 6.9]
    for sample in samples:
        if 2.0 < sample.time < 6.9:
            assert number_of(sample.pixels) == 49
            continue
        assert abs(times[number_of(sample.pixels)] - sample.time) <= 0.0501
    # of the gap, two seconds count
    shortened = np.where(np.arange(100) < 50, times, times - 7.0 + 1.96 + 2.0)
    chosen = [number_of(frame) for frame in plain(path, return_tensors="pt")["pixel_values"][0]]
    check_even(chosen, list(range(100)), shortened.tolist())
    np.testing.assert_array_equal([number_of(frame) for frame in dataset_of(path)[0]["frames"]], chosen)


@pytest.mark.parametrize("suffix", [".mkv", ".nut"])
def test_jump_of_ten_days(tmp_path, plain, suffix):
    pts = [*range(50), *range(25 * 864000, 25 * 864000 + 50)]
    path = make_video(tmp_path / f"a{suffix}", map(numbered, range(100)), pts=pts)
    with open_video(path) as video:
        told = list(video.frames())
    assert [i for i, frame in enumerate(told) if frame.after_cut] == [50]
    with open_stream(path) as stream:
        samples = list(sample_evenly(stream, MARK))
    assert 30 <= len(samples) <= 34 and sum(sample.after_cut for sample in samples) == 1
    numbers = [number_of(sample.pixels) for sample in samples]
    assert numbers == sorted(set(numbers))
    frames, metadata = read_video(path)
    assert [number_of(frame) for frame in frames] == list(range(100))
    assert metadata.duration < 10
    chosen = [number_of(frame) for frame in plain(path, return_tensors="pt")["pixel_values"][0]]
    check_even(chosen, list(range(100)), (np.arange(100) / 25).tolist())


def test_times_that_start_again_with_sound(tmp_path, plain):
    parts = [
        make_video(
            tmp_path / f"{i}.ts",
            map(numbered, range(50 * i, 50 * i + 50)),
            gop=25,
            b_frames=2,
            sound=("mp2", 0.0, 2.0),
        )
        for i in (0, 1)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    check_readers(both, list(range(100)), (np.arange(100) / 25).tolist(), plain)
    with open_video(both, with_sound=True) as video:
        packets, cuts = [], []
        for i, frame in enumerate(video.frames()):
            cuts += [i] if frame.after_cut else []
            packets += [packet.recording for packet in video.sound]
            video.sound.clear()
    assert cuts == [50]
    assert set(packets) == {0, 1} and packets == sorted(packets)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "aac"), (".ts", "mp2"), (".flv", "aac")])
def test_sound_that_begins_before_the_picture(tmp_path, plain, suffix, codec):
    """The player's clock begins with the sound: the first frame's time is 0.7 s."""
    path = make_video(
        tmp_path / f"a{suffix}", map(numbered, range(50)), pts=[700 + 40 * i for i in range(50)],
        time_base=Fraction(1, 1000), sound=(codec, 0.0, 2.7), b_frames=0,
    )  # fmt: skip
    with open_video(path) as video:
        times = [frame.time for frame in video.frames()]
    np.testing.assert_allclose(times, 0.7 + np.arange(50) / 25, atol=0.03)
    check_readers(path, list(range(50)), (np.arange(50) / 25).tolist(), plain, starts_at=times[0])
    with open_stream(path) as stream:
        first = next(iter(sample_evenly(stream, MARK)))
    assert first.time == pytest.approx(0.75, abs=0.13) and number_of(first.pixels) <= 3


def test_sound_that_begins_after_the_picture(tmp_path):
    for suffix, codec in ((".mp4", "aac"), (".mkv", "aac"), (".ts", "mp2")):
        path = make_video(tmp_path / f"a{suffix}", map(numbered, range(25)), sound=(codec, 0.7, 1.0), b_frames=2)
        with open_video(path) as video:
            np.testing.assert_allclose([frame.time for frame in video.frames()], np.arange(25) / 25, atol=0.0015)


def test_sound_that_begins_with_the_picture(tmp_path):
    """The few milliseconds by which a codec's padding comes earlier are not the picture's delay."""
    for suffix, codec in ((".mp4", "aac"), (".mkv", "libopus"), (".ts", "mp2")):
        path = make_video(tmp_path / f"a{suffix}", map(numbered, range(25)), sound=(codec, 0.0, 1.0), b_frames=2)
        with open_video(path) as video:
            np.testing.assert_allclose([frame.time for frame in video.frames()], np.arange(25) / 25, atol=0.0015)


# Y, U and V in eight bits: grey, and colours that no matrix or range clips.
PATCHES = np.array(
    [(64, 128, 128), (128, 128, 128), (200, 128, 128), (110, 100, 170), (120, 160, 100), (100, 110, 110),
     (130, 150, 150), (90, 128, 155)]
)  # fmt: skip
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


def patches_frame(height: int, width: int, pix_fmt: str, patches: np.ndarray = PATCHES) -> av.VideoFrame:
    """Eight upright stripes of the colours in a frame whose planes are Y, U and V."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, component, values in zip(frame.planes, frame.format.components, patches.T, strict=False):
        values = values << (component.bits - 8)
        row = np.repeat(values, -(-plane.width // 8))[: plane.width]
        kind = np.uint8 if component.bits == 8 else np.uint16
        filled = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        filled[:, : plane.width] = row
        plane.update(filled.tobytes())
    return frame


def stripes_of(picture: np.ndarray) -> np.ndarray:
    """The colour in the middle of each of eight stripes, `(8, 3)`."""
    height, width = picture.shape[:2]
    columns = [round((i + 0.5) * width / 8) for i in range(8)]
    middle = slice(height // 4, 3 * height // 4)
    return np.stack([picture[middle, x - 1 : x + 2].reshape(-1, 3).mean(axis=0) for x in columns])


def check_stripes(path: Path, right: np.ndarray, plain, tolerance: float = 3) -> None:
    for picture in (
        read_video(path)[0][0],
        plain(path, return_tensors="pt")["pixel_values"][0, 0],
        dataset_of(path)[0]["frames"][0],
    ):
        np.testing.assert_allclose(stripes_of(as_array(picture)), right, atol=tolerance)
    with open_stream(path) as stream:
        np.testing.assert_allclose(stripes_of(next(iter(sample_evenly(stream, 1))).pixels), right, atol=tolerance)


LOSSLESS = {"qp": "0", "preset": "ultrafast"}
# FFmpeg's numbers: BT.709 is 1, BT.601 5 and 6, BT.2020 9; limited range is 1, full range 2
TAGGED = {
    "601-limited": (5, 1, BT601),
    "601-525-full": (6, 2, BT601),
    "709-limited": (1, 1, BT709),
    "709-full": (1, 2, BT709),
    "2020-limited": (9, 1, BT2020),
}


def write_tagged_patches(path: Path, matrix: int, colour_range: int, pix_fmt: str, count: int) -> Path:
    """Patches whose matrix and range stand in the frames and in the stream."""

    def prepare(context) -> None:
        context.colorspace, context.color_range = matrix, colour_range

    frames = []
    for _ in range(count):
        frame = patches_frame(HEIGHT, WIDTH, pix_fmt)
        frame.colorspace, frame.color_range = matrix, colour_range
        frames.append(frame)
    return make_video(path, frames, pix_fmt=pix_fmt, options=LOSSLESS, prepare=prepare)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("name", TAGGED)
def test_matrices_and_ranges(tmp_path, plain, name, suffix):
    matrix, colour_range, coefficients = TAGGED[name]
    path = write_tagged_patches(tmp_path / f"a{suffix}", matrix, colour_range, "yuv420p", 25)
    (first, *_) = plain_decode(path)
    assert int(first.colorspace) == matrix and int(first.color_range) == colour_range
    check_stripes(path, yuv_to_rgb(PATCHES, *coefficients, is_full=colour_range == 2), plain)


@pytest.mark.parametrize(
    ("height", "width", "coefficients"),
    [(96, 160, BT601), (480, 640, BT601), (576, 720, BT601), (578, 320, BT709), (160, 1280, BT709), (160, 1278, BT601),
     (720, 1280, BT709)],
)  # fmt: skip
def test_untagged_colours(tmp_path, plain, height, width, coefficients):
    frames = [patches_frame(height, width, "yuv420p") for _ in range(2)]
    path = make_video(tmp_path / "a.mp4", frames, options=LOSSLESS)
    (first, *_) = plain_decode(path)
    assert int(first.colorspace) == 2 and int(first.color_range) == 0
    check_stripes(path, yuv_to_rgb(PATCHES, *coefficients, is_full=False), plain)


@pytest.mark.parametrize(
    "pix_fmt",
    [
        "yuv420p10le",
        "yuv422p",
        "yuv444p",
        "yuv422p10le",
        "yuv444p10le",
        "yuv420p12le",
        "yuv411p",
        "yuv440p",
        "yuv410p",
    ],
)
def test_depths_and_subsampling(tmp_path, plain, pix_fmt):
    frames = [patches_frame(HEIGHT, WIDTH, pix_fmt) for _ in range(2)]
    path = make_video(tmp_path / "a.mkv", frames, "ffv1", pix_fmt=pix_fmt)
    assert plain_decode(path)[0].format.name == pix_fmt
    check_stripes(path, yuv_to_rgb(PATCHES, *BT601, is_full=False), plain)


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_jpeg_colours(tmp_path, plain, pix_fmt):
    frames = [patches_frame(HEIGHT, WIDTH, pix_fmt) for _ in range(2)]
    path = make_video(tmp_path / "a.avi", frames, "mjpeg", pix_fmt=pix_fmt, options={"q": "1", "qmin": "1"})
    check_stripes(path, yuv_to_rgb(PATCHES, *BT601, is_full=True), plain, tolerance=4)


@pytest.mark.parametrize(("pix_fmt", "codec"), [("gray", "ffv1"), ("gray10le", "ffv1"), ("gray", "png")])
def test_grey(tmp_path, plain, pix_fmt, codec):
    """Grey is written in its full range by all that write it."""
    values = np.array([0, 36, 72, 108, 144, 180, 216, 255])
    patches = np.stack([values] * 3, axis=-1)
    frames = [patches_frame(HEIGHT, WIDTH, pix_fmt, patches) for _ in range(2)]
    path = make_video(tmp_path / f"a{'.mov' if codec == 'png' else '.mkv'}", frames, codec, pix_fmt=pix_fmt)
    assert plain_decode(path)[0].format.name.startswith("gray")
    check_stripes(path, patches, plain)


COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 100, 50), (10, 60, 240)]
)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("png", "rgb24", ".mov"), ("ffv1", "bgr0", ".mkv"), ("ffv1", "gbrp10le", ".mkv"), ("qtrle", "rgb24", ".mov"),
     ("libx264rgb", "rgb24", ".mkv"), ("apng", "rgb24", ".apng"), ("rawvideo", "bgr24", ".avi"),
     ("png", "rgb48be", ".mov")],
)  # fmt: skip
def test_rgb(tmp_path, plain, codec, pix_fmt, suffix):
    picture = np.repeat(np.repeat(COLOURS, WIDTH // 8, axis=0)[None], HEIGHT, axis=0).astype(np.uint8)
    options = {"qp": "0"} if codec == "libx264rgb" else {}
    path = make_or_skip(tmp_path / f"a{suffix}", [picture] * 2, codec, pix_fmt=pix_fmt, options=options)
    check_stripes(path, COLOURS, plain)


def stripes_with_alpha(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGBA `(height, width, 4)`, and its stripes' colours over white."""
    rgba = np.concatenate([COLOURS, levels[:, None]], axis=1)
    over_white = COLOURS * (levels[:, None] / 255) + 255 * (1 - levels[:, None] / 255)
    return np.repeat(np.repeat(rgba, WIDTH // 8, axis=0)[None], HEIGHT, axis=0).astype(np.uint8), over_white


LEVELS = np.array([255, 128, 0, 0, 128, 64, 192, 255])


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("png", "rgba", ".mov"), ("qtrle", "argb", ".mov"), ("ffv1", "bgra", ".mkv"), ("apng", "rgba", ".apng"),
     ("ffv1", "yuva444p", ".mkv"), ("prores_ks", "yuva444p10le", ".mov"), ("ffv1", "yuva420p", ".mkv")],
)  # fmt: skip
def test_alpha_lies_over_white(tmp_path, plain, codec, pix_fmt, suffix):
    rgba, over_white = stripes_with_alpha(LEVELS)
    frames = [av.VideoFrame.from_ndarray(rgba, format="rgba") for _ in range(2)]
    path = make_or_skip(tmp_path / f"a{suffix}", frames, codec, pix_fmt=pix_fmt)
    check_stripes(path, over_white, plain, tolerance=10 if codec == "prores_ks" else 4)


def test_grey_with_alpha_lies_over_white(tmp_path, plain):
    """Stripes of growing opacity, black."""
    levels = np.array([0, 36, 72, 108, 144, 180, 216, 255])
    pixels = np.repeat(np.stack([0 * levels, levels], axis=-1), WIDTH // 8, axis=0)[None].repeat(HEIGHT, axis=0)
    frame = av.VideoFrame(WIDTH, HEIGHT, "ya8")
    (plane,) = frame.planes
    padded = np.zeros((HEIGHT, plane.line_size), np.uint8)
    padded[:, : 2 * WIDTH] = pixels.reshape(HEIGHT, -1)
    plane.update(padded.tobytes())
    path = make_video(tmp_path / "a.mov", [frame], "png", pix_fmt="ya8")
    check_stripes(path, np.stack([255 - levels] * 3, axis=-1), plain)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_alpha_of_animated_pictures(tmp_path, plain, suffix):
    levels = np.where(LEVELS < 200, 0, 255) if suffix == ".gif" else LEVELS  # a GIF's pixels are clear or not
    rgba, over_white = stripes_with_alpha(levels)
    pictures = [Image.fromarray(rgba), Image.fromarray(rgba).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    options = {"lossless": True} if suffix == ".webp" else {"disposal": 2} if suffix == ".gif" else {}
    path = tmp_path / f"a{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)
    check_stripes(path, over_white, plain, tolerance=6)


def two_fields(pix_fmt: str, shift: int) -> tuple[av.VideoFrame, np.ndarray]:
    """A frame whose second field was taken when a bright bar was further to the right, and the first field's luma."""
    frame = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
    first = None
    for i, (plane, component) in enumerate(zip(frame.planes, frame.format.components, strict=True)):
        kind = np.uint8 if component.bits == 8 else np.uint16
        scale = 2 ** (component.bits - 8)
        filled = np.full((plane.height, plane.line_size // kind().itemsize), (50 if i == 0 else 110) * scale, kind)
        unit = plane.width / WIDTH
        for field, left in ((0, 40), (1, 40 + shift)):
            filled[field::2, round(left * unit) : round((left + 16) * unit)] = (200 if i == 0 else 150) * scale
        plane.update(filled.tobytes())
        first = filled[0, :WIDTH] / scale if i == 0 else first
    return frame, first


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv420p10le"])
def test_interlaced(tmp_path, plain, pix_fmt):
    frames, rows = zip(*(two_fields(pix_fmt, 32) for _ in range(4)), strict=True)
    options = LOSSLESS | {"x264-params": "tff=1"}
    path = make_video(tmp_path / "a.mp4", frames, pix_fmt=pix_fmt, options=options)
    assert all(frame.interlaced_frame for frame in plain_decode(path))
    is_bar = rows[0] > 100
    yuv = np.where(is_bar[:, None], [200, 150, 150], [50, 110, 110])
    right = yuv_to_rgb(yuv, *BT601, is_full=False)
    inner = np.ones(WIDTH, bool)
    inner[[x for edge in (40, 56) for x in range(edge - 3, edge + 3)]] = False  # where chroma is interpolated
    with open_stream(path) as stream:
        sampled = next(iter(sample_evenly(stream, 1))).pixels
    for picture in (read_video(path)[0][1], plain(path, return_tensors="pt")["pixel_values"][0, 0], sampled):
        picture = as_array(picture).astype(float)
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(np.diff(picture, axis=0)).max() <= 2  # nothing is combed
        assert np.abs(picture - right)[:, inner].max() <= 6


def test_interlaced_mpeg2(tmp_path):
    frames = [two_fields("yuv420p", 32)[0] for _ in range(4)]
    path = make_video(
        tmp_path / "a.mpg", frames, "mpeg2video", options={"flags": "+ildct+ilme", "alternate_scan": "1"}
    )
    if not plain_decode(path)[0].interlaced_frame:
        pytest.skip("PyAV can't mark frames as interlaced for this encoder")
    for frame in read_video(path)[0]:
        assert np.abs(np.diff(as_array(frame).astype(int), axis=0))[4:-4].max() < 60


def test_dvd(tmp_path, plain):
    """PAL in fields, of 720x576 pixels that are wider than high."""
    path = make_video(
        tmp_path / "a.mpg", (numbered(i, 576, 720) for i in range(30)), "mpeg2video", aspect=Fraction(64, 45),
        options={"flags": "+ildct+ilme"},
    )  # fmt: skip
    assert read_video(path, lambda metadata: [0])[0][0].shape == (3, 576, 1024)
    check_readers(path, list(range(30)), (np.arange(30) / 25).tolist(), plain)


@pytest.mark.parametrize("suffix", [".h264", ".ts"])
@pytest.mark.parametrize("second", [(160, 96), (192, 320), (96, 96)])
def test_change_of_size(tmp_path, plain, suffix, second):
    """Frames of another size are fitted into that of the first, in the middle and with their shape kept."""
    height, width = second
    parts = [
        make_video(tmp_path / f"0{suffix}", map(numbered, range(25)), gop=25),
        make_video(tmp_path / f"1{suffix}", (numbered(i, height, width) for i in range(25, 50)), gop=25),
    ]
    both = tmp_path / f"both{suffix}"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    scale = min(WIDTH / width, HEIGHT / height)
    inner = round(scale * width)
    left = (WIDTH - inner) // 2

    def number(picture) -> int:
        picture = as_array(picture)
        assert picture.shape == (HEIGHT, WIDTH, 3)
        if inner == WIDTH or picture[:, : left - 2].max() > 12:
            return number_of(picture)
        assert picture[:, left + inner + 2 :].max() <= 12  # black at both sides
        assert picture[:, left + 2].mean() > 40 and picture[:, left + inner - 3].mean() > 40
        return number_of(picture[:, left : left + inner])

    check_readers(both, list(range(50)), (np.arange(50) / 25).tolist(), plain, number)
    with open_video(both) as video:
        assert [i for i, frame in enumerate(video.frames()) if frame.after_cut] == [25]
    with open_stream(both) as stream:
        assert sum(sample.after_cut for sample in sample_evenly(stream, MARK)) == 1


def test_turned_pixels_that_are_not_square(tmp_path, plain):
    """Pixels are made square as they are stored, and the picture is turned then."""
    wide = make_video(tmp_path / "a.mp4", [CORNERS] * 4, aspect=Fraction(2, 1))
    path = turn_video(wide, tmp_path / "b.mp4", 0, 1, -1, 0)
    right = turned(np.repeat(CORNERS, 2, axis=1), 0, 1, -1, 0).astype(int)
    with open_stream(path) as stream:
        assert (stream.height, stream.width) == (192, 64)
        pictures = [next(iter(sample_evenly(stream, 1))).pixels]
    pictures += [as_array(read_video(path)[0][3]), as_array(plain(path, return_tensors="pt")["pixel_values"][0, 1])]
    for picture in pictures:
        assert picture.shape == (192, 64, 3)
        assert np.median(np.abs(picture.astype(int) - right)) <= 4


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [("ffv1", "yuv420p", ".mkv"), ("libvpx-vp9", "yuv420p", ".webm"), ("mjpeg", "yuvj420p", ".avi"),
     ("png", "rgb24", ".mov"), ("ffv1", "yuv420p10le", ".mkv")],
)  # fmt: skip
def test_odd_sizes(tmp_path, plain, codec, pix_fmt, suffix):
    path = make_video(tmp_path / f"a{suffix}", (numbered(i, 97, 161) for i in range(40)), codec, pix_fmt=pix_fmt)
    assert read_video(path, lambda metadata: [0])[0][0].shape == (3, 97, 161)
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_short_videos(tmp_path, plain, suffix, count):
    codec = {".mp4": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4"}[suffix]
    path = make_video(tmp_path / f"a{suffix}", map(numbered, range(count)), codec)
    check_readers(path, list(range(count)), (np.arange(count) / 25).tolist(), plain)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_stills(tmp_path, plain, suffix):
    """A picture is a video of one frame; its EXIF orientation is minded."""
    picture = Image.fromarray(numbered(5))
    exif = Image.Exif()
    if suffix == ".jpg":
        exif[0x0112] = 6  # to be turned clockwise
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    picture.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    frames, metadata = read_video(tmp_path / f"a{suffix}")
    assert [number_of(frame) for frame in frames] == [5] and metadata.total_num_frames == 1
    clip = plain(tmp_path / f"a{suffix}", return_tensors="pt")["pixel_values"]
    assert clip.shape == (1, 16, 3, HEIGHT, WIDTH) and {number_of(frame) for frame in clip[0]} == {5}
    with open_stream(tmp_path / f"a{suffix}") as stream:
        assert [number_of(sample.pixels) for sample in sample_evenly(stream, MARK)] == [5]


def test_times_that_wrap(tmp_path, plain):
    """The clock of a transport stream starts at 0 again after 26.5 hours, in the middle of this one."""
    wraps = Fraction(2**33, 90000)
    pts = [round((wraps - 2) * 25) + i for i in range(100)]
    path = make_video(tmp_path / "a.ts", map(numbered, range(100)), pts=pts, gop=25, b_frames=2)
    check_readers(path, list(range(100)), (np.arange(100) / 25).tolist(), plain)


def test_several_streams(small, tmp_path, plain):
    """The picture on a song's cover is no video, and the best of several streams is taken."""
    path = tmp_path / "cover.mp4"
    with av.open(str(small)) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        copied = target.add_stream_from_template(source.streams.video[0])
        still = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")
        still.pts = 0
        target.mux(cover.encode(still) + cover.encode())
        for packet in source.demux():
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)


def test_sound_alone(tmp_path, plain):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        stream.layout = "mono"
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for read in (read_video, open_stream, lambda path: plain(str(path)), lambda path: dataset_of(path)[0]):
        with pytest.raises(ValueError, match=r"sound\.mp4 has no video"):
            read(path)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_change_of_size_within_a_file(tmp_path, plain, codec):
    """As browsers record calls: one stream of one codec, whose key frames may be of another size."""
    parts = [
        make_video(tmp_path / "0.webm", (numbered(i, 180, 320) for i in range(100)), codec, gop=50),
        make_video(tmp_path / "1.webm", (numbered(i, 90, 160) for i in range(100, 200)), codec, gop=50),
    ]
    path = tmp_path / "both.webm"
    with av.open(str(path), "w") as target:
        stream = None
        for i, part in enumerate(parts):
            with av.open(str(part)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + 4000 * i, packet.dts + 4000 * i
                        packet.stream = stream
                        target.mux(packet)
    check_readers(path, list(range(200)), (np.arange(200) / 25).tolist(), plain)
    everything, _ = read_video(path)
    assert {frame.shape for frame in everything} == {(3, 180, 320)}
    for chosen in ([199], [120, 170], [0, 99, 100, 180]):
        frames, _ = read_video(path, lambda metadata, chosen=chosen: chosen)
        for frame, index in zip(frames, chosen, strict=True):
            torch.testing.assert_close(frame, everything[index], atol=0, rtol=0)
    with open_video(path) as video:
        assert [i for i, frame in enumerate(video.frames()) if frame.after_cut] == [100]


@pytest.mark.parametrize(("matrix", "colour_range", "coefficients"), [(9, 1, BT2020), (1, 2, BT709), (5, 1, BT601)])
def test_matrices_of_ten_bits(tmp_path, plain, matrix, colour_range, coefficients):
    path = write_tagged_patches(tmp_path / "a.mp4", matrix, colour_range, "yuv420p10le", 5)
    (first, *_) = plain_decode(path)
    assert first.format.name == "yuv420p10le"
    assert (int(first.colorspace), int(first.color_range)) == (matrix, colour_range)
    check_stripes(path, yuv_to_rgb(PATCHES, *coefficients, is_full=colour_range == 2), plain)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return make_video(tmp_path_factory.mktemp("small") / "small.mp4", map(numbered, range(40)))


@pytest.mark.parametrize(
    "name",
    [b"a%03d.mp4", b"%d.mp4", b"a:b.mp4", b"pipe:0.mp4", b"http:a.mp4", b"concat:a.mp4|b.mp4", b"two\nlines.mp4",
     b"\xff\xfe\xe4.mp4", b"file:x.mp4", b"a,b;c?d#e&f.mp4", b"-i.mp4", b" blank .mp4", b"no_suffix", b"video.txt",
     b"a*[0-9].mp4", b"crypto:a.mp4", b"\\back.mp4"],
)  # fmt: skip
def test_names(small, tmp_path, plain, name, monkeypatch):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(small.read_bytes())
    check_readers(path, list(range(40)), (np.arange(40) / 25).tolist(), plain)
    monkeypatch.chdir(tmp_path)  # the name alone, which looks like a protocol here and there
    frames, _ = read_video(path.name, lambda metadata: [7, 30])
    assert [number_of(frame) for frame in frames] == [7, 30]
    assert number_of(plain(path.name, num_frames=1, return_tensors="pt")["pixel_values"][0, 0]) == 0


def test_names_in_warnings(tmp_path, caplog):
    """No name of a file moves a terminal or begins a line of its own."""
    data = make_video(tmp_path / "a.mkv", map(numbered, range(75)), gop=25).read_bytes()
    path = tmp_path / "x\x1b[31mred\nline.mkv"
    path.write_bytes(data[: 7 * len(data) // 10])
    read_video(path)
    with open_stream(path) as stream:
        list(sample_evenly(stream, MARK))
    told = [record.getMessage() for record in caplog.records if record.name.startswith("s2d_hf")]
    assert len(told) == 2 and all("is damaged" in message and message.isprintable() for message in told)


def test_names_in_a_pipeline(small, converted, tmp_path):
    classifier = pipeline("video-classification", model=str(converted))
    right = scores_of(classifier(str(small), top_k=7))
    for name in (b"a%03d.mp4", b"a:b.mp4", b"two\nlines.mp4", b"\xff\xfe.mp4"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(small.read_bytes())
        assert scores_of(classifier(str(path), top_k=7)) == pytest.approx(right, abs=1e-6)


@contextmanager
def watched(*files: Path) -> Iterator[list[str]]:
    """Which of these files were opened meanwhile, by anything in this process or another; known when it ends."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs inotify")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    names = {libc.inotify_add_watch(descriptor, os.fsencode(file), 0x20): file.name for file in files}
    opened: list[str] = []
    try:
        yield opened
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            data = b""
        while data:
            watch, _, _, length = struct.unpack_from("iIII", data)
            opened.append(names[watch])
            data = data[16 + length :]
    finally:
        os.close(descriptor)


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{segment}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{segment}\n#EXT-X-ENDLIST\n",
    "script.ffconcat": "ffconcat version 1.0\nfile {segment}\nfile {segment}\n",
    "script.mp4": "ffconcat version 1.0\nfile {segment}\nfile {segment}\n",
    "camera.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 59871 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "manifest.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1.6S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'contentType="video" mimeType="video/mp4"><Representation id="0" mimeType="video/mp4" bandwidth="100000" '
    'width="160" height="96"><BaseURL>{segment}</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "frames.smil": '<smil><body><video src="{segment}"/></body></smil>\n',
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_playlists_are_refused(tmp_path, plain, name, is_absolute):
    """They would open whatever files and addresses they name."""
    segment = make_video(tmp_path / "segment.ts", map(numbered, range(40)))
    make_video(tmp_path / "segment.mp4", map(numbered, range(40)))
    place = segment if is_absolute else segment.name
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(segment=place))
    with watched(segment, tmp_path / "segment.mp4") as opened:
        for read in (
            lambda: read_video(path),
            lambda: plain(str(path), return_tensors="pt"),
            lambda: open_stream(path),
            lambda: dataset_of(path)[0],
        ):
            with pytest.raises(ValueError, match=path.name):
                read()
        with pytest.raises(ValueError):
            read_video(path.read_bytes())
    assert opened == []
    with watched(segment) as opened:  # and the watch sees what is opened
        read_video(segment)
    assert segment.name in opened


def test_movies_that_refer_to_other_files(small, tmp_path):
    """A QuickTime movie may name another file for its data."""
    data = bytearray(small.read_bytes())
    at = data.index(b"url \0\0\0\1")
    data[at + 7] = 0  # the data is elsewhere
    (tmp_path / "a.mp4").write_bytes(data)
    other = tmp_path / "other.mp4"
    other.write_bytes(small.read_bytes())
    with watched(other) as opened:
        try:
            read_video(tmp_path / "a.mp4")
        except ValueError as error:
            assert "a.mp4" in str(error)
    assert opened == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".webp"])
def test_bytes_instead_of_a_path(tmp_path, plain, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".webp":
        pictures = [Image.fromarray(numbered(i)) for i in range(40)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    else:
        make_video(path, map(numbered, range(40)), "mpeg4" if suffix == ".avi" else "libx264", gop=12, b_frames=2)
    data = path.read_bytes()
    frames, metadata = read_video(data)
    assert [number_of(frame) for frame in frames] == list(range(40))
    np.testing.assert_allclose(metadata.frame_times, np.arange(40) / 25, atol=0.0015)
    right = plain(path, return_tensors="pt")["pixel_values"]
    for source in (data, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, [data]):
        torch.testing.assert_close(plain(source, return_tensors="pt")["pixel_values"], right, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"clip\.mp4"):
        plain({"bytes": data[:40], "path": "clip.mp4"}, return_tensors="pt")
    with pytest.raises(ValueError, match="empty"):
        read_video(b"")


@pytest.mark.parametrize("kind", ["closed-mp4", "open-mkv"])
def test_jumps_in_bytes(long_videos, kind):
    data = long_videos[kind].read_bytes()
    decoded = plain_decode(long_videos[kind])
    for chosen in ([599], [3, 350, 420], [199, 200, 201]):
        frames, _ = read_video(data, lambda metadata, chosen=chosen: chosen)
        for frame, index in zip(frames, chosen, strict=True):
            np.testing.assert_array_equal(as_array(frame), plain_rgb(decoded[index]))


def test_videos_of_a_dataset(small, tmp_path, plain):
    datasets = pytest.importorskip("datasets")
    for suffix, codec in ((".avi", "mpeg4"), (".ts", "libx264"), (".webm", "libvpx-vp9")):
        make_video(tmp_path / f"a{suffix}", map(numbered, range(40)), codec, gop=12)
    files = [small, *sorted(tmp_path.iterdir())]
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    rows += [{"bytes": small.read_bytes(), "path": None}, {"bytes": None, "path": str(small)}]
    features = datasets.Features(
        {"video": datasets.Video(decode=False), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    table = datasets.Dataset.from_dict({"video": rows, "label": [i % 2 for i in range(len(rows))]}, features=features)
    samples = from_hub(table.cast_column("video", datasets.Video(decode=False)))
    clips = ClipDataset(samples, augmentation=whole_clip)
    assert [clips[i]["labels"] for i in range(len(rows))] == [i % 2 for i in range(len(rows))]
    for i, row in enumerate(rows):
        found = [number_of(frame) for frame in clips[i]["frames"]]
        check_even(found, list(range(40)), (np.arange(40) / 25).tolist())
        clip = plain(samples[i].item.load(), return_tensors="pt")["pixel_values"][0]
        assert [number_of(frame) for frame in clip] == found, row["path"]


def test_folders_of_frames(small, tmp_path, plain):
    folder = tmp_path / "frames"
    folder.mkdir()
    suffixes = itertools.cycle([".png", ".jpg", ".webp", ".PNG"])
    for i, suffix in zip(range(40), suffixes, strict=False):
        Image.fromarray(numbered(i)).save(folder / f"frame{i}{suffix}", quality=95)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("nothing")
    frames, metadata = read_video(folder)
    assert [number_of(frame) for frame in frames] == list(range(40)) and metadata.total_num_frames == 40
    frames, _ = read_video(folder, lambda metadata: [2, 10, 10, 39])
    assert [number_of(frame) for frame in frames] == [2, 10, 10, 39]
    clip = plain(str(folder), return_tensors="pt")["pixel_values"][0]
    check_even([number_of(frame) for frame in clip], list(range(40)), np.arange(40).tolist())
    assert [number_of(frame) for frame in dataset_of(folder)[0]["frames"]] == [number_of(frame) for frame in clip]

    (folder / "clip.mp4").write_bytes(small.read_bytes())
    for read in (
        lambda: read_video(folder),
        lambda: plain(str(folder), return_tensors="pt"),
        lambda: dataset_of(folder)[0],
    ):
        with pytest.raises(ValueError, match=r"holds videos, such as clip\.mp4"):
            read()
    with pytest.raises(ValueError, match="is a folder"):
        open_stream(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no frames"):
        read_video(empty)


def test_files_that_are_no_videos(tmp_path, plain):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.mp4").write_text("no video\n" * 500)
    (tmp_path / "table.csv").write_text("path,label\na.mp4,0\n" * 50)
    for name in ("empty.mp4", "words.mp4", "table.csv"):
        for read in (
            lambda path: read_video(path),
            lambda path: plain(str(path), return_tensors="pt"),
            open_stream,
            lambda path: dataset_of(path)[0],
        ):
            with pytest.raises(ValueError, match=name):
                read(tmp_path / name)
    for read in (read_video, open_stream, lambda path: plain(str(path)), lambda path: dataset_of(path)[0]):
        with pytest.raises(FileNotFoundError, match=r"missing\.mp4"):
            read(tmp_path / "missing.mp4")


def test_bunched_frames_of_other_writers(tmp_path, plain):
    """The same from hundredths of a second, written by the tests' other writer."""
    pts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 60, 110, 160, 210, 260, 310, 360, 410, 411, 412, 413, 414]
    path = write_timed_video(tmp_path / "a.mp4", [numbered(i) for i in range(len(pts))], pts)
    check_readers(path, list(range(len(pts))), (np.array(pts) / 100).tolist(), plain)
