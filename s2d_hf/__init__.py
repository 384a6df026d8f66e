"""
S2D (From Static to Dynamic, arXiv 2312.05447): facial expression recognition in images and videos with transformers.

Importing this package registers the classes with transformers' Auto classes, so that saved models load without
`trust_remote_code=True`.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_s2d import S2DConfig
    from .image_processing_s2d import S2DImageProcessor
    from .landmark_encoders_s2d import FANLandmarkEncoder, LandmarkEncoder, MobileFaceNetLandmarkEncoder
    from .modeling_s2d import S2DForImageClassification, S2DForVideoClassification, S2DModel
    from .timeline import S2DTimeline
    from .video_processing_s2d import S2DVideoProcessor

__version__ = "0.1.0"

# What the package offers, and where it is: loaded when it is asked for.
_MODULES = {
    "FANLandmarkEncoder": "landmark_encoders_s2d",
    "LandmarkEncoder": "landmark_encoders_s2d",
    "MobileFaceNetLandmarkEncoder": "landmark_encoders_s2d",
    "S2DConfig": "configuration_s2d",
    "S2DForImageClassification": "modeling_s2d",
    "S2DForVideoClassification": "modeling_s2d",
    "S2DImageProcessor": "image_processing_s2d",
    "S2DModel": "modeling_s2d",
    "S2DTimeline": "timeline",
    "S2DVideoProcessor": "video_processing_s2d",
}

from . import moved_modules  # noqa: E402, F401

__all__ = [
    "FANLandmarkEncoder",
    "LandmarkEncoder",
    "MobileFaceNetLandmarkEncoder",
    "S2DConfig",
    "S2DForImageClassification",
    "S2DForVideoClassification",
    "S2DImageProcessor",
    "S2DModel",
    "S2DTimeline",
    "S2DVideoProcessor",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


# The command `s2d-hf` answers --help and mistakes at once, and loads torch and transformers only for its work.
if Path(sys.argv[0] if sys.argv else "").name not in ("s2d-hf", "s2d-hf.exe"):
    from . import auto_classes  # noqa: F401
