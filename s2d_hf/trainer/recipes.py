"""What a training is told: recipe files and the command line, together as the arguments of each stage."""

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..data.augmentation import FILL, INTERPOLATIONS, ORDERS
from ..data.paper_datasets import PAPER_DATASETS, find_paper_dataset
from ..labels import LABELS
from .arguments import S2DTrainingArguments
from .option_parser import OptionParser

STAGES = ("static", "dynamic")
STAGE_CHOICES = (*STAGES, "both")
LANDMARK_STAGE = "landmarks"
SECTIONS = (LANDMARK_STAGE, *STAGES)
# what fields were called in version 0.1
RENAMED_FIELDS = {"benchmark": "paper_dataset"}


@dataclass
class ModelArguments:
    """Which model is trained, and from where it starts."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Where the weights start. Static stage: a ViT, ViT-MAE or S2D image model; new weights if not "
            "given. Dynamic stage: an S2D image model, or an S2D video model to train on. A folder, a name on the "
            "Hub, or a checkpoint of the paper's authors: a file or hf://OWNER/REPOSITORY[@REVISION]/FILE."
        },
    )
    checkpoint_dataset: str | None = field(
        default=None,
        metadata={
            "help": "The data set on which a checkpoint of the paper's authors was trained, for its labels, if its "
            f"name doesn't say so: {', '.join(LABELS)}."
        },
    )
    config_overrides: dict | str | None = field(
        default=None, metadata={"help": "Fields of S2DConfig to change, in JSON on the command line."}
    )
    landmark_encoder: str | None = field(
        default=None,
        metadata={
            "help": "The landmark encoder: a folder or Hub name of an S2D model, a checkpoint of the paper's authors, "
            "or the file or address of their MobileFaceNet. By default that of `model_name_or_path`."
        },
    )
    freeze_backbone: bool = field(
        default=True,
        metadata={"help": "Dynamic stage: tune only what the paper tunes, under a tenth."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "`eager`, `sdpa`, `flash_attention_2` or `flex_attention`."}
    )

    def __post_init__(self):
        self.config_overrides = _as_mapping("config_overrides", self.config_overrides)


@dataclass
class DataArguments:
    """
    What is read for training and evaluation.

    Raises:
        ValueError: if a value is out of range, or values contradict each other.
    """

    train_data: str | None = field(
        default=None,
        metadata={
            "help": "A folder of class folders, a .csv or .jsonl with path and label, or a dataset of the Hub. Videos "
            "(files or folders of frames) in the dynamic stage, images in the static stage."
        },
    )
    validation_data: str | None = field(
        default=None, metadata={"help": "Evaluated during training (`eval_strategy`), in the same forms."}
    )
    test_data: str | None = field(default=None, metadata={"help": "Evaluated once at the end, in the same forms."})
    train_split: str = field(default="train", metadata={"help": "Split of `train_data` if that is on the Hub."})
    validation_split: str = field(default="validation", metadata={"help": "Split of a `validation_data` on the Hub."})
    test_split: str = field(default="test", metadata={"help": "Split of a `test_data` on the Hub."})
    paper_dataset: str | None = field(
        default=None,
        metadata={
            "help": "Train and test on a data set of the paper, in the layout in which it is distributed: "
            f"{', '.join(PAPER_DATASETS)}. Instead of `train_data` and `test_data`."
        },
    )
    data_root: str | None = field(default=None, metadata={"help": "The folder of the `paper_dataset`'s data."})
    fold: str = field(default="1", metadata={"help": "Which fold (set) of the `paper_dataset`, if it has several."})
    check_counts: bool = field(
        default=True, metadata={"help": "Refuse a `paper_dataset` with other numbers of samples than published."}
    )
    validate_on_test: bool = field(
        default=False,
        metadata={
            "help": "Take the test data, with one view of each video, as `validation_data`, as the authors do. A "
            "model chosen on them scores a little too well."
        },
    )
    media_column: str | None = field(
        default=None, metadata={"help": "Column of a Hub dataset with the videos or images, if there are several."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column of a Hub dataset with the labels."})
    labels: list[str] | None = field(
        default=None, metadata={"help": "The labels in the order of their indices; found in the data by default."}
    )
    data_name: str | None = field(default=None, metadata={"help": "What the model card calls the data."})
    sampling: str = field(
        default="windows",
        metadata={
            "help": "`windows`: a random window of consecutive frames in training and fixed ones in evaluation, as in "
            "the paper. `even`: always frames spread evenly over the whole video.",
            "choices": ["windows", "even"],
        },
    )
    num_windows: int = field(default=2, metadata={"help": "Temporal windows of each test video, averaged."})
    num_crops: int = field(default=2, metadata={"help": "Spatial crops of each test window, averaged."})
    keep_in_memory: bool = field(
        default=False, metadata={"help": "Decode once and keep the frames: for small data sets, and no windows."}
    )
    cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Keep decoded, resized frames and landmark features in this folder, of all clips that are the "
            "same in every epoch: test and validation data, and training data without augmentation and windows."
        },
    )
    check_data: bool = field(default=True, metadata={"help": "Open every file before training starts."})
    skip_broken: bool = field(
        default=False, metadata={"help": "Train without files that can't be read, and list them, instead of stopping."}
    )
    video_backend: str = field(
        default="pyav", metadata={"help": "What decodes videos.", "choices": ["pyav", "decord"]}
    )
    rand_augment_ops: int = field(default=4, metadata={"help": "Operations of RandAugment on a clip; 0: off."})
    rand_augment_magnitude: float = field(default=7.0, metadata={"help": "Their mean level, 0 to 10."})
    rand_augment_std: float = field(default=0.5, metadata={"help": "Standard deviation of their levels."})
    crop_scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0], metadata={"help": "Area of the random crop, as fractions of the frame."}
    )
    crop_ratio: list[float] = field(
        default_factory=lambda: [0.75, 4 / 3], metadata={"help": "Width over height of the random crop."}
    )
    flip_probability: float = field(default=0.5, metadata={"help": "Of the horizontal flip."})
    augmentation_order: str = field(
        default="crop_first",
        metadata={
            "help": "`crop_first`: crop and flip, then RandAugment. `rand_augment_first`: RandAugment on the frames "
            "as they are, as in the authors' code.",
            "choices": list(ORDERS),
        },
    )
    augmentation_interpolation: str = field(
        default="bilinear",
        metadata={
            "help": "Of RandAugment's rotations, shears and shifts; `bicubic` in the authors' code.",
            "choices": list(INTERPOLATIONS),
        },
    )
    augmentation_fill: list[int] = field(
        default_factory=lambda: list(FILL),
        metadata={"help": "Red, green and blue, 0 to 255, where these move a frame away; the authors' is 128 each."},
    )

    def __post_init__(self):
        for name in ("crop_scale", "crop_ratio"):
            if len(getattr(self, name)) != 2:
                raise ValueError(
                    f"`{name}` must be two numbers, the lowest and the highest, got {getattr(self, name)}."
                )
        if len(self.augmentation_fill) != 3 or not all(0 <= value <= 255 for value in self.augmentation_fill):
            raise ValueError(
                f"`augmentation_fill` must be red, green and blue, 0 to 255, got {self.augmentation_fill}."
            )
        if self.paper_dataset is not None:
            self.paper_dataset = find_paper_dataset(self.paper_dataset).name
            if self.data_root is None:
                raise ValueError(f"`data_root` is missing: the folder of {self.paper_dataset}.")
            if self.train_data is not None or self.test_data is not None:
                raise ValueError("`paper_dataset` stands for `train_data` and `test_data`: give one or the other.")
        if self.validate_on_test and self.validation_data is not None:
            raise ValueError("`validate_on_test` stands for `validation_data`: give one or the other.")


@dataclass
class RunArguments:
    """
    What a run does as a whole.

    Raises:
        ValueError: if a value is out of range.
    """

    stage: str = field(
        default="both",
        metadata={
            "help": "`static` trains an image model, `dynamic` a video model from it, `both` one after the other in "
            "`output_dir`/static and `output_dir`/dynamic.",
            "choices": list(STAGE_CHOICES),
        },
    )
    synthetic_data: dict | str | None = field(
        default=None,
        metadata={
            "help": "Draw a data set of talking faces to train on: arguments of `write_synthetic_dataset`, in JSON on "
            "the command line."
        },
    )
    new_landmark_encoder: dict | str | None = field(
        default=None,
        metadata={
            "help": "Train a landmark encoder on the known points of the synthetic faces first: arguments of "
            "`MobileFaceNetLandmarkEncoder`, in JSON on the command line."
        },
    )
    evaluate_only: bool = field(
        default=False, metadata={"help": "Train nothing: evaluate `model_name_or_path` on the test data."}
    )
    compare_image_model: bool = field(
        default=False,
        metadata={"help": "Evaluate the image model, averaged over the frames, beside the video model."},
    )
    compare_landmarks: bool = field(
        default=False,
        metadata={
            "help": "Evaluate logistic regressions on the landmark features and on the 68 points beside the models: "
            "what the landmark encoder tells alone."
        },
    )

    def __post_init__(self):
        self.synthetic_data = _as_mapping("synthetic_data", self.synthetic_data)
        self.new_landmark_encoder = _as_mapping("new_landmark_encoder", self.new_landmark_encoder)
        if self.evaluate_only and self.stage == "both":
            raise ValueError("`evaluate_only` needs a `stage`: `static` for images, `dynamic` for videos.")
        if self.new_landmark_encoder is not None and self.synthetic_data is None:
            raise ValueError(
                "`new_landmark_encoder` needs `synthetic_data`, whose points are known; otherwise name a "
                "`landmark_encoder`."
            )


@dataclass
class StageArguments:
    """The arguments of one stage: `landmarks`, `static` or `dynamic`."""

    name: str
    model: ModelArguments
    data: DataArguments
    training: S2DTrainingArguments


@dataclass
class Recipe:
    """
    A whole training.

    Attributes:
        name (`str`): The recipe's file name without its ending.
        output_dir (`Path`): The folder of the run. A single stage writes its model there; with two stages, and for
            the landmark encoder, there are subfolders of their names.
        run (`RunArguments`): What concerns the run as a whole.
        stages (`list[StageArguments]`): The stages in their order.
    """

    name: str
    output_dir: Path
    run: RunArguments
    stages: list[StageArguments]


def read_recipe(argv: Sequence[str], default: str | Path) -> Recipe:
    """
    A training from the command line and a recipe file.

    A recipe is a YAML file of fields of [`RunArguments`], [`ModelArguments`], [`DataArguments`] and
    [`S2DTrainingArguments`]. Its sections `static`, `dynamic` and `landmarks` (the landmark encoder's training) hold
    what is for one stage only. The command line has the last word: `--field value` for all stages, `--static.field
    value` for one.

    Args:
        argv (`Sequence[str]`): The arguments, without the program's name: first, if any, the recipe.
        default (`str` or `Path`): The recipe that is used if none is named, and no data either.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: if the recipe is no YAML mapping, or a field is unknown or its value impossible; the message names
            the recipe.
    """
    argv = list(argv)
    path: Path | None = None
    if argv and not argv[0].startswith("-"):
        path = Path(argv.pop(0))
    elif not _fields_of(argv) & {"train_data", "test_data", "paper_dataset", *RENAMED_FIELDS}:
        path = Path(default)
    fields = {} if path is None else _read_yaml(path)
    try:
        return _build_recipe("training" if path is None else path.stem, fields, argv)
    except ValueError as error:
        source = "command line" if path is None else f"{path} with command line"
        raise ValueError(f"{source}: {error}") from error


def _with_new_names(argv: Sequence[str], sections: Sequence[dict[str, Any]]) -> list[str]:
    """The options, in which, as in the sections of the recipe, fields that were renamed have their new names."""
    typed = []
    for argument in argv:
        option, equals, value = argument.partition("=")
        stage, dot, name = option.removeprefix("--").replace("-", "_").rpartition(".")
        if option.startswith("--") and name in RENAMED_FIELDS:
            _warn_of_old_name(name)
            argument = f"--{stage}{dot}{RENAMED_FIELDS[name]}{equals}{value}"
        typed.append(argument)
    for section in sections:
        for old, new in RENAMED_FIELDS.items():
            if old in section:
                _warn_of_old_name(old)
                section.setdefault(new, section.pop(old))
    return typed


def _warn_of_old_name(name: str) -> None:
    warnings.warn(
        f"The field `{name}` is `{RENAMED_FIELDS[name]}` now; the old name goes with the next version.",
        FutureWarning,
        stacklevel=5,
    )


def _build_recipe(name: str, values: dict[str, Any], argv: list[str]) -> Recipe:
    parser = OptionParser(
        {
            "the run": RunArguments,
            "the model": ModelArguments,
            "the data": DataArguments,
            "the training": S2DTrainingArguments,
        },
        usage="train.py [RECIPE.yaml] [--FIELD VALUE ...] [--static.FIELD VALUE ...] [--dynamic.FIELD VALUE ...]",
        sections=SECTIONS,
    )
    given = {stage: _as_section(stage, values.pop(stage, None)) for stage in SECTIONS}
    argv = _with_new_names(argv, [values, *given.values()])
    for section in (values, *given.values()):
        parser.check_fields(section)
    parser.check_options(argv)
    sections = {stage: _as_arguments(fields) for stage, fields in given.items()}
    typed = _split_by_section(argv, sections)
    shared = [*_as_arguments(values), *typed[""]]
    run, *_, training = parser.parse(shared)
    output_dir = Path(training.output_dir)

    names = list(STAGES) if run.stage == "both" else [run.stage]
    if run.new_landmark_encoder is not None:
        names.insert(0, LANDMARK_STAGE)
    stages = []
    for stage in names:
        _check_no_run_fields(stage, [*sections[stage], *typed[stage]])
        _, *arguments = parser.parse([*_as_arguments(values), *sections[stage], *typed[""], *typed[stage]])
        stages.append(StageArguments(stage, *arguments))
        data = stages[-1].data
        if stage == "dynamic" and data.keep_in_memory and data.sampling == "windows":
            raise ValueError("`keep_in_memory` keeps the same frames of a video: it needs `sampling: even`.")
        if stage != run.stage:
            training = stages[-1].training
            training.output_dir = str(output_dir / stage)
            if stage == LANDMARK_STAGE:
                # the encoder travels with the models, and points have no labels to smooth
                training.push_to_hub, training.label_smoothing_factor = False, 0.0
            if training.push_to_hub:
                training.hub_model_id = f"{training.hub_model_id or output_dir.name}-{stage}"
    return Recipe(name, output_dir, run, stages)


class _PlainLoader(yaml.SafeLoader):
    """Each key once, and no aliases: a few lines of them can stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor} is not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            if key_node.value in keys:
                problem = f"`{key_node.value}` stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if isinstance(key_node, yaml.ScalarNode):
                keys.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe {path}.")
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"{path} is no YAML file{line}: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError(f"{path} must hold fields and their values.")
    return fields


