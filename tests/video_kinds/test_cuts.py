"""Recordings of which a part is missing: the beginning, the middle or the end."""

from pathlib import Path

import av
import numpy as np
import pytest

from s2d_hf.video_reading_s2d import read_video

from ..made_videos import X265, as_array, copy_packets, make_video, number_of, numbered, plain_decode, plain_rgb
from .readers import check_readers, make_or_skip


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


def test_edit_lists(uncut, tmp_path, plain):
    """A picture that begins later than the file, by an empty edit."""
    path = copy_packets(uncut, tmp_path / "late.mp4", 1.0)
    assert b"elst" in path.read_bytes()
    check_readers(path, list(range(150)), (np.arange(150) / 25).tolist(), plain)
