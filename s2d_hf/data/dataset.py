"""Labelled samples as a torch dataset of clips, and its batches."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers.video_utils import VideoMetadata

from ..video_reading_s2d import spread_evenly
from .augmentation import ClipAugmentation
from .sampling import evaluation_windows, random_window, resize_short_side, spatial_crops
from .sources import LabelledSamples, Sample, read_sample

SAMPLINGS = ("even", "random_window", "windows")


class ClipDataset(Dataset):
    """
    Reads, samples and augments clips or images.

    Args:
        samples ([`LabelledSamples`]): What to read.
        num_frames (`int`): Frames of a clip; unused for images.
        size (`int`): Height and width of the frames, in pixels.
        kind (`str`): `"video"` or `"image"`.
        sampling (`str`): `"even"`: frames spread over the time of the video. `"random_window"`: a random window of
            consecutive frames, for training. `"windows"`: `num_windows` windows times `num_crops` squares of each
            video, for evaluation that averages over these views. Unused for images.
        num_windows (`int`): Of `sampling="windows"`, see [`evaluation_windows`].
        num_crops (`int`): Of `sampling="windows"`, see [`spatial_crops`].
        augmentation ([`ClipAugmentation`], *optional*): By default frames are resized to `size` along their shorter
            side and cropped to the middle.
        with_clean_view (`bool`): Give the same frames without augmentation too.
        seed (`int`): With the epoch and the index, the only source of randomness: an item is the same in every worker
            and process.
        backend (`"pyav"` or `"decord"`): What decodes videos; see [`read_video`].
        keep_in_memory (`bool`): Keep what was decoded, in its own size, and read each file only once. For images, or
            videos with `sampling="even"` or `"windows"`: random windows are other frames each time. Every worker of a
            data loader keeps frames of its own, in the end each of them the whole set, and loses them when it ends:
            pass `persistent_workers=True` to the data loader, or use none.

    An item is a dict of `frames`, uint8 `(num_frames, 3, size, size)`, for images `(3, size, size)` and for
    `sampling="windows"` `(num_windows * num_crops, num_frames, 3, size, size)`, window by window; `clean_frames` in
    the same shape if asked for; `labels`, an `int`; and `name`. Frames of one video that differ in size are each
    resized and cropped to squares first.

    Raises:
        ValueError: if arguments are out of range or don't go together; from items, if a file can't be read.
        FileNotFoundError: from items, if a file is missing.
    """

    def __init__(
        self,
        samples: LabelledSamples,
        num_frames: int = 16,
        size: int = 224,
        *,
        kind: Literal["video", "image"] = "video",
        sampling: Literal["even", "random_window", "windows"] = "even",
        num_windows: int = 1,
        num_crops: int = 1,
        augmentation: ClipAugmentation | None = None,
        with_clean_view: bool = False,
        seed: int = 0,
        backend: str = "pyav",
        keep_in_memory: bool = False,
    ):
        if kind not in ("video", "image"):
            raise ValueError(f"`kind` must be 'video' or 'image', got {kind!r}.")
        if sampling not in SAMPLINGS:
            raise ValueError(f"`sampling` must be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
        for name, value in (
            ("num_frames", num_frames),
            ("size", size),
            ("num_windows", num_windows),
            ("num_crops", num_crops),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if sampling == "windows" and (kind == "image" or augmentation is not None):
            raise ValueError("`sampling='windows'` is for the evaluation of videos: without `augmentation` or images.")
        if sampling != "windows" and (num_windows, num_crops) != (1, 1):
            raise ValueError("`num_windows` and `num_crops` need `sampling='windows'`.")
        if augmentation is not None and getattr(augmentation, "size", size) != size:
            raise ValueError(f"`size` is {size}, and the augmentation's `size` is {augmentation.size}.")
        if keep_in_memory and kind == "video" and sampling == "random_window":
            raise ValueError("`keep_in_memory` needs the same frames each time: not `sampling='random_window'`.")
        if seed < 0:
            raise ValueError(f"`seed` must not be negative, got {seed}.")
        self.samples = samples
        self.num_frames = num_frames
        self.size = size
        self.kind = kind
        self.sampling = sampling
        self.num_windows = num_windows
        self.num_crops = num_crops
        self.augmentation = augmentation
        self.with_clean_view = with_clean_view
        self.seed = seed
        self.backend = backend
        self.keep_in_memory = keep_in_memory
        self._kept: dict[int, torch.Tensor] = {}
        # in shared memory, so that workers which live longer than an epoch see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in the order of their indices."""
        return self.samples.labels

    @property
    def label_indices(self) -> list[int]:
        """The label of each sample, without reading it."""
        return [sample.label for sample in self.samples]

    @property
    def epoch(self) -> int:
        """The epoch that randomness depends on."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Makes the items those of another epoch; the Trainer calls it. Call it between epochs."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        # a worker that is spawned reads for itself
        return self.__dict__ | {"_kept": {}}

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"The index {index} is outside the dataset's {len(self)} samples.")
        index = int(index) % len(self)
        sample = self.samples[index]
        state = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))

        if not self.keep_in_memory:
            clip = self._read(sample, generator)
        else:
            if index not in self._kept:
                self._kept[index] = self._read(sample, generator)
            clip = self._kept[index].clone()  # an augmentation may work in place
        item: dict[str, Any] = {}
        if self.augmentation is not None:
            item["frames"] = self.augmentation(clip[0], generator)
        if self.augmentation is None or self.with_clean_view:
            views = [spatial_crops(resize_short_side(part, self.size), self.size, self.num_crops) for part in clip]
            clean = torch.cat(views).contiguous()
            clean = clean if self.sampling == "windows" else clean[0]
            item.setdefault("frames", clean)
            if self.with_clean_view:
                item["clean_frames"] = clean
        if self.kind == "image":
            item = {name: frames.squeeze(0) for name, frames in item.items()}
        return item | {"labels": sample.label, "name": sample.name}

    def _read(self, sample: Sample, generator: torch.Generator) -> torch.Tensor:
        """Decoded frames, uint8 `(windows, num_frames, 3, height, width)`; an image is one window of one frame."""
        windows: np.ndarray | None = None

        def choose(metadata: VideoMetadata) -> np.ndarray:
            nonlocal windows
            windows = self._draw_windows(metadata, generator)
            return np.unique(windows)

        frames = self._stack(read_sample(sample, self.kind, choose, self.backend))
        if windows is None:
            return frames[None]
        return frames[torch.from_numpy(np.searchsorted(np.unique(windows), windows))]

    def _draw_windows(self, metadata: VideoMetadata, generator: torch.Generator) -> np.ndarray:
        """Frame indices `(windows, num_frames)`."""
        total_num_frames = metadata.total_num_frames
        if self.sampling == "windows":
            return evaluation_windows(total_num_frames, self.num_frames, self.num_windows)
        if self.sampling == "random_window":
            return random_window(total_num_frames, self.num_frames, generator)[None]
        return spread_evenly(metadata, self.num_frames)[None]

    def _stack(self, frames: list[torch.Tensor]) -> torch.Tensor:
        if len({frame.shape for frame in frames}) > 1:
            frames = [spatial_crops(resize_short_side(frame, self.size), self.size, 1)[0] for frame in frames]
        return torch.stack(frames)


class ClipCollator:
    """
    Stacks the items of a [`ClipDataset`] or [`CachedClips`] to a batch: `frames` (and `clean_frames`) uint8 with a
    batch axis in front, `labels` `(batch_size,)` int64, and `name`, a list; and `landmark_features`, if all items have
    them. Normalising, and else finding landmarks, is left to the processor, on the device where the batch goes.

    Args:
        processor (*optional*): The model's processor; if given, frames must have its `crop_size`, so that it won't
            resize them again.

    Raises:
        ValueError: if frames or features differ in shape, or frames are not as the processor wants them; the message
            names the sample.
    """

    def __init__(self, processor: Any = None):
        self.size: tuple[int, int] | None = None
        if processor is not None:
            self.size = (processor.crop_size["height"], processor.crop_size["width"])

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        keys: list[str] = [key for key in ("frames", "clean_frames") if key in items[0]]
        if all("landmark_features" in item for item in items):
            keys.append("landmark_features")
        for key in keys:
            for item in items:
                shape = tuple(item[key].shape)
                if shape != tuple(items[0][key].shape):
                    raise ValueError(
                        f"{item['name']}: `{key}` has the shape {shape}, and that of {items[0]['name']} is "
                        f"{tuple(items[0][key].shape)}."
                    )
                if key != "landmark_features" and self.size is not None and shape[-2:] != self.size:
                    raise ValueError(
                        f"{item['name']}: frames of {shape[-2]}x{shape[-1]} pixels, and the processor makes "
                        f"{self.size[0]}x{self.size[1]}: give the dataset and its augmentation that `size`."
                    )
            batch[key] = torch.stack([item[key] for item in items])
        batch["labels"] = torch.tensor([item["labels"] for item in items], dtype=torch.int64)
        batch["name"] = [item["name"] for item in items]
        return batch


__all__ = ["ClipCollator", "ClipDataset"]
