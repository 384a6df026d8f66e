"""Data, landmark encoder, processors and model of a training stage, from its arguments."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets.config import HF_DATASETS_CACHE
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import IMAGE_PROCESSOR_NAME, logging

from ..configuration_s2d import S2DConfig
from ..conversion import read_landmark_encoder
from ..data import (
    CachedClips,
    ClipAugmentation,
    ClipDataset,
    LabelledSamples,
    cache_clips,
    check_sources,
    from_class_folders,
    from_hub,
    from_table,
)
from ..data.paper_datasets import find_paper_dataset
from ..data.sources import Kind
from ..downloads import find_landmark_file, is_reachable
from ..file_names_s2d import is_url
from ..image_processing_s2d import S2DImageProcessor
from ..labels import label_names
from ..landmark_encoders_s2d import LANDMARK_WEIGHTS_NAME, LandmarkEncoder
from ..model_sources import find_model, is_checkpoint
from ..modeling_s2d import S2DForImageClassification, S2DForVideoClassification
from ..video_processing_s2d import S2DVideoProcessor
from .recipes import DataArguments, ModelArguments, StageArguments
from .starting_weights import check_overrides, check_start, refuse_new_weights

logger = logging.get_logger(__name__)


def load_samples(
    source: str, split: str, kind: Kind, data: DataArguments, labels: Sequence[str] | None
) -> LabelledSamples:
    """
    The labelled samples of a folder of class folders, a table, or a split of a dataset of the Hub.

    Raises:
        FileNotFoundError: if there is nothing at `source`, and the Hub gives no dataset of that name. It is not asked
            where `source` looks like a path.
        ValueError: if what is there is malformed; see [`from_class_folders`], [`from_table`] and [`from_hub`].
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return from_class_folders(path, kind=kind, labels=labels)
    if path.suffix.lower() in (".csv", ".jsonl"):
        return from_table(path, labels=labels)
    # a dataset of the Hub is called "name" or "owner/name", where there is no folder "owner"
    is_name = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", source) is not None
    if path.exists() or not is_name or (path.parent != Path() and path.parent.is_dir()):
        raise FileNotFoundError(f"{source} is no folder of class folders and no .csv or .jsonl file.")
    missing = f"There is no folder {source}, and no dataset of that name can be had from the Hub"
    # the client would try again and again
    if not _is_dataset_cached(source) and not is_reachable(hf_hub_url(source, "README.md", repo_type="dataset")):
        raise FileNotFoundError(f"{missing}, which is out of reach.")
    try:
        return from_hub(source, split, column=data.media_column, label_column=data.label_column, labels=labels)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise FileNotFoundError(f"{missing}: {error}") from error


def _is_dataset_cached(name: str) -> bool:
    """Whether something of a dataset of the Hub is on this machine, as downloaded or as prepared."""
    downloaded = Path(HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="dataset"))
    return downloaded.is_dir() or Path(HF_DATASETS_CACHE, name.replace("/", "___")).is_dir()


def load_stage_samples(
    stage: StageArguments, progress: bool = True, parts: Sequence[str] = ("train", "validation", "test")
) -> tuple[dict[str, LabelledSamples], dict[str, dict[str, str]]]:
    """
    The samples of a stage by what they are for: `train`, and if given `validation` and `test`. And, also by what they
    would be for, the names of those that `skip_broken` left out, each with the reason.

    Args:
        stage ([`StageArguments`]): Whose data.
        progress (`bool`): Show progress bars.
        parts (`Sequence[str]`): Which parts are wanted.

    Raises:
        FileNotFoundError: if there is nothing at a path.
        ValueError: if no training data is named, or files are broken and `skip_broken` is off.
    """
    data, kind = stage.data, stage_kind(stage)
    loaded: dict[str, LabelledSamples] = {}
    left_out: dict[str, dict[str, str]] = {}
    for name, samples in _read_stage_samples(data, kind, stage.name, parts):
        if data.check_data:
            samples, broken = _check_once(samples, kind, data, progress)
            for sample, reason in broken.items():
                logger.warning(f"Left out of the {name} data: {sample}: {reason}")
            if broken:
                left_out[name] = broken
        loaded[name] = samples
    if data.validate_on_test and "validation" in parts and "test" in loaded:
        loaded["validation"] = loaded["test"]
    return loaded, left_out


