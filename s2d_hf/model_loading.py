"""Models for predictions: whole, or not at all."""

import os
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging


def load_whole_model(model_class: Any, folder: str | os.PathLike, **arguments) -> PreTrainedModel:
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
    said = [f"{what}: {_shown(names)}" for what, names in faults.items() if names]
    if said:
        raise ValueError(f"The weights of {folder} don't fit its configuration; {'; '.join(said)}.")
    return model


def _shown(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = ["load_whole_model"]
