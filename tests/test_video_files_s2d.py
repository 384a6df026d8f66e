import logging
import os

import av
import numpy as np
import pytest

from s2d_hf.video_files_s2d import VideoFile, open_video

from .videos import counting_frames, write_timed_video, write_video


def test_times_count_from_the_first_frame(tmp_path):
    path = write_video(tmp_path / "a.ts", counting_frames(10))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 0  # MPEG-TS starts its clock later
    with open_video(path) as video:
        assert [frame.time for frame in video.frames()] == pytest.approx(np.arange(10) / 25)


def test_what_is_no_video_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no video file .*missing\.mp4"):
        open_video(tmp_path / "missing.mp4")
    with pytest.raises(ValueError, match="is a folder"):
        open_video(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty"):
        open_video(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with pytest.raises(ValueError, match=r"text\.mp4 could not be opened"):
        open_video(tmp_path / "text.mp4")
    whole = write_video(tmp_path / "whole.mp4", counting_frames(20)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.mp4 could not be opened"):
        open_video(tmp_path / "half.mp4")
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(ValueError, match=r"sound\.m4a has no video stream"):
        open_video(tmp_path / "sound.m4a")


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
    with caplog.at_level(logging.WARNING), open_video(path) as video:
        times = [frame.time for frame in video.frames()]
    assert len(times) == 58 and times == sorted(times)
    assert len(caplog.messages) == 1 and "a.avi is damaged: 2 packets" in caplog.text
    assert video.damage.startswith("2 packets") and video.is_sure


def test_a_video_is_read_once(face_video):
    with open_video(face_video) as video:
        assert len(list(video.frames())) == 40
        with pytest.raises(ValueError, match="open it again"):
            next(video.frames())
    with open_video(face_video) as video:
        picture = next(video.frames()).picture
    with pytest.raises(ValueError, match=rf"{face_video.name} is not open any more.*open it again"):
        video.to_rgb(picture)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_nothing_stays_behind_a_video(tmp_path):
    """Neither threads, which a process that is forked later could not end, nor open files."""
    path = write_video(tmp_path / "a.mp4", counting_frames(30))

    def left_behind() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    def read_some() -> list[VideoFile]:
        opened = [open_video(path) for _ in range(3)]
        for video in opened:
            frames = video.frames()
            for _ in range(5):
                video.to_rgb(next(frames).picture)
            video.close()
        return opened

    kept = read_some()
    before = left_behind()
    kept += [video for _ in range(5) for video in read_some()]
    assert left_behind() == before and len(kept) == 18


def test_photographs_in_tiles_are_refused(tmp_path):
    """FFmpeg would give one tile of an iPhone's photograph as a video."""
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(ValueError, match=r"photo\.heic is a HEIC photograph.*convert it to JPEG"):
        open_video(tmp_path / "photo.heic")


def test_what_is_no_source_is_named():
    for source, message in (([1, 2], "got list"), (None, "got NoneType"), (np.zeros(3), "got ndarray")):
        with pytest.raises(TypeError, match=message):
            open_video(source)
    with pytest.raises(FileNotFoundError, match="no video file ''"):
        open_video("")
