"""From a checked folder to a repository on the Hub: what changes there, one commit, a tag."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_session, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from ..configuration_s2d import S2DConfig
from .cards import CARD_NAME, pinned_revisions
from .folders import CheckOptions, FolderReport, check_folder

# https://semver.org
_SEMVER = re.compile(
    r"v?((?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*))*)?"
    r"(?:\+[\da-zA-Z-]+(?:\.[\da-zA-Z-]+)*)?)"
)
# what a new repository may have without being somebody's model
_BEGINNINGS = {".gitattributes", "README.md", "LICENSE"}
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
# every repository begins with one; another one would change how its large files are stored
_KEPT = ".gitattributes"
_HUBS_OWN = "the Hub's is kept"
# the Hub takes larger files through LFS only
_GIT_LIMIT = 10 * 2**20


class PublishingError(RuntimeError):
    """An upload that is refused or that failed; the message says why and what to do."""


@dataclass(frozen=True)
class FileChange:
    """
    What happens to a file of the repository.

    Args:
        name (`str`): Its path there.
        status (`str`): `"new"`, `"changed"`, `"unchanged"`, `"removed"`, `"the Hub's is kept"`, or `"not compared"`.
        size (`int`): Its size in bytes; where it is removed, of the file on the Hub.
        is_lfs (`bool`): Whether it is stored as a large file. Of new files this is expected, and the Hub decides.
    """

    name: str
    status: str
    size: int
    is_lfs: bool


@dataclass
class UploadPlan:
    """
    What an upload would do.

    Args:
        repo_id (`str`): The repository.
        changes (`list[FileChange]`): What happens to its files.
        tag (`str`, *optional*): The tag that the commit gets.
        parent (`str`, *optional*): The commit that it follows; `None` for a new repository.
        creates (`bool`): Whether the repository is created.
        not_compared (`str`, *optional*): Why the repository could not be looked at.
    """

    repo_id: str
    changes: list[FileChange] = field(default_factory=list)
    tag: str | None = None
    parent: str | None = None
    creates: bool = False
    not_compared: str | None = None

    def __str__(self) -> str:
        width = max((len(change.name) for change in self.changes), default=4)
        lines = [f"{self.repo_id}{' (no repository yet)' if self.creates else ''}:"]
        lines.append(f"  {'file':{width}}  {'size':>10}  stored  on the Hub")
        for change in self.changes:
            stored = "LFS" if change.is_lfs else "git"
            lines.append(f"  {change.name:{width}}  {format_size(change.size):>10}  {stored:6}  {change.status}")
        sent = [change for change in self.changes if change.status not in ("unchanged", "removed", _HUBS_OWN)]
        total = format_size(sum(change.size for change in sent))
        lines.append(f"  {len(sent)} of {len(self.changes)} files to upload, {total}")
        if self.not_compared is not None:
            lines.append(f"  The repository on the Hub was not compared: {self.not_compared}")
        if self.tag is not None:
            lines.append(f"  Tag: {self.tag}")
        return "\n".join(lines)


@dataclass
class PublishResult:
    """
    What [`publish_folder`] did.

    Args:
        report ([`FolderReport`]): What was found in the folder.
        plan ([`UploadPlan`]): What was, or in a dry run would be, uploaded.
        commit ([`~huggingface_hub.CommitInfo`] or `Future`, *optional*): The commit; `None` in a dry run.
    """

    report: FolderReport
    plan: UploadPlan
    commit: CommitInfo | Future | None = None


def publish_folder(
    folder: str | Path,
    repo_id: str,
    *,
    version: str | None = None,
    private: bool | None = None,
    dry_run: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    options: CheckOptions | None = None,
    keep: Sequence[str] = (),
    allow_missing: bool = False,
    allow_other_labels: bool = False,
    blocking: bool = True,
    say: Callable[[str], None] = print,
) -> PublishResult:
    """
    Checks a model's folder and uploads it in one commit: weights, code, processors, landmark encoder and card. Files
    of the repository that are not in the folder any more are removed; its `.gitattributes` stays as it is.

    Args:
        folder (`str` or `Path`): The model's folder; see [`check_folder`] for what it must be.
        repo_id (`str`): `namespace/name`. The repository is created if there is none.
        version (`str`, *optional*): The semantic version that the commit is tagged with: `0.1.0` gives `v0.1.0`.
        private (`bool`, *optional*): Whether a new repository is private.
        dry_run (`bool`): Check and show everything, and write nothing. Works without network and token.
        token (`str`, *optional*): By default the one of `hf auth login` or `HF_TOKEN`.
        revision (`str`, *optional*): The branch. By default `main`.
        commit_message (`str`, *optional*): By default the version or the folder's name.
        options ([`CheckOptions`], *optional*): How the folder is checked.
        keep (`Sequence[str]`): Patterns of files of the repository that are not removed, as huggingface_hub's
            `ignore_patterns`: `runs/` and `runs/*` are all that is in the folder.
        allow_missing (`bool`): Upload a draft whose card is not complete. It is said what is missing.
        allow_other_labels (`bool`): Upload over a model of other labels.
        blocking (`bool`): Wait until everything is uploaded.
        say (`Callable[[str], None]`): Gets what is to be shown.

    Returns:
        [`PublishResult`]. With `blocking=False`, its `commit` is a `Future`.

    Raises:
        ValueError: if the folder has problems (all are listed), or `repo_id` or `version` is malformed.
        PublishingError: if the repository holds another architecture, other labels or the tag already, if the card
            names a revision that is not there, or if there is no token, no right to write, or no network.
    """
    _check_repo_id(repo_id)
    tag = None if version is None else version_tag(version)
    report = check_folder(folder, repo_id=repo_id, **vars(options or CheckOptions()))
    report.raise_for_problems(allow_missing)
    say(str(report))
    api = HfApi(token=token, library_name="s2d_hf")
    if not dry_run and (token or get_token()) is None:
        raise PublishingError("There is no token to write with: run `hf auth login`, or set `HF_TOKEN`.")
    plan = plan_upload(
        api, report, repo_id, tag, revision, private, keep, allow_other_labels, must_compare=not dry_run
    )
    say(str(plan))
    if dry_run:
        say("Nothing was uploaded: this was a dry run.")
        return PublishResult(report, plan)
    message = commit_message or f"Upload {tag or report.folder.resolve().name}"

    def upload() -> CommitInfo:
        return _upload(api, report, plan, private, revision, message)

    if not blocking:
        return PublishResult(report, plan, api.run_as_future(upload))
    commit = upload()
    say(f"Uploaded: {commit.commit_url}{'' if tag is None else f', tagged {tag}'}")
    return PublishResult(report, plan, commit)


def version_tag(version: str) -> str:
    """
    The tag of a version: `0.1.0` or `v0.1.0` gives `v0.1.0`.

    Raises:
        ValueError: if it is no semantic version.
    """
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise ValueError(f"`version` must be a semantic version such as 0.1.0 or 1.0.0-rc.1, got {version!r}.")
    return f"v{match.group(1)}"


def plan_upload(
    api: HfApi,
    report: FolderReport,
    repo_id: str,
    tag: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    keep: Sequence[str] = (),
    allow_other_labels: bool = False,
    must_compare: bool = True,
) -> UploadPlan:
    """
    Compares a checked folder with its repository. Reads only.

    Args:
        api ([`~huggingface_hub.HfApi`]): The client, with its token.
        report ([`FolderReport`]): The folder.
        must_compare (`bool`): Fail where the repository can't be looked at, instead of saying so in the plan.
        repo_id, tag, revision, private, keep, allow_other_labels: As for [`publish_folder`].

    Raises:
        PublishingError: if the folder must not go into this repository, its card names a revision that won't be
            there, or the repository can't be looked at.
    """
    plan = UploadPlan(repo_id, tag=tag)
    tags: set[str] = set()
    try:
        with _explained(repo_id, revision):
            try:
                info = api.model_info(repo_id, revision=revision, files_metadata=True)
            except RepositoryNotFoundError:
                info, plan.creates = None, True
            if info is not None:
                _refuse_other_repository(api, report, info, revision, allow_other_labels)
                tags = {ref.name for ref in api.list_repo_refs(repo_id).tags}
                if tag in tags:
                    raise PublishingError(f"{repo_id} has the tag {tag} already: give another version.")
                if private is not None and bool(info.private) != private:
                    state = "private" if info.private else "public"
                    text = f"{repo_id} is {state} already: change that in its settings, or leave `private` out."
                    raise PublishingError(text)
    except _NotReached as error:
        if must_compare:
            raise PublishingError(str(error)) from error
        plan.not_compared = str(error)
        plan.changes = [_change(name, path, None, "not compared") for name, path in report.files.items()]
        return plan
    _refuse_pinned(report, tags | {tag or ""})
    remote = {} if info is None else {sibling.rfilename: sibling for sibling in info.siblings or ()}
    plan.parent = None if info is None else info.sha
    for name, path in report.files.items():
        change = _change(name, path, remote.get(name), "new")
        if name == _KEPT and (change.status == "changed" or plan.creates):
            change = replace(change, status=_HUBS_OWN)
        plan.changes.append(change)
    for name in filter_repo_objects(sorted(remote.keys() - report.files.keys()), ignore_patterns=[_KEPT, *keep]):
        plan.changes.append(FileChange(name, "removed", remote[name].size or 0, remote[name].lfs is not None))
    return plan


def format_size(size: int) -> str:
    """Bytes for people: `981.8 kB`."""
    value, units = float(size), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


class _NotReached(Exception):
    """The Hub could not be asked."""


def _check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"`repo_id`: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"`repo_id` must be namespace/name, got {repo_id!r}.")


def _change(name: str, path: Path, sibling: Any, status: str) -> FileChange:
    size = path.stat().st_size
    is_lfs = name.endswith(".safetensors") or size > _GIT_LIMIT
    if sibling is not None:
        is_lfs = sibling.lfs is not None
        status = "unchanged" if _is_same(path, size, sibling) else "changed"
    return FileChange(name, status, size, is_lfs)


def _is_same(path: Path, size: int, sibling: Any) -> bool:
    if sibling.size != size:
        return False
    if sibling.lfs is not None:
        return _digest(path, hashlib.sha256()) == sibling.lfs.sha256
    # as git names a file's content
    return _digest(path, hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)) == sibling.blob_id


def _digest(path: Path, digest: Any) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _refuse_other_repository(
    api: HfApi, report: FolderReport, info: ModelInfo, revision: str | None, allow_other_labels: bool
) -> None:
    names = {sibling.rfilename for sibling in info.siblings or ()}
    if "config.json" not in names:
        others = sorted(names - _BEGINNINGS)
        if others:
            raise PublishingError(
                f"{info.id} holds files and no model ({', '.join(others[:5])}): choose another repository."
            )
        return
    path = api.hf_hub_download(info.id, "config.json", revision=info.sha or revision)
    try:
        remote = json.loads(Path(path).read_text(encoding="utf-8"))
        model_type, architectures = remote.get("model_type"), remote.get("architectures")
        labels = {int(i): label for i, label in (remote.get("id2label") or {}).items()}
    except (ValueError, AttributeError) as error:
        text = f"{info.id} has a config.json that can't be read ({error}): choose another repository."
        raise PublishingError(text) from error
    config = cast(S2DConfig, report.config)  # without one, the folder has been refused
    if model_type != config.model_type or architectures != config.architectures:
        raise PublishingError(
            f"{info.id} holds another architecture, {model_type} {architectures}, and the folder has "
            f"{config.model_type} {config.architectures}: choose another repository."
        )
    if labels != dict(config.id2label) and not allow_other_labels:
        raise PublishingError(
            f"{info.id} holds a model of other labels, {', '.join(labels[i] for i in sorted(labels))}, and whoever "
            "uses it would get wrong results: choose another repository, or allow other labels."
        )


def _refuse_pinned(report: FolderReport, tags: set[str]) -> None:
    """The code of a card that pins a revision must run once the card is there."""
    card = report.files.get(CARD_NAME)
    for revision in [] if card is None else pinned_revisions(card.read_text(encoding="utf-8")):
        if revision != "main" and _COMMIT.fullmatch(revision) is None and revision not in tags:
            raise PublishingError(
                f"The card's code names revision {revision!r}, and the repository won't have it: publish as this "
                "version, or change the card."
            )


def _upload(
    api: HfApi, report: FolderReport, plan: UploadPlan, private: bool | None, revision: str | None, message: str
) -> CommitInfo:
    repo_id = plan.repo_id
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for change in plan.changes:
        if change.status == "removed":
            operations.append(CommitOperationDelete(change.name, is_folder=False))
        elif change.status not in ("unchanged", _HUBS_OWN):
            operations.append(CommitOperationAdd(change.name, str(report.files[change.name])))
    try:
        with _explained(repo_id, revision):
            parent = plan.parent
            if plan.creates:
                api.create_repo(repo_id, private=private)
                parent = api.model_info(repo_id, revision=revision).sha
            # nobody else's change since the comparison is written over
            commit = api.create_commit(
                repo_id, operations, commit_message=message, revision=revision, parent_commit=parent
            )
    except _NotReached as error:
        raise PublishingError(str(error)) from error
    if plan.tag is not None:
        try:
            with _explained(repo_id, revision):
                api.create_tag(repo_id, tag=plan.tag, revision=commit.oid)
        except (_NotReached, PublishingError) as error:
            raise PublishingError(
                f"The files are uploaded ({commit.commit_url}), but not tagged: {error} To tag them: "
                f"hf repos tag create {repo_id} {plan.tag} --revision {commit.oid}"
            ) from error
    return commit


def _transport_error() -> type[Exception]:
    """What the Hub's client raises without an answer: it is built on httpx, or in newer versions on httpx2."""
    package = type(get_session()).__module__.partition(".")[0]
    return sys.modules[package].HTTPError