def name_samples(stage: StageArguments, parts: Sequence[str] = ("train", "validation", "test")) -> None:
    """
    Finds the samples of a stage, or of some of its parts, and opens none: so that a mistake in their names is told
    before a training.

    Raises:
        FileNotFoundError, ValueError: see [`load_stage_samples`].
    """
    for _ in _read_stage_samples(stage.data, stage_kind(stage), stage.name, parts):
        pass


def _read_stage_samples(
    data: DataArguments, kind: Kind, stage: str, parts: Sequence[str]
) -> Iterator[tuple[str, LabelledSamples]]:
    """What each part is for, and its samples."""
    if data.paper_dataset is not None:
        dataset = find_paper_dataset(data.paper_dataset)
        if dataset.kind != kind:
            raise ValueError(f"{dataset.name} has {dataset.kind}s, and the {stage} stage needs {kind}s.")
        for name in dataset.splits:
            if name in parts:
                yield name, dataset.read(str(data.data_root), name, fold=data.fold, check_counts=data.check_counts)
        return
    if data.train_data is None and "train" in parts:
        raise ValueError(f"`train_data` is missing: the {stage} stage needs {kind}s to train on.")
    labels: Sequence[str] | None = data.labels
    sources = {
        "train": (data.train_data, data.train_split),
        "validation": (data.validation_data, data.validation_split),
        "test": (data.test_data, data.test_split),
    }
    for name, (source, split) in sources.items():
        if source is not None and name in parts:
            samples = load_samples(source, split, kind, data, labels)
            labels = samples.labels
            yield name, samples


def _check_once(
    samples: LabelledSamples, kind: Kind, data: DataArguments, progress: bool
) -> tuple[LabelledSamples, dict[str, str]]:
    """[`check_sources`] by one process, which tells the others."""
    state = PartialState()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        policy: Literal["raise", "skip"] = "skip" if data.skip_broken else "raise"
        try:
            _, broken = check_sources(samples, kind, on_broken=policy, progress=progress, backend=data.video_backend)
            outcome[0] = dict(broken)
        except ValueError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    broken, message = outcome
    if message is not None:
        raise ValueError(message)
    return samples.select([i for i, sample in enumerate(samples) if sample.name not in broken]), broken


def check_classes(samples: LabelledSamples) -> None:
    """
    Warns of labels without training samples.

    Raises:
        ValueError: if there is one class only.
    """
    present = {sample.label for sample in samples}
    if len(present) < 2:
        only = ", ".join(samples.labels[label] for label in present) or "no sample"
        raise ValueError(f"The training data have a single class, {only}: there is nothing to tell apart.")
    absent = [name for label, name in enumerate(samples.labels) if label not in present]
    if absent:
        logger.warning(f"The training data have no samples of {', '.join(absent)}: the model can't learn them.")


def stage_kind(stage: StageArguments) -> Kind:
    """What a stage is trained on: `"image"` or `"video"`."""
    return "image" if stage.name == "static" else "video"


