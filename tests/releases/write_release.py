"""
Writes a small model as this version of the package writes it, with what it computes, to be kept for later versions:

    python -m tests.releases.write_release

It is kept as an archive, as its code is not to be edited. One that is there is never written again: what a release
wrote is what its users have.
"""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import s2d_hf
from s2d_hf import (
    MobileFaceNetLandmarkEncoder,
    S2DConfig,
    S2DForVideoClassification,
    S2DImageProcessor,
    S2DVideoProcessor,
)

from ..small_models import TINY, randomise


def write_release(folder: Path) -> None:
    """Writes `model/`, a model's folder with its code, and `expected.safetensors`: frames, features and logits."""
    torch.manual_seed(0)
    encoder = MobileFaceNetLandmarkEncoder(width=1 / 16, input_size=32)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):  # features as large as trained ones
            torch.nn.init.kaiming_normal_(module.weight)
    labels = dict(enumerate(("happy", "sad", "neutral", "angry", "surprise")))
    sizes = TINY | {"landmark_channels": encoder.num_channels, "landmark_size": encoder.feature_size}
    model = randomise(S2DForVideoClassification(S2DConfig(**sizes, id2label=labels))).eval()
    settings = {
        "landmark_encoder": encoder,
        "size": {"shortest_edge": model.config.image_size},
        "crop_size": {"height": model.config.image_size, "width": model.config.image_size},
    }
    processor = S2DVideoProcessor(**settings, num_frames=model.config.num_frames)
    for part in (model, processor, S2DImageProcessor(**settings)):
        part.save_pretrained(folder / "model")
    frames = torch.randint(0, 256, (model.config.num_frames, 3, 48, 40), dtype=torch.uint8)
    inputs = processor(frames, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    save_file({"frames": frames, **inputs, "logits": logits}, folder / "expected.safetensors")


if __name__ == "__main__":
    target = Path(__file__).parent / f"v{s2d_hf.__version__}.zip"
    if target.exists():
        raise SystemExit(f"{target} is there already; a new version has a new number (s2d_hf/__init__.py).")
    with tempfile.TemporaryDirectory() as folder:
        write_release(Path(folder))
        shutil.make_archive(str(target.with_suffix("")), "zip", folder)
    print(f"Wrote {target}.")
