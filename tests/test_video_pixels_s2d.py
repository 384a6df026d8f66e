from fractions import Fraction

import numpy as np
import pytest

from s2d_hf.video_files_s2d import VideoSource, open_video
from s2d_hf.video_reading_s2d import read_video

from .videos import counting_frames, frame_number, turn_video, write_timed_video, write_video

CORNERS = np.zeros((64, 96, 3), np.uint8)
CORNERS[:32, :48], CORNERS[:32, 48:], CORNERS[32:, :48] = (250, 20, 20), (20, 20, 250), (20, 250, 20)


def first_frame(video: VideoSource) -> np.ndarray:
    return video.to_rgb(next(video.frames()).picture)


TURNS = {
    "clockwise": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "around": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "anticlockwise": ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
    "mirrored": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", TURNS)
def test_frames_are_turned_upright(tmp_path, name):
    matrix, expected = TURNS[name]
    plain = write_video(tmp_path / "plain.mp4", [CORNERS] * 5)
    turned = turn_video(plain, tmp_path / "turned.mp4", *matrix)
    with open_video(plain) as video:
        upright = expected(first_frame(video))
    with open_video(turned) as video:
        frame = first_frame(video)
        assert (video.height, video.width) == frame.shape[:2] == upright.shape[:2]
    np.testing.assert_array_equal(frame, upright)
    for backend in ("pyav", "decord"):
        if backend == "decord" and name in ("mirrored", "transposed"):  # it knows rotations only
            with pytest.raises(ValueError, match=r"turned\.mp4: decord does not read it rightly, as it is mirrored"):
                read_video(turned, lambda metadata: [0, 3], backend)
            continue
        frames, metadata = read_video(turned, lambda metadata: [0, 3], backend)
        assert (metadata.height, metadata.width) == upright.shape[:2]
        for frame in frames:
            assert np.abs(frame.permute(1, 2, 0).numpy().astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "shape"),
    [("libx264", "yuv444p", (65, 97)), ("libx264", "yuv420p10le", (64, 96)), ("ffv1", "yuv422p10le", (64, 98)),
     ("libx264", "yuv444p", (2, 2)), ("mpeg4", "yuv420p", (63, 95)), ("ffv1", "gray", (64, 96))],
)  # fmt: skip
def test_odd_sizes_and_pixel_formats(tmp_path, codec, pix_fmt, shape):
    path = write_timed_video(tmp_path / "a.mkv", counting_frames(12, *shape), codec=codec, pix_fmt=pix_fmt)
    with open_video(path) as video:
        frames = [video.to_rgb(frame.picture) for frame in video.frames()]
        assert (video.height, video.width) == shape
    assert [frame.shape for frame in frames] == [(*shape, 3)] * 12 and frames[0].dtype == np.uint8
    # FFmpeg's conversion of ten bits and MPEG-4's compression are up to three grey levels off
    assert [frame.mean() for frame in frames] == pytest.approx([3 * i + 20 for i in range(12)], abs=3)


def test_pixels_become_square(tmp_path):
    path = write_timed_video(tmp_path / "a.mp4", [CORNERS] * 3, aspect=Fraction(3, 2))
    with open_video(path) as video:
        frame = first_frame(video)
        assert (video.width, video.height) == (144, 64) and frame.shape == (64, 144, 3)
    assert frame[10, 60, 0] > 200 and frame[10, 84, 2] > 200  # on both sides of the middle


def test_4k(tmp_path):
    path = write_timed_video(tmp_path / "a.mp4", counting_frames(3, 2160, 3840))
    with open_video(path) as video:
        frames = [video.to_rgb(frame.picture) for frame in video.frames()]
    assert [(frame.shape, frame_number(frame)) for frame in frames] == [((2160, 3840, 3), i) for i in range(3)]
