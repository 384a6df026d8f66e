import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DImageProcessor, S2DVideoProcessor

from .videos import counting_frames, frame_number, write_video


@pytest.fixture(scope="module")
def processor() -> S2DVideoProcessor:
    torch.manual_seed(0)
    return S2DVideoProcessor(landmark_encoder=MobileFaceNetLandmarkEncoder())


@pytest.fixture(scope="module")
def plain() -> S2DVideoProcessor:
    """Frames as they are, in 0..255, to read their numbers from."""
    return S2DVideoProcessor(
        do_landmarks=False, do_rescale=False, do_normalize=False, do_resize=False, do_center_crop=False
    )


def numbers(output) -> list[int]:
    return [frame_number(frame) for frame in output["pixel_values"][0]]


def test_golden_pixels_through_a_saved_folder(golden, converted):
    processor = AutoVideoProcessor.from_pretrained(converted)
    assert isinstance(processor, S2DVideoProcessor) and processor.num_frames == 4
    output = processor(golden["frames"], return_tensors="pt")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (golden["frames"] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(output["pixel_values"], pixels, atol=1e-5, rtol=1e-5)
    difference = (output["landmark_features"] - golden["landmark_features"]).abs()
    # see test_landmark_encoders_s2d.py for why the largest difference is taken relatively
    assert difference.mean() < 1e-3
    assert difference.max() / golden["landmark_features"].abs().max() < 1e-3


def test_every_kind_of_input_gives_the_same(processor, tmp_path):
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (3, 230, 240, 3), np.uint8)
    files = []
    for i, frame in enumerate(clip):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    expected = processor(clip, return_tensors="pt", return_landmarks=True)
    assert expected["pixel_values"].shape == (1, 16, 3, 224, 224)
    assert expected["landmark_features"].shape == (1, 16, 128, 14, 14)
    assert expected["landmarks"].shape == (1, 16, 68, 2)
    for video in (
        list(clip), [Image.fromarray(frame) for frame in clip], torch.from_numpy(clip), clip.transpose(0, 3, 1, 2),
        clip[None], tmp_path, str(tmp_path), [str(tmp_path)], files, [str(file) for file in files], [files],
    ):  # fmt: skip
        output = processor(video, return_tensors="pt", return_landmarks=True)
        for name, tensor in expected.items():
            torch.testing.assert_close(output[name], tensor, atol=1e-4, rtol=1e-4)
    # resized bytes are rounded to bytes, and resized floats are not: up to a grey level apart
    for video in (clip.astype(np.float32), clip / 255, clip.astype(np.uint16) * 257):
        output = processor(video, return_tensors="pt")
        assert (output["pixel_values"] - expected["pixel_values"]).abs().max() < 1.01 / 255 / 0.224


def test_frames_are_those_of_the_image_processor(processor, face):
    images = S2DImageProcessor(landmark_encoder=processor.landmark_encoder)
    clip = [face, face[:, ::-1], face[:200], np.asarray(Image.fromarray(face).resize((90, 130)))]  # of several sizes
    video = processor(clip, num_frames=4, return_tensors="pt")
    stills = images(clip, return_tensors="pt")
    for name in ("pixel_values", "landmark_features"):
        torch.testing.assert_close(video[name][0], stills[name], atol=1e-4, rtol=1e-4)


