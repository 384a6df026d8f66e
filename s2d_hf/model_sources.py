"""What a user names as a model (a folder, a model of the Hub, an authors' checkpoint), as something that loads."""

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from huggingface_hub import cached_assets_path, hf_hub_download, hf_hub_url, is_offline_mode, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from transformers.utils import logging

from . import __version__
from .conversion import convert_checkpoint
from .downloads import (
    CHECKPOINT_SUFFIXES,
    LANDMARK_BLOB,
    LIBRARY,
    checkpoints_in,
    fetch_checkpoint,
    find_landmark_file,
    is_hub_address,
    is_reachable,
    landmark_download,
)
from .errors import NotDownloadedError
from .labels import find_labels

logger = logging.get_logger(__name__)

# The authors' image model, which videos are given by averaging over the frames.
DEFAULT_MODEL = "hf://cyinen/S2D/pretrain-AffectNet-7.pth"


def find_model(
    source: str | os.PathLike,
    *,
    dataset: str | None = None,
    labels: Sequence[str] | None = None,
    landmark_weights: str | os.PathLike | None = None,
    num_attention_heads: int | None = None,
    adapter_num_heads: int = 8,
    needs_labels: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """
    The folder or the name on the Hub from which `from_pretrained` loads a model.

    An authors' checkpoint is converted, once, into huggingface_hub's assets cache; its folder there is named after
    its content and these arguments.

    Args:
        source (`str` or `os.PathLike`): A model's folder, a name on the Hub, or an authors' checkpoint: a file or
            `hf://OWNER/REPOSITORY[@REVISION]/FILE`.
        dataset (`str`, *optional*), labels (`Sequence[str]`, *optional*): The data set on which the checkpoint was
            trained, or its labels in order; see [`labels_in_name`] for what holds without.
        landmark_weights (`str` or `os.PathLike`, *optional*): The checkpoint's landmark detector; see
            [`convert_checkpoint`].
        num_attention_heads (`int`, *optional*), adapter_num_heads (`int`): See [`infer_config`].
        needs_labels (`bool`): Whether the model is to predict: a checkpoint without a classifier or of unknown labels
            is refused then.
        revision (`str`, *optional*), token (`str` or `bool`, *optional*): For the Hub.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if something can't be downloaded.
        ValueError: if the source can't be read, its labels are asked for, or the arguments don't fit each other.
    """
    name = os.path.expanduser(source)
    if dataset is not None and labels is not None:
        raise ValueError("`dataset` stands for `labels`: give one or the other.")
    if is_checkpoint(name):
        checkpoint = find_checkpoint(name, landmark_weights, revision, token)
    else:
        given = {
            "dataset": dataset,
            "labels": labels,
            "landmark_weights": landmark_weights,
            "num_attention_heads": num_attention_heads,
        }
        for argument in (argument for argument, value in given.items() if value is not None):
            raise ValueError(f"`{argument}` is for a checkpoint of the paper's authors, and {name} is none.")
        return _find_transformers_model(name, revision, token)
    arguments = {
        "labels": find_labels(dataset) if dataset is not None else labels and tuple(labels),
        "num_attention_heads": num_attention_heads,
        "adapter_num_heads": adapter_num_heads,
        "needs_labels": needs_labels,
        "named": name,
    }
    if landmark_weights is not None:
        landmark_weights = find_landmark_file(landmark_weights)
    return str(_converted(checkpoint, landmark_weights, arguments))


def is_checkpoint(source: str | os.PathLike) -> bool:
    """Whether a source is a checkpoint's file or address, and no folder and no name on the Hub."""
    name = os.path.expanduser(source)
    return is_hub_address(name) or os.path.isfile(name)


def find_checkpoint(
    source: str | os.PathLike,
    landmark_weights: str | os.PathLike | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Path:
    """
    The file of an authors' checkpoint, downloaded if need be; see [`find_model`].

    Raises:
        NotDownloadedError: if it can't be downloaded; it names the landmark detector, too, if that has yet to be.
        OSError, ValueError: see [`fetch_checkpoint`].
    """
    name = os.path.expanduser(source)
    if not is_hub_address(name):
        return Path(name)
    try:
        return fetch_checkpoint(name, revision, token)
    except NotDownloadedError as error:
        landmarks = landmark_download() if landmark_weights is None else None
        more = {} if landmarks is None else {"landmark_weights": landmarks}
        raise NotDownloadedError(error.what, error.reason, error.files | more) from None


def _find_transformers_model(name: str, revision: str | None, token: str | bool | None) -> str:
    """
    A model's folder, or its name on the Hub after a look whether it is one there.

    Raises:
        OSError, ValueError: where transformers would try again and again, or speak of `config.json`.
    """
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise ValueError(f"The folder {name} holds no model: there is no config.json in it.")
        return name
    is_name = re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None
    if not is_name or name.lower().endswith(CHECKPOINT_SUFFIXES):
        raise FileNotFoundError(
            f"There is no model folder and no checkpoint {name}; a model of the Hub is named OWNER/NAME."
        )
    address = hf_hub_url(name, "config.json", revision=revision)
    if not is_reachable(address):
        try:
            return snapshot_download(name, revision=revision, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"{urlsplit(address).netloc} is out of reach"
            raise FileNotFoundError(
                f"There is no model folder {name}, the Hub's model of that name is not on this machine, and {reason}."
            ) from error
    try:
        hf_hub_download(name, "config.json", revision=revision, token=token)
    except EntryNotFoundError as error:
        listed = checkpoints_in(name, revision, token)
        raise ValueError(f"{name} on the Hub is no model of transformers. {listed}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"There is no model folder {name}, and on the Hub no model of that name, or not for you: see "
            "`hf auth login`."
        ) from error
    return name


def _converted(checkpoint: Path, landmark_weights: Path | None, arguments: dict) -> Path:
    """The folder of a checkpoint in the cache, after its conversion if need be."""
    identity = [
        __version__,
        _digest(checkpoint),
        LANDMARK_BLOB if landmark_weights is None else _digest(landmark_weights),
        # labels may come from the name
        *(repr(arguments[name]) for name in ("labels", "num_attention_heads", "adapter_num_heads", "needs_labels")),
        checkpoint.name,
    ]
    key = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).hexdigest()
    cache = cached_assets_path(LIBRARY, namespace="converted")
    folder = cache / key[:32]
    with FileLock(cache / f"{key[:32]}.lock"):
        if not (folder / "config.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            unfinished = cache / f"{key[:32]}.unfinished"
            report = convert_checkpoint(checkpoint, unfinished, landmark_weights, overwrite=True, **arguments)
            unfinished.rename(folder)
            logger.warning(f"Converted {arguments['named']}, once; the model is kept in {folder}.")
            for note in report.notes:
                logger.warning(f"{arguments['named']}: {note}")
    return folder


def _digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


__all__ = ["DEFAULT_MODEL", "find_checkpoint", "find_model", "is_checkpoint"]
