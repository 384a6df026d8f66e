import itertools
import logging
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from s2d_hf.frames_s2d import read_video
from s2d_hf.timeline.streaming import open_stream

from ..videos import counting_frames, frame_number, turn_video, write_timed_video, write_video

CORNERS = np.zeros((64, 96, 3), np.uint8)
CORNERS[:32, :48], CORNERS[:32, 48:], CORNERS[32:, :48] = (250, 20, 20), (20, 20, 250), (20, 250, 20)


def numbers(stream, fps: float) -> list[tuple[float, int]]:
    return [(seconds, frame_number(frame)) for seconds, frame in stream.sampled(fps)]


@pytest.mark.parametrize("fps", [1, 8, 10, 25, 60])
def test_sampling_takes_the_nearest_frame(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", counting_frames(50))
    with open_stream(path) as stream:
        assert (stream.width, stream.height, stream.fps, stream.duration) == (96, 64, 25, 2)
        found = numbers(stream, fps)
    assert [seconds for seconds, _ in found] == pytest.approx(np.arange(len(found)) / fps)
    assert len(found) == int(np.ceil(1.98 * fps))  # up to half a frame after the last one
    for seconds, number in found:
        assert abs(number / 25 - seconds) <= 0.5 / 25 + 1e-9


def test_variable_frame_rate(tmp_path):
    """Each time gets the frame that is nearest to it; a long gap repeats the frames at its ends."""
    pts = [0, 4, 8, 9, 50, 51, 200, 204, 330]
    path = write_timed_video(tmp_path / "a.mp4", counting_frames(len(pts)), pts)
    with open_stream(path) as stream:
        times = [seconds for seconds, _ in stream.frames()]
    assert times == pytest.approx(np.array(pts) / 100)
    with open_stream(path) as stream:
        found = numbers(stream, 7)
    assert found[-1][0] >= 3.2
    for seconds, number in found:
        distances = np.abs(np.array(pts) / 100 - seconds)
        assert distances[number] == pytest.approx(distances.min())


def test_times_count_from_the_first_frame(tmp_path):
    path = write_video(tmp_path / "a.ts", counting_frames(10))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 0  # MPEG-TS starts its clock later
    with open_stream(path) as stream:
        assert [seconds for seconds, _ in stream.frames()] == pytest.approx(np.arange(10) / 25)


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
    with open_stream(plain) as stream:
        upright = expected(next(stream.frames())[1])
    with open_stream(turned) as stream:
        frame = next(stream.frames())[1]
        assert (stream.height, stream.width) == frame.shape[:2] == upright.shape[:2]
    np.testing.assert_array_equal(frame, upright)
    for backend in ("pyav", "decord"):
        if backend == "decord" and name in ("mirrored", "transposed"):
            continue  # it knows rotations only
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
    with open_stream(path) as stream:
        frames = list(stream.frames())
        assert (stream.height, stream.width) == shape
    assert [frame.shape for _, frame in frames] == [(*shape, 3)] * 12 and frames[0][1].dtype == np.uint8
    # FFmpeg's conversion of ten bits and MPEG-4's compression are up to three grey levels off
    assert [frame.mean() for _, frame in frames] == pytest.approx([3 * i + 20 for i in range(12)], abs=3)


def test_pixels_become_square(tmp_path):
    path = write_timed_video(tmp_path / "a.mp4", [CORNERS] * 3, aspect=Fraction(3, 2))
    with open_stream(path) as stream:
        frame = next(stream.frames())[1]
        assert (stream.width, stream.height) == (144, 64) and frame.shape == (64, 144, 3)
    assert frame[10, 60, 0] > 200 and frame[10, 84, 2] > 200  # on both sides of the middle


def test_4k(tmp_path):
    path = write_timed_video(tmp_path / "a.mp4", counting_frames(3, 2160, 3840))
    with open_stream(path) as stream:
        assert [(frame.shape, frame_number(frame)) for _, frame in stream.frames()] == [
            ((2160, 3840, 3), number) for number in range(3)
        ]


def test_what_is_no_video_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no video file .*missing\.mp4"):
        open_stream(tmp_path / "missing.mp4")
    with pytest.raises(ValueError, match="is a folder"):
        open_stream(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty"):
        open_stream(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with pytest.raises(ValueError, match=r"text\.mp4 could not be opened"):
        open_stream(tmp_path / "text.mp4")
    whole = write_video(tmp_path / "whole.mp4", counting_frames(20)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.mp4 could not be opened"):
        open_stream(tmp_path / "half.mp4")
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(ValueError, match=r"sound\.m4a has no video stream"):
        open_stream(tmp_path / "sound.m4a")


def test_damage_is_counted_and_the_rest_is_read(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), np.uint8)
    path = write_timed_video(tmp_path / "a.avi", list(noise), codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        damaged = [(packets[i].pos, packets[i].size) for i in (20, 21)]
    data = bytearray(path.read_bytes())
    for start, size in damaged:
        data[start + 8 : start + 8 + size] = bytes(size)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), open_stream(path) as stream:
        times = [seconds for seconds, _ in stream.frames()]
    assert len(times) == 58 and times == sorted(times)
    assert "a.avi is damaged: 2 packets" in caplog.text


def test_a_stream_is_read_once(face_video):
    with open_stream(face_video) as stream:
        assert len(list(stream.frames())) == 40
        with pytest.raises(ValueError, match="open it again"):
            next(stream.frames())
    with open_stream(face_video) as stream, pytest.raises(ValueError, match="`fps` must be positive"):
        next(stream.sampled(0))


class FakeCamera:
    """Frames whose blue channel counts, with a clock that the test turns."""

    def __init__(self, clock: list[float], num_frames: int = 30):
        self.clock, self.num_frames, self.count, self.is_released = clock, num_frames, 0, False

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.count >= self.num_frames:
            return False, None
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 0] = self.count  # OpenCV's order is BGR
        self.count += 1
        self.clock[0] += 0.04
        return True, frame

    def get(self, _: int) -> float:
        return 25.0

    def release(self) -> None:
        self.is_released = True


def test_camera(monkeypatch):
    clock = [100.0]
    camera = FakeCamera(clock)
    monkeypatch.setattr("s2d_hf.timeline.streaming.cv2.VideoCapture", lambda number: camera)
    monkeypatch.setattr("s2d_hf.timeline.streaming.time.monotonic", lambda: clock[0])
    found = []
    with open_stream(1) as stream:
        assert stream.is_live and stream.duration is None and (stream.width, stream.height) == (64, 48)
        for seconds, frame in stream.sampled(10):
            found.append((round(seconds, 2), int(frame[0, 0, 2])))
            if len(found) == 3:
                clock[0] += 1.0  # a slow model: what was missed isn't made up for
    assert found[:3] == [(0.0, 0), (0.12, 3), (0.2, 5)]
    assert found[3][0] > 1.2
    assert len({number for _, number in found}) == len(found)
    assert all(b - a > 0.05 for (a, _), (b, _) in itertools.pairwise(found[3:]))
    assert camera.is_released


@pytest.mark.parametrize("number", [99, -1, 2**31])
def test_no_camera(number):
    with pytest.raises(OSError, match=f"no camera {number}"):
        open_stream(number)


def test_no_camera_is_one_line():
    """OpenCV's warnings go past Python's streams; what it warns of otherwise is as before."""
    code = """
import sys, cv2
from s2d_hf.timeline.streaming import open_stream
before = cv2.utils.logging.getLogLevel()
try:
    open_stream(99)
except OSError as error:
    print(error)
print(cv2.utils.logging.getLogLevel() == before != cv2.utils.logging.LOG_LEVEL_SILENT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["There is no camera 99, or another program uses it.", "True"]
    assert done.stderr == "" and done.returncode == 0
