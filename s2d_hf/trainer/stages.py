"""Runs a recipe: landmark encoder, image model, video model, and what there is to say about them."""

import copy
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from transformers import PreTrainedModel, TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..configuration_s2d import S2DConfig
from ..data import CachedClips, ClipCollator, ClipDataset, LabelledSamples
from ..image_processing_s2d import S2DImageProcessor
from ..labels import label_names
from ..landmark_encoders_s2d import MobileFaceNetLandmarkEncoder
from ..metrics import ClassificationReport, classification_report, compute_metrics_fn, plot_confusion_matrix
from ..modeling_s2d import S2DForVideoClassification
from ..publishing.card_filling import write_model_card
from .building import (
    build_dataset,
    build_model,
    build_processors,
    check_classes,
    fields_named,
    find_start,
    load_for_evaluation,
    load_landmark_encoder,
    load_stage_samples,
    name_samples,
    stage_kind,
)
from .checkpoints import check_checkpoint, find_last_checkpoint
from .landmark_encoder_training import LandmarkPointsDataset, read_still_points, size_of_stills, train_landmark_encoder
from .probes import probe_landmarks
from .provenance import provenance
from .recipes import LANDMARK_STAGE, Recipe, RunArguments, StageArguments
from .settings import describe_settings, find_differences
from .trainer import S2DTrainer

METRICS_NAME = "metrics.json"
_PROBES = {"landmark points": "landmark_points", "landmark features": "landmark_features"}
_PARTS = ("train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev")


@dataclass
class StageResult:
    """
    What a stage gave.

    Attributes:
        name (`str`): The stage.
        folder (`Path`): The model's folder.
        metrics (`dict`): What stands in its `metrics.json`.
    """

    name: str
    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)


def run_recipe(recipe: Recipe) -> list[StageResult]:
    """
    Trains what a recipe says and writes, for each stage, a folder with the model, its processors, `metrics.json`,
    `confusion_matrix.png` and a model card, `README.md`.

    With `resume_from_checkpoint`, stages that were finished before are not trained again, and one that was broken off
    goes on from its last whole checkpoint.

    Raises:
        FileNotFoundError: if data, a model or a checkpoint is missing.
        ValueError: if arguments contradict each other, or data are malformed.
    """
    run = recipe.run
    if recipe.output_dir.exists() and not recipe.output_dir.is_dir():
        raise NotADirectoryError(f"`output_dir` must be a folder, and {recipe.output_dir} is a file.")
    if run.synthetic_data is not None and any(stage.data.train_data is None for stage in recipe.stages):
        raise ValueError("`synthetic_data` are drawn by training/train.py, which belongs to the repository: use that.")
    for stage in recipe.stages[1:]:  # the first one's is read at once
        if stage.name != LANDMARK_STAGE and not run.evaluate_only:
            name_samples(stage)
    results: list[StageResult] = []
    if run.evaluate_only and (run.compare_image_model or run.compare_landmarks):
        _say("Nothing is trained, and so nothing is compared (`compare_image_model`, `compare_landmarks`).")
    encoder_folder: Path | None = None
    for number, stage in enumerate(recipe.stages):
        is_new = _finished_metrics(stage) is None
        if stage.name == LANDMARK_STAGE:
            encoder_folder = _run_landmark_stage(stage, run)
        else:
            if encoder_folder is not None and stage.model.landmark_encoder is None:
                stage.model.landmark_encoder = str(encoder_folder)
            if results and stage.model.model_name_or_path is None:
                stage.model.model_name_or_path = str(results[-1].folder)
            if run.evaluate_only:
                results.append(evaluate_stage(stage, recipe.name))
            else:
                compared = {"compare_image_model": run.compare_image_model, "compare_landmarks": run.compare_landmarks}
                results.append(run_stage(stage, recipe.name, **compared))
        # what an earlier run made of another result of this stage is not this run's
        for later in recipe.stages[number + 1 :] if is_new else []:
            _begin(later)
    rows = _table_rows(results)
    if rows:
        _say("\n" + format_table(rows))
        if run.synthetic_data is not None:
            _say("Measured on drawn faces of people not trained on; this says nothing about real faces.")
    for result in [] if run.evaluate_only else results:
        kind = "image" if result.name == "static" else "video"
        _say(f'pipeline("{kind}-classification", model="{result.folder}", trust_remote_code=True)')
    return results


