"""`pipeline` on saved folders, with the package installed and with the folder's own code alone."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoVideoProcessor, pipeline

from s2d_hf import S2DForVideoClassification
from s2d_hf.frames_s2d import sample_frame_indices
from s2d_hf.video_reading_s2d import read_video

from .face_videos import PlacedFace, draw_faces
from .probes import check_probe, run_probe
from .videos import write_video


def test_video_classification_equals_processor_and_model(converted, face_video):
    classifier = pipeline("video-classification", model=str(converted))
    scores = classifier(str(face_video), top_k=7)
    inputs = classifier.video_processor(str(face_video), return_tensors="pt")
    assert set(inputs) == {"pixel_values", "landmark_features"} and inputs["pixel_values"].shape[1] == 4
    with torch.no_grad():
        probabilities = S2DForVideoClassification.from_pretrained(converted)(**inputs).logits.softmax(-1)[0]
    assert sum(entry["score"] for entry in scores) == pytest.approx(1, abs=1e-5)
    for entry in scores:
        label = classifier.model.config.label2id[entry["label"]]
        assert entry["score"] == pytest.approx(float(probabilities[label]), abs=1e-5)


def test_video_classification_takes_batches_and_folders(converted, face_video, face, tmp_path):
    Image.fromarray(face).save(tmp_path / "0.png")
    classifier = pipeline("video-classification", model=str(converted))
    one_by_one = [classifier(str(video)) for video in (face_video, tmp_path)]
    together = classifier([str(face_video), str(tmp_path)], batch_size=2)
    for alone, batched in zip(one_by_one, together, strict=True):
        assert [entry["label"] for entry in alone] == [entry["label"] for entry in batched]
        for a, b in zip(alone, batched, strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_folder_without_landmark_weights_says_so(converted, face_video, face, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "copy")
    (folder / "landmark_encoder.safetensors").unlink()
    message = r"copy holds no landmark_encoder\.safetensors"
    for auto_class in (AutoImageProcessor, AutoVideoProcessor):
        with pytest.raises(OSError, match=message):
            auto_class.from_pretrained(folder)
    classifier = pipeline("video-classification", model=str(folder))
    with pytest.raises(OSError, match=message):
        classifier(str(face_video))


def scores_of(entries: list[dict]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in entries}


def test_raw_videos_and_photographs(converted, image_folder, retinaface_weights, tmp_path):
    """`do_crop_faces` in a pipeline gives the scores of what was cropped beforehand."""
    options = {"do_crop_faces": True, "face_detector_weights": retinaface_weights}
    faces = [PlacedFace((200 + 8 * i, 180), 120, angle=3 * i) for i in range(8)]
    video = write_video(tmp_path / "raw.mp4", [draw_faces([face]) for face in faces])
    cropper = AutoVideoProcessor.from_pretrained(converted, **options)
    raw = pipeline("video-classification", model=str(converted), video_processor=cropper)(str(video), top_k=7)
    indices = sample_frame_indices(8, 4)
    crops, boxes = cropper.crop_faces(read_video(video, lambda metadata: indices)[0], indices / 25)
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2]) / 2, 200 + 8 * indices, atol=6)
    for i, crop in enumerate(crops):
        Image.fromarray(crop.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    (tmp_path / "raw.mp4").unlink()
    tight = pipeline("video-classification", model=str(converted))(str(tmp_path), top_k=7)
    assert scores_of(raw) == pytest.approx(scores_of(tight), abs=1e-4)

    images = AutoImageProcessor.from_pretrained(image_folder, **options)
    photograph = Image.fromarray(draw_faces(faces[:1]))
    crop = images(photograph, do_normalize=False, do_rescale=False, return_tensors="pt")["pixel_values"][0]
    raw = pipeline("image-classification", model=str(image_folder), image_processor=images)(photograph, top_k=7)
    crop = Image.fromarray(crop.permute(1, 2, 0).to(torch.uint8).numpy())
    tight = pipeline("image-classification", model=str(image_folder))(crop, top_k=7)
    assert scores_of(raw) == pytest.approx(scores_of(tight), abs=1e-4)


def test_image_classification(image_folder, face):
    classifier = pipeline("image-classification", model=str(image_folder))
    scores = classifier(Image.fromarray(face), top_k=7)
    assert sum(entry["score"] for entry in scores) == pytest.approx(1, abs=1e-5)
    still = pipeline("video-classification", model=str(image_folder))  # averages the image model over the frames
    clip = still.video_processor([face] * 3, return_tensors="pt")
    with torch.no_grad():
        averaged = still.model(**clip).logits.softmax(-1)[0]
    best = classifier.model.config.label2id[scores[0]["label"]]
    assert float(averaged[best]) == pytest.approx(scores[0]["score"], abs=1e-4)


def test_installed_package_needs_no_remote_code(converted, image_folder, face_video, tmp_path):
    check_probe(run_probe(sys.executable, "installed", converted, image_folder, face_video, tmp_path), "s2d_hf.")


CROP_RAW_VIDEO = """
import sys
from transformers import AutoVideoProcessor
folder, weights, video = sys.argv[1:]
processor = AutoVideoProcessor.from_pretrained(
    folder, trust_remote_code=True, do_crop_faces=True, face_detector_weights=weights
)
print(*processor(video, return_face_boxes=True, return_tensors="pt")["face_boxes"][0, 0].tolist())
"""


def test_folder_alone_is_enough_without_the_package(
    clean_python, converted, image_folder, face_video, retinaface_weights, tmp_path
):
    """`tests/test_environments.py` does the same with everything newly installed."""
    report = run_probe(clean_python, "remote", converted, image_folder, face_video, tmp_path)
    check_probe(report, "transformers_modules.")
    # and its own code finds faces in raw videos
    raw = write_video(tmp_path / "raw.mp4", [draw_faces([PlacedFace((200, 180), 120)])] * 5)
    command = [clean_python, "-I", "-c", CROP_RAW_VIDEO, converted, retinaface_weights, raw]
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    x1, y1, x2, y2 = map(float, run.stdout.split())
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((200, 180), abs=6)
