"""Files that are fetched once: checkpoints from the Hub, and the authors' landmark detector from their repository."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from huggingface_hub import (
    HfApi,
    cached_assets_path,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    is_offline_mode,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from transformers.utils import logging

from .checkpoints import read_checkpoint
from .errors import NotDownloadedError
from .file_names_s2d import is_url

logger = logging.get_logger(__name__)

HUB_SCHEME = "hf://"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors")
LIBRARY = "s2d_hf"  # its folder in huggingface_hub's assets cache

# The landmark detector of the paper, in the authors' code repository at a commit that stays as it is.
LANDMARK_ADDRESS = (
    "https://raw.githubusercontent.com/MSA-LMC/S2D/e1b5e5dfb57ab15f70103c933b346bfa62943159/"
    "landmark/mobilefacenet_model_best.pth.tar"
)
LANDMARK_BLOB = "3f7d78be085b0dc33ec914bc1d70fc991ba04bfa"

_PATIENCE = 10  # seconds, for a host that does not answer

_USE = (
    "The faces that such models were trained on are for research only. The labels are expressions as onlookers see "
    "them, not feelings: no decisions about people may rest on them."
)


@dataclass(frozen=True)
class HubFile:
    """A file in a model repository of the Hub, as `hf://OWNER/REPOSITORY[@REVISION]/FILE` names it."""

    repo_id: str
    name: str
    revision: str | None = None

    @property
    def url(self) -> str:
        return hf_hub_url(self.repo_id, self.name, revision=self.revision)


def is_hub_address(source: str) -> bool:
    """Whether `source` is written as huggingface_hub's file system writes addresses."""
    return source.startswith(HUB_SCHEME)


def parse_hub_address(address: str) -> HubFile:
    """
    Raises:
        ValueError: if it is not of the form `hf://OWNER/REPOSITORY[@REVISION]/FILE`.
    """
    wrong = f"{address} is not of the form hf://OWNER/REPOSITORY[@REVISION]/FILE"
    rest = address.removeprefix(HUB_SCHEME)
    if rest.startswith(("datasets/", "spaces/", "buckets/")):
        raise ValueError(f"{wrong}: it names no model repository.")
    # a revision holds slashes as %2F, but for those of pull requests, which the Hub itself writes so
    match = re.fullmatch(
        r"(?:models/)?([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.*))?", rest, flags=re.DOTALL
    )
    if match is None:
        raise ValueError(f"{wrong}.")
    repo_id, revision, name = match.groups()
    if not name:
        listed = checkpoints_in(repo_id, revision and unquote(revision))
        raise ValueError(f"{wrong}: it names no file. {listed or f'A model of the Hub is named {repo_id}.'}")
    return HubFile(repo_id, name, revision and unquote(revision))


def fetch_checkpoint(address: str, revision: str | None = None, token: str | bool | None = None) -> Path:
    """
    An authors' checkpoint from the Hub: downloaded once, by huggingface_hub, into its cache.

    Before the first download, a message says what is fetched, how large it is, under which licence and for which use,
    and where it is kept.

    Args:
        address (`str`): `hf://OWNER/REPOSITORY[@REVISION]/FILE`.
        revision (`str`, *optional*): Where the address says none; `main` by default.
        token (`str` or `bool`, *optional*): As huggingface_hub takes it.

    Raises:
        NotDownloadedError: if it is not in the cache and can't be fetched.
        OSError: if the download fails otherwise.
        ValueError: if there is no such repository, revision or file; the message lists the checkpoints that there are.
    """
    file = parse_hub_address(address)
    file = HubFile(file.repo_id, file.name, file.revision or revision)
    cached = try_to_load_from_cache(file.repo_id, file.name, revision=file.revision)
    if not is_reachable(file.url):  # the client would try again and again
        if isinstance(cached, str):
            return Path(cached)
        raise _not_downloaded(address, "model", file.url)
    if not isinstance(cached, str):
        _announce(address, file, token)
    try:
        return Path(hf_hub_download(file.repo_id, file.name, revision=file.revision, token=token))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _not_downloaded(address, "model", file.url) from error
    except EntryNotFoundError as error:
        listed = checkpoints_in(file.repo_id, file.revision, token)
        raise ValueError(f"{file.repo_id} on the Hub has no file {file.name}. {listed}") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{file.repo_id} on the Hub has no revision {file.revision}.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"There is no model repository {file.repo_id} on the Hub, or not for you: see `hf auth login`."
        ) from error
    except HFValidationError as error:
        raise ValueError(f"{address}: {error}") from error


def is_reachable(address: str) -> bool:
    """Whether the host of an address answers at all; never with `HF_HUB_OFFLINE`."""
    if is_offline_mode():
        return False
    host = urlsplit(address)
    try:
        get_session().head(f"{host.scheme}://{host.netloc}", timeout=_PATIENCE)
    except Exception:  # the client's errors have no base class
        return False
    return True