def check_recipe(recipe: Recipe) -> None:
    """
    Finds what a recipe names, models, landmark encoders and samples, without opening any video: so that a mistake is
    told before the trainings of other recipes.

    Raises:
        FileNotFoundError, OSError, ValueError: see [`run_recipe`].
    """
    for stage in recipe.stages:
        if stage.name == LANDMARK_STAGE or _finished_metrics(stage) is not None:
            continue
        find_start(stage.model, needs_labels=recipe.run.evaluate_only)
        load_landmark_encoder(stage.model)
        name_samples(stage, ("test",) if recipe.run.evaluate_only else ("train", "validation", "test"))


def run_stage(
    stage: StageArguments,
    recipe_name: str = "training",
    compare_image_model: bool = False,
    compare_landmarks: bool = False,
) -> StageResult:
    """
    Trains and evaluates the model of one stage, `static` or `dynamic`; see [`run_recipe`].

    Args:
        stage ([`StageArguments`]): What to do.
        recipe_name (`str`): For the metrics and the model card.
        compare_image_model (`bool`): In the dynamic stage, also evaluate the image model where it starts, averaged
            over the frames.
        compare_landmarks (`bool`): Also evaluate logistic regressions on landmark features and points; see
            [`~s2d_hf.trainer.probes.probe_landmarks`].
    """
    training = stage.training
    folder = Path(training.output_dir)
    finished = _finished_result(stage)
    if finished is not None:
        return finished
    set_seed(training.seed)
    encoder = load_landmark_encoder(stage.model)  # first, as it is checked sooner than the data
    samples, left_out = load_stage_samples(stage, progress=_shows_progress(stage))
    labels = samples["train"].labels
    check_classes(samples["train"])
    counts = Counter(sample.label for sample in samples["train"])  # a misspelt label is a class of its own
    _say("Trains on " + ", ".join(f"{counts[label]:,} {name}" for label, name in enumerate(labels)) + ".")
    model = build_model(stage, labels, encoder)
    processors = build_processors(model.config, encoder)
    progress, processor = _shows_progress(stage), processors[stage_kind(stage)]
    if compare_landmarks and (processor.landmark_encoder is None or "test" not in samples):
        lacking = "`test_data`" if "test" not in samples else "a model that is guided by landmarks"
        raise ValueError(f"`compare_landmarks` needs {lacking}.")
    datasets = {
        name: build_dataset(part, name, stage, model.config, processor, progress) for name, part in samples.items()
    }
    parameters = {"total": model.num_parameters(), "tunable": model.num_parameters(only_trainable=True)}
    share = parameters["tunable"] / parameters["total"]
    _say(f"Trains {parameters['tunable']:,} of {parameters['total']:,} parameters ({100 * share:.1f} %).")

    trainer = _build_trainer(stage, model, processors, datasets)
    trainer.settings = describe_settings(stage)
    checkpoint = _find_checkpoint(training.resume_from_checkpoint, folder, trainer.files_to_resume())
    if checkpoint is None:
        _refuse_older_checkpoints(stage)
    else:
        for difference in find_differences(checkpoint, trainer.settings):
            _say(f"{checkpoint} was written with another {difference}. Optimizer and schedule go on as they were.")
    _begin(stage)
    train_metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    # before all that could still go wrong; pushed below, when everything is there
    trainer.save_model(_internal_call=True)
    if trainer.is_world_process_zero():
        for each in processors.values():
            each.save_pretrained(folder)
    metrics = _describe_run(stage, recipe_name, samples, left_out) | {
        "parameters": parameters,
        "train": {name: train_metrics[name] for name in ("epoch", "train_loss", "train_runtime")},
    }
    if checkpoint is not None:  # the loss and the time are of what was left to do
        resumed_at = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step
        metrics["train"] |= {"resumed_at_step": resumed_at}
        if trainer.state.global_step == resumed_at:
            metrics["train"]["train_loss"] = None
    report = None
    if "test" in datasets:
        report = _predict(trainer, datasets["test"], labels)
        metrics |= {"test": report.to_dict(), "chance": chance_scores(report)}
        if compare_image_model and stage.name == "dynamic":
            averaged = _predict_with_image_model(stage, processors, datasets["test"], labels)
            if averaged is not None:
                metrics["image_model_averaged"] = averaged.to_dict()
        if compare_landmarks:
            metrics |= _predict_from_landmarks(stage, samples, model.config, processors)
    if trainer.is_world_process_zero():
        write_model_card(folder, stage, model, metrics)
    _finish(folder, metrics, report)
    if training.push_to_hub:
        trainer.push_to_hub()
    return StageResult(stage.name, folder, metrics)


