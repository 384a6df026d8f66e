"""
transformers' common tests on S2D's models, configuration and processors.

Run by `test_transformers_common.py` in a process of its own, which finds them as `transformers_tests`.
"""

import unittest
from typing import Any, ClassVar

import torch
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_image_processing_common import ImageProcessingTestMixin, prepare_image_inputs
from transformers_tests.test_modeling_common import ModelTesterMixin
from transformers_tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from s2d_hf import (
    S2DConfig,
    S2DForImageClassification,
    S2DForVideoClassification,
    S2DImageProcessor,
    S2DModel,
    S2DVideoProcessor,
)

from .small_models import TINY, random_inputs

# by this the tests know which of transformers' own models have no loss
MODEL_MAPPING_NAMES["s2d"] = "S2DModel"


class ModelTester:
    """What the common tests ask about a model and its inputs."""

    batch_size = 3
    num_hidden_layers = 2
    is_training = True

    def __init__(self, **fields: Any):
        self.config = S2DConfig(**(TINY | {"num_hidden_layers": self.num_hidden_layers} | fields))
        self.hidden_size = self.config.hidden_size
        self.num_attention_heads = self.config.num_attention_heads
        self.image_size, self.patch_size = self.config.image_size, self.config.patch_size
        self.seq_length = 1 + self.config.num_patches

    def get_config(self) -> S2DConfig:
        return S2DConfig(**self.config.to_dict())

    def prepare_config_and_inputs_for_common(self) -> tuple[S2DConfig, dict[str, torch.Tensor]]:
        inputs = random_inputs(self.config, self.batch_size, video=self.config.temporal_adapters)
        if self.config.prompt_type == "none":
            del inputs["landmark_features"]
        return self.get_config(), inputs


class _ModelTests(ModelTesterMixin):
    test_resize_embeddings = False  # there are no words
    additional_model_inputs = ["landmark_features"]
    fields: ClassVar[dict[str, Any]] = {}

    def setUp(self):
        self.model_tester = ModelTester(**self.fields)


class ImageModelTest(_ModelTests, unittest.TestCase):
    fields = {"temporal_adapters": False}
    all_model_classes = (S2DModel, S2DForImageClassification)


class VideoModelTest(_ModelTests, unittest.TestCase):
    all_model_classes = (S2DModel, S2DForVideoClassification)


class ShallowPromptsTest(_ModelTests, unittest.TestCase):
    fields = {"prompt_type": "shallow"}
    all_model_classes = (S2DModel, S2DForVideoClassification)


class NoPromptsTest(_ModelTests, unittest.TestCase):
    fields = {"prompt_type": "none"}
    all_model_classes = (S2DModel, S2DForVideoClassification)


class PlainViTTest(_ModelTests, unittest.TestCase):
    """Neither prompts nor temporal adapters."""

    fields = {"prompt_type": "none", "temporal_adapters": False}
    all_model_classes = (S2DModel, S2DForImageClassification)


class ConfigTest(unittest.TestCase):
    def test_config(self):
        # `num_labels` is given by one of the tests
        fields = {name: value for name, value in TINY.items() if name != "num_labels"}
        ConfigTester(self, config_class=S2DConfig, has_text_modality=False, **fields).run_common_tests()


class ImageProcessorTester:
    batch_size = 3
    num_channels = 3
    crop_size = {"height": 18, "width": 18}

    def prepare_image_processor_dict(self) -> dict[str, Any]:
        return {"size": {"shortest_edge": 20}, "crop_size": self.crop_size, "do_landmarks": False}

    def expected_output_image_shape(self, images: list) -> tuple[int, int, int]:
        return self.num_channels, self.crop_size["height"], self.crop_size["width"]

    def prepare_image_inputs(self, **kwargs: bool) -> list:
        sizes = {"min_resolution": 30, "max_resolution": 90}
        return prepare_image_inputs(batch_size=self.batch_size, num_channels=self.num_channels, **sizes, **kwargs)


class ImageProcessorTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processing_classes = {"torchvision": S2DImageProcessor}
    image_processor_dict = ImageProcessorTester().prepare_image_processor_dict()
    test_cast_dtype = True

    def setUp(self):
        self.image_processor_tester = ImageProcessorTester()


class VideoProcessorTester:
    batch_size = 3
    num_frames = 8
    num_channels = 3
    crop_size = {"height": 18, "width": 18}

    def expected_output_video_shape(self, videos: list) -> tuple[int, int, int, int]:
        return self.num_frames, self.num_channels, self.crop_size["height"], self.crop_size["width"]

    def prepare_video_inputs(self, **kwargs: Any) -> list:
        sizes = {"num_frames": self.num_frames, "min_resolution": 30, "max_resolution": 80}
        return prepare_video_inputs(batch_size=self.batch_size, num_channels=self.num_channels, **sizes, **kwargs)


class VideoProcessorTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = S2DVideoProcessor
    input_name = "pixel_values"
    test_cast_dtype = True
    video_processor_dict = {
        "size": {"shortest_edge": 20},
        "crop_size": VideoProcessorTester.crop_size,
        "num_frames": None,
        "do_landmarks": False,
    }

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()
