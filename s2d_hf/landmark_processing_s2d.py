"""What the S2D image and video processors share: a landmark encoder that is saved and loaded with them."""

import copy
import math
import os
import pickle
from collections.abc import Callable, Iterable
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.utils import cached_file

from .access_tokens_s2d import refuse_access_tokens
from .landmark_encoders_s2d import (
    LANDMARK_ENCODERS,
    LANDMARK_WEIGHTS_NAME,
    LandmarkEncoder,
    load_landmark_encoder,
    save_landmark_encoder,
)

if TYPE_CHECKING:  # it stands beside a transformers processor, whose methods it calls
    from transformers import BaseImageProcessor as _Processor
else:
    _Processor = object

Processor = TypeVar("Processor", bound="LandmarkProcessorMixin")


class LandmarkProcessorMixin(_Processor):
    """
    Gives a transformers image or video processor a frozen landmark encoder and the paper's preprocessing.

    The encoder's weights lie in `landmark_encoder.safetensors` beside the processor's JSON file, in the model's
    folder, and travel with `save_pretrained`, `from_pretrained` and `push_to_hub`.
    """

    model_input_names = ["pixel_values", "landmark_features"]

    # a video's frames are prepared as still images are
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 224}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_landmarks = True
    return_landmarks = False

    def __init__(self, landmark_encoder: LandmarkEncoder | dict | None = None, **kwargs):
        # A dict is an encoder's configuration, as the JSON file holds it; `from_pretrained` loads the weights to it.
        self.landmark_encoder = landmark_encoder if isinstance(landmark_encoder, LandmarkEncoder) else None
        self._landmark_config = landmark_encoder if isinstance(landmark_encoder, dict) else None
        self._landmark_error: Exception | None = None
        super().__init__(**kwargs)
        check_settings(self)

    def _validate_preprocess_kwargs(self, **kwargs) -> None:
        check_settings(SimpleNamespace(**kwargs))
        super()._validate_preprocess_kwargs(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The processor's settings, with the landmark encoder's configuration in place of its weights."""
        settings = copy.copy(self)
        config = self._landmark_config if self.landmark_encoder is None else self.landmark_encoder.to_dict()
        settings.landmark_encoder = None
        dictionary = super(LandmarkProcessorMixin, settings).to_dict()
        # a device belongs to the machine, not to the model
        for name in ("_landmark_config", "_landmark_error", "device"):
            dictionary.pop(name, None)
        dictionary["landmark_encoder"] = config
        return dictionary

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Saves settings, code and landmark encoder. See [`~transformers.BaseImageProcessor.save_pretrained`]."""
        if self.landmark_encoder is None and self._landmark_config is not None:
            raise ValueError("This processor's landmark encoder has no weights: it can't be saved.")
        refuse_access_tokens(self.to_json_string(), f"Nothing is saved to {save_directory}")
        files = super().save_pretrained(save_directory)
        if self.landmark_encoder is not None:
            files.append(str(save_landmark_encoder(self.landmark_encoder, os.fspath(save_directory))))
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.abspath(save_directory))), **kwargs)
        return files

    @classmethod
    def from_pretrained(
        cls: type[Processor], pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> Processor:
        """
        Loads a processor and its landmark encoder. See [`~transformers.BaseImageProcessor.from_pretrained`].

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A model's folder or name on the Hub.
            landmark_encoder ([`LandmarkEncoder`], *optional*): Takes the place of the saved one. `None` loads the
                processor without any, for models with `prompt_type="none"`.
            kwargs: Settings to change, and `revision`, `token` and so on.

        Raises:
            OSError: if the landmark encoder's weights are missing.
            ValueError: if they are another encoder's.
        """
        hub_arguments = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        replaced = "landmark_encoder" in kwargs
        encoder = kwargs.pop("landmark_encoder", None)
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        if replaced:
            processor.landmark_encoder, processor._landmark_config = encoder, None
            processor.do_landmarks = processor.do_landmarks and encoder is not None
        elif processor._landmark_config is not None:
            try:
                path = _find_landmark_weights(pretrained_model_name_or_path, hub_arguments)
                processor.landmark_encoder = load_landmark_encoder(path, processor._landmark_config)
            except (OSError, ValueError) as error:
                if "_from_pipeline" not in kwargs:
                    raise
                # a pipeline would only say that there is no processor; `compute_landmarks` says why
                processor._landmark_error = error
        return loaded

    def compute_landmarks(self, pixel_values: torch.Tensor, return_landmarks: bool = False) -> BatchFeature:
        """
        Runs the landmark encoder on preprocessed frames, on their device.

        Args:
            pixel_values (`torch.Tensor` of shape `(..., 3, height, width)`): RGB in [0, 1], normalised with
                ImageNet's mean and standard deviation.
            return_landmarks (`bool`): Return the 68 points too.

        Returns:
            `landmark_features` `(..., channels, 14, 14)`, and with `return_landmarks` the points `landmarks`
            `(..., 68, 2)`: (x, y) as fractions of the frame's width and height. In the dtype and on the device of
            `pixel_values`, without gradients.

        Raises:
            ValueError: if the processor has no landmark encoder.
        """
        if self._landmark_error is not None:
            raise self._landmark_error
        if self.landmark_encoder is None:
            raise ValueError(
                f"This {type(self).__name__} has no landmark encoder. Load one with `from_pretrained`, pass "
                "`landmark_encoder=` to its constructor, or turn the features off with `do_landmarks=False` for a "
                'model with `prompt_type="none"`.'
            )
        if next(self.landmark_encoder.parameters()).device != pixel_values.device:
            self.landmark_encoder.to(pixel_values.device)
        leading = pixel_values.shape[:-3]
        output = self.landmark_encoder(pixel_values.reshape(-1, *pixel_values.shape[-3:]), return_landmarks)
        data = {"landmark_features": output.features.reshape(*leading, *output.features.shape[1:])}
        if return_landmarks:
            data["landmarks"] = output.landmarks.reshape(*leading, *output.landmarks.shape[1:])
        return BatchFeature(data)

    def normalise_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """
        uint8 frames `(..., 3, height, width)` to the `pixel_values` of that shape that models and encoders take, on
        the frames' device, with the processor's own scale, mean and standard deviation.
        """
        return self.rescale_and_normalize(
            frames,
            do_rescale=True,
            rescale_factor=self.rescale_factor,
            do_normalize=True,
            image_mean=tuple(self.image_mean),
            image_std=tuple(self.image_std),
        )

    def _with_landmarks(
        self, pixel_values: list[torch.Tensor], do_landmarks: bool | None, return_landmarks: bool | None
    ) -> dict[str, list[torch.Tensor]]:
        """`pixel_values`, one tensor per image or video, and the lists that the encoder makes of them."""
        data = {"pixel_values": pixel_values}
        wanted = {"landmark_features": do_landmarks, "landmarks": return_landmarks}
        if not any(wanted.values()):
            return data
        if len({item.shape for item in pixel_values}) == 1:
            computed = self.compute_landmarks(torch.stack(pixel_values), bool(return_landmarks))
            lists = {name: list(values) for name, values in computed.items()}
        else:
            parts = [self.compute_landmarks(item, bool(return_landmarks)) for item in pixel_values]
            lists = {name: [part[name] for part in parts] for name in parts[0]}
        return data | {name: lists[name] for name, is_wanted in wanted.items() if is_wanted}


# Pixels along an edge, frames, and pixels of a clip, that settings may ask for: far above what any model takes (the
# paper's clips have 0.8 million pixels).
_MAX_SIZE, _MAX_FRAMES, _MAX_PIXELS = 8192, 100_000, 2**28
_RESAMPLING = (
    PILImageResampling.NEAREST,
    PILImageResampling.LANCZOS,
    PILImageResampling.BILINEAR,
    PILImageResampling.BICUBIC,
)
# Of means, deviations and factors.
_MAX_NUMBER = 1_000_000
# The first one cuts as well; the others resize only.
_SIZES = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"longest_edge"})


