"""Pictures that are turned, of odd sizes, of pixels that are not square, and of sizes that change."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_files_s2d import open_video
from s2d_hf.video_reading_s2d import read_video

from ..made_videos import HEIGHT, WIDTH, as_array, make_video, number_of, numbered
from ..videos import turn_video, write_video
from .readers import MARK, check_readers, dataset_of


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