def build_dataset(
    samples: LabelledSamples,
    purpose: str,
    stage: StageArguments,
    config: S2DConfig,
    processor: S2DImageProcessor | S2DVideoProcessor,
    progress: bool = True,
) -> ClipDataset | CachedClips:
    """
    The clips or images for a purpose: `"train"`, `"validation"` or `"test"`; from the cache in `cache_dir`, if one is
    asked for and the clips don't change.
    """
    data, kind, training = stage.data, stage_kind(stage), purpose == "train"
    options: dict[str, Any] = {"keep_in_memory": data.keep_in_memory, "backend": data.video_backend}
    if training:
        options["augmentation"] = _build_augmentation(data, config)
        updates_before = stage.training.anchor_update == "before"
        options["with_clean_view"] = stage.training.anchor_distillation and updates_before
    if kind == "video" and data.sampling == "windows":
        options["sampling"] = "random_window" if training else "windows"
        if purpose == "test":
            options |= {"num_windows": data.num_windows, "num_crops": data.num_crops}
    dataset = ClipDataset(
        samples, num_frames=config.num_frames, size=config.image_size, kind=kind, seed=stage.training.seed, **options
    )
    if data.cache_dir is None or dataset.augmentation is not None or dataset.sampling == "random_window":
        return dataset
    arguments = stage.training
    of_landmarks: S2DImageProcessor | S2DVideoProcessor | None = processor
    changes_pixels = arguments.mixup_alpha or arguments.cutmix_alpha or arguments.random_erasing_prob
    if config.prompt_type == "none" or (training and changes_pixels):
        of_landmarks = None  # the frames alone
    return cache_clips(
        dataset, data.cache_dir, of_landmarks, num_workers=arguments.dataloader_num_workers, progress=progress
    )


def _build_augmentation(data: DataArguments, config: S2DConfig) -> ClipAugmentation | None:
    crop_scale = tuple(data.crop_scale)
    if data.rand_augment_ops == 0 and crop_scale == (1.0, 1.0) and data.flip_probability == 0:
        return None
    with fields_named(
        {
            "num_ops": "rand_augment_ops",
            "magnitude": "rand_augment_magnitude",
            "magnitude_std": "rand_augment_std",
            "scale": "crop_scale",
            "ratio": "crop_ratio",
            "fill": "augmentation_fill",
            "order": "augmentation_order",
            "interpolation": "augmentation_interpolation",
        }
    ):
        # of a recipe's lists and words, `ClipAugmentation` tells whether they will do
        checked: dict[str, Any] = {
            "scale": crop_scale,
            "ratio": tuple(data.crop_ratio),
            "fill": tuple(data.augmentation_fill),
            "order": data.augmentation_order,
            "interpolation": data.augmentation_interpolation,
        }
        return ClipAugmentation(
            size=config.image_size,
            num_ops=data.rand_augment_ops,
            magnitude=data.rand_augment_magnitude,
            magnitude_std=data.rand_augment_std,
            flip_probability=data.flip_probability,
            **checked,
        )


def find_start(arguments: ModelArguments, needs_labels: bool = False) -> str | None:
    """
    What `model_name_or_path` names, as something that `from_pretrained` loads; see [`find_model`].

    Args:
        arguments ([`ModelArguments`]): What was named, and a checkpoint's data set and landmark encoder.
        needs_labels (`bool`): Whether the model is to predict as it is.

    Raises:
        FileNotFoundError, OSError, ValueError: see [`find_model`].
    """
    start = arguments.model_name_or_path
    if start is None:
        return None
    options: dict[str, Any] = {}
    if is_checkpoint(start):
        options = {"dataset": arguments.checkpoint_dataset, "landmark_weights": _landmark_file(arguments)}
    try:
        with fields_named({"dataset": "checkpoint_dataset"}):
            return find_model(start, **options, needs_labels=needs_labels)
    except ValueError as error:
        raise ValueError(str(error).replace(" or the `labels` in their order", "")) from error


def _landmark_file(arguments: ModelArguments) -> str | None:
    """The file or address of the landmark encoder, if one is named; a model's folder has one."""
    source = arguments.landmark_encoder
    if source is None:
        return None
    in_folder = os.path.join(os.path.expanduser(source), LANDMARK_WEIGHTS_NAME)
    if os.path.isfile(in_folder):
        return in_folder
    return source if is_url(source) or is_checkpoint(source) else None