def list_checkpoints(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> list[str]:
    """The files of a repository of the Hub that may be checkpoints, in order."""
    names = HfApi(token=token).list_repo_files(repo_id, revision=revision)
    return sorted(name for name in names if name.lower().endswith(CHECKPOINT_SUFFIXES))


def checkpoints_in(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> str:
    """A sentence that lists the checkpoints of a repository, or nothing if they can't be listed."""
    try:
        names = list_checkpoints(repo_id, revision, token)
    except Exception:  # the client's errors have no base class; the file is missing, whatever the list would say
        return ""
    if not names:
        return "It has no checkpoints at all."
    return "It has these checkpoints:" + "".join(f"\n  {HUB_SCHEME}{repo_id}/{name}" for name in names)


def _announce(address: str, file: HubFile, token: str | bool | None) -> None:
    """Says what is about to be downloaded; nothing where the Hub doesn't tell, as the download says why."""
    try:
        info = HfApi(token=token).model_info(file.repo_id, revision=file.revision, files_metadata=True)
    except Exception:  # the client's errors have no base class; the download will meet the same one
        return
    size = next((item.size for item in info.siblings or () if item.rfilename == file.name), None)
    if size is None:
        return
    licence = getattr(info.card_data, "license", None) or "not named"
    logger.warning(
        f"Downloading {address}, {size / 1e6:.0f} MB, once; it is kept in {constants.HF_HUB_CACHE}. Its licence, as "
        f"its page says: {licence}. {_USE}"
    )


def _not_downloaded(what: str, argument: str, address: str) -> NotDownloadedError:
    host = urlsplit(address).netloc
    reason = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"{host} is out of reach"
    return NotDownloadedError(what, reason, {argument: address})


def find_landmark_file(given: str | os.PathLike | None = None) -> Path:
    """
    The file of a landmark detector: a path, or an address from which it is downloaded once.

    Args:
        given (`str` or `os.PathLike`, *optional*): A path, `hf://OWNER/REPOSITORY[@REVISION]/FILE` or an http(s)
            address. By default the authors', whose content is checked before it is opened.

    Raises:
        FileNotFoundError: if there is no such file.
        NotDownloadedError: if it is not in the cache and can't be fetched.
        OSError: if the download fails otherwise.
        ValueError: if what arrives is not the authors' file.
    """
    if given is None:
        return _download(LANDMARK_ADDRESS, "the authors' landmark detector", blob=LANDMARK_BLOB)
    name = str(given)
    if is_hub_address(name):
        try:
            return fetch_checkpoint(name)
        except NotDownloadedError as error:
            raise _not_downloaded(name, "landmark_weights", error.files["model"]) from None
    if is_url(name):
        path = _download(name, name)
        try:
            read_checkpoint(path)
        except ValueError as error:  # a page of an error, say, which must not stay
            path.unlink()
            raise ValueError(f"What {name} gave is no checkpoint, and was deleted: {error}") from error
        return path
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"`landmark_weights`: there is no file {name}.")
    return path


def landmark_download() -> str | None:
    """The address from which the authors' landmark detector has yet to be downloaded; `None` where it is here."""
    return None if _place(LANDMARK_ADDRESS, LANDMARK_BLOB).is_file() else LANDMARK_ADDRESS


def _place(address: str, blob: str | None) -> Path:
    """Where a download is kept."""
    key = blob or hashlib.sha256(address.encode()).hexdigest()
    folder = cached_assets_path(LIBRARY, namespace="downloads", subfolder=key[:16])
    return folder / (Path(urlsplit(address).path).name or "file")


def _download(address: str, what: str, blob: str | None = None) -> Path:
    """
    A file from somewhere else than the Hub, in huggingface_hub's assets cache; a download that broke off goes on.

    With `blob`, Git's id of the content, it is checked whenever it is asked for.
    """
    path = _place(address, blob)
    partial = path.with_name(path.name + ".part")
    with FileLock(path.with_name(".lock")):
        if not path.is_file():
            _fetch(address, what, partial)
            _check_blob(partial, blob, address)
            os.replace(partial, path)
        _check_blob(path, blob, address)
    return path


def _fetch(address: str, what: str, partial: Path) -> None:
    if not is_reachable(address):
        raise _not_downloaded(what, "landmark_weights", address)
    logger.warning(
        f"Downloading {what} from {address}{_size_in_words(address)}, once; it is kept in {partial.parent}. No "
        f"licence is named there. {_USE}"
    )
    try:
        try:
            _resume(address, partial)
        except HfHubHTTPError:
            if partial.stat().st_size == 0:
                raise
            # what is here may not be a beginning of what is there
            partial.unlink()
            _resume(address, partial)
    except HfHubHTTPError as error:
        raise OSError(
            f"{what} can't be downloaded from {address}: {error}. Pass the path of a copy as `landmark_weights`."
        ) from error
    except OSError:  # a full disk, say
        raise
    except Exception as error:  # no connection, or a broken one: the client's errors have no base class
        raise _not_downloaded(what, "landmark_weights", address) from error


def _size_in_words(address: str) -> str:
    try:
        size = get_hf_file_metadata(address).size
    except Exception:  # the client's errors have no base class; the download will meet the same one
        size = None
    return "" if size is None else f", {size / 1e6:.1f} MB"


def _resume(address: str, partial: Path) -> None:
    with open(partial, "ab") as file:
        http_get(address, file, resume_size=file.tell(), displayed_filename=partial.stem)


def _check_blob(path: Path, blob: str | None, address: str) -> None:
    """
    Raises:
        ValueError: if the content has not the id that Git gives it; the file is deleted.
    """
    if blob is None:
        return
    content = path.read_bytes()
    found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found != blob:
        path.unlink()
        raise ValueError(
            f"What {address} gave is not the file that it should be (Git's id of the content is {found}, and not "
            f"{blob}): it was deleted, unopened. Try again, or pass the path of a copy as `landmark_weights`."
        )


__all__ = [
    "CHECKPOINT_SUFFIXES",
    "LANDMARK_ADDRESS",
    "LANDMARK_BLOB",
    "LIBRARY",
    "HubFile",
    "checkpoints_in",
    "fetch_checkpoint",
    "find_landmark_file",
    "is_hub_address",
    "is_reachable",
    "landmark_download",
    "list_checkpoints",
    "parse_hub_address",
]
