import functools
import http.server
import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from s2d_hf.frames_s2d import (
    list_frame_files,
    read_image,
    read_video,
    sample_frame_indices,
    scale_to_eight_bit,
    to_rgb,
)

from .videos import counting_frames, frame_number, write_video

BACKENDS = ["decord", "pyav"]


# --- sampling


@pytest.mark.parametrize("total", [1, 2, 15, 16, 17, 40, 1000])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_even_sampling_covers_the_whole_video(total, count):
    indices = sample_frame_indices(total, count)
    assert len(indices) == count
    if total <= count:  # every frame once, then the last one again
        assert indices.tolist() == list(range(total)) + [total - 1] * (count - total)
    else:
        assert indices[0] == 0 and (count == 1 or indices[-1] == total - 1)
        steps = np.diff(indices)
        assert count == 1 or steps.max() - steps.min() <= 1


def test_windows():
    assert sample_frame_indices(100, 4, stride=3).tolist() == [45, 48, 51, 54]
    assert sample_frame_indices(100, 4, stride=3, start=0).tolist() == [0, 3, 6, 9]
    assert sample_frame_indices(100, 4, stride=3, start=95).tolist() == [95, 98, 99, 99]
    assert sample_frame_indices(4, 4, stride=1).tolist() == [0, 1, 2, 3]
    assert sample_frame_indices(5, 4, stride=3).tolist() == [0, 3, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_num_frames": 0, "num_frames": 4}, "no frames"),
        ({"total_num_frames": 9, "num_frames": 0}, "`num_frames`"),
        ({"total_num_frames": 9, "num_frames": 4, "stride": 0}, "`stride`"),
        ({"total_num_frames": 9, "num_frames": 4, "stride": 1, "start": 9}, "`start`"),
        ({"total_num_frames": 9, "num_frames": 4, "start": 1}, "`start`"),
    ],
)
def test_impossible_samples_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_frame_indices(**arguments)


# --- images


@pytest.fixture
def gradient() -> np.ndarray:
    """`(16, 20)` grey levels."""
    return (np.arange(320) % 256).astype(np.uint8).reshape(16, 20)


def test_layouts_and_types_give_the_same_frame(face):
    expected = torch.from_numpy(face).permute(2, 0, 1)
    for image in (face, face.transpose(2, 0, 1), torch.from_numpy(face), expected, Image.fromarray(face)):
        assert torch.equal(to_rgb(image), expected)
    small = face[:3, :3]  # ambiguous without a hint
    assert torch.equal(to_rgb(small, "channels_last"), expected[:, :3, :3])


def test_grey_becomes_rgb(gradient):
    expected = torch.from_numpy(gradient).expand(3, -1, -1)
    for image in (gradient, gradient[..., None], gradient[None], Image.fromarray(gradient)):
        assert torch.equal(to_rgb(image), expected)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_becomes_eight_bit_range(gradient, tmp_path, suffix):
    deep = gradient.astype(np.uint16) * 257  # 65535 is white
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    for image in (deep, torch.from_numpy(deep.astype(np.int32)), read_image(tmp_path / f"deep.{suffix}")):
        torch.testing.assert_close(to_rgb(image), torch.from_numpy(gradient).expand(3, -1, -1).float())


def test_transparency_lies_over_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = [255, 0, 0, 255]  # opaque red
    rgba[0, 1] = [255, 0, 0, 51]  # a fifth of it
    expected = torch.tensor([[[255, 255], [255, 255]], [[0, 204], [255, 255]], [[0, 204], [255, 255]]])
    for image in (rgba, Image.fromarray(rgba)):
        assert torch.equal(to_rgb(image), expected.to(torch.uint8))
    torch.testing.assert_close(to_rgb(rgba.astype(np.float32) / 255), expected / 255)
    palette = Image.fromarray(rgba[..., :3]).convert("P")
    assert to_rgb(palette).shape == (3, 2, 2)


def test_photographs_are_turned_upright(face, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(face[:100]).save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(read_image(tmp_path / "turned.png"))
    np.testing.assert_array_equal(upright, np.rot90(face[:100], -1))


def test_floats_are_scaled_by_the_whole_video():
    dark, bright = torch.full((3, 2, 2), 0.5), torch.full((3, 2, 2), 200.0)
    assert float(scale_to_eight_bit([dark])[0].max()) == 127.5
    assert float(scale_to_eight_bit([dark, bright])[0].max()) == 0.5  # that video is in 0..255
    with pytest.raises(ValueError, match="do_normalize=False"):
        scale_to_eight_bit([dark, -bright])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.full((4, 4, 3), np.nan), ValueError, "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), ValueError, "infinite"),
        (np.zeros((6, 6, 5)), ValueError, "1, 3 or 4 channels"),
        (np.zeros((0, 4, 3)), ValueError, "no pixels"),
        (np.zeros(4), ValueError, "2 or 3 axes"),
        (np.full((4, 4), 70000), ValueError, "65535"),
        (np.full((4, 4), -1), ValueError, "-1"),
        (np.array([["a"]]), TypeError, "dtype"),
        ({"an": "image"}, TypeError, "dict"),
    ],
)
def test_what_is_no_image_is_refused(image, error, message):
    with pytest.raises(error, match=message):
        to_rgb(image)


