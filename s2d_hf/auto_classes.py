"""Importing this registers the classes with transformers' Auto classes, so that saved models load as they are."""

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
from .modeling_s2d import S2DForImageClassification, S2DForVideoClassification, S2DModel
from .video_processing_s2d import S2DVideoProcessor

AutoConfig.register(S2DConfig.model_type, S2DConfig)
AutoModel.register(S2DConfig, S2DModel)
AutoModelForImageClassification.register(S2DConfig, S2DForImageClassification)
AutoModelForVideoClassification.register(S2DConfig, S2DForVideoClassification)
AutoImageProcessor.register(S2DConfig, image_processor_classes={"torchvision": S2DImageProcessor})
AutoVideoProcessor.register(S2DConfig, S2DVideoProcessor)