def test_batch_of_different_videos_equals_one_by_one(processor, face_video, face):
    videos = [face_video, [face] * 3, np.stack([face[:, ::-1]] * 20)]
    together = processor(videos, return_tensors="pt", num_frames=4)
    assert together["pixel_values"].shape == (3, 4, 3, 224, 224)
    for i, video in enumerate(videos):
        alone = processor(video, return_tensors="pt", num_frames=4)
        for name in together:
            torch.testing.assert_close(together[name][i : i + 1], alone[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_sampling_of_files(plain, tmp_path, backend):
    video = write_video(tmp_path / "long.mp4", counting_frames(61), fps=30)
    arguments = {"video_backend": backend, "return_tensors": "pt"}
    assert numbers(plain(video, num_frames=4, **arguments)) == [0, 20, 40, 60]
    assert numbers(plain(video, num_frames=4, frame_stride=2, **arguments)) == [27, 29, 31, 33]
    assert numbers(plain(video, num_frames=4, fps=10, **arguments)) == [25, 28, 31, 34]
    assert numbers(plain(video, do_sample_frames=False, **arguments)) == list(range(61))
    output = plain(video, num_frames=4, return_metadata=True, **arguments)
    assert list(output["video_metadata"][0].frames_indices) == [0, 20, 40, 60]
    assert output["video_metadata"][0].timestamps == pytest.approx([0, 20 / 30, 40 / 30, 2])


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_short_videos_repeat_their_last_frame(plain, tmp_path, backend):
    video = write_video(tmp_path / "short.mp4", counting_frames(5))
    output = plain(video, video_backend=backend, return_tensors="pt")
    assert numbers(output) == [0, 1, 2, 3, 4] + [4] * 11


def test_sampling_of_arrays(plain):
    clip = np.stack(counting_frames(31))
    assert numbers(plain(clip, num_frames=4, return_tensors="pt")) == [0, 10, 20, 30]
    assert numbers(plain(clip[:2], num_frames=4, return_tensors="pt")) == [0, 1, 1, 1]
    with pytest.raises(ValueError, match="video's own frame rate"):
        plain(clip, fps=5)
    known = VideoMetadata(total_num_frames=31, fps=25)
    assert numbers(plain(clip, num_frames=4, fps=5, video_metadata=[known], return_tensors="pt")) == [7, 12, 17, 22]
    with pytest.raises(ValueError, match="either `fps` or `frame_stride`"):
        plain(clip, fps=5, frame_stride=2)


def test_save_and_load_with_the_encoder(processor, face_video, tmp_path):
    processor.save_pretrained(tmp_path)
    expected = processor(face_video, return_tensors="pt")
    again = AutoVideoProcessor.from_pretrained(tmp_path, frame_stride=2)
    assert again.frame_stride == 2
    output = again(face_video, frame_stride=None, return_tensors="pt")
    again.frame_stride = None
    output = again(face_video, return_tensors="pt")
    for name, tensor in expected.items():
        assert torch.equal(output[name], tensor)
    assert again.to_dict() == processor.to_dict()


def test_device_runs_encoder_and_pixels_there(processor, face):
    """`meta` stands for a GPU: everything that follows the frames' arrival must happen on the device."""
    torch.manual_seed(0)
    own = S2DVideoProcessor(landmark_encoder=MobileFaceNetLandmarkEncoder(), num_frames=2)
    output = own([face, face], device="meta", return_tensors="pt")
    assert {tensor.device.type for tensor in output.values()} == {"meta"}
    assert next(own.landmark_encoder.parameters()).device.type == "meta"


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        ([], ValueError, "no frames"),
        (np.zeros((0, 32, 32, 3), np.uint8), ValueError, r"videos\[0\]: .*no frames"),
        (np.full((2, 32, 32, 3), np.nan), ValueError, r"videos\[0\]: frame 0: .*NaN"),
        (np.full((2, 32, 32, 3), -2.0), ValueError, r"videos\[0\]: .*do_normalize=False"),
        ("nowhere.mp4", FileNotFoundError, r"nowhere\.mp4"),
        (["nowhere.jpg"], FileNotFoundError, r"nowhere\.jpg"),
        (17, TypeError, r"videos\[0\]: .*int"),
    ],
)
def test_bad_videos_are_named(processor, video, error, message):
    with pytest.raises(error, match=message):
        processor(video)


def test_bad_files_are_named(processor, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    for name in ("text.mp4", "empty.mp4", "folder"):
        with pytest.raises(ValueError, match=name):
            processor([tmp_path / name])


def test_grey_rgba_and_sixteen_bit_frames(processor, face):
    grey = face[..., 0]
    expected = processor([np.stack([grey] * 3, -1)], num_frames=1, return_tensors="pt")["pixel_values"]
    opaque = np.concatenate([np.stack([grey] * 3, -1), np.full((224, 224, 1), 255, np.uint8)], -1)
    for frame in (grey, Image.fromarray(grey), opaque, grey.astype(np.uint16) * 257):
        pixels = processor([frame], num_frames=1, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(pixels, expected, atol=1e-4, rtol=1e-4)
