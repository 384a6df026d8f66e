"""The model card that a training leaves beside its model: what was done and measured, to be completed by people."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from ..labels import label_names
from ..markdown import escape_cell

if TYPE_CHECKING:
    from ..trainer.recipes import StageArguments

# for cards that people write, too: model_cards/template.md links to it
TEMPLATE = Path(__file__).resolve().parent / "card_template.md"
_TASKS = {
    "static": ("image-classification", "Image Classification"),
    "dynamic": ("video-classification", "Video Classification"),
}
# what a reader wants to know of a training beside its data, if it is not transformers' default
_SETTINGS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "learning_rate_batch", "lr_scheduler_type", "warmup_steps", "weight_decay", "label_smoothing_factor",
    "mixup_alpha", "cutmix_alpha", "random_erasing_prob", "balanced_sampling", "anchor_distillation", "ema_decay",
    "bf16", "fp16",
)  # fmt: skip


def write_model_card(
    folder: str | Path, stage: "StageArguments", model: PreTrainedModel, metrics: dict[str, Any]
) -> None:
    """
    Writes `README.md`, the template filled in with what was done and measured. What no program can know, the licence
    first of all, is marked "to be written".

    Args:
        folder (`str` or `Path`): The model's folder.
        stage ([`StageArguments`]): How it was trained.
        model ([`PreTrainedModel`]): The model.
        metrics (`dict`): What `metrics.json` holds.
    """
    task, _ = _TASKS[stage.name]
    name, labels, test = _name(stage, metrics), label_names(model.config), metrics.get("test")
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=["s2d", "facial-expression-recognition"],
        model_name=name,
        eval_results=None if test is None else _results(stage, metrics),
    )
    kind = "picture" if stage.name == "static" else "video"
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        model_name=name,
        repository=stage.training.hub_model_id,
        num_frames=model.config.num_frames,
        labels=[escape_cell(label) for label in labels],
        summary=f"Recognises {len(labels)} facial expressions in a {kind} of one face: an S2D model "
        "([arXiv 2312.05447](https://arxiv.org/abs/2312.05447)), trained with s2d_hf.",
        training_data=f"{metrics['samples']['train']:,} {kind}s of {metrics['data']}. Where they come from, who "
        "labelled them, whom they show and under which licence: to be written.",
        training=_training(stage, metrics),
        evaluation=_evaluation(kind, metrics),
        recalls=None if test is None else _recalls(labels, test),
        impact=_impact(metrics),
    )
    card.save(Path(folder) / "README.md")


def _name(stage: "StageArguments", metrics: dict[str, Any]) -> str:
    repository = stage.training.hub_model_id
    return f"{metrics['recipe']}-{stage.name}" if repository is None else repository.split("/")[-1]


def _results(stage: "StageArguments", metrics: dict[str, Any]) -> list[EvalResult]:
    task, task_name = _TASKS[stage.name]
    return [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type="other",
            dataset_name=metrics["test_data"],
            metric_type=metric_type,
            metric_name=metric_name,
            metric_value=round(metrics["test"][key], 4),
            metric_args=arguments,
        )
        for key, metric_type, metric_name, arguments in (
            ("uar", "recall", "UAR", {"average": "macro"}),
            ("war", "accuracy", "WAR", None),
        )
    ]


def _training(stage: "StageArguments", metrics: dict[str, Any]) -> str:
    parameters = metrics["parameters"]
    share = 100 * parameters["tunable"] / parameters["total"]
    start = stage.model.model_name_or_path
    # a folder's place on this machine is nobody's business
    start = "new weights" if start is None else f"`{Path(start).name if Path(start).expanduser().exists() else start}`"
    settings = []
    overruled = "num_train_epochs" if stage.training.max_steps > 0 else "max_steps"
    for setting in _SETTINGS:
        value = getattr(stage.training, setting)
        if value not in (None, False, 0) and setting != overruled:
            settings.append(f"| `{setting}` | {getattr(value, 'value', value)} |")
    return (
        f"Recipe `{metrics['recipe']}`, stage `{stage.name}`, seed {metrics['seed']}, starting from {start}; "
        f"{parameters['tunable']:,} of {parameters['total']:,} parameters were trained ({share:.1f} %).\n\n"
        "| setting | value |\n| --- | --- |\n" + "\n".join(settings)
    )


def _evaluation(kind: str, metrics: dict[str, Any]) -> str:
    if "test" not in metrics:
        return "It has not been evaluated: to be written."
    compared = {
        "chance": "chance",
        "landmark_points": "logistic regression on landmark points",
        "landmark_features": "logistic regression on landmark features",
        "image_model_averaged": "image model, averaged over frames",
        "test": "this model",
    }
    rows = [(name, metrics[key]) for key, name in compared.items() if key in metrics]
    table = "\n".join(f"| {name} | {100 * scores['uar']:.2f} | {100 * scores['war']:.2f} |" for name, scores in rows)
    return (
        f"Measured on {metrics['samples']['test']:,} {kind}s of {metrics['test_data']} at the end of this one "
        f"training (seed {metrics['seed']}), {metrics['views']}; in percent.\n\n"
        f"| | UAR | WAR |\n| --- | ---: | ---: |\n{table}\n\n![Confusion matrix](confusion_matrix.png)"
    )


def _recalls(labels: tuple[str, ...], test: dict[str, Any]) -> list[float | None]:
    recalls = (test["recall"][label] for label in labels)
    return [None if recall is None else 100 * recall for recall in recalls]


def _impact(metrics: dict[str, Any]) -> str:
    origin = metrics["provenance"]
    processes = "1 process" if origin["processes"] == 1 else f"{origin['processes']} processes"
    return (
        f"Trained on {origin['hardware']}, {processes}; it ended on {origin['date']}, "
        f"{_duration(metrics['train']['train_runtime'])} after it was last started. With s2d_hf {origin['s2d_hf']}, "
        f"torch {origin['torch']} and transformers {origin['transformers']}. Carbon was not measured."
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


__all__ = ["TEMPLATE", "write_model_card"]
