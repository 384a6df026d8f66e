import copy
import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DImageProcessor, S2DVideoProcessor
from s2d_hf.conversion import read_landmark_encoder

from .face_videos import PlacedFace, draw_faces
from .videos import counting_frames, frame_number, write_timed_video, write_video


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


def test_processor_without_a_number_of_frames_takes_all_there_are(plain, tmp_path):
    everything = S2DVideoProcessor(**(plain.to_dict() | {"num_frames": None}))
    assert everything.to_dict()["num_frames"] is None
    clip = np.stack(counting_frames(31))
    known = {"video_metadata": [VideoMetadata(total_num_frames=31, fps=10)], "return_tensors": "pt"}
    assert numbers(everything(clip, **known)) == list(range(31))
    # as far from both ends
    assert numbers(everything(clip, frame_stride=4, **known)) == list(range(1, 31, 4))
    assert numbers(everything(clip, fps=5, **known)) == list(range(1, 31, 2))  # 3.1 seconds, 15 frames
    assert numbers(everything(clip, fps=0.1, **known)) == [15]  # the shortest clip has one
    assert numbers(everything(clip, num_frames=2, **known)) == [0, 30]
    for wrong in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="`fps` must be positive"):
            everything(clip, fps=wrong, **known)
    with pytest.raises(ValueError, match="`frame_stride` must be a whole number from 1"):
        everything(clip, frame_stride=0, **known)
    with pytest.raises(ValueError, match="video's own frame rate"):
        everything(clip, fps=5)

    # a second of frames that follow each other quickly, and a slow one
    times = [*range(0, 100, 5), *range(100, 200, 25)]
    video = write_timed_video(tmp_path / "timed.mp4", counting_frames(24), times)
    chosen = numbers(everything(video, fps=4, return_tensors="pt"))
    # the nearest ones to 0.10, 0.35, ..., 1.60 s: 7 in the 1.8 s of the video
    assert [times[number] for number in chosen] == [10, 35, 60, 85, 100, 125, 150]


def answer(processor: S2DVideoProcessor, clip: np.ndarray, answers: multiprocessing.Queue) -> None:
    answers.put(processor(clip, num_frames=2, return_tensors="np")["landmark_features"])


def test_loaded_processor_goes_to_a_process_of_the_fork_server(processor, face, tmp_path):
    """As to the workers of a DataLoader, with every way in which Python starts them."""
    processor.save_pretrained(tmp_path)
    loaded, clip = AutoVideoProcessor.from_pretrained(tmp_path), np.stack([face, face[:, ::-1]])
    context = multiprocessing.get_context("forkserver")
    answers = context.Queue()
    process = context.Process(target=answer, args=(loaded, clip, answers))
    process.start()
    features = answers.get(timeout=120)
    process.join(timeout=60)
    assert process.exitcode == 0
    expected = processor(clip, num_frames=2, return_tensors="np")["landmark_features"]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


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


@pytest.fixture(scope="module")
def detectors(retinaface_weights, yunet_weights) -> dict[str, str]:
    return {"retinaface": str(retinaface_weights), "yunet": str(yunet_weights)}