def _as_arguments(fields: dict[str, Any]) -> list[str]:
    """Fields and values as a command line, so that argparse converts and checks the values of all sources alike."""
    argv: list[str] = []
    for name, value in fields.items():
        if value is None:  # the field's default
            continue
        argv.append(f"--{name}")
        if isinstance(value, list):
            argv += [str(item) for item in value]
        else:
            argv.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return argv


def _as_section(name: str, fields: Any) -> dict[str, Any]:
    fields = {} if fields is None else fields
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError(f"the section `{name}` must hold fields and their values, got {fields!r}.")
    return fields


def _as_mapping(name: str, value: dict | str | None) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"`{name}` must be JSON such as '{{\"hidden_size\": 384}}': {error}.") from error
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`{name}` must be a mapping, got {value!r}.")
    return value


def _split_by_section(argv: Sequence[str], sections: Iterable[str]) -> dict[str, list[str]]:
    """The arguments for all stages under the empty name, and those written as `--static.field value` by stage."""
    split: dict[str, list[str]] = {name: [] for name in ("", *sections)}
    current = ""
    for argument in argv:
        if argument.startswith("--"):
            section, dot, field_and_value = argument[2:].partition(".")
            current = section if dot and section in split else ""
            argument = f"--{field_and_value}" if current else argument
        split[current].append(argument)
    return split


def _fields_of(argv: Sequence[str]) -> set[str]:
    """The names of the fields that a command line gives."""
    options = [argument[2:].partition("=")[0] for argument in argv if argument.startswith("--")]
    return {option.rpartition(".")[2].replace("-", "_") for option in options}


def _check_no_run_fields(stage: str, argv: Sequence[str]) -> None:
    for item in fields(RunArguments):
        if f"--{item.name}" in argv:
            raise ValueError(f"`{item.name}` concerns the whole run and can't stand in the section `{stage}`.")


__all__ = ["DataArguments", "ModelArguments", "Recipe", "RunArguments", "StageArguments", "read_recipe"]
