"""
Loads a model folder with its own code alone and prints a JSON report as the last line: the modules that its classes
come from, the scores of made frames, and every warning. Runs by itself, where `s2d_hf` can't be imported:
`python -I probe_model.py FOLDER`.
"""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

# whatever is installed, it must not be what makes the folder load
sys.modules["s2d_hf"] = None  # type: ignore[assignment]  # which stops its import

import numpy as np  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402

PIPELINES = {
    "S2DForVideoClassification": ("video-classification", "AutoModelForVideoClassification"),
    "S2DForImageClassification": ("image-classification", "AutoModelForImageClassification"),
}


class Collect(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


def collect_warnings() -> list[str]:
    """A list that gets every warning from now on."""
    collect = Collect()
    for name in (None, "transformers", "huggingface_hub"):
        logging.getLogger(name).addHandler(collect)
    warnings.showwarning = lambda message, category, *args, **kwargs: collect.messages.append(
        f"{category.__name__}: {message}"
    )
    warnings.simplefilter("always")
    # of libraries, for their own maintainers
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning, ImportWarning):
        warnings.simplefilter("ignore", category)
    return collect.messages


def write_frames(folder: Path, count: int, size: int = 256) -> None:
    """Frames in which two colour gradients move; no face is needed to go through the model."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
    for i in range(count):
        waves = [np.sin(6 * (rows + 0.7 * columns) + i / 3), np.cos(5 * columns + i / 4), np.sin(4 * rows - i / 5)]
        pixels = (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.png")


def main(folder: str) -> None:
    """Prints the report on `folder`."""
    logged = collect_warnings()
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    task, auto_class = PIPELINES[config["architectures"][0]]
    classifier = transformers.pipeline(task, model=folder, trust_remote_code=True)
    loaded = {f'pipeline("{task}")': classifier.model}
    for name in ("AutoConfig", "AutoImageProcessor", "AutoVideoProcessor", auto_class):
        loaded[name] = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    modules = {name: type(item).__module__ for name, item in loaded.items()}
    for name, reference in config["auto_map"].items():
        modules.setdefault(name, get_class_from_dynamic_module(reference, folder).__module__)
    for processor in (classifier.image_processor, getattr(classifier, "video_processor", None)):
        if processor is not None:  # the frames have no face to crop
            processor.do_crop_faces = False
    with tempfile.TemporaryDirectory() as frames:
        video = task == "video-classification"
        write_frames(Path(frames), config.get("num_frames", 16) + 3 if video else 1)
        scores = classifier(frames if video else str(Path(frames, "0000.png")), top_k=len(config["id2label"]))
    print()
    print(json.dumps({"modules": modules, "scores": scores, "logged": logged}))


if __name__ == "__main__":
    main(sys.argv[1])
