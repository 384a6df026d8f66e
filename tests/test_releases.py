"""Folders that released versions wrote load with this one and its libraries, and compute what they computed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

RELEASES = sorted((Path(__file__).parent / "releases").glob("v*.zip"))

# with the code of the folder, and without the package
RUN_ITS_OWN_CODE = """
import json, sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline
folder = sys.argv[1]
expected = load_file(f"{folder}/expected.safetensors")
model = AutoModelForVideoClassification.from_pretrained(f"{folder}/model", trust_remote_code=True)
processor = AutoVideoProcessor.from_pretrained(f"{folder}/model", trust_remote_code=True)
inputs = processor(expected["frames"], return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
pipeline("video-classification", model=f"{folder}/model", trust_remote_code=True)
print(json.dumps({"modules": [type(part).__module__ for part in (model, processor)], "logits": logits.tolist()}))
"""


@pytest.fixture(params=RELEASES, ids=lambda archive: archive.stem)
def folder(request, tmp_path) -> Path:
    """What a release wrote: `model/` and `expected.safetensors`."""
    shutil.unpack_archive(request.param, tmp_path / "release")
    return tmp_path / "release"


def test_there_are_releases():
    assert "v0.1.0" in [archive.stem for archive in RELEASES]


def test_with_the_package(folder):
    expected = load_file(folder / "expected.safetensors")
    model, info = AutoModelForVideoClassification.from_pretrained(folder / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__module__ == "s2d_hf.modeling_s2d"
    inputs = AutoVideoProcessor.from_pretrained(folder / "model")(expected["frames"], return_tensors="pt")
    assert set(inputs) == {"pixel_values", "landmark_features"}
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max().item())
    with torch.no_grad():
        logits = model(**inputs).logits
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=1e-5)


def test_with_its_own_code(folder, clean_python, tmp_path):
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    command = [clean_python, "-I", "-c", RUN_ITS_OWN_CODE, folder]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert all(module.startswith("transformers_modules.") for module in report["modules"])
    expected = load_file(folder / "expected.safetensors")["logits"]
    torch.testing.assert_close(torch.tensor(report["logits"]), expected, rtol=1e-4, atol=1e-5)
