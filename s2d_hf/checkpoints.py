"""The named tensors of a checkpoint as people have it: a file of `torch.save`, old or new, or of safetensors."""

import io
import math
import mmap
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .pickle_reading import UNREADABLE, Storage, TensorRecord, read_pickle

# where a training loop puts the state dict, the authors' first
STATE_KEYS = ("model", "model_state_dict", "state_dict", "module")
# what wrappers put before all names: DataParallel, torch.compile, Lightning
WRAPPERS = ("module.", "_orig_mod.", "model.")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_SEARCH_DEPTH = 3
_LONGEST_NAME = 500
# Views of one storage may be copied, but not without end.
_LARGEST_SHARE = 4  # of the file's size


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """
    The named tensors of a `.pth`, `.pth.tar`, `.pt`, `.bin` or `.safetensors` file.

    A state dict is found under `model`, `model_state_dict`, `state_dict` or `module`, at the top, or wherever else
    there is just one. What lies beside it (an optimizer, arguments, paths, objects of any class) is passed over: no
    code that a pickle names is imported or run, see [`read_pickle`]. Prefixes of wrappers (`module.`) are taken away.

    Returns:
        the tensors on the CPU, each with memory of its own, unless the file has two names for one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, compressed, or holds no state dict; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and not a checkpoint file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    try:
        tensors = load_file(path) if path.suffix.lower() == ".safetensors" else _read_pytorch_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a readable PyTorch checkpoint: {error}.") from error
    while prefix := next((prefix for prefix in WRAPPERS if _all_start(tensors, prefix)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _all_start(names: Iterable[str], prefix: str) -> bool:
    names = list(names)
    return bool(names) and all(name.startswith(prefix) for name in names)


def _read_pytorch_file(path: Path) -> dict[str, torch.Tensor]:
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty (0 bytes)")
    with open(path, "rb") as file:
        beginning = file.read(64)
        if beginning.startswith(b"PK"):
            return _read_zip(path, size)
        if beginning.startswith(b"version https://git-lfs"):
            raise ValueError("it is a pointer of Git LFS, and not the file: `git lfs pull` fetches that")
        if beginning.lstrip().startswith(b"<"):
            raise ValueError("it is a web page: download the file itself")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read_legacy(mapped)


def _read_zip(path: Path, size: int) -> dict[str, torch.Tensor]:
    """The form since PyTorch 1.6: an uncompressed zip file with a pickle, and a file for each storage."""
    # whatever zipfile raises over a damaged file; it has no base class for that
    damages = (
        zipfile.BadZipFile, ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError,
        RuntimeError, TypeError, struct.error,
    )  # fmt: skip
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            _refuse_bombs(archive, size)
            pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise ValueError("it is a zip file, but none that torch.save wrote: it has not one data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            order = entries.get(f"{folder}byteorder")
            if order is not None and archive.read(order) != sys.byteorder.encode():
                raise ValueError("it was written on a machine with another byte order")
            state = find_state_dict(read_pickle(io.BytesIO(archive.read(pickles[0])))[0])

            def read_storage(storage: Storage) -> bytes:
                entry = entries.get(f"{folder}data/{storage.key}")
                if entry is None:
                    raise ValueError(f"its part data/{storage.key} is missing")
                return archive.read(entry)

            return _build_tensors(state, read_storage, size)
    except damages as error:
        raise ValueError(f"it is damaged or cut off ({type(error).__name__}: {error})") from error


def _refuse_bombs(archive: zipfile.ZipFile, file_size: int) -> None:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its parts are compressed, which torch.save never does")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it has two parts of one name")
    if sum(entry.file_size for entry in entries) > file_size:
        raise ValueError("its parts are larger than the file")


def _read_legacy(mapped: mmap.mmap) -> dict[str, torch.Tensor]:
    """The form before PyTorch 1.6: pickles one behind the other, and the storages after them."""
    if read_pickle(mapped)[0] != _LEGACY_MAGIC:
        raise ValueError("torch.save has not written it")
    read_pickle(mapped)  # version of the form
    system, _ = read_pickle(mapped)
    if isinstance(system, dict) and system.get("little_endian") is not (sys.byteorder == "little"):
        raise ValueError("it was written on a machine with another byte order")
    loaded, storages = read_pickle(mapped)
    keys, _ = read_pickle(mapped)
    if not isinstance(keys, list):
        raise ValueError("its list of parts is damaged")
    places: dict[str, tuple[int, int]] = {}
    position = mapped.tell()
    for key in keys:
        if not isinstance(key, str) or key not in storages or position + 8 > len(mapped):
            raise ValueError("it is damaged or cut off")
        (numel,) = struct.unpack_from("<q", mapped, position)
        end = position + 8 + numel * storages[key].dtype.itemsize
        if numel < 0 or end > len(mapped):
            raise ValueError("it is damaged or cut off")
        places[key] = position + 8, end
        position = end

    def read_storage(storage: Storage) -> bytes:
        if storage.key not in places:
            raise ValueError(f"its part {storage.key} is missing")
        start, end = places[storage.key]
        return mapped[start:end]

    return _build_tensors(find_state_dict(loaded), read_storage, len(mapped))


def find_state_dict(loaded: Any) -> dict[str, TensorRecord]:
    """
    The state dict in what a checkpoint holds, of [`read_pickle`]'s types.

    Raises:
        ValueError: if there is none, or one cannot tell which of several is meant.
    """
    places = [loaded.get(key) for key in STATE_KEYS] if isinstance(loaded, dict) else []
    for place in (*places, loaded):
        if _tensors_of(place):
            numbers = [key for key, item in place.items() if isinstance(item, TensorRecord) and isinstance(key, int)]
            if numbers:
                raise ValueError(f"it is damaged: a tensor has the number {numbers[0]} in place of a name")
            unreadable = [repr(key) for key, item in place.items() if item is UNREADABLE]
            if unreadable:
                raise ValueError(
                    f"{len(unreadable)} of its tensors are of a kind that can't be read, such as {unreadable[0][:80]}"
                )
            return _tensors_of(place)
    deeper = dict(_search(loaded, "", _SEARCH_DEPTH, set()))
    if len(deeper) > 1:
        found = ", ".join(repr(place)[:80] for place in list(deeper)[:5])
        raise ValueError(f"it holds tensors under {found}, and one cannot tell which are the model's")
    if not deeper:
        raise ValueError(f"it holds no state dict, neither at its top nor under {', '.join(STATE_KEYS)}")
    return next(iter(deeper.values()))


def _tensors_of(value: Any) -> dict[str, TensorRecord]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(name, str) and isinstance(item, TensorRecord)}


def _search(value: Any, place: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, TensorRecord]]]:
    """Dictionaries of named tensors and where they are, down to some depth; none within another, and each once."""
    if not isinstance(value, dict) or depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in value.items():
        if not isinstance(key, str):  # numbers: the state of an optimizer
            continue
        found = _tensors_of(item)
        if found:
            yield f"{place}{key}", found
        else:
            yield from _search(item, f"{place}{key}.", depth - 1, seen)


def _build_tensors(
    state: dict[str, TensorRecord], read_storage: Callable[[Storage], bytes], file_size: int
) -> dict[str, torch.Tensor]:
    """The tensors that records describe, after a check that each lies within its storage."""
    for name, record in state.items():
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise ValueError(f"it is damaged: a tensor is called {name[:80]!r}")
        _check_record(name, record)
    sizes = (math.prod(record.size) * record.storage.dtype.itemsize for record in state.values())
    if sum(sizes) > _LARGEST_SHARE * file_size:
        raise ValueError("it is damaged: its tensors are larger than the file")
    storages: dict[str, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, record in state.items():
        storage = record.storage
        if storage.key not in storages:
            data = read_storage(storage)
            if len(data) != storage.numel * storage.dtype.itemsize:
                raise ValueError(f"{name} is damaged: {len(data)} bytes for {storage.numel} values")
            # writeable, as tensors are
            values = torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else torch.empty(0)
            storages[storage.key] = values.to(storage.dtype)
        tensor = storages[storage.key].as_strided(record.size, record.stride, record.offset)
        tensors[name] = tensor if tensor.numel() == storage.numel else tensor.clone()
    return tensors


def _check_record(name: str, record: TensorRecord) -> None:
    storage, numbers = record.storage, (record.storage.numel, record.offset, *record.size, *record.stride)
    if len(record.size) > 16 or not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
        raise ValueError(f"{name} is damaged: its shape is impossible")
    last = record.offset + sum((size - 1) * step for size, step in zip(record.size, record.stride, strict=False))
    is_empty = 0 in record.size
    if (
        len(record.size) != len(record.stride)
        # PyTorch counts what an empty tensor would hold otherwise
        or math.prod(max(1, size) for size in record.size) >= 2**62
        # more than there are: one value shown many times
        or math.prod(record.size) > storage.numel
        or (not is_empty and last >= storage.numel)
    ):
        raise ValueError(f"{name} is damaged: its shape {record.size} does not fit {storage.numel} values")


__all__ = ["STATE_KEYS", "find_state_dict", "read_checkpoint"]
