"""
S2D (From Static to Dynamic, arXiv 2312.05447): facial expression recognition in images and videos with transformers.

Importing this package registers the classes with transformers' Auto classes, so that saved models load without
`trust_remote_code=True`.
"""

from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from .configuration_s2d import S2DConfig
from .image_processing_s2d import S2DImageProcessor
from .landmark_encoders_s2d import FANLandmarkEncoder, LandmarkEncoder, MobileFaceNetLandmarkEncoder
from .modeling_s2d import S2DForImageClassification, S2DForVideoClassification, S2DModel
from .video_processing_s2d import S2DVideoProcessor

if TYPE_CHECKING:
    from .timeline import S2DTimeline

__version__ = "0.1.0"

AutoConfig.register(S2DConfig.model_type, S2DConfig)
AutoModel.register(S2DConfig, S2DModel)
AutoModelForImageClassification.register(S2DConfig, S2DForImageClassification)
AutoModelForVideoClassification.register(S2DConfig, S2DForVideoClassification)
AutoImageProcessor.register(S2DConfig, image_processor_classes={"torchvision": S2DImageProcessor})
AutoVideoProcessor.register(S2DConfig, S2DVideoProcessor)

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
    # tables and drawing are loaded when they are needed
    if name == "S2DTimeline":
        from .timeline import S2DTimeline

        return S2DTimeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
