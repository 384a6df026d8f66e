import copy
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from huggingface_hub import HfApi
from PIL import Image
from transformers import AutoImageProcessor

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DImageProcessor, S2DVideoProcessor
from s2d_hf.conversion import read_landmark_encoder

from .face_videos import PlacedFace, draw_faces

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def processor() -> S2DImageProcessor:
    torch.manual_seed(0)
    return S2DImageProcessor(landmark_encoder=MobileFaceNetLandmarkEncoder())


def test_pixels_are_those_of_the_paper(processor, face):
    pixels = processor(face, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(pixels[0], ((face / 255 - MEAN) / STD).transpose(2, 0, 1), atol=1e-5)


def test_every_kind_of_input_gives_the_same(processor, face, tmp_path):
    Image.fromarray(face).save(tmp_path / "face.png")
    path = tmp_path / "face.png"
    expected = processor(face, return_tensors="pt")
    assert expected["pixel_values"].shape == (1, 3, 224, 224)
    assert expected["landmark_features"].shape == (1, 128, 14, 14)
    inputs = [
        Image.fromarray(face),
        torch.from_numpy(face),
        face.transpose(2, 0, 1),
        face[None],
        [face],
        path,
        str(path),
    ]
    for image in [*inputs, face.astype(np.float32), face / 255, face.astype(np.uint16) * 257]:
        output = processor(image, return_tensors="pt")
        for name, tensor in expected.items():
            torch.testing.assert_close(output[name], tensor, atol=2e-4, rtol=1e-4)


def test_batch_of_several_sizes_equals_one_by_one(processor, face):
    images = [face, face[:150], face[:, :100], np.asarray(Image.fromarray(face).resize((500, 400)))]
    together = processor(images, return_tensors="pt", return_landmarks=True)
    assert together["pixel_values"].shape == (4, 3, 224, 224) and together["landmarks"].shape == (4, 68, 2)
    for i, image in enumerate(images):
        alone = processor(image, return_tensors="pt", return_landmarks=True)
        for name in together:
            torch.testing.assert_close(together[name][i : i + 1], alone[name], atol=1e-4, rtol=1e-4)


def test_aspect_ratio_is_kept(processor):
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 255  # the middle square is white
    pixels = processor(wide, return_tensors="np", do_normalize=False)["pixel_values"][0]
    assert pixels[:, :, 8:-8].min() == 1.0


def test_compute_landmarks_for_images_and_videos(processor):
    frames = torch.randn(2, 4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    video = processor.compute_landmarks(frames, return_landmarks=True)
    assert video["landmark_features"].shape == (2, 4, 128, 14, 14) and video["landmarks"].shape == (2, 4, 68, 2)
    image = processor.compute_landmarks(frames[1, 2])
    torch.testing.assert_close(image["landmark_features"], video["landmark_features"][1, 2], atol=1e-4, rtol=1e-4)


def test_features_and_points_can_be_turned_on_and_off(processor, face):
    assert set(processor(face, do_landmarks=False)) == {"pixel_values"}
    assert set(processor(face, do_landmarks=False, return_landmarks=True)) == {"pixel_values", "landmarks"}
    assert set(S2DImageProcessor(do_landmarks=False)(face)) == {"pixel_values"}
    with pytest.raises(ValueError, match="has no landmark encoder"):
        S2DImageProcessor()(face)


def test_save_and_load_with_the_encoder(processor, face, tmp_path):
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "landmark_encoder.safetensors").is_file()
    expected = processor(face, return_tensors="pt")
    for again in (
        S2DImageProcessor.from_pretrained(tmp_path),
        AutoImageProcessor.from_pretrained(tmp_path),
        S2DImageProcessor.from_pretrained(tmp_path / "preprocessor_config.json"),
    ):
        assert torch.equal(again(face, return_tensors="pt")["landmark_features"], expected["landmark_features"])
        assert again.to_dict() == processor.to_dict()
    changed = S2DImageProcessor.from_pretrained(tmp_path, return_landmarks=True, device="cpu")
    assert "landmarks" in changed(face) and "device" not in changed.to_dict()
    changed, unused = S2DImageProcessor.from_pretrained(tmp_path, size=256, colour=1, return_unused_kwargs=True)
    assert unused["colour"] == 1 and changed.landmark_encoder is not None
    without = S2DImageProcessor.from_pretrained(tmp_path, landmark_encoder=None)
    assert set(without(face)) == {"pixel_values"}


def test_missing_landmark_weights_are_named(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    (tmp_path / "landmark_encoder.safetensors").unlink()
    with pytest.raises(OSError, match=r"holds no landmark_encoder\.safetensors"):
        S2DImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no weights"):
        S2DImageProcessor(landmark_encoder={"type": "mobilefacenet"}).save_pretrained(tmp_path)


def test_pushing_to_the_hub_takes_the_weights_along(processor, monkeypatch, tmp_path):
    uploaded = {}

    def commit(self, repo_id, operations, **kwargs):
        uploaded.setdefault(repo_id, set()).update(operation.path_in_repo for operation in operations)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "create_commit", commit)
    processor.save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="someone/saved")
    processor.push_to_hub("someone/pushed")
    for files in (uploaded["someone/saved"], uploaded["someone/pushed"]):
        assert {"preprocessor_config.json", "landmark_encoder.safetensors", "image_processing_s2d.py"} <= files


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "empty list"),
        (np.full((32, 32, 3), np.nan), ValueError, r"images\[0\]: .*NaN"),
        (
            [np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), -3.0)],
            ValueError,
            r"images\[1\]: .*do_rescale=False",
        ),
        ("nowhere.jpg", FileNotFoundError, r"nowhere\.jpg"),
        (17, TypeError, r"images\[0\]: .*int"),
    ],
)
def test_bad_images_are_named(processor, images, error, message):
    with pytest.raises(error, match=message):
        processor(images)