@pytest.fixture(scope="module")
def cropping(detectors, landmark_weights) -> dict[str, S2DVideoProcessor]:
    """Processors that find, turn upright and crop faces, one for each detector."""
    encoder = read_landmark_encoder(landmark_weights)
    return {
        name: S2DVideoProcessor(
            landmark_encoder=encoder, face_detector=name, face_detector_weights=path, do_crop_faces=True,
            do_landmarks=False, num_frames=4,
        )
        for name, path in detectors.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def unaligned(detectors) -> S2DVideoProcessor:
    """The fastest one, without a landmark encoder."""
    return S2DVideoProcessor(
        face_detector="yunet", face_detector_weights=detectors["yunet"], do_crop_faces=True, do_landmarks=False,
        num_frames=4,
    )  # fmt: skip


def crop_of(output, index: int = 0) -> torch.Tensor:
    return output["pixel_values"][0, index]


def coarse_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean absolute difference of 28 x 28 pixels: detectors place their boxes by some percent differently."""
    a, b = (torch.nn.functional.avg_pool2d(pixels, 8) for pixels in (a, b))
    return float((a - b).abs().mean())


@pytest.fixture(scope="module")
def tight(unaligned) -> torch.Tensor:
    """`pixel_values` of the face as a clip of the benchmarks shows it: upright, a tenth of space around it."""
    frame = draw_faces([PlacedFace((112, 112), 224 / 1.1)], height=224, width=224)
    return crop_of(unaligned([frame], do_crop_faces=False, return_tensors="pt"))


@pytest.mark.parametrize("detector", ["retinaface", "yunet"])
@pytest.mark.parametrize(
    ("mirrored", "side", "angle"), [(False, 118, 0), (True, 118, 0), (False, 200, 20), (True, 80, -20)]
)
def test_faces_are_cropped_upright_wherever_they_are(cropping, tight, detector, mirrored, side, angle):
    placed = [PlacedFace((240 + 25 * i, 170 + 6 * i), side, mirrored, angle) for i in range(4)]
    film = [draw_faces([face]) for face in placed]
    output = cropping[detector](film, return_tensors="pt", return_face_boxes=True)
    boxes = output["face_boxes"][0].numpy()
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, [face.center for face in placed], atol=0.08 * side)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], 1.1 * side, rtol=0.14)
    expected = tight.flip(-1) if mirrored else tight
    askew = cropping[detector](film, return_tensors="pt", do_align_faces=False)
    for i in range(4):
        difference = coarse_difference(crop_of(output, i), expected)
        assert difference < 0.5  # in standard deviations of ImageNet's pixels
        assert coarse_difference(crop_of(output, i), expected.flip(-1)) > 2 * difference
        if angle:
            assert coarse_difference(crop_of(askew, i), expected) > 1.5 * difference


def test_face_boxes_come_on_request(unaligned):
    film = [draw_faces([PlacedFace((320, 180), 150)])] * 4
    assert set(unaligned(film)) == {"pixel_values"}
    output = unaligned(film, return_face_boxes=True, return_metadata=True, return_tensors="pt")
    assert output["face_boxes"].shape == (1, 4, 4) and output["face_boxes"].dtype == torch.float32
    assert list(output["video_metadata"][0].frames_indices) == [0, 1, 2, 3]
    assert "face_boxes" not in unaligned(film, return_face_boxes=True, do_crop_faces=False)
    # a wider margin widens the square around the same middle
    wide = unaligned(film, return_face_boxes=True, face_margin=0.65, return_tensors="pt")["face_boxes"][0, 0]
    box = output["face_boxes"][0, 0]
    torch.testing.assert_close(wide[2:] - wide[:2], (box[2:] - box[:2]) * 1.5, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(wide[2:] + wide[:2], box[2:] + box[:2], rtol=1e-4, atol=1e-3)


def test_frames_without_the_face_hold_its_nearest_place(unaligned):
    empty = draw_faces([])
    film = [empty, draw_faces([PlacedFace((200, 180), 120)]), draw_faces([PlacedFace((210, 180), 120)]), empty]
    output = unaligned(film, return_face_boxes=True, return_tensors="pt")
    boxes = output["face_boxes"][0]
    assert torch.equal(boxes[0], boxes[1]) and torch.equal(boxes[2], boxes[3])
    assert boxes[1, 0] < boxes[2, 0]
    assert crop_of(output, 0).std() > 0  # normalised grey
    torch.testing.assert_close(crop_of(output, 0)[0], torch.full((224, 224), (90 / 255 - 0.485) / 0.229))


def test_the_main_face_of_two(unaligned):
    small, large = PlacedFace((150, 180), 90), PlacedFace((450, 180), 150, mirrored=True)

    def middle(film) -> np.ndarray:
        boxes = unaligned(film, return_face_boxes=True, return_tensors="pt")["face_boxes"][0]
        return ((boxes[:, :2] + boxes[:, 2:]) / 2).numpy()

    both, alone = draw_faces([small, large]), draw_faces([small])
    np.testing.assert_allclose(middle([both] * 4), [large.center] * 4, atol=15)
    # in one frame of four it is 150 against 4 x 90
    np.testing.assert_allclose(middle([alone, both, alone, alone]), [small.center] * 4, atol=15)


def test_a_face_that_leaps_is_found_again_and_another_one_is_not_taken_for_it(unaligned):
    def middle(film) -> np.ndarray:
        boxes = unaligned(film, return_face_boxes=True, return_tensors="pt")["face_boxes"][0]
        return ((boxes[:, :2] + boxes[:, 2:]) / 2).numpy()

    left, right = PlacedFace((120, 180), 140), PlacedFace((520, 180), 110, mirrored=True)
    places = (left, left, right, right)
    leaping = [draw_faces([face]) for face in places]
    np.testing.assert_allclose(middle(leaping), [face.center for face in places], atol=10)
    # someone else: blue where the first one is red
    other = draw_faces([right])[..., ::-1]
    np.testing.assert_allclose(middle([other] * 4), [right.center] * 4, atol=10)
    np.testing.assert_allclose(middle([leaping[0], leaping[0], other, other]), [left.center] * 4, atol=10)


def test_short_clips_with_faces_repeat_their_last_crop(unaligned, tmp_path):
    film = [draw_faces([PlacedFace((200 + 40 * i, 180), 120)]) for i in range(2)]
    for video in (film, write_video(tmp_path / "short.mp4", film)):
        output = unaligned(video, return_face_boxes=True, return_tensors="pt")
        pixels, boxes = output["pixel_values"][0], output["face_boxes"][0]
        assert torch.equal(pixels[1], pixels[2]) and torch.equal(pixels[1], pixels[3])
        assert torch.equal(boxes[1], boxes[3]) and boxes[1, 0] - boxes[0, 0] == pytest.approx(40, abs=6)


def test_faces_of_a_file_are_followed(cropping, tight, tmp_path):
    """A face that circles and turns, in a compressed video."""
    phases = 2 * np.pi * np.arange(100) / 100
    placed = [PlacedFace((320 + 40 * np.cos(t), 180 + 20 * np.sin(t)), 130, angle=12 * np.sin(t)) for t in phases]
    video = write_video(tmp_path / "circle.mp4", [draw_faces([face]) for face in placed])
    output = cropping["yunet"](video, num_frames=16, return_tensors="pt", return_face_boxes=True)
    chosen = np.linspace(0, 99, 16).round().astype(int)
    boxes = output["face_boxes"][0].numpy()
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, [placed[i].center for i in chosen], atol=7)
    assert max(coarse_difference(crop_of(output, i), tight) for i in range(16)) < 0.45


def test_alignment_with_and_without_a_landmark_encoder(unaligned, cropping):
    film = [draw_faces([PlacedFace((320, 180), 150, angle=20)])] * 4
    expected = unaligned(film, return_tensors="pt")["pixel_values"]
    assert torch.equal(unaligned(film, do_align_faces=False, return_tensors="pt")["pixel_values"], expected)
    with pytest.raises(ValueError, match=r"videos\[0\]: `do_align_faces=True` needs a landmark encoder"):
        unaligned(film, do_align_faces=True)
    aligned = cropping["yunet"]
    turned = aligned(film, return_tensors="pt")["pixel_values"]
    assert torch.equal(aligned(film, do_align_faces=True, return_tensors="pt")["pixel_values"], turned)
    assert torch.equal(aligned(film, do_align_faces=False, return_tensors="pt")["pixel_values"], expected)
    assert not torch.equal(turned, expected)


def test_videos_without_faces_are_named(unaligned, tmp_path):
    face, empty = draw_faces([PlacedFace((320, 180), 150)]), draw_faces([])
    with pytest.raises(ValueError, match=r"videos\[1\]: No face was found in 4 frames.*`do_crop_faces=False`"):
        unaligned([[face] * 4, [empty] * 4])
    path = write_video(tmp_path / "empty.mp4", [empty] * 5)
    with pytest.raises(ValueError, match=r"empty\.mp4: No face was found"):
        unaligned(path)


def test_settings_of_cropping_are_saved_without_what_belongs_to_the_machine(cropping, detectors, tmp_path):
    processor = copy.deepcopy(cropping["yunet"])
    processor.face_margin, processor.do_align_faces = 0.3, False
    film = [draw_faces([PlacedFace((320, 180), 150)])] * 4
    expected = processor(film, return_tensors="pt")["pixel_values"]  # the detector is there when it is saved
    processor.save_pretrained(tmp_path)
    (file,) = (path for path in tmp_path.glob("*.json") if "do_crop_faces" in path.read_text())
    settings = json.loads(file.read_text())
    saved = {"do_crop_faces": True, "face_margin": 0.3, "do_align_faces": False, "face_detector": "yunet"}
    assert saved.items() <= settings.items()
    assert not {"face_detector_weights", "_loaded_detector"} & set(settings)
    assert "onnx" not in file.read_text() and "weights" not in repr(processor)
    again = AutoVideoProcessor.from_pretrained(tmp_path)
    assert again.face_detector_weights is None and again.to_dict() == processor.to_dict()
    again.face_detector_weights = detectors["yunet"]
    assert torch.equal(again(film, return_tensors="pt")["pixel_values"], expected)


def test_cropping_is_switched_on_when_loading(detectors, tmp_path):
    S2DVideoProcessor(do_landmarks=False).save_pretrained(tmp_path)
    processor = S2DVideoProcessor.from_pretrained(
        tmp_path, do_crop_faces=True, face_detector="retinaface", face_detector_weights=detectors["retinaface"]
    )
    film = [draw_faces([PlacedFace((200, 180), 150)])] * 4
    boxes = processor(film, return_face_boxes=True, return_tensors="pt")["face_boxes"][0]
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2]) / 2, 200, atol=12)
    processor.face_detector, processor.face_detector_weights = "yunet", detectors["yunet"]
    assert processor.get_face_detector().name == "yunet"
    processor.face_detector_weights = "nowhere.onnx"
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx with the weights of .*yunet"):
        processor(film)
    assert "face_boxes" not in processor(film, do_crop_faces=False, return_face_boxes=True)


def test_a_processor_that_has_used_its_detector_can_be_copied(unaligned):
    film = [draw_faces([PlacedFace((200, 180), 150)])] * 4
    expected = unaligned(film, return_tensors="pt")["pixel_values"]
    detector = unaligned.get_face_detector()
    assert unaligned.get_face_detector() is detector  # loaded once
    for again in (copy.deepcopy(unaligned), copy.copy(unaligned), pickle.loads(pickle.dumps(unaligned))):
        assert torch.equal(again(film, return_tensors="pt")["pixel_values"], expected)
        assert again.get_face_detector() is not detector
    assert unaligned.get_face_detector() is detector


def test_every_kind_of_frames_gives_the_same_crops(unaligned, tmp_path):
    film = [draw_faces([PlacedFace((200 + 30 * i, 180), 150)]) for i in range(4)]
    expected = unaligned(film, return_tensors="pt", return_face_boxes=True)
    clip = np.stack(film)
    for i, frame in enumerate(film):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    for video in (
        clip, torch.from_numpy(clip), clip.transpose(0, 3, 1, 2), [Image.fromarray(frame) for frame in film],
        clip / 255, (clip / 255).astype(np.float32), clip.astype(np.float32), clip.astype(np.uint16) * 257, tmp_path,
    ):  # fmt: skip
        output = unaligned(video, return_tensors="pt", return_face_boxes=True)
        for name, tensor in expected.items():
            torch.testing.assert_close(output[name], tensor, atol=1e-5, rtol=1e-5)


def test_faces_are_found_in_every_so_many_frames(unaligned, monkeypatch):
    """And a face that moves evenly is followed in between."""
    film = [draw_faces([PlacedFace((180 + 12 * i, 180), 130)]) for i in range(16)]
    detector = unaligned.get_face_detector()
    looked_at = []

    def counting(frames) -> list[np.ndarray]:
        looked_at.extend(next(i for i, frame in enumerate(film) if np.array_equal(frame, seen)) for seen in frames)
        return detector(frames)

    monkeypatch.setattr(unaligned, "get_face_detector", lambda device=None: counting)
    for every, expected in ((1, list(range(16))), (5, [0, 5, 10, 15]), (4, [0, 4, 8, 12, 15])):
        looked_at.clear()
        output = unaligned(film, num_frames=16, detect_every=every, return_face_boxes=True, return_tensors="pt")
        assert looked_at == expected
        boxes = output["face_boxes"][0].numpy()
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        np.testing.assert_allclose(centers, [(180 + 12 * i, 180) for i in range(16)], atol=8)
    with pytest.raises(ValueError, match="`detect_every` must be at least 1, got 0"):
        unaligned(film, detect_every=0)


def test_batches_with_faces_equal_one_by_one(unaligned, tmp_path):
    near = [draw_faces([PlacedFace((200 + 30 * i, 180), 180)]) for i in range(6)]
    far = write_video(tmp_path / "far.mp4", [draw_faces([PlacedFace((400, 150), 90)], height=300, width=500)] * 9)
    together = unaligned([near, far], return_tensors="pt", return_face_boxes=True)
    assert together["pixel_values"].shape == (2, 4, 3, 224, 224) and together["face_boxes"].shape == (2, 4, 4)
    for i, video in enumerate((near, far)):
        alone = unaligned(video, return_tensors="pt", return_face_boxes=True)
        for name in together:
            torch.testing.assert_close(together[name][i : i + 1], alone[name])


@pytest.mark.parametrize("size", [112, {"shortest_edge": 112}, {"height": 112, "width": 112}])
def test_sizes_of_face_crops(unaligned, size):
    film = [draw_faces([PlacedFace((320, 180), 150)])] * 4
    small = crop_of(unaligned(film, size=size, crop_size=112, return_tensors="pt"))
    assert small.shape == (3, 112, 112)
    large = torch.nn.functional.avg_pool2d(crop_of(unaligned(film, return_tensors="pt")), 2)
    assert (small - large).abs().mean() < 0.03


def test_without_cropping_nothing_changes(processor, face_video):
    own = S2DVideoProcessor(
        landmark_encoder=processor.landmark_encoder, face_detector="sfd", face_detector_weights="nowhere.pth"
    )
    for settings in ({}, {"do_crop_faces": False}, {"return_face_boxes": True, "face_margin": 5.0}):
        output = own(face_video, num_frames=4, return_tensors="pt", **settings)
        expected = processor(face_video, num_frames=4, return_tensors="pt")
        assert set(output) == set(expected) == {"pixel_values", "landmark_features"}
        assert all(torch.equal(output[name], expected[name]) for name in expected)


def test_a_decoder_is_chosen_by_an_argument_and_not_saved(processor, tmp_path):
    """Older versions saved theirs, decord, which refuses many files."""
    processor.save_pretrained(tmp_path)
    path = tmp_path / "video_preprocessor_config.json"
    settings = json.loads(path.read_text())
    assert "video_backend" not in settings
    path.write_text(json.dumps(settings | {"video_backend": "decord"}))
    assert AutoVideoProcessor.from_pretrained(tmp_path).video_backend == "pyav"
    assert AutoVideoProcessor.from_pretrained(tmp_path, video_backend="decord").video_backend == "decord"
    assert S2DVideoProcessor(video_backend="decord", do_landmarks=False).video_backend == "decord"


def test_impossible_samplings_are_named(plain, tmp_path):
    video = write_video(tmp_path / "a.mp4", counting_frames(20))
    for arguments, message in (
        ({"num_frames": 0}, "`num_frames` must be a whole number from 1"),
        ({"fps": 0.0}, "`fps` must be positive"),
        ({"fps": float("inf")}, "`fps` must be positive and finite"),
        ({"video_backend": "ffmpeg"}, "pyav, decord"),
    ):
        with pytest.raises(ValueError, match=message):
            plain(video, **arguments)


def test_frames_by_paths_of_any_kind(plain, tmp_path):
    class OwnPath(os.PathLike):
        """Not `pathlib`'s: `str` of it is no path."""

        def __init__(self, path: Path):
            self.path = path

        def __fspath__(self) -> str:
            return str(self.path)

    for number, frame in enumerate(counting_frames(3)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    files = sorted(tmp_path.iterdir())
    expected = plain([files], num_frames=3)["pixel_values"]
    torch.testing.assert_close(plain([[OwnPath(file) for file in files]], num_frames=3)["pixel_values"], expected)
    torch.testing.assert_close(plain([OwnPath(tmp_path)], num_frames=3)["pixel_values"], expected)
    video = write_video(tmp_path / "a.mp4", counting_frames(3))
    expected = plain([video], num_frames=3)["pixel_values"]
    torch.testing.assert_close(plain([OwnPath(video)], num_frames=3)["pixel_values"], expected)


def test_frames_by_time(plain, tmp_path):
    """At 25 frames a second up to 1 s, and 5 from there to 3 s."""
    times = [*range(0, 100, 4), *range(100, 301, 20)]
    video = write_timed_video(tmp_path / "a.mp4", counting_frames(len(times)), times)
    even = [times[number] for number in numbers(plain(video, num_frames=7, return_tensors="pt"))]
    assert even == [0, pytest.approx(50, abs=2), 100, pytest.approx(150, abs=10), 200, pytest.approx(250, abs=10), 300]
    window = [times[number] for number in numbers(plain(video, num_frames=4, fps=5, return_tensors="pt"))]
    assert np.diff(window).tolist() == [20, 20, 20] and 100 <= window[0] <= 130