def evaluate_stage(stage: StageArguments, recipe_name: str = "training") -> StageResult:
    """
    Evaluates the model at `model_name_or_path` on the test data of a stage, as it is, and writes `metrics.json` and
    `confusion_matrix.png`.

    Raises:
        ValueError: if no model or no test data is named, or the model's labels aren't those of the data.
    """
    start, folder = stage.model.model_name_or_path, Path(stage.training.output_dir)
    if start is None:
        raise ValueError("`model_name_or_path` is missing: the model to evaluate.")
    if folder.is_dir() and os.path.isdir(os.path.expanduser(start)) and folder.samefile(os.path.expanduser(start)):
        raise ValueError(f"`output_dir` is the model's own folder, {folder}, whose metrics would be written over.")
    finished = _finished_result(stage)
    if finished is not None:
        return finished
    samples, left_out = load_stage_samples(stage, progress=_shows_progress(stage), parts=("test",))
    if "test" not in samples:
        raise ValueError("`test_data` is missing: there is nothing to evaluate on.")
    labels = samples["test"].labels
    model = load_for_evaluation(stage)
    own_labels = label_names(model.config)
    if own_labels != tuple(labels):
        raise ValueError(
            f"{start} has the labels {', '.join(own_labels)}, and the test data {', '.join(labels)}: their order must "
            "be the same."
        )
    processors = build_processors(model.config, load_landmark_encoder(stage.model))
    processor = processors[stage_kind(stage)]
    dataset = build_dataset(samples["test"], "test", stage, model.config, processor, _shows_progress(stage))
    trainer = _build_trainer(_for_evaluation(stage), model, processors, {})
    _begin(stage)
    report = _predict(trainer, dataset, labels)
    metrics = _describe_run(stage, recipe_name, samples, left_out) | {
        "checkpoint": _short_name(start),
        "test": report.to_dict(),
        "chance": chance_scores(report),
    }
    _finish(folder, metrics, report)
    return StageResult(stage.name, folder, metrics)


def _finished_result(stage: StageArguments) -> StageResult | None:
    """What an earlier run gave, if this one resumes it and there is nothing left to do."""
    folder = Path(stage.training.output_dir)
    metrics = _finished_metrics(stage)
    if metrics is None:
        _say(f"\nStage {stage.name}: {folder}")
        return None
    _say(f"The {stage.name} stage is finished: {folder} (without its {METRICS_NAME}, it would be trained again)")
    return StageResult(stage.name, folder, metrics)


