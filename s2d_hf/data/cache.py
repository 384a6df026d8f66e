"""Clips and their landmark features, decoded and computed once and read from safetensors shards after that."""

import bisect
import copy
import hashlib
import importlib.metadata
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..file_names_s2d import is_url
from ..frames_s2d import list_frame_files
from ..landmark_encoders_s2d import LandmarkEncoder
from .dataset import ClipCollator, ClipDataset
from .sources import HubItem, Sample

# To be raised whenever the code makes other frames or features of the same files and settings.
CACHE_VERSION = 2
INDEX_NAME = "index.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16}
# As many as an encoder takes at a time. Not an argument: the last bits of its results may depend on it.
_FRAMES_AT_A_TIME = 64
# Seconds; far below the time after which torch takes a process that says nothing for dead.
_HEARTBEAT = 60.0
_SAFETENSORS_DTYPES = {"U8": "uint8", "F16": "float16", "F32": "float32"}


def cache_clips(
    dataset: ClipDataset,
    folder: str | Path,
    processor: Any = None,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    num_workers: int = 0,
    device: str | torch.device | None = None,
    shard_size: int = 2**28,
    progress: bool = True,
) -> "CachedClips":
    """
    The items of a [`ClipDataset`], made once and then read from disk: for training without changes of pixels, and for
    evaluation. Frames are stored as they are, uncompressed: 2.4 MB for 16 frames of 224 pixels.

    The cache lies in a folder of its own in `folder`, which is named by a hash of everything that its content depends
    on: the samples' names, labels and sources, the settings of `dataset`, the versions of what decodes, resizes and
    computes, and, with features, the encoder's configuration and weights, the processor's normalisation, `dtype` and
    the kind of device. A source is a path with the size and the time of change of the file, or of each frame of a
    folder; the fingerprint and the row of a `datasets.Dataset`; or a URL, the content of which must not change. Where
    that folder is there already, it is used; caches that are out of date are never deleted.

    A folder whose name ends in `.incomplete` is being written, or was left by a run that was killed, and may then be
    deleted. In distributed runs the main process writes, and the others wait for it; all must see `folder`. Which
    process is which is known once the training's arguments are made.

    Args:
        dataset ([`ClipDataset`]): Without augmentation; videos with `sampling="even"` or `"windows"`.
        folder (`str` or `Path`): Where caches lie; made if it isn't there.
        processor (*optional*): The model's processor. If it has a landmark encoder, the landmark features are stored
            too. They are computed in full precision, also for a training in a lower one.
        dtype (`str`): `"float32"` stores the features exactly. `"float16"` takes half of their space and rounds them
            to three digits.
        num_workers (`int`): Processes that decode; 0 decodes in this one.
        device (`str` or `torch.device`, *optional*): Where the encoder computes; by default the device of accelerate's
            `PartialState`, where training computes too.
        shard_size (`int`): Bytes of a file, at most, if an item fits into them. Twice as much memory is needed.
        progress (`bool`): Show a progress bar.

    Returns:
        [`CachedClips`], with `clean_frames` if `dataset` gives them.

    Raises:
        ValueError: if the items of `dataset` change from epoch to epoch, their size isn't the processor's, a file
            can't be read, features are not finite, or a cache that is there is broken.
        FileNotFoundError: if a file is missing.
        RuntimeError: in the other processes, if the main process can't write the cache.
    """
    if dataset.augmentation is not None:
        raise ValueError(
            "Clips with an augmentation change in every epoch and can't be cached: make the dataset with "
            "`augmentation=None`, or train without a cache."
        )
    if dataset.kind == "video" and dataset.sampling == "random_window":
        raise ValueError(
            "Random windows are other frames in every epoch and can't be cached: make the dataset with "
            "`sampling='even'` or 'windows'."
        )
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    if shard_size < 1:
        raise ValueError(f"`shard_size` must be at least 1, got {shard_size}.")
    state = PartialState()
    if not state.is_main_process:
        return CachedClips(_wait_for_main_process(), dataset.with_clean_view)
    device = torch.device(state.device if device is None else device)
    last_told = time.monotonic()

    def keep_waiting() -> None:
        nonlocal last_told
        if time.monotonic() - last_told >= _HEARTBEAT:
            broadcast_object_list(["wait", None])
            last_told = time.monotonic()

    try:
        content = describe_content(dataset, processor, dtype, device)
        path = Path(folder) / _digest(content)
        if not path.exists():
            rows = _compute_rows(dataset, processor, DTYPES[dtype], num_workers, device)
            rows = tqdm(rows, total=len(dataset), desc=f"Caching {dataset.kind}s", disable=not progress)
            _write(path, content, rows, shard_size, keep_waiting)
        cached = CachedClips(path, dataset.with_clean_view)
    except Exception as error:
        broadcast_object_list(["failed", f"{type(error).__name__}: {error}"])
        raise
    broadcast_object_list(["ready", str(path)])
    return cached


