"""Whether the weights in a folder are whole, and those of its configuration."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..configuration_s2d import S2DConfig
from ..landmark_encoders_s2d import LANDMARK_WEIGHTS_NAME, load_landmark_encoder
from ..texts_s2d import listed
from .problems import Problem

# in bytes of tensors: what the Hub advises
MAX_SHARD_SIZE = 5 * 10**9
_LISTED = 5


@dataclass
class WeightsReport:
    """
    What a folder's model weights are.

    Args:
        num_parameters (`int`): Numbers in all tensors.
        num_bytes (`int`): Their size.
        dtypes (`dict[str, int]`): The tensors of each dtype, as safetensors names them.
        problems (`list[Problem]`): What is wrong.
    """

    num_parameters: int = 0
    num_bytes: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class _File:
    """A safetensors file's tensors: their shapes, dtypes, and whether all their numbers are finite."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    num_bytes: int = 0


def check_weights(
    folder: Path, config: S2DConfig, model_class: type, max_shard_size: int = MAX_SHARD_SIZE
) -> WeightsReport:
    """
    Reads all weights of a folder's model, one tensor at a time.

    Args:
        folder (`Path`): The model's folder.
        config ([`S2DConfig`]): Its configuration.
        model_class (`type`): The class that it names.
        max_shard_size (`int`): How many bytes of tensors a file may have.
    """
    report = WeightsReport()
    index, names = _list_files(folder, report)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: Counter[str] = Counter()
    complete = bool(names)
    for name in names:
        try:
            file = _read(folder / name)
        except (SafetensorError, OSError) as error:
            text = f"It can't be read as a safetensors file ({error}): save the model again."
            report.problems.append(Problem(name, text))
            complete = False
            continue
        report.problems += _check_file(name, file, max_shard_size)
        if index is not None:
            report.problems += _check_against_index(name, file, index["weight_map"])
        shapes |= file.shapes
        dtypes.update(file.dtypes.values())
        report.num_bytes += file.num_bytes
    report.num_parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    report.dtypes = dict(dtypes)
    if complete:
        report.problems += _check_shapes(
            shapes, config, model_class, SAFE_WEIGHTS_NAME if index is None else SAFE_WEIGHTS_INDEX_NAME
        )
        if index is not None:
            total = index["metadata"].get("total_size")
            if total != report.num_bytes:
                text = f"It says that the tensors have {total} bytes, and they have {report.num_bytes}."
                report.problems.append(Problem(SAFE_WEIGHTS_INDEX_NAME, text))
    return report


def _list_files(folder: Path, report: WeightsReport) -> tuple[dict | None, list[str]]:
    """The index, if there is one, and the files that hold the model's tensors."""
    has_one, has_index = (folder / SAFE_WEIGHTS_NAME).is_file(), (folder / SAFE_WEIGHTS_INDEX_NAME).is_file()
    shards = sorted(path.name for path in folder.glob("model-*-of-*.safetensors"))
    if has_one:
        for name in [SAFE_WEIGHTS_INDEX_NAME] * has_index + shards:
            report.problems.append(Problem(name, f"It is there beside {SAFE_WEIGHTS_NAME}: keep one of the two."))
        return None, [SAFE_WEIGHTS_NAME]
    if not has_index:
        files = f"neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}"
        text = f"There are no weights, {files}: save the model with `save_pretrained`."
        report.problems.append(Problem(SAFE_WEIGHTS_NAME, text))
        return None, []
    try:
        index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))
        weight_map = index["weight_map"]
        named = sorted(set(weight_map.values()))
        index.setdefault("metadata", {}).get("total_size")
    except (ValueError, TypeError, KeyError, AttributeError):
        text = "It is no index of safetensors files: save the model again."
        report.problems.append(Problem(SAFE_WEIGHTS_INDEX_NAME, text))
        return None, []
    for name in sorted(set(shards) - set(named)):
        report.problems.append(Problem(name, f"{SAFE_WEIGHTS_INDEX_NAME} doesn't name it: remove it."))
    for name in named:
        if not (folder / name).is_file() or "/" in name:
            count = sum(file == name for file in weight_map.values())
            text = f"It is not there, and {SAFE_WEIGHTS_INDEX_NAME} has {count} tensors in it: save the model again."
            report.problems.append(Problem(name, text))
    return index, [name for name in named if (folder / name).is_file() and "/" not in name]


