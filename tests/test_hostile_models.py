"""Model folders of strangers: damaged, absurd or made to harm, they load rightly or are refused in one line."""

import json
import os
import re
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DConfig, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.timeline import S2DTimeline

from .small_models import TINY, randomise

CONFIG, PROCESSOR = "config.json", "video_preprocessor_config.json"
CLIP = np.random.default_rng(0).integers(0, 256, size=(5, 40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("models") / "whole"
    config = S2DConfig(**TINY | {"landmark_channels": 128, "landmark_size": 14, "image_size": 32, "patch_size": 16})
    randomise(S2DForVideoClassification(config)).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    S2DVideoProcessor(landmark_encoder=MobileFaceNetLandmarkEncoder(), num_frames=4, **sizes).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_detector(monkeypatch):
    monkeypatch.setattr(S2DVideoProcessor, "get_face_detector", lambda self, device=None: None)


def change(folder: Path, file: str, fields: dict[str, Any]) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | fields))


def use(folder: Path) -> str | None:
    """Loads a folder and classifies a clip; what was refused, if it was."""
    started = time.monotonic()
    try:
        analyser = S2DTimeline.from_pretrained(folder, device="cpu")
        inputs = analyser.processor(CLIP, do_crop_faces=False, return_tensors="pt")
        with torch.no_grad():
            scores = analyser.model(**inputs).logits.softmax(-1)
        assert scores.shape == (1, len(analyser.labels)) and torch.isfinite(scores).all()
        return None
    except (OSError, ValueError) as error:
        return str(error)
    finally:
        assert time.monotonic() - started < 20


def test_what_is_whole_is_used(whole):
    assert use(whole) is None


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (CONFIG, {"num_hidden_layers": 10**9}, "`num_hidden_layers` must be"),
        (CONFIG, {"hidden_size": 10**9}, "`hidden_size` must be"),
        (CONFIG, {"num_frames": 10**9}, "`num_frames` must be"),
        (CONFIG, {"image_size": 16 * 10**6}, "`image_size` must be"),
        (CONFIG, {"intermediate_size": 10**12}, "`intermediate_size` must be"),
        (CONFIG, {"hidden_size": None}, "'hidden_size' expected int"),
        (CONFIG, {"hidden_size": "32"}, "'hidden_size' expected int"),
        (CONFIG, {"id2label": {str(i): "same" for i in range(5)}}, "several classes the same name: same"),
        (CONFIG, {"id2label": {str(i + 1): f"{i}" for i in range(5)}}, "must name the classes 0 to 4"),
        (CONFIG, {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, "don't fit its configuration"),
        (CONFIG, {"model_type": "bert"}, "is no S2D model: the `model_type` in its config.json is 'bert'"),
        (PROCESSOR, {"size": {"height": 10**6, "width": 10**6}}, "`size` must be whole numbers of pixels"),
        (PROCESSOR, {"crop_size": {"height": -1, "width": 32}}, "`crop_size` must be whole numbers of pixels"),
        (PROCESSOR, {"image_mean": "x"}, "`image_mean` must be three numbers"),
        (PROCESSOR, {"image_std": [0, 1, 1]}, "`image_std` must be three numbers, 1/1000000 at least"),
        (PROCESSOR, {"image_mean": []}, "`image_mean` must be three numbers"),
        (PROCESSOR, {"image_mean": [None, 0, 0]}, "`image_mean` must be three numbers"),
        (PROCESSOR, {"rescale_factor": 1e300}, "`rescale_factor` must be a number, 1000000 at most"),
        (PROCESSOR, {"rescale_factor": 0}, "`rescale_factor` must be a number, 1/1000000 at least"),
        (PROCESSOR, {"rescale_factor": 1e-171}, "`rescale_factor` must be a number, 1/1000000 at least"),
        (PROCESSOR, {"crop_size": {"height": 8192, "width": 8192}, "num_frames": 8}, "ask for 536,870,912 pixels"),
        (PROCESSOR, {"num_frames": 100_000, "size": {"shortest_edge": 64}}, "ask for 409,600,000 pixels"),
        (PROCESSOR, {"size": {}}, "size must have one of"),
        (PROCESSOR, {"do_normalize": []}, "`do_normalize` must be true or false"),
        (PROCESSOR, {"resample": 4}, "`resample` must be one of"),
        (PROCESSOR, {"num_frames": 10**9}, "`num_frames` must be a whole number"),
        (PROCESSOR, {"landmark_encoder": {"type": "os.system"}}, "os.system"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(whole, tmp_path, file, fields, message):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    change(folder, file, fields)
    refused = use(folder)
    assert refused is not None and message in refused and "model" in refused and "\n" not in refused, refused


@pytest.mark.parametrize("file", [CONFIG, PROCESSOR])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 5000, os.urandom(3000)]
)
def test_files_that_are_no_settings_are_refused(whole, tmp_path, file, content):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    (folder / file).write_bytes(content)
    refused = use(folder)
    assert refused is not None and "model" in refused and "\n" not in refused, refused


def test_weights_cannot_lie_outside_of_the_folder(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    (folder / "model.safetensors").rename(tmp_path / "x.safetensors")
    names = load_file(tmp_path / "x.safetensors")
    for place in ("../x.safetensors", str(tmp_path / "x.safetensors")):
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, place)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert f"names files outside of the folder: {place}" in use(folder)
    for content in ("[]", "{}", "[" * 100_000, '{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_text(content)
        assert "index.json is damaged" in use(folder)


@pytest.mark.parametrize(
    "fields", [{"hidden_size": 65536}, {"intermediate_size": 262144, "num_hidden_layers": 1024}, {"image_size": 16384}]
)
def test_sizes_of_other_models_cost_no_memory(whole, tmp_path, fields):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    change(folder, CONFIG, fields)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = use(folder)
    assert re.search(r"don't fit its configuration, which asks for [\d,]+ numbers and more; its files have", refused)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_settings_cannot_name_files_outside_of_the_folder(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    for place in ("/etc/passwd", "../../secret.onnx"):
        change(folder, PROCESSOR, {"face_detector_weights": place, "video_backend": place})
        processor = S2DVideoProcessor.from_pretrained(folder)
        assert processor.face_detector_weights is None and processor.video_backend == "pyav"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_setting_loads_or_is_refused(whole, data):
    file = data.draw(st.sampled_from([CONFIG, PROCESSOR]))
    content = json.loads((whole / file).read_text())
    name = data.draw(st.sampled_from(sorted(content)))
    folder = whole.with_name("changed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    change(folder, file, {name: data.draw(JSON)})
    refused = use(folder)
    assert refused is None or "\n" not in refused, refused