def check_settings(processor: LandmarkProcessorMixin | SimpleNamespace) -> None:
    """
    Settings come from files of strangers, or from a call: what can't be right is refused before it costs memory.

    Args:
        processor: A processor, or what a call takes in place of its settings.

    Raises:
        ValueError: if a setting has another type than it must, or is out of range.
    """

    def refuse(name: str, wanted: str) -> None:
        raise ValueError(f"`{name}` must be {wanted}, got {getattr(processor, name)!r}.")

    for name in ("num_frames", "frame_stride", "detect_every"):
        value = getattr(processor, name, None)
        if value is not None and (type(value) is not int or not 1 <= value <= _MAX_FRAMES):
            refuse(name, f"a whole number from 1 to {_MAX_FRAMES}")
    for name, allowed in (("size", _SIZES), ("crop_size", _SIZES[:1])):
        given = getattr(processor, name, None)
        edges = {} if given is None else {key: edge for key, edge in dict(given).items() if edge is not None}
        if given is not None and set(edges) not in allowed:
            raise ValueError(f"`{name}` must have {' or '.join(map(_listed, allowed))}, got {_listed(edges)}.")
        if any(type(edge) is not int or not 1 <= edge <= _MAX_SIZE for edge in edges.values()):
            raise ValueError(f"`{name}` must be whole numbers of pixels from 1 to {_MAX_SIZE}, got {edges}.")
        area = math.prod(edges.values()) if len(edges) != 1 else max(edges.values()) ** 2
        pixels = (getattr(processor, "num_frames", None) or 1) * area
        if pixels > _MAX_PIXELS:
            raise ValueError(f"`{name}` and `num_frames` ask for {pixels:,} pixels, and {_MAX_PIXELS:,} is the limit.")
    switches = {name for name in dir(processor) if name.startswith(("do_", "return_"))} - {"return_tensors"}
    for name in sorted(switches):
        if getattr(processor, name) not in (None, True, False):
            refuse(name, "true or false")
    for name in ("image_mean", "image_std"):
        values = getattr(processor, name, None)
        if values is None:
            continue
        values = values if isinstance(values, (list, tuple)) else [values] * 3
        if len(values) != 3 or not all(_is_number(value) for value in values):
            refuse(name, f"three numbers, {_MAX_NUMBER} at most")
        if name == "image_std" and not all(value * _MAX_NUMBER >= 1 for value in values):
            refuse(name, f"three numbers, 1/{_MAX_NUMBER} at least")
    for name in ("rescale_factor", "face_margin"):
        value = getattr(processor, name, None)
        if value is not None and not _is_number(value):
            refuse(name, f"a number, {_MAX_NUMBER} at most")
        if name == "rescale_factor" and value is not None and abs(value) * _MAX_NUMBER < 1:
            refuse(name, f"a number, 1/{_MAX_NUMBER} at least")
    if getattr(processor, "resample", None) not in (None, *_RESAMPLING):
        refuse("resample", "one of 0 (nearest), 1 (lanczos), 2 (bilinear) and 3 (bicubic)")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= _MAX_NUMBER  # which NaN is not


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names)) or "nothing"


_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def _find_landmark_weights(source: str | os.PathLike, hub_arguments: dict[str, Any]) -> str:
    source = str(source)
    if os.path.isfile(source):  # the JSON file itself was named
        source, hub_arguments = os.path.dirname(source) or ".", {}
    path = cached_file(source, LANDMARK_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **hub_arguments)
    if path is None:
        raise OSError(
            f"{source} holds no {LANDMARK_WEIGHTS_NAME}, the landmark encoder's weights that its processor needs. "
            "Convert or download the model again, or copy the file from where the processor was saved. Without "
            "landmark features (a model with `prompt_type='none'`), pass `landmark_encoder=None`."
        )
    return path


def _send_by_value(encoder: LandmarkEncoder) -> tuple[Callable, tuple[bytes]]:
    return pickle.loads, (pickle.dumps(encoder),)


# PyTorch sends a new process one open file for each tensor; an encoder has more than the start method "forkserver",
# which is Python's default since 3.14, can hand over.
for _encoder_class in LANDMARK_ENCODERS.values():
    ForkingPickler.register(_encoder_class, _send_by_value)

__all__ = ["LandmarkProcessorMixin", "check_settings"]