def test_normalised_images_pass_when_told_so(processor, face):
    pixels = processor(face, return_tensors="pt")["pixel_values"]
    again = processor(pixels, do_rescale=False, do_normalize=False, return_tensors="pt")
    torch.testing.assert_close(again["pixel_values"], pixels)


@pytest.fixture(scope="module")
def yunet(yunet_weights) -> str:
    return str(yunet_weights)


@pytest.fixture(scope="module")
def cropping(yunet) -> S2DImageProcessor:
    """Finds and crops faces, and leaves them turned as they are."""
    return S2DImageProcessor(
        face_detector="yunet", face_detector_weights=yunet, do_crop_faces=True, do_landmarks=False
    )


@pytest.fixture(scope="module")
def upright(yunet, landmark_weights) -> S2DImageProcessor:
    """Turns faces upright too, and computes landmark features."""
    return S2DImageProcessor(
        landmark_encoder=read_landmark_encoder(landmark_weights), face_detector="yunet", face_detector_weights=yunet,
        do_crop_faces=True,
    )  # fmt: skip


def test_the_largest_face_of_a_photograph_is_cropped(cropping):
    picture = skimage.data.astronaut()
    output = cropping(picture, return_tensors="pt", return_face_boxes=True)
    assert output["face_boxes"].shape == (1, 4) and output["face_boxes"].dtype == torch.float32
    x1, y1, x2, y2 = output["face_boxes"][0].tolist()
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((223, 119), abs=8)
    assert x2 - x1 == pytest.approx(y2 - y1) == pytest.approx(1.1 * 118, rel=0.1)
    # what the box says is what is shown
    shown = Image.fromarray(picture).resize((224, 224), Image.Resampling.BILINEAR, (x1, y1, x2, y2))
    expected = ((np.asarray(shown) / 255 - MEAN) / STD).transpose(2, 0, 1)
    assert abs(output["pixel_values"][0].numpy() - expected).mean() < 0.05
    two = draw_faces([PlacedFace((150, 180), 160), PlacedFace((450, 180), 100)])
    box = cropping(two, return_tensors="pt", return_face_boxes=True)["face_boxes"][0]
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, (150, 180), atol=12)


def test_face_boxes_come_on_request(cropping):
    picture = skimage.data.astronaut()
    assert set(cropping(picture)) == {"pixel_values"}
    assert set(cropping(picture, return_face_boxes=True)) == {"pixel_values", "face_boxes"}
    assert set(cropping(picture, return_face_boxes=True, do_crop_faces=False)) == {"pixel_values"}


def test_turned_faces_and_their_landmarks(upright):
    """With the eyes level, features and points are those of the face that is not turned."""
    level, turned = (draw_faces([PlacedFace((320, 180), 150, angle=angle)]) for angle in (0, 25))
    options = {"return_landmarks": True, "return_tensors": "pt"}
    expected = upright(level, **options)
    for name, do_align_faces in (("aligned", None), ("aligned", True), ("askew", False)):
        output = upright(turned, do_align_faces=do_align_faces, **options)
        eyes = output["landmarks"][0, 42:48].mean(dim=0) - output["landmarks"][0, 36:42].mean(dim=0)
        angle = float(torch.rad2deg(torch.atan2(eyes[1], eyes[0])))
        difference = float((output["landmarks"] - expected["landmarks"]).norm(dim=-1).mean())
        if name == "aligned":
            assert abs(angle) < 5 and difference < 0.06
        else:
            assert angle == pytest.approx(25, abs=6) and difference > 0.08


