import itertools

import numpy as np
import pytest

from s2d_hf.timeline.streaming import CameraStream, open_stream, sample_evenly
from s2d_hf.video_files_s2d import VideoSource

from ..videos import counting_frames, frame_number, write_timed_video, write_video


def numbers(video: VideoSource, fps: float) -> list[tuple[float, int]]:
    return [(frame.time, frame_number(frame.pixels)) for frame in sample_evenly(video, fps)]


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
        times = [frame.time for frame in stream.frames()]
    assert times == pytest.approx(np.array(pts) / 100)
    with open_stream(path) as stream:
        found = numbers(stream, 7)
    assert found[-1][0] >= 3.2
    for seconds, number in found:
        distances = np.abs(np.array(pts) / 100 - seconds)
        assert distances[number] == pytest.approx(distances.min())


@pytest.mark.parametrize("fps", [0, -1])
def test_bad_rates(face_video, fps):
    with open_stream(face_video) as stream, pytest.raises(ValueError, match="`fps` must be positive"):
        sample_evenly(stream, fps)


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
        assert isinstance(stream, CameraStream)
        assert stream.duration is None and (stream.width, stream.height) == (64, 48)
        for seconds, pixels, after_cut in sample_evenly(stream, 10):
            assert not after_cut
            found.append((round(seconds, 2), int(pixels[0, 0, 2])))
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


def test_no_camera_is_one_line(warm_python):
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
    done = warm_python.run("-c", code)
    assert done.stdout.splitlines() == ["There is no camera 99, or another program uses it.", "True"]
    assert done.stderr == "" and done.returncode == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pictures_far_apart_stand_for_two_seconds_at_most(tmp_path, suffix):
    """Those of slides and frozen calls; whatever the container says of how long they last."""
    path = write_timed_video(tmp_path / f"a{suffix}", counting_frames(4), [0, 250, 1250, 1500])
    with open_stream(path) as stream:
        sampled = [(frame.time, frame_number(frame.pixels), frame.after_cut) for frame in sample_evenly(stream, 8)]
    for number, start in enumerate((0.0, 2.5, 12.5, 15.0)):
        own = [(time, after_cut) for time, found, after_cut in sampled if found == number]
        expected = start + np.arange(1 if number == 3 else 16) / 8
        np.testing.assert_allclose([time for time, _ in own], expected)
        assert [after_cut for _, after_cut in own] == [number > 0] + [False] * (len(own) - 1)
