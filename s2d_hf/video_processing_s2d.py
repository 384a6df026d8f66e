"""Video processor of S2D: from video files, folders of frames and arrays to pixels and landmark features."""

from .requirements_s2d import MINIMUM_TRANSFORMERS  # noqa: F401

# isort: split
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .face_cropping_s2d import FaceCropperMixin, FaceProcessorKwargs
from .file_names_s2d import IMAGE_SUFFIXES
from .frames_s2d import read_image, read_video, sample_frame_indices, scale_to_eight_bit, to_rgb
from .landmark_processing_s2d import LandmarkProcessorMixin


class S2DVideoProcessorKwargs(FaceProcessorKwargs, VideosKwargs, total=False):
    """
    What a call of [`S2DVideoProcessor`] takes beside what [`FaceProcessorKwargs`] has.

    frame_stride (`int`, *optional*):
        Sample a window of frames that are this far apart, in the middle of the video, and not evenly over all of it.
    video_backend (`str`, *optional*, defaults to `"decord"`):
        `"decord"` or `"pyav"`.
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

    A video is a file, a URL, a folder of frames, a list of frames (PIL images, arrays, tensors or paths of images), or
    an array `(frames, height, width, channels)` or `(frames, channels, height, width)`. A list of these, or an array
    with one axis more, is a batch.

    `num_frames` frames are chosen before anything is decoded: spread evenly over the whole video, its first and last
    frame included; or, with `frame_stride`, a window from its middle; or, with `fps`, such a window at about that many
    frames a second. Where a video is shorter, its last frame is repeated. Each frame is resized to 224 pixels along
    its shorter edge, cropped to the middle 224x224, scaled to [0, 1] and normalised with ImageNet's mean and standard
    deviation, and the landmark features are computed from the result. Frames of one video may differ in size.

    The video must show one face, cropped as the benchmarks crop it; of any other, `do_crop_faces=True` finds the
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
        ValueError: if a video is empty, truncated or none, a folder has no images, pixels are NaN or out of range, or
            there is no face to crop; the message names the video.
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
    video_backend = "decord"
    detect_every = 1

    def preprocess(self, videos: Any, **kwargs) -> BatchFeature:
        """Same as calling the processor."""
        # the base class hands neither of these to where the videos are read
        backend = kwargs.get("video_backend") or self.video_backend
        do_rescale = kwargs.get("do_rescale", self.do_rescale)
        input_data_format = kwargs.get("input_data_format", getattr(self, "input_data_format", None))
        read = partial(_read_any_video, backend=backend, input_data_format=input_data_format)
        crop = self._face_cropper(kwargs) if kwargs.get("do_crop_faces", self.do_crop_faces) else None
        pending = _PendingVideos(videos, read, bool(do_rescale), crop)
        output = super().preprocess(pending, **kwargs)
        if crop is not None and kwargs.get("return_face_boxes", self.return_face_boxes):
            output["face_boxes"] = [torch.from_numpy(boxes).float() for boxes in pending.boxes]
            output = BatchFeature(output, tensor_type=kwargs.get("return_tensors"))
        return output

    def _face_cropper(self, kwargs: dict[str, Any]) -> Callable:
        options = {name: kwargs.get(name) for name in ("face_margin", "do_align_faces", "size")}
        options["device"] = kwargs.get("device", getattr(self, "device", None))
        options["detect_every"] = kwargs.get("detect_every", self.detect_every)
        return partial(self.crop_faces, **options)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        frame_stride: int | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        Indices of the frames that are taken from a video; see [`sample_frame_indices`].

        Raises:
            ValueError: if the video has no frames, `fps` and `frame_stride` are both given, or `fps` is given and the
                video's frame rate is unknown.
        """
        num_frames = num_frames or self.num_frames
        if fps is not None:
            if frame_stride is not None:
                raise ValueError("Pass either `fps` or `frame_stride`.")
            if not metadata.fps:
                raise ValueError(
                    "`fps` needs the video's own frame rate, which frames and folders don't have: pass "
                    "`video_metadata` with `fps`, or use `frame_stride`."
                )
            frame_stride = max(1, round(metadata.fps / fps))
        return sample_frame_indices(metadata.total_num_frames, num_frames, frame_stride)

    def _decode_and_sample_videos(
        self,
        videos: "_PendingVideos",
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Callable | None = None,
        **kwargs,
    ) -> tuple[list[list[torch.Tensor]], list[VideoMetadata]]:
        """Every video as a list of RGB frames `(3, height, width)`."""
        sources = _list_videos(videos.videos)
        given: list[VideoMetadata | None] = [None] * len(sources)
        if video_metadata is not None:
            given = make_batched_metadata(sources, video_metadata)
            if len(given) != len(sources):
                raise ValueError(f"`video_metadata` has {len(given)} entries for {len(sources)} videos.")
        all_frames, all_metadata = [], []
        for i, (source, known) in enumerate(zip(sources, given, strict=True)):
            name = str(source) if isinstance(source, (str, Path)) else f"videos[{i}]"
            try:
                frames, metadata = videos.read(source, choose=_chooser(do_sample_frames, sample_indices_fn, known))
                if videos.crop is not None:
                    frames, boxes = videos.crop(frames, _frame_times(metadata))
                    videos.boxes.append(boxes)
                all_frames.append(scale_to_eight_bit(frames) if videos.do_rescale else frames)
            except FileNotFoundError:
                raise
            except (TypeError, ValueError) as error:
                message = str(error)
                raise type(error)(message if message.startswith(name) else f"{name}: {message}") from error
            all_metadata.append(metadata)
        return all_frames, all_metadata

    def _prepare_input_videos(
        self, videos: list[list[torch.Tensor]], *args, device: str | torch.device | None = None, **kwargs
    ) -> list[list[torch.Tensor]]:
        return [[frame.to(device) for frame in video] for video in videos] if device is not None else videos

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
        for frames in videos:
            # frames of several sizes go one by one; they fit together once they are cropped
            same_size = len({(frame.shape, frame.dtype) for frame in frames}) == 1
            clips = [torch.stack(frames)] if same_size else [frame[None] for frame in frames]
            output = super()._preprocess(clips, return_tensors=None, **kwargs)["pixel_values_videos"]
            try:
                processed.append(torch.cat(list(output)))
            except RuntimeError as error:
                raise ValueError(
                    "The frames of a video differ in size: leave `do_resize` and `do_center_crop` on."
                ) from error
        data = self._with_landmarks(processed, do_landmarks, return_landmarks)
        return BatchFeature(data, tensor_type=return_tensors)


