"""Video processor of S2D: from video files, folders of frames and arrays to pixels and landmark features."""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401

# isort: split
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from transformers import BatchFeature
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .face_cropping_s2d import FaceCropperMixin, FaceProcessorKwargs
from .file_names_s2d import IMAGE_SUFFIXES
from .frames_s2d import read_image, sample_frame_indices, scale_to_eight_bit, to_rgb
from .landmark_processing_s2d import LandmarkProcessorMixin, check_settings
from .video_reading_s2d import TimedVideoMetadata, read_video, spread_evenly, window_at_rate

_LARGE = 2**27  # bytes of a clip
_SAMPLING = ("num_frames", "fps", "frame_stride")


# `VideosKwargs` is a `TypedDict`, too, which checkers can't see
class S2DVideoProcessorKwargs(FaceProcessorKwargs, VideosKwargs, total=False):  # type: ignore[misc]
    """
    What a call of [`S2DVideoProcessor`] takes beside what [`FaceProcessorKwargs`] has.

    frame_stride (`int`, *optional*):
        Sample a window of frames that are this far apart, in the middle of the video, and not evenly over all of it.
    video_backend (`str`, *optional*, defaults to `"pyav"`):
        `"pyav"`, or `"decord"` for files that it reads rightly; see [`read_video`].
    detect_every (`int`, *optional*, defaults to 1):
        With `do_crop_faces`, find faces in every so many of the chosen frames, and follow them in between.
    """

    detect_every: int | None
    frame_stride: int | None
    video_backend: str | None