def _read(path: Path) -> _File:
    file = _File()
    with safe_open(path, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118
            file.dtypes[name] = opened.get_slice(name).get_dtype()
            tensor = opened.get_tensor(name)
            file.shapes[name] = tuple(tensor.shape)
            file.num_bytes += tensor.numel() * tensor.element_size()
            if tensor.is_floating_point() and not _is_finite(tensor):
                file.not_finite.append(name)
    return file


def _is_finite(tensor: torch.Tensor) -> bool:
    # PyTorch has no isfinite of 8-bit floats
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())


def _check_file(name: str, file: _File, max_shard_size: int) -> Iterator[Problem]:
    if file.not_finite:
        yield Problem(name, f"There are infinite numbers or none at all (NaN) in {listed(file.not_finite, _LISTED)}.")
    if file.num_bytes > max_shard_size:
        text = f"Its tensors have {file.num_bytes:,} bytes, and {max_shard_size:,} are allowed: save the model with "
        yield Problem(name, f'{text}`save_pretrained(..., max_shard_size="{max_shard_size // 10**9}GB")`.')


def _check_against_index(name: str, file: _File, weight_map: dict[str, str]) -> Iterator[Problem]:
    placed = {tensor for tensor, shard in weight_map.items() if shard == name}
    for wrong, text in (
        (placed - file.shapes.keys(), "lacks tensors that the index places in it"),
        (file.shapes.keys() - placed, "holds tensors that the index doesn't place in it"),
    ):
        if wrong:
            yield Problem(name, f"It {text}: {listed(sorted(wrong), _LISTED)}. Save the model again.")


def _check_shapes(
    shapes: dict[str, tuple[int, ...]], config: S2DConfig, model_class: type, where: str
) -> Iterator[Problem]:
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in model_class(config).state_dict().items()}
    missing, unexpected = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing:
        yield Problem(
            where, f"Tensors of the model that config.json describes are missing: {listed(missing, _LISTED)}."
        )
    if unexpected:
        yield Problem(
            where, f"It holds tensors that the model in config.json doesn't have: {listed(unexpected, _LISTED)}."
        )
    others = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if others:
        yield Problem(where, f"Tensors have other shapes than config.json says: {listed(others, _LISTED)}.")


def check_landmark_encoder(folder: Path, config: S2DConfig, encoders: dict[str, dict | None]) -> Iterator[Problem]:
    """
    Whether the landmark encoder is there and whole if the model needs one, and not there if no processor has one.

    Args:
        folder (`Path`): The model's folder.
        config ([`S2DConfig`]): Its configuration.
        encoders (`dict[str, dict | None]`): What each processor's file says of its encoder.
    """
    path = folder / LANDMARK_WEIGHTS_NAME
    if config.prompt_type != "none":
        for name, encoder in encoders.items():
            if encoder is None:
                text = 'It has no `landmark_encoder`, and the model needs one (`prompt_type` is not "none").'
                yield Problem(name, text)
    given = [encoder for encoder in encoders.values() if encoder is not None]
    if any(encoder != given[0] for encoder in given):
        yield Problem(
            LANDMARK_WEIGHTS_NAME, f"The processors name different encoders: {listed(map(str, given), _LISTED)}."
        )
    if not given:
        if path.is_file():
            yield Problem(LANDMARK_WEIGHTS_NAME, "It is there, and no processor uses it: remove it.")
        return
    if not path.is_file():
        text = "It is not there, and the processors need it: save a processor with its encoder into the folder."
        yield Problem(LANDMARK_WEIGHTS_NAME, text)
        return
    try:
        file = _read(path)
        loaded = load_landmark_encoder(path, given[0])
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        yield Problem(LANDMARK_WEIGHTS_NAME, f"It can't be loaded: {error}")
        return
    if file.not_finite:
        text = f"There are infinite numbers or none at all (NaN) in {listed(file.not_finite, _LISTED)}."
        yield Problem(LANDMARK_WEIGHTS_NAME, text)
    if config.prompt_type != "none" and loaded.num_channels != config.landmark_channels:
        text = f"It gives {loaded.num_channels} channels, and the model takes {config.landmark_channels}."
        yield Problem(LANDMARK_WEIGHTS_NAME, text)


__all__ = ["MAX_SHARD_SIZE", "WeightsReport", "check_landmark_encoder", "check_weights"]