@contextmanager
def _explained(repo_id: str, revision: str | None) -> Iterator[None]:
    """Says of the client's errors what a user can do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise _NotReached("the client is offline (HF_HUB_OFFLINE is set).") from error
    except LocalTokenNotFoundError as error:
        raise PublishingError("There is no token to write with: run `hf auth login`, or set `HF_TOKEN`.") from error
    except RevisionNotFoundError as error:
        raise PublishingError(f"{repo_id} has no branch {revision!r}: create it first.") from error
    except HfHubHTTPError as error:
        status = None if error.response is None else error.response.status_code
        said = f" (the Hub says: {error.server_message or error})"
        if status == 401:
            text = f"The token is missing or not valid: run `hf auth login`, or set `HF_TOKEN`{said}."
        elif status == 403:
            text = f"The token has no right to write to {repo_id}: take one that has{said}."
        elif status == 412:
            text = f"{repo_id} was changed meanwhile: look at the change, and publish again{said}."
        elif status == 409:
            text = f"{repo_id} has this already, or is being changed: look at it, and publish again{said}."
        elif status is not None and status >= 500:
            raise _NotReached(f"the Hub has an error of its own, try again later{said}.") from error
        else:
            text = f"The Hub refused this{said}."
        raise PublishingError(text) from error
    except (_transport_error(), ConnectionError, TimeoutError) as error:
        raise _NotReached(f"the Hub can't be reached ({type(error).__name__}: {error}).") from error


__all__ = [
    "FileChange",
    "PublishResult",
    "PublishingError",
    "UploadPlan",
    "format_size",
    "plan_upload",
    "publish_folder",
    "version_tag",
]