class S2DVideoProcessor(LandmarkProcessorMixin, FaceCropperMixin, BaseVideoProcessor):
    r"""
    Makes of videos of faces what the S2D video model takes.

    Args:
        landmark_encoder ([`LandmarkEncoder`], *optional*): Computes the landmark features; `from_pretrained` loads it
            with the processor.
        face_detector (`str`, *optional*, defaults to `"retinaface"`): The detector of face-alignment that
            `do_crop_faces` uses; see [`FaceDetector`].
        face_detector_weights (`str`, *optional*): Path of its weights; not saved.
        kwargs: The settings of transformers' video processors (`num_frames`, `size`, `crop_size`, `fps`, `device`,
            ...), `do_landmarks`, `return_landmarks`, `frame_stride`, `video_backend`, `do_crop_faces`,
            `do_align_faces`, `face_margin`, `detect_every` and `return_face_boxes`.

    A video is a file, its bytes (or `{"path": ..., "bytes": ...}`, as `datasets` has undecoded ones), a URL, a folder
    of frames, a list of frames (PIL images, arrays, tensors or paths of images), or an array `(frames, height, width,
    channels)` or `(frames, channels, height, width)`. A list of these, or an array with one axis more, is a batch.

    `num_frames` frames are chosen: spread evenly over the whole time of the video, its first and last frame included;
    or, with `frame_stride`, a window of every so many frames from its middle; or, with `fps`, such a window of frames
    whose times are that far apart. Where a video is shorter, its last frame is repeated. A processor that is made or
    loaded with `num_frames=None` takes as many as there are: all, every so many, or `fps` for each second. What is
    read are the frames that a player shows (see [`read_video`]). Each is resized to 224 pixels along its shorter edge,
    cropped to the middle 224x224, scaled to [0, 1] and normalised with ImageNet's mean and standard deviation, and the
    landmark features are computed from the result. Frames of one video may differ in size.

    The video must show one face, cropped as the paper's data sets are; of any other, `do_crop_faces=True` finds the
    faces, follows them over the chosen frames and crops the main one, upright, to 224x224 (see [`FaceCropperMixin`]).
    Where several people, cuts or more than some seconds matter, use [`S2DTimeline`].

    Returns, with `return_tensors="pt"`:
        `pixel_values` `(batch_size, num_frames, 3, 224, 224)`, `landmark_features` `(batch_size, num_frames, 128, 14,
        14)` and, with `return_landmarks=True`, `landmarks` `(batch_size, num_frames, 68, 2)`: (x, y) as fractions of
        the cropped frame; with `return_face_boxes=True`, `face_boxes` `(batch_size, num_frames, 4)`: x1, y1, x2, y2
        in pixels of the upright frames. With `return_metadata=True` also `video_metadata`, with the chosen
        `frames_indices`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if a video is empty, damaged beyond reading, none, or above a limit (`video_limits_s2d.py`), a
            folder has no images, pixels are NaN or out of range, or there is no face to crop; the message names the
            video.
        TypeError: if an input is none of the above.

    Example:
    ```python
    processor = S2DVideoProcessor.from_pretrained("path/to/model", device="cuda")
    inputs = processor(["a.mp4", "folder/of/frames"], return_tensors="pt")
    ```
    """

    valid_kwargs = S2DVideoProcessorKwargs
    do_sample_frames = True
    num_frames = 16
    frame_stride = None
    video_backend = "pyav"
    detect_every = 1

    @classmethod
    def from_dict(  # type: ignore[override]  # transformers' own name for it in video processors
        cls, video_processor_dict: dict[str, Any], **kwargs: Any
    ) -> "S2DVideoProcessor":
        """Makes a processor of its settings. What decodes videos is no part of them; older versions saved it."""
        stored = {name: value for name, value in video_processor_dict.items() if name != "video_backend"}
        return super().from_dict(stored, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The processor's settings; what decodes videos belongs to the machine."""
        dictionary = super().to_dict()
        dictionary.pop("video_backend", None)
        return dictionary

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Same as calling the processor."""
        known: Any = self.valid_kwargs
        validate_typed_dict(known, kwargs)  # before a video is read
        options = {name: kwargs.get(name, getattr(self, name, None)) for name in self.valid_kwargs.__annotations__}
        check_settings(SimpleNamespace(**{name: options[name] for name in _SAMPLING}))
        clips = self._read_clips(_list_videos(videos), options)
        kwargs["video_metadata"] = [clip.metadata for clip in clips]
        output = super().preprocess([clip.frames for clip in clips], **kwargs)
        if options["do_crop_faces"] and options["return_face_boxes"]:
            output["face_boxes"] = [torch.from_numpy(clip.boxes).float() for clip in clips]
            output = BatchFeature(output, tensor_type=kwargs.get("return_tensors"))
        return output

    def _read_clips(self, sources: list[Any], options: dict[str, Any]) -> list["_Clip"]:
        """The chosen frames of each video, cropped to the face if that is asked for."""
        given: list[VideoMetadata | None] = [None] * len(sources)
        if options["video_metadata"] is not None:
            known = options["video_metadata"]
            given = make_batched_metadata(sources, known) if known else []
            if len(given) != len(sources):
                raise ValueError(f"`video_metadata` has {len(given)} entries for {len(sources)} videos.")
        crop = self._face_cropper(options) if options["do_crop_faces"] else None
        clips = []
        for i, (source, known) in enumerate(zip(sources, given, strict=True)):
            name = _name_of(source) or f"videos[{i}]"
            try:
                clip = self._read_clip(source, name, known, options)
                if crop is not None:
                    clip.frames, clip.boxes = crop(clip.frames, _frame_times(clip.metadata))
                if options["do_rescale"]:
                    clip.frames = scale_to_eight_bit(clip.frames)
            except FileNotFoundError:
                raise
            except (TypeError, ValueError) as error:
                message = str(error)
                raise type(error)(message if message.startswith(name) else f"{name}: {message}") from error
            clips.append(clip)
        return clips

    def _read_clip(self, source: Any, name: str, known: VideoMetadata | None, options: dict[str, Any]) -> "_Clip":
        def choose(metadata: VideoMetadata) -> np.ndarray:
            if known is not None and metadata.fps is None:
                metadata.fps = known.fps
            return self.sample_frames(metadata, **{name: options[name] for name in _SAMPLING})

        choice = choose if options["do_sample_frames"] else None
        if isinstance(source, dict):
            source = source.get("path") if source.get("bytes") is None else source["bytes"]
        if isinstance(source, (str, os.PathLike, bytes)):
            return _Clip(*read_video(source, choice, options["video_backend"] or self.video_backend, name))
        return _Clip(*_choose_of_frames(source, choice, options["input_data_format"]))

    def _face_cropper(self, options: dict[str, Any]) -> Callable:
        names = ("face_margin", "do_align_faces", "size", "device", "detect_every")
        return partial(self.crop_faces, **{name: options[name] for name in names})

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        frame_stride: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """
        Indices of the frames that are taken from a video; see [`spread_evenly`], [`window_at_rate`] and
        [`sample_frame_indices`]. `num_frames` is by default the processor's, and where that is None, what the whole
        video has of such frames.

        Raises:
            ValueError: if the video has no frames, `fps` and `frame_stride` are both given, or `fps` is given and the
                video's frame rate is unknown.
        """
        if fps is not None and frame_stride is not None:
            raise ValueError("Pass either `fps` or `frame_stride`.")
        num_frames = self.num_frames if num_frames is None else num_frames
        if num_frames is None:
            num_frames = _count_frames(metadata, fps, frame_stride)
        if fps is not None:
            return window_at_rate(metadata, num_frames, fps)
        if frame_stride is not None:
            return sample_frame_indices(metadata.total_num_frames, num_frames, frame_stride)
        return spread_evenly(metadata, num_frames)

    def _decode_and_sample_videos(
        self, videos: list[list[torch.Tensor]], video_metadata: list[VideoMetadata], **kwargs
    ) -> tuple[list[list[torch.Tensor]], list[VideoMetadata]]:
        return videos, video_metadata  # `preprocess` has done so

    def _prepare_input_videos(
        self, videos: list[list[torch.Tensor]], *args, device: str | torch.device | None = None, **kwargs
    ) -> list[list[torch.Tensor]]:
        if device is None:
            return videos
        moved = {id(frame): frame.to(device) for video in videos for frame in video}
        return [[moved[id(frame)] for frame in video] for video in videos]

    def _preprocess(
        self,
        videos: list[list[torch.Tensor]],
        do_landmarks: bool | None = None,
        return_landmarks: bool | None = None,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        kwargs["do_convert_rgb"] = False
        processed = []
        for video in videos:
            # a short video's last frame is repeated, and a frame may be large: each is made ready once
            different = {id(frame): frame for frame in video}
            frames, numbers = list(different.values()), {key: number for number, key in enumerate(different)}
            # frames of several sizes go one by one; they fit together once they are cropped
            # and so do large ones, which would otherwise be in memory twice
            same_size = len({(frame.shape, frame.dtype) for frame in frames}) == 1
            at_once = same_size and sum(frame.nbytes for frame in frames) <= _LARGE
            clips = [torch.stack(frames)] if at_once else [frame[None] for frame in frames]
            output = super()._preprocess(clips, return_tensors=None, **kwargs)["pixel_values_videos"]
            if len({part.shape[-2:] for part in output}) > 1:
                raise ValueError("The frames of a video differ in size: leave `do_resize` and `do_center_crop` on.")
            processed.append(torch.cat(list(output))[[numbers[id(frame)] for frame in video]])
        data = self._with_landmarks(processed, do_landmarks, return_landmarks)
        return BatchFeature(data, tensor_type=return_tensors)


@dataclass
class _Clip:
    """The chosen frames of one video, RGB `(3, height, width)`, and the squares that were cropped of them, if any."""

    frames: list[torch.Tensor]
    metadata: VideoMetadata
    boxes: np.ndarray | None = None


def _name_of(source: Any) -> str | None:
    """What the user calls a video, if it has a name."""
    if isinstance(source, dict):
        source = source.get("path")
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else None


def _frame_times(metadata: VideoMetadata) -> np.ndarray:
    """Times of the chosen frames in seconds; of frames without known times, 8 are taken to fill a second."""
    if getattr(metadata, "frame_times", None) is not None:
        return np.asarray(metadata.timestamps)
    return np.asarray(metadata.frames_indices) / (metadata.fps or 8.0)


def _count_frames(metadata: VideoMetadata, fps: float | None, frame_stride: int | None) -> int:
    """How many frames a whole video has that lie so far apart. What is no distance is refused by who takes them."""
    total = metadata.total_num_frames
    if fps is None:
        return total if frame_stride is None or frame_stride < 1 else -(-total // frame_stride)
    duration = metadata.duration if getattr(metadata, "frame_times", None) is not None else None
    if duration is None:
        is_rate = metadata.fps is not None and 0 < metadata.fps < np.inf
        duration = total / metadata.fps if is_rate else 0.0
    return max(1, int(duration * fps + 1e-6)) if 0 < fps < np.inf else 1


def _is_frame(item: Any) -> bool:
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item).lower().endswith(IMAGE_SUFFIXES)
    return isinstance(item, Image.Image) or getattr(item, "ndim", None) in (2, 3)


def _list_videos(videos: Any) -> list[Any]:
    """One video or a batch of them, in any accepted form, as a list of videos."""
    if isinstance(videos, (list, tuple)):
        if len(videos) == 0:
            raise ValueError("`videos` is an empty list: there are no frames.")
        if all(_is_frame(item) for item in videos):
            return [list(videos)]
        return [video for item in videos for video in _list_videos(item)]
    if getattr(videos, "ndim", None) == 5:
        if len(videos) == 0:
            raise ValueError(f"`videos` of shape {tuple(videos.shape)} holds no video.")
        return list(videos)
    return [videos]


def _choose_of_frames(
    video: Any, choose: Callable | None, input_data_format: str | None
) -> tuple[list[torch.Tensor], VideoMetadata]:
    """The chosen ones of frames that are there already, as RGB `(3, height, width)`."""
    if _is_frame(video):
        video = [video]
    if not isinstance(video, list) and getattr(video, "ndim", None) != 4:
        shape = getattr(video, "shape", None)
        what = type(video).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise TypeError(
            "A video must be a path, a URL, a file's bytes, a list of frames, or an array (frames, height, width, "
            f"channels) or (frames, channels, height, width); got {what}."
        )
    metadata = TimedVideoMetadata(total_num_frames=len(video))
    if len(video) == 0:
        raise ValueError("The video has no frames.")
    indices = np.arange(len(video)) if choose is None else choose(metadata)
    frames = {}
    for index in np.unique(indices):
        frame = video[int(index)]
        if isinstance(frame, (str, os.PathLike)):
            frame = read_image(os.fspath(frame))
        try:
            frames[int(index)] = to_rgb(frame, input_data_format)
        except (TypeError, ValueError) as error:
            raise type(error)(f"frame {index}: {error}") from error
    metadata.frames_indices = indices
    return [frames[int(index)] for index in indices], metadata


S2DVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = ["S2DVideoProcessor"]