def load_landmark_encoder(arguments: ModelArguments) -> LandmarkEncoder | None:
    """
    The landmark encoder that the arguments name, or else that of the model where training starts; `None` if there is
    neither.

    Raises:
        FileNotFoundError: if the named file does not exist.
        OSError, ValueError: if it holds no landmark encoder.
    """
    source = arguments.landmark_encoder
    if source is None:
        start = find_start(arguments)
        if start is None or AutoConfig.from_pretrained(start).model_type != S2DConfig.model_type:
            return None
        source = start
    source = os.path.expanduser(source)
    if is_url(source) or is_checkpoint(source):
        return read_landmark_encoder(find_landmark_file(source))
    _check_processor(source)
    with weights_named(source):
        encoder = S2DImageProcessor.from_pretrained(source).landmark_encoder
    if encoder is None and arguments.landmark_encoder is not None:
        raise ValueError(f"{source} has no landmark encoder.")
    return encoder


def _check_processor(source: str) -> None:
    """
    Raises:
        FileNotFoundError: if there is no such folder, and the Hub can't have it or is out of reach.
        ValueError: if the folder has no image processor.
    """
    if os.path.isdir(source):
        if not os.path.isfile(os.path.join(source, IMAGE_PROCESSOR_NAME)):
            raise ValueError(
                f"The folder {source} holds no landmark encoder: there is no {IMAGE_PROCESSOR_NAME} in it."
            )
        return
    missing = f"`landmark_encoder`: there is no file and no folder {source}"
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) is None:
        raise FileNotFoundError(f"{missing}; a model of the Hub is named OWNER/NAME.")
    is_cached = isinstance(try_to_load_from_cache(source, IMAGE_PROCESSOR_NAME), str)
    if not is_cached and not is_reachable(hf_hub_url(source, IMAGE_PROCESSOR_NAME)):
        raise FileNotFoundError(f"{missing}, and the Hub is out of reach.")


def build_model(stage: StageArguments, labels: Sequence[str], encoder: LandmarkEncoder | None) -> PreTrainedModel:
    """
    The model of a stage with its weights at the start; in the dynamic stage frozen as the paper does, unless
    `freeze_backbone` is off.

    Where the start is an S2D model of other labels, the classifier is new. A warning lists other weights that don't
    fit or are missing.

    Raises:
        ValueError: if there is a single label, `config_overrides` has unknown fields, the dynamic stage has no model
            to start from, the model wants landmarks and there is no encoder, or one of other features, or weights
            would be random and frozen.
    """
    arguments = stage.model
    start = find_start(arguments)
    named = arguments.model_name_or_path or ""
    wishes = cast(dict[str, Any], arguments.config_overrides or {})
    overrides = dict(wishes)
    names: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    given = sorted((set(names) | {"num_labels"}) & set(overrides))
    if given:
        raise ValueError(f"`config_overrides` has {given[0]}, which comes from the data and their `labels`.")
    unknown = sorted(set(overrides) - set(S2DConfig().to_dict()))
    if unknown:
        raise ValueError(f"`config_overrides` has fields that S2DConfig doesn't: {', '.join(unknown)}.")
    is_video = stage.name == "dynamic"
    if len(labels) < 2:
        raise ValueError(f"The training data have a single label, {labels[0]}: there is nothing to tell apart.")
    if is_video and start is None:
        raise ValueError("`model_name_or_path` is missing: the dynamic stage starts from an image model.")
    if not is_video and overrides.get("temporal_adapters"):
        raise ValueError("`config_overrides` has `temporal_adapters`, and the static stage trains an image model.")
    if not is_video:
        overrides["temporal_adapters"] = False

    start_config: Any = None if start is None else AutoConfig.from_pretrained(start)
    is_s2d = start_config is not None and start_config.model_type == S2DConfig.model_type
    if not is_s2d and encoder is not None:
        overrides.setdefault("landmark_channels", encoder.num_channels)
        overrides.setdefault("landmark_size", encoder.feature_size)
    model_class = S2DForVideoClassification if is_video else S2DForImageClassification
    attention = {} if arguments.attn_implementation is None else {"attn_implementation": arguments.attn_implementation}
    if start is None:
        model = model_class._from_config(S2DConfig(**names, **overrides), **attention)
    elif not is_s2d:
        if is_video:
            raise ValueError(
                f"{arguments.model_name_or_path} is no S2D model: train an image model from it first, with the static "
                "stage."
            )
        with weights_named(start):
            model = model_class.from_vit_pretrained(start, **names, **overrides, **attention)
    else:
        check_overrides(overrides, named, start_config)
        if is_video:
            overrides.setdefault("temporal_adapters", True)
        with _no_load_report(), weights_named(start):
            model, info = model_class.from_pretrained(
                start, **names, **overrides, **attention, ignore_mismatched_sizes=True, output_loading_info=True
            )
        old_labels = label_names(start_config)
        if old_labels != tuple(labels):
            was_trained = f"{arguments.model_name_or_path} was trained for {', '.join(old_labels)}"
            logger.warning(f"The classifier is new: {was_trained}.")
            # transformers' own initialisation passes over weights that were loaded
            nn.init.trunc_normal_(model.classifier.weight, std=model.config.initializer_range)
            nn.init.zeros_(model.classifier.bias)
    S2DConfig.from_dict(model.config.to_dict())  # checks them: overrides are set one by one, each for itself
    _check_landmarks(model.config, encoder)
    if is_video and arguments.freeze_backbone:
        model.freeze_for_video_tuning()
    if is_s2d:
        has_new_labels = label_names(start_config) != tuple(labels)
        check_start(model, info, named, start_config, wishes, has_new_labels)
    return model