def _finished_metrics(stage: StageArguments) -> dict[str, Any] | None:
    """The metrics of a finished stage that this run resumes."""
    path = Path(stage.training.output_dir, METRICS_NAME)
    resume = stage.training.resume_from_checkpoint
    if resume is not None and resume.lower() == "true" and path.is_file():
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # as a machine that lost power leaves it
            metrics = None
        if isinstance(metrics, dict) and metrics:
            return metrics
        _say(f"{path} can't be read: the stage is not taken for finished.")
    return None


def _begin(stage: StageArguments) -> None:
    """A run that is broken off must not look finished by the metrics of an earlier one."""
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        metrics = Path(stage.training.output_dir, METRICS_NAME)
        if metrics.is_file():
            _say(f"{metrics.parent} holds the result of an earlier run, which this one will replace.")
        metrics.unlink(missing_ok=True)


def _describe_run(
    stage: StageArguments, recipe_name: str, samples: dict[str, LabelledSamples], left_out: dict[str, dict[str, str]]
) -> dict[str, Any]:
    data = stage.data
    if data.paper_dataset is not None:
        fold = {
            "paper_dataset": data.paper_dataset,
            "fold": data.fold,
            "check_counts": data.check_counts,
            "validate_on_test": data.validate_on_test,
            "balanced_sampling": stage.training.balanced_sampling,
        }
        name = data.data_name or data.paper_dataset
    else:
        fold, name = {}, data.data_name or name_data(cast(str, data.train_data or data.test_data))
    test_name = name if data.test_data is None else data.data_name or name_data(data.test_data)
    return fold | {
        "stage": stage.name,
        "recipe": recipe_name,
        "data": name,
        "test_data": test_name,
        "seed": stage.training.seed,
        "views": _describe_views(stage),
        "samples": {name: len(part) for name, part in samples.items()},
        # a table may name files by their place on this machine
        "left_out": {
            part: [_short_name(name) if os.path.isabs(name) else name for name in broken]
            for part, broken in left_out.items()
        },
        "provenance": provenance(),
    }


def _describe_views(stage: StageArguments) -> str:
    """What of each test sample is looked at."""
    data = stage.data
    if stage.name != "dynamic":
        return "the middle of each picture"
    if data.sampling == "even":
        return "frames spread evenly over each video"
    return f"{data.num_windows} windows x {data.num_crops} crops of each video, averaged"


def _finish(folder: Path, metrics: dict[str, Any], report: ClassificationReport | None = None) -> None:
    """Writes what tells of a stage; its metrics last, which say that it is finished."""
    if PartialState().is_main_process:
        if report is not None:
            title = f"{metrics['recipe']}, {metrics['stage']}"
            plot_confusion_matrix(report, folder / "confusion_matrix.png", title=title)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{METRICS_NAME}.partial"
        partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / METRICS_NAME)
    PartialState().wait_for_everyone()


def chance_scores(report: ClassificationReport) -> dict[str, float]:
    """UAR and WAR of always guessing the class that is most frequent in the report's labels."""
    present = [count for count in report.support.values() if count]
    return {"uar": 1 / len(present), "war": max(present) / sum(present)}


def format_table(rows: list[tuple[str, float, float]]) -> str:
    """Rows of a name, UAR and WAR (fractions) as a table in percent."""
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':{width}}  UAR %  WAR %"]
    lines += [f"{name:{width}}  {100 * uar:5.1f}  {100 * war:5.1f}" for name, uar, war in rows]
    return "\n".join(lines)


def name_data(source: str) -> str:
    """
    What a data set is called: one of the Hub by its name there, a folder or table by its own name, or, where that only
    says which part it is (`train`, `test.csv`), by that of the folder above it.
    """
    source = os.path.expanduser(source)
    if not (os.path.exists(source) or os.path.isabs(source) or source.startswith(".") or source.count("/") > 1):
        return source
    path = Path(os.path.abspath(source))
    name = path.name if path.is_dir() else path.stem
    return path.parent.name if name.lower() in _PARTS and path.parent.name else name


