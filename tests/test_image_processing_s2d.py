from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image
from transformers import AutoImageProcessor

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DImageProcessor

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