def load_for_evaluation(stage: StageArguments) -> PreTrainedModel:
    """
    The model at `model_name_or_path`, as it is.

    Raises:
        ValueError: if it lacks weights.
    """
    named = stage.model.model_name_or_path or ""
    start = find_start(stage.model, needs_labels=True)
    model_class = S2DForImageClassification if stage.name == "static" else S2DForVideoClassification
    with _no_load_report(), weights_named(named):
        model, info = model_class.from_pretrained(start, output_loading_info=True)
    refuse_new_weights(info, named)
    return model


def build_processors(config: S2DConfig, encoder: LandmarkEncoder | None) -> dict[str, Any]:
    """The processors for a model's `"image"`s and `"video"`s; without the encoder where the model has no prompters."""
    if config.prompt_type == "none":
        encoder = None
    size = config.image_size
    options: dict[str, Any] = {
        "landmark_encoder": encoder,
        "do_landmarks": encoder is not None,
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
    }
    return {"image": S2DImageProcessor(**options), "video": S2DVideoProcessor(**options, num_frames=config.num_frames)}


@contextmanager
def fields_named(names: Mapping[str, str]) -> Iterator[None]:
    """Gives the arguments that a `ValueError` speaks of the names of the fields from which they come."""
    try:
        yield
    except ValueError as error:
        text = re.sub(r"`(\w+)`", lambda match: f"`{names.get(match.group(1), match.group(1))}`", str(error))
        raise ValueError(text) from error


@contextmanager
def weights_named(source: str) -> Iterator[None]:
    """
    Raises:
        ValueError: that names `source`, where safetensors says of its weights only that they can't be read.
    """
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"The weights of {source} can't be read: {error}.") from error


def _check_landmarks(config: S2DConfig, encoder: LandmarkEncoder | None) -> None:
    if config.prompt_type == "none":
        return
    if encoder is None:
        raise ValueError(
            'The model is guided by landmarks: name a `landmark_encoder`, or set `prompt_type` to "none" in '
            "`config_overrides`."
        )
    if encoder.num_channels != config.landmark_channels:
        raise ValueError(
            f"The landmark encoder gives {encoder.num_channels} channels, and the model takes "
            f"{config.landmark_channels} (`landmark_channels`)."
        )


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Hides transformers' list of weights that are missing, of which `starting_weights.py` tells what matters."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


__all__ = [
    "build_dataset",
    "build_model",
    "build_processors",
    "check_classes",
    "fields_named",
    "find_start",
    "load_for_evaluation",
    "load_landmark_encoder",
    "load_samples",
    "load_stage_samples",
    "name_samples",
    "stage_kind",
    "weights_named",
]