def _short_name(source: str) -> str:
    """A Hub model by its name, and a path without what is above its folder, a home folder first of all."""
    path = Path(source).expanduser()
    above = Path.home() if path.is_relative_to(Path.home()) else path.anchor
    return "/".join(path.relative_to(above).parts[-2:])


def _table_rows(results: list[StageResult]) -> list[tuple[str, float, float]]:
    rows = []
    for result in results:
        metrics = result.metrics
        if "test" not in metrics:
            continue
        is_video = result.name == "dynamic"
        names = {
            "chance": f"chance ({'videos' if is_video else 'images'})",
            "landmark_points": f"logistic regression on landmark points ({'videos' if is_video else 'images'})",
            "landmark_features": f"logistic regression on landmark features ({'videos' if is_video else 'images'})",
            "image_model_averaged": "image model, averaged over frames",
            "test": "video model" if is_video else "image model, on images",
        }
        rows += [(name, metrics[key]["uar"], metrics[key]["war"]) for key, name in names.items() if key in metrics]
    return rows


def _build_trainer(
    stage: StageArguments,
    model: PreTrainedModel,
    processors: dict[str, Any],
    datasets: dict[str, ClipDataset | CachedClips],
) -> S2DTrainer:
    processor = processors[stage_kind(stage)]
    if stage.training.do_eval and "validation" not in datasets:
        raise ValueError("`eval_strategy` is on, and there is no `validation_data` to evaluate.")
    labels = label_names(model.config)
    if stage.training.load_best_model_at_end and stage.training.do_eval:
        _check_best_metric(stage.training.metric_for_best_model, labels)
    try:
        with fields_named({"num_neighbours": "anchor_neighbours", "queue_size": "anchor_queue_size"}):
            return S2DTrainer(
                model=model,
                args=stage.training,
                train_dataset=datasets.get("train"),
                eval_dataset=datasets.get("validation"),
                processing_class=processor,
                data_collator=ClipCollator(processor),
                compute_metrics=compute_metrics_fn(labels),
            )
    except RuntimeError as error:
        if "to be installed" not in str(error):
            raise
        raise ImportError(f"`report_to`: {error}") from error  # what transformers raises of loggers that are missing


def _check_best_metric(name: str | None, labels: Sequence[str]) -> None:
    """Trainer itself finds out after the first epoch."""
    known = ["loss", "uar", "war", "f1", *(f"recall_{label}" for label in labels)]
    if name is not None and name.removeprefix("eval_") not in known:
        raise ValueError(f"`metric_for_best_model` must be one of {', '.join(known)}, got {name!r}.")


def _predict(trainer: S2DTrainer, dataset: ClipDataset | CachedClips, labels: tuple[str, ...]) -> ClassificationReport:
    prediction = trainer.predict(dataset)
    logits = prediction.predictions
    return classification_report(logits[0] if isinstance(logits, tuple) else logits, prediction.label_ids, labels)


def _predict_with_image_model(
    stage: StageArguments, processors: dict[str, Any], dataset: ClipDataset | CachedClips, labels: tuple[str, ...]
) -> ClassificationReport | None:
    """The image model where the video model started, on the same videos; `None` if it isn't one of these labels."""
    model = S2DForVideoClassification.from_pretrained(find_start(stage.model))
    if model.config.temporal_adapters or label_names(model.config) != tuple(labels):
        return None
    return _predict(_build_trainer(_for_evaluation(stage), model, processors, {}), dataset, labels)


