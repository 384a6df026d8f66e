"""The example of docs/onnx.md gives the scores of `pipeline`, without what the package needs."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from transformers import pipeline

from s2d_hf import (
    S2DConfig,
    S2DForImageClassification,
    S2DForVideoClassification,
    S2DImageProcessor,
    S2DVideoProcessor,
)
from s2d_hf.onnx_export import export_onnx
from s2d_hf.onnx_metadata import check_preparation, describe_preparation

from .pages import texts
from .small_models import TINY, random_encoder, randomise

SMALL = TINY | {
    "image_size": 224, "patch_size": 32, "landmark_channels": 8, "landmark_size": 14, "num_hidden_layers": 1,
}  # fmt: skip


def make_model(folder: Path, config: dict, processor: dict, frame_stride: int | None) -> Path:
    """A model's folder, with random weights whose scores depend on the landmarks."""
    config = S2DConfig(**(SMALL | {"id2label": {i: f"label {i}" for i in range(5)}} | config))
    model_class = S2DForVideoClassification if config.temporal_adapters else S2DForImageClassification
    randomise(model_class(config)).save_pretrained(folder)
    encoder = random_encoder(width=8 / 128) if config.prompt_type != "none" else None
    settings = {"landmark_encoder": encoder, "do_landmarks": encoder is not None} | processor
    S2DImageProcessor(**settings).save_pretrained(folder)
    S2DVideoProcessor(**settings, num_frames=config.num_frames, frame_stride=frame_stride).save_pretrained(folder)
    return folder


def save_frames(folder: Path, sizes: list[tuple[int, int]]) -> None:
    """Crops of scikit-image's astronaut, numbered from 0, of a width and height each."""
    folder.mkdir()
    for i, (width, height) in enumerate(sizes):
        frame = skimage.data.astronaut()[3 * i : 3 * i + height, 80 + 4 * i : 80 + 4 * i + width]
        Image.fromarray(np.ascontiguousarray(frame)).save(folder / f"{i}.png")


def run_example(folder: Path, place: Path, model_file: str = "model.onnx") -> list[dict[str, float]]:
    """
    What the page's code gives with a folder of ONNX files for `place / "clip"`, and then for the other clips there,
    where it finds nothing that it may not import.
    """
    (place / "affectnet7-onnx").symlink_to(folder)
    (code,) = texts("docs/onnx.md", "python")
    blocked = "import sys\nsys.modules.update(dict.fromkeys(['torch', 'torchvision', 'transformers', 's2d_hf']))\n"
    code = blocked + code.replace("model.onnx", model_file)
    for clip in sorted(place.glob("clip?*")):
        files = [str(clip / f"{i}.png") for i in range(len(list(clip.iterdir())))]
        code += f"print(classify([Image.open(file) for file in {files}]))\n"
    run = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return [ast.literal_eval(line) for line in run.stdout.splitlines()]


def differences(found: list[dict[str, float]], model: Path, place: Path) -> list[float]:
    """For each clip, the largest one to the scores that `pipeline` gives."""
    classify = pipeline("video-classification", model=str(model))
    largest = []
    for scores, clip in zip(found, sorted(place.glob("clip*")), strict=True):
        expected = {row["label"]: row["score"] for row in classify(str(clip))}
        assert set(scores) == set(expected) and max(expected.values()) - min(expected.values()) > 0.05
        largest.append(max(abs(scores[label] - expected[label]) for label in expected))
    return largest


# changes of the configuration and of the processors, and the frames' distance
CASES = {
    "video": ({}, {}, None),
    "image": ({"temporal_adapters": False}, {}, 3),
    "other settings": (
        {"prompt_type": "none", "problem_type": "multi_label_classification"},
        {
            "rescale_factor": 1 / 127.5,
            "image_mean": [1.0, 0.9, 0.8],
            "image_std": [0.5, 0.4, 0.3],
            "resample": 3,
            "size": {"height": 224, "width": 224},
            "do_center_crop": False,
        },
        2,
    ),
}


@pytest.fixture(scope="module", params=list(CASES))
def exported(request, tmp_path_factory) -> tuple[Path, Path]:
    """A model's folder, and that of its ONNX files."""
    folder = tmp_path_factory.mktemp("exported")
    model = make_model(folder / "model", *CASES[request.param])
    export_onnx(model, folder / "onnx", int8=request.param == "image")
    return model, folder / "onnx"


def test_example_gives_the_scores_of_pipeline(exported, tmp_path):
    model, folder = exported
    save_frames(tmp_path / "clip", [(224, 224)] * 12)
    save_frames(tmp_path / "clip_few", [(224, 224)] * 3)
    # Pillow and torchvision resize a few pixels to neighbouring grey levels
    save_frames(tmp_path / "clip_large", [(224 + 7 * i, 340 - 11 * i) for i in range(12)])
    save_frames(tmp_path / "clip_small", [(96, 97)] * 12)
    found = differences(run_example(folder, tmp_path), model, tmp_path)
    assert max(found[:2]) < 1e-5 and max(found[2:]) < 1e-3, found


@pytest.mark.parametrize("exported", ["image"], indirect=True)
def test_example_with_int8_weights(exported, tmp_path):
    """Frame by frame, as the file takes one at a time."""
    model, folder = exported
    save_frames(tmp_path / "clip", [(224, 224)] * 12)
    (found,) = differences(run_example(folder, tmp_path, "model_quantized.onnx"), model, tmp_path)
    assert 1e-5 < found < 0.05


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({}, 1),
        ({"size": {"shortest_edge": 201}}, 1),  # black at the edges
        ({"size": {"height": 250, "width": 211}}, 1),
        ({"size": {"height": 224, "width": 224}, "do_center_crop": False}, 1),
        ({"do_resize": False}, 0),
        ({"do_resize": False, "do_rescale": False, "do_normalize": False}, 0),
    ],
)
def test_example_prepares_pictures_as_the_processor_does(changes, levels):
    """But for some grey levels where a picture is resized."""
    processor = S2DImageProcessor(do_landmarks=False, **changes)
    check_preparation(processor, 224, "model")
    settings = describe_preparation(processor)
    (code,) = texts("docs/onnx.md", "python")
    (function,) = (part for part in ast.parse(code).body if getattr(part, "name", None) == "prepare")
    names = {"np": np, "Image": Image, "settings": settings}
    exec(ast.unparse(function), names)
    for width, height in ((300, 261), (231, 320), (224, 224), (203, 250)):
        picture = Image.fromarray(np.ascontiguousarray(skimage.data.astronaut()[:height, 80 : 80 + width]))
        expected = np.asarray(processor(picture)["pixel_values"][0], np.float64)
        unit = settings["rescale_factor"] / np.array(settings["image_std"])[:, None, None]
        found = names["prepare"](picture)
        assert found.shape == expected.shape == (3, 224, 224) and expected.std() > 0.1
        assert (np.abs(found - expected) / unit).max() < levels + 0.01