class CachedClips(Dataset):
    """
    The items of a [`ClipDataset`], from a cache that [`cache_clips`] wrote.

    An item is a dict of `frames`, bit for bit those of the [`ClipDataset`]; `clean_frames` if asked for, the same
    tensor; `landmark_features` of the frames, if the cache has them: `(num_frames, channels, height, width)` in cells,
    with the same axes in front as `frames` have for images and windows; `labels`, an `int`; and `name`.

    Args:
        folder (`str` or `Path`): The folder of one cache.
        with_clean_view (`bool`): Give `clean_frames` too, as the emotion anchors need them.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if files of the cache are missing, truncated or unreadable. Altered pixels are not noticed.
    """

    def __init__(self, folder: str | Path, with_clean_view: bool = False):
        self.folder = Path(folder)
        self.with_clean_view = with_clean_view
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder {self.folder}.")
        index = self._read_index()
        self.labels: tuple[str, ...] = index["labels"]
        self._samples: list[tuple[str, int]] = index["samples"]
        self._tensors: dict[str, tuple[str, list[int]]] = index["tensors"]
        self._files: list[str] = [name for name, _ in index["shards"]]
        # of the first row of each shard, and of the end
        self._starts = list(itertools.accumulate((rows for _, rows in index["shards"]), initial=0))
        if self._starts[-1] != len(self._samples):
            raise self._broken(INDEX_NAME, f"{len(self._samples)} items in {self._starts[-1]} rows")
        self._opened: dict[int, dict[str, Any]] = {}
        self._process = os.getpid()

    @property
    def label_indices(self) -> list[int]:
        """The label of each item, without reading it."""
        return [label for _, label in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getstate__(self) -> dict[str, Any]:
        # open files belong to their process
        return self.__dict__ | {"_opened": {}}

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"The index {index} is outside the cache's {len(self)} items.")
        index = int(index) % len(self)
        shard = bisect.bisect_right(self._starts, index) - 1
        row = index - self._starts[shard]
        # what is read is a view of the whole file, and lies in memory only once
        item: dict[str, Any] = {name: rows[row].clone() for name, rows in self._open(shard).items()}
        if self.with_clean_view:
            item["clean_frames"] = item["frames"]
        name, label = self._samples[index]
        return item | {"labels": label, "name": name}

    def _open(self, shard: int) -> dict[str, Any]:
        """What reads the rows of each tensor of a shard."""
        if self._process != os.getpid():  # forked
            self._opened, self._process = {}, os.getpid()
        if shard in self._opened:
            return self._opened[shard]
        num_rows = self._starts[shard + 1] - self._starts[shard]
        try:
            file = safe_open(self.folder / self._files[shard], framework="pt")
            slices = {name: file.get_slice(name) for name in self._tensors}
        except (OSError, SafetensorError) as error:
            raise self._broken(self._files[shard], str(error)) from error
        for name, (dtype, shape) in self._tensors.items():
            found = (_SAFETENSORS_DTYPES.get(slices[name].get_dtype()), slices[name].get_shape())
            if found != (dtype, [num_rows, *shape]):
                raise self._broken(self._files[shard], f"`{name}` is {found}, not {(dtype, [num_rows, *shape])}")
        self._opened[shard] = slices
        return slices

    def _read_index(self) -> dict[str, Any]:
        """What this class needs of the index; the sizes of the shards are checked."""
        path = self.folder / INDEX_NAME
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            content = stored["content"]
            index = {
                "labels": tuple(content["labels"]),
                "samples": [(sample["name"], sample["label"]) for sample in content["samples"]],
                "tensors": {name: (tensor["dtype"], tensor["shape"]) for name, tensor in stored["tensors"].items()},
                "shards": [(shard["file"], shard["rows"]) for shard in stored["shards"]],
            }
            sizes = [shard["bytes"] for shard in stored["shards"]]
        except FileNotFoundError as error:
            raise self._broken(INDEX_NAME, "it is missing") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._broken(INDEX_NAME, f"{type(error).__name__}: {error}") from error
        for (name, _), size in zip(index["shards"], sizes, strict=True):
            file = self.folder / name
            if not file.is_file():
                raise self._broken(name, "it is missing")
            if file.stat().st_size != size:
                raise self._broken(name, f"it has {file.stat().st_size} bytes, not {size}")
        return index

    def _broken(self, name: str, reason: str) -> ValueError:
        return ValueError(
            f"{self.folder / name} can't be used: {reason}. Delete the folder {self.folder}; the cache is then made "
            "anew."
        )