def test_unreadable_image_files_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.jpg is not a readable image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        read_image(tmp_path / "nowhere.jpg")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, "png")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ValueError, match=r"half\.png is not a readable image"):
        read_image(tmp_path / "half.png")


# --- videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", counting_frames(60))
    write_video(folder / "long.mkv", counting_frames(60))
    write_video(folder / "fast.mp4", counting_frames(60), movflags="faststart")
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_chosen_frames_are_the_right_ones(videos, backend, name):
    wanted = [0, 7, 8, 33, 59, 59]
    frames, metadata = read_video(videos / name, lambda m: wanted, backend)
    assert [frame_number(frame) for frame in frames] == wanted
    assert {frame.shape for frame in frames} == {(3, 64, 96)}
    assert metadata.total_num_frames == 60 and metadata.fps == 25 and metadata.video_backend == backend
    assert list(metadata.frames_indices) == wanted
    assert len(read_video(videos / name, backend=backend)[0]) == 60


def test_only_chosen_frames_are_held_in_memory(tmp_path):
    frames = [np.full((480, 640, 3), i % 200, np.uint8) for i in range(8)]
    write_video(tmp_path / "long.mp4", [frames[i // 150] for i in range(1200)])  # 1.1 GB of pixels
    code = (
        "import resource, sys; from s2d_hf.frames_s2d import *\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "read_video(sys.argv[1], lambda m: [0], sys.argv[2]); before = peak()\n"
        "read_video(sys.argv[1], lambda m: sample_frame_indices(m.total_num_frames, 16), sys.argv[2])\n"
        "print(peak() - before)"
    )
    for backend in BACKENDS:
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "long.mp4"), backend],
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(run.stdout) < 150, backend  # MiB


def test_folder_of_frames_in_natural_order(tmp_path):
    for i, frame in enumerate(counting_frames(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    assert [path.name for path in list_frame_files(tmp_path)][1:3] == ["frame1.png", "frame2.png"]
    frames, metadata = read_video(tmp_path, lambda m: [2, 10, 11, 11])
    assert [frame_number(frame) for frame in frames] == [2, 10, 11, 11]
    assert metadata.total_num_frames == 12


def test_video_from_a_url(videos):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(videos))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for backend in BACKENDS:
            frames, _ = read_video(f"{url}/long.mp4", lambda m: [3, 40], backend)
            assert [frame_number(frame) for frame in frames] == [3, 40]
        with pytest.raises(ValueError, match=r"missing\.mp4 could not be decoded"):
            read_video(f"{url}/missing.mp4")
        server.shutdown()


@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_videos_are_named(videos, tmp_path, backend):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    whole = (videos / "long.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # its index was at the end
    fast = (videos / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(fast[: len(fast) * 3 // 4])  # its index is there, its frames are not
    for name, message in {
        "empty.mp4": r"empty\.mp4 is empty",
        "text.mp4": r"text\.mp4 could not be decoded",
        "headless.mp4": r"headless\.mp4 could not be decoded",
        "cut.mp4": r"cut\.mp4 (could not be decoded|is truncated)",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_video(tmp_path / name, lambda m: sample_frame_indices(m.total_num_frames, 16), backend)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        read_video(tmp_path / "nowhere.mp4", backend=backend)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder .*holds no frames"):
        read_video(tmp_path / "folder", backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_streaming_containers_that_were_cut_off_raise_a_warning(videos, tmp_path, backend, caplog):
    whole = (videos / "long.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    read_video(videos / "long.mkv", lambda m: [0], backend)
    assert not caplog.messages
    read_video(tmp_path / "cut.mkv", lambda m: [0], backend)
    assert "cut.mkv may be truncated" in caplog.text


def test_unknown_backend_is_refused(videos):
    with pytest.raises(ValueError, match="decord, pyav"):
        read_video(videos / "long.mp4", backend="ffmpeg")


def test_pyav_stands_in_where_decord_is_missing(videos, monkeypatch, caplog):
    monkeypatch.setattr("s2d_hf.frames_s2d.is_decord_available", lambda: False)
    frames, metadata = read_video(videos / "long.mp4", lambda m: [5])
    assert metadata.video_backend == "pyav" and frame_number(frames[0]) == 5
    monkeypatch.setattr("s2d_hf.frames_s2d.is_av_available", lambda: False)
    with pytest.raises(ImportError, match="pip install decord"):
        read_video(videos / "long.mp4")
