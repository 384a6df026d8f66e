import io

import numpy as np
import pytest
import torch
from PIL import Image

from s2d_hf.frames_s2d import (
    list_frame_files,
    read_image,
    sample_frame_indices,
    scale_to_eight_bit,
    to_rgb,
)

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
        assert torch.equal(to_rgb(image), torch.from_numpy(gradient).expand(3, -1, -1))
    dark = np.full((4, 4), 200, np.uint16)  # nearly black, and no picture in 0..1
    (frame,) = scale_to_eight_bit([to_rgb(dark)])
    assert float(frame.max()) == 1


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


def test_folder_of_frames_in_natural_order(tmp_path):
    for i in range(12):
        Image.new("RGB", (4, 4)).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    assert [path.name for path in list_frame_files(tmp_path)] == [f"frame{i}.png" for i in range(12)]


def test_folders_without_frames_or_with_videos_are_no_folders_of_frames(tmp_path):
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.mp4").touch()
    (tmp_path / ".hidden.png").touch()
    with pytest.raises(ValueError, match="holds no frames"):
        list_frame_files(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "cover.png")
    assert [path.name for path in list_frame_files(tmp_path)] == ["cover.png"]
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"holds videos, such as a\.mp4"):
        list_frame_files(tmp_path)


def test_a_frame_that_is_a_link_to_nowhere_is_named(tmp_path):
    for i in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "annexed.png")
    with pytest.raises(ValueError, match=r"links to files that are not there, such as 3\.png"):
        list_frame_files(tmp_path)