def describe_content(dataset: ClipDataset, processor: Any, dtype: str, device: str | torch.device) -> dict[str, Any]:
    """
    Everything that the content of a cache depends on, as JSON can hold it; see [`cache_clips`].

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a folder holds no frames.
    """
    is_video = dataset.kind == "video"
    decoder = None
    if is_video:
        package = {"pyav": "av"}.get(dataset.backend, dataset.backend)
        decoder = {"backend": dataset.backend, "version": _version(package)}
    opened: dict[int, Any] = {}
    return {
        "cache_version": CACHE_VERSION,
        "kind": dataset.kind,
        "size": dataset.size,
        "num_frames": dataset.num_frames if is_video else None,
        "sampling": dataset.sampling if is_video else None,
        "num_windows": dataset.num_windows,
        "num_crops": dataset.num_crops,
        "decoder": decoder,
        "versions": {name: _version(name) for name in ("pillow", "torch", "torchvision", "transformers")},
        "landmarks": _describe_landmarks(processor, dtype, torch.device(device)),
        "labels": list(dataset.labels),
        "samples": [
            {"name": sample.name, "label": sample.label, "source": _describe_source(sample, opened)}
            for sample in dataset.samples
        ],
    }


def _describe_landmarks(processor: Any, dtype: str, device: torch.device) -> dict[str, Any] | None:
    encoder = getattr(processor, "landmark_encoder", None)
    if encoder is None:
        return None
    return {
        "encoder": encoder.to_dict(),
        "class": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
        "weights": _hash_weights(encoder),
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "rescale_factor": processor.rescale_factor,
        "dtype": dtype,
        "device": device.type,
    }


