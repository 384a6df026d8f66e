"""Chosen frames are those of a plain decode, also where the reader jumps to key frames."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from s2d_hf.video_files_s2d import VideoFile
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import X265, as_array, make_video, number_of, numbered, plain_decode, plain_rgb
from .readers import make_or_skip


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


@pytest.mark.parametrize("kind", ["closed-mp4", "open-mkv"])
def test_jumps_in_bytes(long_videos, kind):
    data = long_videos[kind].read_bytes()
    decoded = plain_decode(long_videos[kind])
    for chosen in ([599], [3, 350, 420], [199, 200, 201]):
        frames, _ = read_video(data, lambda metadata, chosen=chosen: chosen)
        for frame, index in zip(frames, chosen, strict=True):
            np.testing.assert_array_equal(as_array(frame), plain_rgb(decoded[index]))
