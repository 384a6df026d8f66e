"""Whether a model's folder can be published: all checks, and one report."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..configuration_s2d import S2DConfig
from ..labels import label_names
from ..modeling_s2d import CLASSIFIERS
from .cards import CARD_NAME, find_card_problems, linked_files
from .code_files import check_syntax, find_code, imported_packages
from .files import PROCESSOR_NAMES, find_unreadable, is_left_out, sort_files
from .probe import create_environment, probe_folder
from .problems import Problem
from .traces import find_home_folders, find_tokens
from .weights import MAX_SHARD_SIZE, WeightsReport, check_landmark_encoder, check_weights

Probe = Callable[[Path, Iterable[str]], list[Problem]]
_JSON_NAMES = ("config.json", *PROCESSOR_NAMES.values())


@dataclass
class FolderReport:
    """
    What a folder holds, and what keeps it from being published.

    Args:
        folder (`Path`): The folder.
        files (`dict[str, Path]`): What goes up: the name in the repository and the file.
        left_out (`list[str]`): What is there and doesn't go up.
        problems (`list[Problem]`): What is wrong. Empty if it can be published.
        warnings (`list[Problem]`): What keeps it from nothing, and should be looked at: home folders in texts.
        config ([`S2DConfig`], *optional*): The model's configuration, if it can be read.
        weights ([`WeightsReport`], *optional*): What its weights are.
        was_run (`bool`): Whether the model was loaded and run in a process of its own.
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    config: S2DConfig | None = None
    weights: WeightsReport | None = None
    was_run: bool = False

    @property
    def missing(self) -> list[Problem]:
        """The problems that a draft may have: what is not written yet."""
        return [problem for problem in self.problems if problem.is_missing]

    @property
    def errors(self) -> list[Problem]:
        """All other problems."""
        return [problem for problem in self.problems if not problem.is_missing]

    def raise_for_problems(self, allow_missing: bool = False) -> None:
        """
        Raises:
            ValueError: if there are problems; the message lists all of them. With `allow_missing`, a draft's parts
                that are not written yet are none.
        """
        problems = self.errors if allow_missing else self.problems
        if problems:
            raise ValueError(f"{self.folder} can't be published:\n" + "\n".join(f"- {p}" for p in problems))

    def __str__(self) -> str:
        lines = [f"{self.folder}:"]
        if self.config is not None:
            labels = ", ".join(label_names(self.config))
            lines.append(f"  {' '.join(self.config.architectures or ())}, labels: {labels}")
        if self.weights is not None and self.weights.dtypes:
            dtypes = ", ".join(f"{count} tensors of {dtype}" for dtype, count in self.weights.dtypes.items())
            lines.append(f"  {self.weights.num_parameters:,} parameters ({dtypes})")
        if self.left_out:
            lines.append(f"  left out: {', '.join(self.left_out)}")
        lines.append(f"  {'' if self.was_run else 'not '}run with its own code alone")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  - {problem}" for problem in self.problems] or ["  nothing is wrong"]
        return "\n".join(lines)


@dataclass(frozen=True)
class CheckOptions:
    """The options of [`check_folder`] for those who call it through [`publish_folder`]; see there."""

    card: str | Path | None = None
    leave_out: Sequence[str] = ()
    leave_out_strays: bool = False
    python: str | Path | None = None
    fresh_environment: bool = False
    probe: Probe | None = None


