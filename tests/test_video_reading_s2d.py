import functools
import http.server
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from s2d_hf.frames_s2d import sample_frame_indices
from s2d_hf.video_reading_s2d import VIDEO_BACKENDS, read_video

from .videos import counting_frames, frame_number, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", counting_frames(60))
    write_video(folder / "long.mkv", counting_frames(60))
    write_video(folder / "fast.mp4", counting_frames(60), movflags="faststart")
    return folder


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_chosen_frames_are_the_right_ones(videos, backend, name):
    wanted = [0, 7, 8, 33, 59, 59]
    frames, metadata = read_video(videos / name, lambda m: wanted, backend)
    assert [frame_number(frame) for frame in frames] == wanted
    assert {frame.shape for frame in frames} == {(3, 64, 96)}
    assert metadata.total_num_frames == 60 and metadata.fps == 25 and metadata.video_backend == backend
    assert list(metadata.frames_indices) == wanted
    assert len(read_video(videos / name, backend=backend)[0]) == 60


def test_only_chosen_frames_are_held_in_memory(warm_python, tmp_path):
    frames = [np.full((480, 640, 3), i % 200, np.uint8) for i in range(8)]
    write_video(tmp_path / "long.mp4", [frames[i // 75] for i in range(600)])  # 550 MB of pixels
    code = (
        "import resource, sys; from s2d_hf.frames_s2d import *; from s2d_hf.video_reading_s2d import *\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "read_video(sys.argv[1], lambda m: [0], sys.argv[2]); before = peak()\n"
        "read_video(sys.argv[1], lambda m: sample_frame_indices(m.total_num_frames, 16), sys.argv[2])\n"
        "print(peak() - before)"
    )
    for backend in VIDEO_BACKENDS:
        run = warm_python.run("-c", code, tmp_path / "long.mp4", backend)
        assert run.returncode == 0, run.stderr
        assert float(run.stdout) < 150, backend  # MiB


def test_folder_of_frames(tmp_path):
    for i, frame in enumerate(counting_frames(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{i}.png")
    frames, metadata = read_video(tmp_path, lambda m: [2, 10, 11, 11])
    assert [frame_number(frame) for frame in frames] == [2, 10, 11, 11]
    assert metadata.total_num_frames == 12


def test_video_from_a_url(videos):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(videos))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for backend in VIDEO_BACKENDS:
            frames, _ = read_video(f"{url}/long.mp4", lambda m: [3, 40], backend)
            assert [frame_number(frame) for frame in frames] == [3, 40]
            with pytest.raises(FileNotFoundError, match=r"There is nothing at http.*missing\.mp4"):
                read_video(f"{url}/missing.mp4", backend=backend)
        server.shutdown()


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
def test_broken_videos_are_named(videos, tmp_path, backend):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    whole = (videos / "long.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # its index was at the end
    for name, message in {
        "empty.mp4": r"empty\.mp4 is empty",
        "text.mp4": r"text\.mp4 could not be opened: it is truncated, damaged or no video",
        "headless.mp4": r"headless\.mp4 could not be opened: it is truncated, damaged or no video",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_video(tmp_path / name, lambda m: sample_frame_indices(m.total_num_frames, 16), backend)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        read_video(tmp_path / "nowhere.mp4", backend=backend)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder .*holds no frames"):
        read_video(tmp_path / "folder", backend=backend)


def test_what_is_left_of_a_video_is_read(videos, tmp_path, caplog):
    fast = (videos / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(fast[: len(fast) * 3 // 4])  # its index is there, its frames are not
    frames, metadata = read_video(tmp_path / "cut.mp4")
    assert 1 < len(frames) == metadata.total_num_frames < 60
    # the last one is cut through, and its lower part is what the decoder makes of it
    assert [frame_number(frame) for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert len(caplog.messages) == 1 and "cut.mp4 is damaged: " in caplog.text and "of 2.4 s that" in caplog.text
    with pytest.raises(ValueError, match=r"cut\.mp4: decord does not read it rightly, as it is damaged"):
        read_video(tmp_path / "cut.mp4", backend="decord")


@pytest.mark.parametrize("chosen", [[0], [0, 4]])
def test_streaming_containers_that_were_cut_off_raise_a_warning(videos, tmp_path, chosen, caplog):
    """Whatever is chosen of them: their number of frames is wrong."""
    whole = (videos / "long.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    for backend in VIDEO_BACKENDS:
        read_video(videos / "long.mkv", lambda m: chosen, backend)
    assert not caplog.messages
    frames, metadata = read_video(tmp_path / "cut.mkv", lambda m: chosen)
    assert [frame_number(frame) for frame in frames] == chosen and metadata.total_num_frames < 60
    assert len(caplog.messages) == 1 and "cut.mkv is damaged: " in caplog.text
    with pytest.raises(ValueError, match=r"cut\.mkv: decord does not read it rightly, as it is damaged"):
        read_video(tmp_path / "cut.mkv", lambda m: chosen, "decord")


def test_unknown_backend_is_refused(videos):
    with pytest.raises(ValueError, match="pyav, decord"):
        read_video(videos / "long.mp4", backend="ffmpeg")


def test_decord_is_needed_only_where_it_is_asked_for(videos, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    frames, metadata = read_video(videos / "long.mp4", lambda m: [5])
    assert metadata.video_backend == "pyav" and frame_number(frames[0]) == 5
    with pytest.raises(ImportError, match="pip install decord"):
        read_video(videos / "long.mp4", backend="decord")