def _hash_weights(encoder: LandmarkEncoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        if name.endswith(".num_batches_tracked"):  # which nothing reads, and saved encoders may lack
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _describe_source(sample: Sample, opened: dict[int, Any]) -> dict[str, Any] | None:
    """`opened` keeps the datasets of the Hub from being opened for every sample."""
    try:
        if sample.item is not None:
            return _describe_item(sample.item, opened)
        return None if sample.path is None else _describe_path(sample.path)
    except (OSError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{sample.name}: {error}") from error


def _describe_path(path: str | Path) -> dict[str, Any]:
    if is_url(str(path)):
        return {"url": str(path)}
    absolute = os.path.abspath(path)
    if not os.path.isdir(path):
        status = os.stat(path)
        return {"path": absolute, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    digest, frames = hashlib.sha256(), list_frame_files(path)
    for frame in frames:
        status = frame.stat()
        digest.update(json.dumps([frame.name, status.st_size, status.st_mtime_ns]).encode())
    return {"path": absolute, "frames": len(frames), "files": digest.hexdigest()}


def _describe_item(item: HubItem, opened: dict[int, Any]) -> dict[str, Any]:
    key = id(item.dataset)
    if key not in opened:
        opened[key] = item.dataset.with_format("arrow")
    described = {"dataset": item.dataset._fingerprint, "column": item.column, "row": item.index}
    # as Arrow, which does not read the bytes of the videos
    cell = opened[key][item.index].column(item.column)[0]
    if cell.is_valid and not cell["bytes"].is_valid and cell["path"].is_valid:
        described["file"] = _describe_path(cell["path"].as_py())
    return described


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _compute_rows(
    dataset: ClipDataset, processor: Any, dtype: torch.dtype, num_workers: int, device: torch.device
) -> Iterator[dict[str, torch.Tensor]]:
    """`frames` and, with an encoder, `landmark_features` of one item after the other."""
    reader = copy.copy(dataset)
    reader.keep_in_memory = reader.with_clean_view = False
    frames_of_item = 1
    if dataset.kind == "video":
        frames_of_item = dataset.num_frames * dataset.num_windows * dataset.num_crops
    loader = DataLoader(
        reader,
        batch_size=max(1, _FRAMES_AT_A_TIME // frames_of_item),
        num_workers=num_workers,
        collate_fn=ClipCollator(processor),
        # the global one must be as if the cache had been there
        generator=torch.Generator(),
    )
    has_encoder = getattr(processor, "landmark_encoder", None) is not None
    for batch in loader:
        frames = batch["frames"]
        if not has_encoder:
            yield from ({"frames": clip} for clip in frames)
            continue
        pixels = processor.normalise_frames(frames.to(device).flatten(0, -4))
        features = processor.compute_landmarks(pixels)["landmark_features"].to("cpu", dtype)
        features = features.unflatten(0, frames.shape[:-3])
        for name, clip, part in zip(batch["name"], frames, features, strict=True):
            if not torch.isfinite(part).all():
                raise ValueError(f"{name}: its landmark features are not finite, or too large for {dtype}.")
            yield {"frames": clip, "landmark_features": part}


def _write(
    path: Path,
    content: dict[str, Any],
    rows: Iterator[dict[str, torch.Tensor]],
    shard_size: int,
    after_row: Callable[[], None],
) -> None:
    """Writes the shards and the index beside `path`, and then moves them there."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.incomplete")
    temporary.mkdir(parents=True)
    shards: list[dict[str, Any]] = []
    pending: list[dict[str, torch.Tensor]] = []
    tensors: dict[str, dict[str, Any]] = {}

    def flush() -> None:
        file = temporary / f"{len(shards):05d}.safetensors"
        save_file({name: torch.stack([row[name] for row in pending]) for name in tensors}, file)
        with open(file, "rb") as written:  # a machine that loses power must not leave zeros under the final name
            os.fsync(written.fileno())
        shards.append({"file": file.name, "rows": len(pending), "bytes": file.stat().st_size})
        pending.clear()

    try:
        for row in rows:
            if not tensors:
                tensors = {
                    name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
                    for name, tensor in row.items()
                }
                rows_of_shard = max(1, shard_size // sum(tensor.nbytes for tensor in row.values()))
            pending.append(row)
            if len(pending) == rows_of_shard:
                flush()
            after_row()
        if pending:
            flush()
        # last: it says that the cache is complete
        index = {"tensors": tensors, "shards": shards, "content": content}
        (temporary / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        try:
            temporary.rename(path)
        except OSError:
            if not (path / INDEX_NAME).is_file():
                raise
            # another run wrote the same meanwhile
            shutil.rmtree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _wait_for_main_process() -> str:
    message: list[Any] = ["wait", None]
    while message[0] == "wait":
        broadcast_object_list(message)
    if message[0] == "failed":
        raise RuntimeError(f"The main process could not write the cache: {message[1]}")
    return message[1]


__all__ = ["CachedClips", "cache_clips", "describe_content"]