def _predict_from_landmarks(
    stage: StageArguments, samples: dict[str, LabelledSamples], config: S2DConfig, processors: dict[str, Any]
) -> dict[str, Any]:
    """What logistic regressions on landmarks give, by names for the metrics; the main process computes them."""
    processor = processors[stage_kind(stage)]
    stage = copy.copy(stage)
    stage.data = copy.copy(stage.data)
    stage.data.cache_dir, stage.data.keep_in_memory = None, False
    reports = {}
    if PartialState().is_main_process:
        # one view of each, and no augmentation
        datasets = {
            name: build_dataset(samples[name], "validation", stage, config, processor) for name in ("train", "test")
        }
        train, test = (cast(ClipDataset, datasets[name]) for name in ("train", "test"))  # as there is no cache
        reports = probe_landmarks(train, test, processor, stage.training.device, _shows_progress(stage))
    PartialState().wait_for_everyone()
    return {_PROBES[name]: report.to_dict() for name, report in reports.items()}


def _for_evaluation(stage: StageArguments) -> StageArguments:
    """The same arguments without what concerns the training alone."""
    stage = copy.copy(stage)
    stage.training = training = copy.copy(stage.training)
    training.anchor_distillation, training.ema_decay, training.push_to_hub = False, None, False
    training.eval_strategy, training.do_eval, training.load_best_model_at_end = "no", False, False
    return stage


def _find_checkpoint(given: str | None, folder: Path, needed: Mapping[str, str]) -> str | None:
    """The checkpoint to go on from: the one that is named, or the last whole one of the stage's folder, if any."""
    if given is None or not _resumes(given):
        return None
    if given.lower() == "true":
        return find_last_checkpoint(folder, needed)
    given = os.path.expanduser(given)
    check_checkpoint(given, needed)
    return given


def _refuse_older_checkpoints(stage: StageArguments) -> None:
    """A run that is broken off, and resumed, must not go on from a checkpoint of another one."""
    folder = Path(stage.training.output_dir)
    older = sorted(path.name for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir())
    if older and not _resumes(stage.training.resume_from_checkpoint):
        raise ValueError(
            f"{folder} has checkpoints of an earlier run ({older[0]}): go on from them with `--resume_from_checkpoint "
            "true`, take another `output_dir`, or remove them."
        )


def _resumes(given: str | None) -> bool:
    return given is not None and given.lower() != "false"


def _run_landmark_stage(stage: StageArguments, run: RunArguments) -> Path:
    """Trains a landmark encoder on the known points of the stills; returns the folder of a processor with it."""
    folder = Path(stage.training.output_dir)
    if _finished_metrics(stage) is not None:
        _say(f"The landmark encoder is trained: {folder}")
        return folder
    _say(f"\nLandmark encoder: {folder}")
    set_seed(stage.training.seed)
    try:
        encoder = MobileFaceNetLandmarkEncoder(**cast(dict, run.new_landmark_encoder))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`new_landmark_encoder`: {error}") from error
    datasets = {}
    for name, root in (("train", stage.data.train_data), ("test", stage.data.test_data)):
        augmentation = {"flip_probability": 0.5, "jitter": 0.2, "seed": stage.training.seed} if name == "train" else {}
        files, points = read_still_points(cast(str, root))  # the drawn ones
        datasets[name] = LandmarkPointsDataset(
            files, points, size_of_stills(files), **augmentation, progress=_shows_progress(stage)
        )
    stage.training.resume_from_checkpoint = _find_checkpoint(stage.training.resume_from_checkpoint, folder, {})
    _begin(stage)
    metrics = train_landmark_encoder(encoder, datasets["train"], datasets["test"], args=stage.training)
    _say(f"Mean error of the 68 points: {100 * metrics['nme']:.1f} % of the distance between the outer eye corners.")
    if PartialState().is_main_process:
        S2DImageProcessor(landmark_encoder=encoder).save_pretrained(folder)
    _finish(folder, metrics)
    return folder


def _shows_progress(stage: StageArguments) -> bool:
    return not stage.training.disable_tqdm and PartialState().is_main_process


def _say(text: str) -> None:
    PartialState().print(text, flush=True)


__all__ = ["StageResult", "chance_scores", "evaluate_stage", "format_table", "name_data", "run_recipe", "run_stage"]
