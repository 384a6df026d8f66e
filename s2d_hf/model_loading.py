"""Models for predictions: whole, or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from safetensors import SafetensorError
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, logging

from .configuration_s2d import S2DConfig
from .texts_s2d import listed

# Numbers that cost no memory to speak of.
_SMALL = 10_000_000


def load_whole_model(model_class: Any, folder: str | os.PathLike, **arguments: Any) -> PreTrainedModel:
    """
    `model_class.from_pretrained(folder, **arguments)`, with an error where transformers would fill in random weights
    or leave some out.

    Args:
        model_class: A class of models, or an Auto class.
        folder (`str` or `os.PathLike`): A model's folder or its name on the Hub.
        arguments: For `from_pretrained`.

    Raises:
        OSError: if there is no such model.
        ValueError: if its files are damaged, or its weights are not those that its configuration asks for, or NaN or
            infinite.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers' report in many lines, of what the error below says in one
    try:
        if os.path.isdir(folder):
            _check_files(Path(folder), S2DConfig.from_pretrained(folder))
        model, found = model_class.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
    except SafetensorError as error:
        raise ValueError(f"The weights of {folder} can't be read, the file is damaged: {error}.") from error
    except StrictDataclassError as error:
        raise ValueError(f"{folder}: {' '.join(str(error).split())}") from error
    finally:
        logging.set_verbosity(verbosity)
    faults = {
        "missing": found["missing_keys"],
        "of another shape": [name for name, *_ in found["mismatched_keys"]],
        "of no use": found["unexpected_keys"],
    }
    said = [f"{what}: {listed(sorted(names), 3)}" for what, names in faults.items() if names]
    if said:
        raise ValueError(f"The weights of {folder} don't fit its configuration; {'; '.join(said)}.")
    return model


def _check_files(folder: Path, config: S2DConfig) -> None:
    """
    Refuses, before memory is taken, weights that lie elsewhere, and a configuration of another size than they are.

    Raises:
        ValueError: if they are not those of the configuration.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        try:
            names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{index} is damaged ({error or type(error).__name__}).") from error
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{index} names files outside of the folder: {', '.join(sorted(names))}.")
    files = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    size = sum(path.stat().st_size for path in files)
    width = config.hidden_size
    wanted = config.num_hidden_layers * width * (4 * width + 2 * config.intermediate_size)  # and some more
    wanted += (config.image_size // config.patch_size) ** 2 * width
    if files and wanted > 8 * size + _SMALL:  # less than a bit for each
        raise ValueError(
            f"The weights of {folder} don't fit its configuration, which asks for {wanted:,} numbers and more; its "
            f"files have {size:,} bytes."
        )


@contextmanager
def errors_named(model: str | os.PathLike) -> Iterator[None]:
    """What is wrong with a model's files, in an error that names the model."""
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:  # each says what it is about
        if isinstance(error, RecursionError):  # brackets in brackets
            raise ValueError(f"{model}: a JSON file of it is nested too deeply.") from error
        raise
    except ValueError as error:
        if os.path.basename(os.path.normpath(model)) in str(error):
            raise
        raise ValueError(f"{model}: {' '.join(str(error).split())}") from error
    except Exception as error:  # lists where tables should be, and whatever else JSON may hold
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{model} can't be loaded, a setting of it is no setting ({what}).") from error


def check_model_type(folder: str | os.PathLike, **arguments: Any) -> None:
    """
    Args:
        folder (`str` or `os.PathLike`): A model's folder or its name on the Hub.
        arguments: For `PretrainedConfig.get_config_dict`: `revision`, `token` and so on.

    Raises:
        OSError: if there is no such model.
        ValueError: if it is no S2D model.
    """
    config, _ = PretrainedConfig.get_config_dict(folder, **arguments)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != S2DConfig.model_type:
        raise ValueError(f"{folder} is no S2D model: the `model_type` in its config.json is {kind!r}.")


def hide_loading_bars() -> None:
    """Hides transformers' bars over a model's tensors, which are loaded in a second, but not those of downloads."""
    if not are_progress_bars_disabled():
        logging.disable_progress_bar()  # of the Hub's client, too
        enable_progress_bars()


__all__ = ["check_model_type", "errors_named", "hide_loading_bars", "load_whole_model"]
