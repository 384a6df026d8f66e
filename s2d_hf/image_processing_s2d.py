"""Image processor of S2D: pixels and landmark features of still faces."""

from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.processing_utils import ImagesKwargs

from .frames_s2d import read_image, scale_to_eight_bit, to_rgb
from .landmark_processing_s2d import LandmarkProcessorMixin


class S2DImageProcessorKwargs(ImagesKwargs, total=False):
    """
    do_landmarks (`bool`, *optional*, defaults to `True`):
        Whether to compute `landmark_features`.
    return_landmarks (`bool`, *optional*, defaults to `False`):
        Whether to return the 68 points as `landmarks`.
    """

    do_landmarks: bool | None
    return_landmarks: bool | None


class S2DImageProcessor(LandmarkProcessorMixin, TorchvisionBackend):
    r"""
    Makes of still images of faces what the S2D image model takes.

    Args:
        landmark_encoder ([`LandmarkEncoder`], *optional*): Computes the landmark features; `from_pretrained` loads it
            with the processor.
        kwargs: The settings of transformers' image processors (`size`, `crop_size`, `image_mean`, `device`, ...),
            `do_landmarks` and `return_landmarks`.

    Called with one image or a list of them (PIL images of any mode, arrays, tensors, paths, URLs), it resizes the
    shorter edge to 224 pixels, crops the middle 224x224, scales to [0, 1], normalises with ImageNet's mean and
    standard deviation, and computes the landmark features from the result. Grey, RGBA and 16-bit images become RGB.
    Floating-point images may lie in [0, 1] or [0, 255].

    Returns, with `return_tensors="pt"`:
        `pixel_values` `(batch_size, 3, 224, 224)`, `landmark_features` `(batch_size, 128, 14, 14)` and, with
        `return_landmarks=True`, `landmarks` `(batch_size, 68, 2)`: (x, y) as fractions of the cropped image.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is no image, or pixels are NaN or out of range; the message names the image.
        TypeError: if an image is neither.

    Example:
    ```python
    processor = S2DImageProcessor.from_pretrained("path/to/model")
    inputs = processor(["a.jpg", "b.png"], return_tensors="pt")
    ```
    """

    valid_kwargs = S2DImageProcessorKwargs

    def _prepare_image_like_inputs(
        self,
        images: Any,
        *args,
        do_rescale: bool | None = None,
        input_data_format: str | None = None,
        device: str | torch.device | None = None,
        **kwargs,
    ) -> list[torch.Tensor]:
        """Any accepted input to a list of RGB tensors `(3, height, width)`."""
        prepared = []
        for i, image in enumerate(_list_images(images)):
            name = str(image) if isinstance(image, (str, Path)) else f"images[{i}]"
            try:
                if isinstance(image, (str, Path)):
                    image = read_image(image)
                frames = [to_rgb(image, input_data_format)]
                prepared += scale_to_eight_bit(frames) if do_rescale else frames
            except FileNotFoundError:
                raise
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
        if device is not None:
            prepared = [image.to(device) for image in prepared]
        return prepared

    def _preprocess(
        self,
        images: list[torch.Tensor],
        do_landmarks: bool | None = None,
        return_landmarks: bool | None = None,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        processed = super()._preprocess(images, return_tensors=None, **kwargs)["pixel_values"]
        data = self._with_landmarks(list(processed), do_landmarks, return_landmarks)
        return BatchFeature(data, tensor_type=return_tensors)


def _list_images(images: Any) -> list[Any]:
    """One image, a batch in one array, or (nested) lists of images, as a flat list."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is an empty list.")
        return [image for item in images for image in _list_images(item)]
    if getattr(images, "ndim", None) == 4:
        return list(images)
    return [images]


S2DImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["S2DImageProcessor"]
