"""Times of frames: rates, gaps, edit lists, recordings behind each other, and the clock of the sound."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_files_s2d import open_video
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import make_video, number_of, numbered
from ..videos import write_timed_video
from .readers import MARK, check_even, check_readers, dataset_of


def test_recordings_one_behind_the_other(tmp_path, plain):
    parts = [
        make_video(tmp_path / f"{i}.ts", map(numbered, range(50 * i, 50 * i + 50)), gop=25, b_frames=2) for i in (0, 1)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    check_readers(both, list(range(100)), (np.arange(100) / 25).tolist(), plain)
    with open_video(both) as video:
        assert [i for i, frame in enumerate(video.frames()) if frame.after_cut] == [50]


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


def test_times_that_wrap(tmp_path, plain):
    """The clock of a transport stream starts at 0 again after 26.5 hours, in the middle of this one."""
    wraps = Fraction(2**33, 90000)
    pts = [round((wraps - 2) * 25) + i for i in range(100)]
    path = make_video(tmp_path / "a.ts", map(numbered, range(100)), pts=pts, gop=25, b_frames=2)
    check_readers(path, list(range(100)), (np.arange(100) / 25).tolist(), plain)


def test_bunched_frames_of_other_writers(tmp_path, plain):
    """The same from hundredths of a second, written by the tests' other writer."""
    pts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 60, 110, 160, 210, 260, 310, 360, 410, 411, 412, 413, 414]
    path = write_timed_video(tmp_path / "a.mp4", [numbered(i) for i in range(len(pts))], pts)
    check_readers(path, list(range(len(pts))), (np.array(pts) / 100).tolist(), plain)