def check_folder(
    folder: str | Path,
    *,
    repo_id: str | None = None,
    card: str | Path | None = None,
    leave_out: Sequence[str] = (),
    leave_out_strays: bool = False,
    python: str | Path | None = None,
    fresh_environment: bool = False,
    max_shard_size: int = MAX_SHARD_SIZE,
    probe: Probe | None = None,
) -> FolderReport:
    """
    Checks a model's folder before it is uploaded, and reports all problems at once: files that don't belong there or
    are pickles, code, configuration, processors, weights, landmark encoder and card, access tokens in any of them, and
    whether a stranger can load it: in a new process in which `s2d_hf` can't be imported, with the folder's code alone,
    without network, `pipeline` must give the scores of made frames without a warning. Texts that are too large, and
    pipes in their place, are told first, and nothing else is checked until they are gone.

    Args:
        folder (`str` or `Path`): The model's folder. Nothing is written into it.
        repo_id (`str`, *optional*): Where it is uploaded to. The card's code must name it.
        card (`str` or `Path`, *optional*): A model card to take instead of the folder's `README.md`.
        leave_out (`Sequence[str]`): Patterns of what is in the folder and stays there (`*.log`, `checkpoint-*`).
        leave_out_strays (`bool`): Leave out everything that doesn't belong, instead of naming it as a problem.
        python (`str` or `Path`, *optional*): The interpreter for the new process, of another environment for instance.
        fresh_environment (`bool`): Make a new virtual environment for it, with the packages that the folder's code
            needs newly installed by pip. Needs network.
        max_shard_size (`int`): How many bytes of tensors a file may have.
        probe (`Callable[[Path, Iterable[str]], list[Problem]]`, *optional*): Takes the place of loading and running:
            gets a folder with what goes up and the labels, returns the problems.

    Raises:
        NotADirectoryError: if there is no such folder.
        FileNotFoundError: if there is no file `card`.
        ValueError: if both `python` and `fresh_environment` are given.
        RuntimeError: if the fresh environment can't be made.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder {folder}.")
    if card is not None and not Path(card).is_file():
        raise FileNotFoundError(f"There is no model card {card}.")
    if python is not None and fresh_environment:
        raise ValueError("`python` and `fresh_environment` contradict each other: give one of them.")
    card_file = folder / CARD_NAME if card is None else Path(card)
    read_first = [*_JSON_NAMES, *(path.name for path in folder.glob("*.py"))]
    texts = {name: folder / name for name in read_first if not is_left_out(name, leave_out)} | {CARD_NAME: card_file}
    unreadable = find_unreadable(texts)
    if unreadable:
        return FolderReport(folder, problems=unreadable)
    settings, unread = _read_settings(folder)
    code, wrong = find_code(folder, settings)
    wrong += check_syntax(folder, code)
    if unread or wrong:
        # which code is needed isn't known then, and none should pass for superfluous
        code = sorted({*code, *(path.name for path in folder.glob("*_s2d.py"))})
    sorted_files = sort_files(folder, code, _shown(card_file), leave_out, leave_out_strays)
    files = sorted_files.upload
    if card is not None:
        files[CARD_NAME] = card_file
    report = FolderReport(folder, dict(sorted(files.items())), sorted_files.left_out, sorted_files.problems)
    unreadable = find_unreadable(files)
    if unreadable:
        report.problems += unreadable
        return report
    refused = {problem.where.rstrip("/") for problem in report.problems}
    # what is checked is what goes up, not what happens to lie beside it
    with _staged(folder, files) as staged:
        found = _check_staged(report, staged, repo_id, max_shard_size)
        # what must not go up isn't missed as well
        report.problems += [problem for problem in found if problem.where not in refused]
        is_loadable = not any(p.where.endswith((".json", ".py")) for p in report.errors)
        if report.config is not None and is_loadable:
            labels = list(report.config.id2label.values())
            if probe is not None:
                report.problems += probe(staged, labels)
            elif fresh_environment:
                with tempfile.TemporaryDirectory() as place:
                    interpreter = create_environment(Path(place, "venv"), imported_packages(staged, code))
                    report.problems += probe_folder(staged, labels, interpreter)
            else:
                report.problems += probe_folder(staged, labels, python)
            report.was_run = True
        for name, path in report.files.items():
            report.problems += find_tokens(name, path)
            report.warnings += find_home_folders(name, path)
        # a reader knows the folder, not its copy
        named = [replace(p, text=p.text.replace(str(staged), str(folder))) for p in report.problems]
        report.problems = list(dict.fromkeys(named))
    return report


def _shown(card: Path) -> list[str]:
    try:
        return linked_files(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return []  # what is wrong with the card is said where it is checked


@contextmanager
def _staged(folder: Path, files: dict[str, Path]) -> Iterator[Path]:
    """A folder of the same name with links to some files, or copies where there are no links."""
    with tempfile.TemporaryDirectory() as place:
        staged = Path(place, folder.resolve().name or "model")
        staged.mkdir()
        for name, path in files.items():
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.symlink(path.resolve(), target)
            except OSError:
                shutil.copyfile(path, target)
        yield staged


def _read_settings(folder: Path) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    settings, problems = {}, []
    for name in _JSON_NAMES:
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it is no JSON object")
        except FileNotFoundError:
            what = "the model" if name == "config.json" else "both an image and a video processor"
            problems.append(Problem(name, f"It is not there: save {what} with `save_pretrained` into the folder."))
        except (ValueError, OSError) as error:
            problems.append(Problem(name, f"It can't be read ({error}): save it again with `save_pretrained`."))
        else:
            settings[name] = content
    return settings, problems


def _check_staged(report: FolderReport, folder: Path, repo_id: str | None, max_shard_size: int) -> list[Problem]:
    settings, problems = _read_settings(folder)
    code, found = find_code(folder, settings)
    problems += [*found, *check_syntax(folder, code)]
    config: S2DConfig | None = None
    model_class: Any = None
    if "config.json" in settings:
        config, model_class, found = _read_config(settings["config.json"])
        problems += found
    if config is not None:
        report.config = config
        problems += _check_processors(config, settings)
        encoders = {
            name: settings[name].get("landmark_encoder") for name in PROCESSOR_NAMES.values() if name in settings
        }
        problems += check_landmark_encoder(folder, config, encoders)
        report.weights = check_weights(folder, config, model_class, max_shard_size)
        problems += report.weights.problems
    card = folder / CARD_NAME
    if card.is_file():
        problems += find_card_problems(card, config, folder=folder, repo_id=repo_id)
    else:
        text = "There is no model card: write one (model_cards/template.md begins one)."
        problems.append(Problem(CARD_NAME, text, is_missing=True))
    return problems


def _read_config(content: dict[str, Any]) -> tuple[S2DConfig | None, Any, list[Problem]]:
    where, problems = "config.json", []
    if content.get("model_type") != S2DConfig.model_type:
        text = f"Its `model_type` is {content.get('model_type')!r}: this is no S2D model."
        return None, None, [Problem(where, text)]
    architectures = content.get("architectures")
    known = architectures if isinstance(architectures, list) and len(architectures) == 1 else [None]
    model_class = CLASSIFIERS.get(known[0])
    if model_class is None:
        text = f"`architectures` must be one of {', '.join(CLASSIFIERS)}, got {architectures!r}."
        return None, None, [Problem(where, text)]
    try:
        config = S2DConfig.from_dict(content)
    except Exception as error:  # validation has exceptions of its own in huggingface_hub
        return None, None, [Problem(where, f"It is no configuration of S2D: {' '.join(str(error).split())}")]
    labels = [config.id2label.get(i) for i in range(config.num_labels)]
    if None in labels or len(set(labels)) != len(labels):
        problems.append(Problem(where, f"`id2label` must have a label of its own for each class, got {labels}."))
    elif config.label2id != {label: i for i, label in enumerate(labels)}:
        problems.append(Problem(where, "`label2id` is not `id2label` the other way round."))
    elif labels == [f"LABEL_{i}" for i in range(len(labels))]:
        text = "The labels have no names: set `id2label` and `label2id`."
        problems.append(Problem(where, text, is_missing=True))
    return config, model_class, problems


def _check_processors(config: S2DConfig, settings: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    for kind, name in PROCESSOR_NAMES.items():
        if name not in settings:
            continue
        processor = settings[name]
        size = processor.get("crop_size") if processor.get("do_center_crop") else processor.get("size")
        expected = {"height": config.image_size, "width": config.image_size}
        if size not in (expected, {"shortest_edge": config.image_size}):
            yield Problem(name, f"It makes frames of {size}, and the model takes {config.image_size} pixels.")
        if kind == "video" and config.temporal_adapters and processor.get("num_frames") != config.num_frames:
            text = f"`num_frames` is {processor.get('num_frames')}, and the model's is {config.num_frames}."
            yield Problem(name, text)


__all__ = ["FolderReport", "Probe", "check_folder"]
