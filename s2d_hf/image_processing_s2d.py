"""Image processor of S2D: pixels and landmark features of still faces."""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401

# isort: split
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.processing_utils import ImagesKwargs

from .face_cropping_s2d import FaceCropperMixin, FaceProcessorKwargs
from .frames_s2d import read_image, scale_to_eight_bit, to_rgb
from .landmark_processing_s2d import LandmarkProcessorMixin


# `ImagesKwargs` is a `TypedDict`, too, which checkers can't see
class S2DImageProcessorKwargs(FaceProcessorKwargs, ImagesKwargs, total=False):  # type: ignore[misc]
    """What a call of [`S2DImageProcessor`] takes."""


class S2DImageProcessor(LandmarkProcessorMixin, FaceCropperMixin, TorchvisionBackend):
    r"""
    Makes of still images of faces what the S2D image model takes.

    Args:
        landmark_encoder ([`LandmarkEncoder`], *optional*): Computes the landmark features; `from_pretrained` loads it
            with the processor.
        face_detector (`str`, *optional*, defaults to `"retinaface"`): The detector of face-alignment that
            `do_crop_faces` uses; see [`FaceDetector`].
        face_detector_weights (`str`, *optional*): Path of its weights; not saved.
        kwargs: The settings of transformers' image processors (`size`, `crop_size`, `image_mean`, `device`, ...),
            `do_landmarks`, `return_landmarks`, `do_crop_faces`, `do_align_faces`, `face_margin` and
            `return_face_boxes`.

    Called with one image or a list of them (PIL images of any mode, arrays, tensors, paths, URLs), it resizes the
    shorter edge to 224 pixels, crops the middle 224x224, scales to [0, 1], normalises with ImageNet's mean and
    standard deviation, and computes the landmark features from the result. Grey, RGBA and 16-bit images become RGB.
    Floating-point images may lie in [0, 1] or [0, 255]. The image must be a face, cropped as the paper's data sets
    are; of any other photograph, `do_crop_faces=True` takes the largest face.

    Returns, with `return_tensors="pt"`:
        `pixel_values` `(batch_size, 3, 224, 224)`, `landmark_features` `(batch_size, 128, 14, 14)` and, with
        `return_landmarks=True`, `landmarks` `(batch_size, 68, 2)`: (x, y) as fractions of the cropped image; with
        `return_face_boxes=True`, `face_boxes` `(batch_size, 4)`: x1, y1, x2, y2 in pixels of the upright image.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is no image, pixels are NaN or out of range, or there is no face to crop; the message
            names the image.
        TypeError: if an image is neither.

    Example:
    ```python
    processor = S2DImageProcessor.from_pretrained("path/to/model")
    inputs = processor(["a.jpg", "b.png"], return_tensors="pt")
    ```
    """

    valid_kwargs = S2DImageProcessorKwargs

    def _preprocess_image_like_inputs(self, images: Any, **kwargs) -> BatchFeature:
        boxes: list[np.ndarray] = []
        output = super()._preprocess_image_like_inputs(_PendingImages(images, boxes), **kwargs)
        if boxes:
            output["face_boxes"] = torch.from_numpy(np.stack(boxes)).float()
            output = BatchFeature(output, tensor_type=kwargs.get("return_tensors"))
        return output

    def _prepare_image_like_inputs(
        self,
        images: "_PendingImages",
        *args,
        do_rescale: bool | None = None,
        input_data_format: str | None = None,
        device: str | torch.device | None = None,
        do_crop_faces: bool | None = None,
        return_face_boxes: bool | None = None,
        **kwargs,
    ) -> list[torch.Tensor]:
        """Any accepted input to a list of RGB tensors `(3, height, width)`."""
        prepared = []
        for i, image in enumerate(_list_images(images.images)):
            name = str(image) if isinstance(image, (str, Path)) else f"images[{i}]"
            try:
                if isinstance(image, (str, Path)):
                    image = read_image(image)
                frames = [to_rgb(image, input_data_format)]
                if do_crop_faces:
                    frames, boxes = self.crop_faces(
                        frames,
                        face_margin=kwargs.get("face_margin"),
                        do_align_faces=kwargs.get("do_align_faces"),
                        size=kwargs.get("size"),
                        device=device,
                    )
                    images.boxes += list(boxes) if return_face_boxes else []
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


class _PendingImages:
    """Images on their way through the base class, and the boxes of the faces that are cropped from them."""

    def __init__(self, images: Any, boxes: list[np.ndarray]):
        self.images = images
        self.boxes = boxes


def _list_images(images: Any) -> list[Any]:
    """One image, a batch in one array, or (nested) lists of images, as a flat list."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is an empty list.")
        return [image for item in images for image in _list_images(item)]
    if getattr(images, "ndim", None) == 4:
        if len(images) == 0:
            raise ValueError(f"`images` of shape {tuple(images.shape)} holds no image.")
        return list(images)
    return [images]


S2DImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["S2DImageProcessor"]