class _PendingVideos:
    """Videos on their way through the base class, with how they are to be read."""

    def __init__(self, videos: Any, read: Callable, do_rescale: bool, crop: Callable | None = None):
        self.videos = videos
        self.read = read
        self.do_rescale = do_rescale
        self.crop = crop
        self.boxes: list[np.ndarray] = []


def _frame_times(metadata: VideoMetadata) -> np.ndarray:
    """Times of the chosen frames in seconds; of frames without known times, 8 are taken to fill a second."""
    return np.asarray(metadata.frames_indices) / (metadata.fps or 8.0)


def _chooser(
    do_sample_frames: bool | None, sample_indices_fn: Callable | None, known: VideoMetadata | None
) -> Callable[[VideoMetadata], np.ndarray] | None:
    if not do_sample_frames or sample_indices_fn is None:
        return None

    def choose(metadata: VideoMetadata) -> np.ndarray:
        if known is not None and metadata.fps is None:
            metadata.fps = known.fps
        return sample_indices_fn(metadata=metadata)

    return choose


def _is_frame(item: Any) -> bool:
    if isinstance(item, (str, os.PathLike)):
        return str(item).lower().endswith(IMAGE_SUFFIXES)
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
        return list(videos)
    return [videos]


def _read_any_video(
    video: Any, choose: Callable | None, backend: str, input_data_format: str | None
) -> tuple[list[torch.Tensor], VideoMetadata]:
    """One video in any accepted form to its chosen RGB frames `(3, height, width)`."""
    if isinstance(video, (str, os.PathLike)) and not _is_frame(video):
        return read_video(video, choose, backend)
    if _is_frame(video):
        video = [video]
    if not isinstance(video, list) and getattr(video, "ndim", None) != 4:
        shape = getattr(video, "shape", None)
        what = type(video).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise TypeError(
            "A video must be a path, a URL, a list of frames, or an array (frames, height, width, channels) or "
            f"(frames, channels, height, width); got {what}."
        )
    metadata = VideoMetadata(total_num_frames=len(video))
    if len(video) == 0:
        raise ValueError("The video has no frames.")
    indices = np.arange(len(video)) if choose is None else choose(metadata)
    frames = {}
    for index in np.unique(indices):
        frame = video[int(index)]
        if isinstance(frame, (str, os.PathLike)):
            frame = read_image(frame)
        try:
            frames[int(index)] = to_rgb(frame, input_data_format)
        except (TypeError, ValueError) as error:
            raise type(error)(f"frame {index}: {error}") from error
    metadata.update({"frames_indices": indices})
    return [frames[int(index)] for index in indices], metadata


S2DVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = ["S2DVideoProcessor"]
