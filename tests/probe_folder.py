"""
Loads everything that a model folder offers and prints a JSON report: the module that each class came from, the scores
of a video, and every warning. Runs by itself: `python probe_folder.py installed|remote VIDEO_MODEL IMAGE_MODEL VIDEO`.
"""

import importlib.util
import json
import logging
import sys
import tempfile
import warnings

mode, video_folder, image_folder, video = sys.argv[1:]
logged: list[str] = []


class Collect(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logged.append(f"{record.name}: {record.getMessage()}")


import transformers  # noqa: E402

logging.getLogger("transformers").addHandler(Collect(level=logging.WARNING))
warnings.showwarning = lambda message, category, *args, **kwargs: logged.append(f"{category.__name__}: {message}")
warnings.simplefilter("always")
warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, for their own maintainers

if mode == "installed":
    import s2d_hf  # noqa: F401

    options = {}
else:
    assert importlib.util.find_spec("s2d_hf") is None, "s2d_hf is installed here"
    options = {"trust_remote_code": True}

classifier = transformers.pipeline("video-classification", model=video_folder, **options)
still_classifier = transformers.pipeline("image-classification", model=image_folder, **options)
top = classifier(video)
loaded = {"video-classification": classifier.model, "image-classification": still_classifier.model}
pipeline_warnings = list(logged)

for name in ("AutoConfig", "AutoImageProcessor", "AutoVideoProcessor", "AutoModelForVideoClassification"):
    loaded[name] = getattr(transformers, name).from_pretrained(video_folder, **options)
loaded["AutoModelForImageClassification"] = transformers.AutoModelForImageClassification.from_pretrained(
    image_folder, **options
)
loaded["AutoModel"] = transformers.AutoModel.from_pretrained(video_folder, **options)
# what was loaded can be saved, and loads again
with tempfile.TemporaryDirectory() as folder:
    for part in (classifier.model, loaded["AutoImageProcessor"], loaded["AutoVideoProcessor"]):
        part.save_pretrained(folder)
    again = transformers.pipeline("video-classification", model=folder, **options)
    assert again(video) == top
modules = {name: type(item).__module__ for name, item in loaded.items()}
print(json.dumps({"modules": modules, "top": top, "logged": pipeline_warnings}))