def test_every_kind_of_photograph_gives_the_same_crop(cropping, tmp_path):
    picture = skimage.data.astronaut()
    path = tmp_path / "photograph.png"
    Image.fromarray(picture).save(path)
    expected = cropping(picture, return_tensors="pt", return_face_boxes=True)
    for image in (
        Image.fromarray(picture), torch.from_numpy(picture), picture.transpose(2, 0, 1), picture[None], path,
        str(path), picture / 255, (picture / 255).astype(np.float32), picture.astype(np.float32),
        picture.astype(np.uint16) * 257,
    ):  # fmt: skip
        output = cropping(image, return_tensors="pt", return_face_boxes=True)
        for name, tensor in expected.items():
            torch.testing.assert_close(output[name], tensor, atol=1e-5, rtol=1e-5)


def test_batches_of_photographs_equal_one_by_one(cropping):
    images = [
        skimage.data.astronaut(),
        draw_faces([PlacedFace((300, 200), 90)], height=400, width=500),
        draw_faces([PlacedFace((150, 300), 200)], height=640, width=360),
    ]
    together = cropping(images, return_tensors="pt", return_face_boxes=True)
    assert together["pixel_values"].shape == (3, 3, 224, 224) and together["face_boxes"].shape == (3, 4)
    for i, image in enumerate(images):
        alone = cropping(image, return_tensors="pt", return_face_boxes=True)
        for name in together:
            torch.testing.assert_close(together[name][i : i + 1], alone[name])


def test_still_faces_are_cropped_as_those_of_a_video(cropping):
    frame = draw_faces([PlacedFace((300, 200), 120, angle=10)])
    video = S2DVideoProcessor(
        face_detector="yunet", face_detector_weights=cropping.face_detector_weights, do_crop_faces=True,
        do_landmarks=False, num_frames=2,
    )  # fmt: skip
    frames = video([frame, frame], return_tensors="pt")["pixel_values"][0]
    still = cropping(frame, return_tensors="pt")["pixel_values"][0]
    for pixels in frames:
        torch.testing.assert_close(pixels, still, atol=0.1, rtol=0)


def test_photographs_without_faces_are_named(cropping, tmp_path):
    empty = draw_faces([])
    Image.fromarray(empty).save(tmp_path / "landscape.png")
    with pytest.raises(ValueError, match=r"images\[1\]: No face was found"):
        cropping([skimage.data.astronaut(), empty])
    with pytest.raises(ValueError, match=r"landscape\.png: No face was found.*`do_crop_faces=False`"):
        cropping(tmp_path / "landscape.png")
    with pytest.raises(ValueError, match=r"images\[0\]: `do_align_faces=True` needs a landmark encoder"):
        cropping(skimage.data.astronaut(), do_align_faces=True)


def test_cropping_survives_saving_and_copying(cropping, yunet, tmp_path):
    picture = skimage.data.astronaut()
    expected = cropping(picture, return_tensors="pt")["pixel_values"]
    for again in (copy.deepcopy(cropping), pickle.loads(pickle.dumps(cropping))):
        assert torch.equal(again(picture, return_tensors="pt")["pixel_values"], expected)
    changed = copy.deepcopy(cropping)
    changed.face_margin = 0.3
    changed.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert {"do_crop_faces": True, "face_margin": 0.3, "face_detector": "yunet"}.items() <= settings.items()
    assert not {"face_detector_weights", "_loaded_detector"} & set(settings)
    assert {"face_cropping_s2d.py", "face_detection_s2d.py", "face_tracking_s2d.py"} <= {
        path.name for path in tmp_path.iterdir()
    }
    S2DImageProcessor(do_landmarks=False).save_pretrained(tmp_path)
    for loader in (S2DImageProcessor, AutoImageProcessor):
        again = loader.from_pretrained(
            tmp_path, do_crop_faces=True, face_detector="yunet", face_detector_weights=yunet
        )
        assert torch.equal(again(picture, return_tensors="pt")["pixel_values"], expected)


@pytest.mark.parametrize("size", [112, {"shortest_edge": 112}, {"height": 112, "width": 112}])
def test_sizes_of_face_crops(cropping, size):
    picture = skimage.data.astronaut()
    small = cropping(picture, size=size, crop_size=112, return_tensors="pt")["pixel_values"][0]
    assert small.shape == (3, 112, 112)
    large = torch.nn.functional.avg_pool2d(cropping(picture, return_tensors="pt")["pixel_values"][0], 2)
    assert (small - large).abs().mean() < 0.1


def test_without_cropping_nothing_changes(processor, face):
    own = S2DImageProcessor(
        landmark_encoder=processor.landmark_encoder, face_detector="sfd", face_detector_weights="nowhere.pth"
    )
    expected = processor(face, return_tensors="pt")
    for settings in ({}, {"do_crop_faces": False}, {"return_face_boxes": True, "face_margin": 5.0}):
        output = own(face, return_tensors="pt", **settings)
        assert set(output) == set(expected) == {"pixel_values", "landmark_features"}
        assert all(torch.equal(output[name], expected[name]) for name in expected)
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.pth with the weights of the face detector sfd"):
        own(face, do_crop_faces=True)
