"""The model card that a training leaves beside its model: what was done and measured, to be completed by people."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from .building import label_names
from .recipes import StageArguments

_TASKS = {
    "static": ("image-classification", "Image Classification"),
    "dynamic": ("video-classification", "Video Classification"),
}
_USAGE = {
    "static": 'classifier("face.jpg")  # a picture of one face, cropped',
    "dynamic": 'classifier("face.mp4")  # a video of one face, cropped',
}
# what a reader wants to know of a training beside its data, if it is not transformers' default
_SETTINGS = (
    "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "learning_rate_batch", "lr_scheduler_type", "warmup_steps", "weight_decay", "label_smoothing_factor",
    "mixup_alpha", "cutmix_alpha", "random_erasing_prob", "balanced_sampling", "anchor_distillation", "ema_decay",
    "bf16", "fp16",
)  # fmt: skip


def write_model_card(
    folder: str | Path, stage: StageArguments, model: PreTrainedModel, metrics: dict[str, Any]
) -> None:
    """
    Writes `README.md` with the card's metadata and text. What no program can know is marked "to be written".

    Args:
        folder (`str` or `Path`): The model's folder.
        stage ([`StageArguments`]): How it was trained.
        model ([`PreTrainedModel`]): The model.
        metrics (`dict`): What `metrics.json` holds.
    """
    folder = Path(folder)
    task, task_name = _TASKS[stage.name]
    test = metrics.get("test")
    results = None
    if test is not None:
        results = [
            EvalResult(
                task_type=task,
                task_name=task_name,
                dataset_type="other",
                dataset_name=metrics["data"],
                metric_type=metric_type,
                metric_name=metric_name,
                metric_value=round(test[key], 4),
            )
            for key, metric_type, metric_name in (("uar", "recall", "UAR"), ("war", "accuracy", "WAR"))
        ]
    name = _name(stage, metrics)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=["s2d", "facial-expression-recognition"],
        model_name=name,
        eval_results=results,
    )
    text = "\n\n".join(part for part in _sections(name, stage, model, metrics) if part)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(folder / "README.md")


def _name(stage: StageArguments, metrics: dict[str, Any]) -> str:
    repository = stage.training.hub_model_id
    return f"{metrics['recipe']}-{stage.name}" if repository is None else repository.split("/")[-1]


def _sections(name: str, stage: StageArguments, model: PreTrainedModel, metrics: dict[str, Any]) -> list[str]:
    kind = "images" if stage.name == "static" else "videos"
    task, _ = _TASKS[stage.name]
    parameters = metrics["parameters"]
    tuned = f"{parameters['tunable']:,} of {parameters['total']:,} parameters were trained"
    settings = []
    for setting in _SETTINGS:
        value = getattr(stage.training, setting)
        if value not in (None, False, 0):
            settings.append(f"| `{setting}` | {getattr(value, 'value', value)} |")
    start = stage.model.model_name_or_path
    # a folder's place on this machine is nobody's business
    start = "new weights" if start is None else f"`{Path(start).name if Path(start).exists() else start}`"
    return [
        f"# {name}",
        f"An S2D model ([arXiv 2312.05447](https://arxiv.org/abs/2312.05447)) that recognises facial expressions in "
        f"{kind}, trained with `s2d_hf`.",
        "```python\nfrom transformers import pipeline\n\n"
        f'classifier = pipeline("{task}", model="path/to/this/model", trust_remote_code=True)\n'
        f"{_USAGE[stage.name]}\n```",
        f"Labels: {', '.join(label_names(model.config))}.",
        "## Data",
        f"Trained on {metrics['samples']['train']:,} {kind} of {metrics['data']}. Where they come from, under which "
        "licence, who labelled them and whom they show: to be written.",
        "## Training",
        f"Recipe `{metrics['recipe']}`, stage `{stage.name}`, starting from {start}; {tuned} "
        f"({100 * parameters['tunable'] / parameters['total']:.1f} %).",
        "| setting | value |\n| --- | --- |\n" + "\n".join(settings),
        "## Evaluation",
        _evaluation(kind, metrics),
        "## Limits",
        "Labels are perceived expressions, not inner states. The model must not be used for decisions about people. "
        "For which faces and recordings it works worse: to be written.",
    ]  # fmt: skip


def _evaluation(kind: str, metrics: dict[str, Any]) -> str:
    if "test" not in metrics:
        return "It has not been evaluated."
    compared = {
        "chance": "chance",
        "image_model_averaged": "image model, averaged over frames",
        "test": "this model",
    }
    rows = [(name, metrics[key]) for key, name in compared.items() if key in metrics]
    table = "\n".join(f"| {name} | {100 * scores['uar']:.2f} | {100 * scores['war']:.2f} |" for name, scores in rows)
    return (
        f"Measured on {metrics['samples']['test']:,} {kind} of {metrics['data']} at the end of this one training "
        f"(seed {metrics['seed']}); in percent.\n\n| | UAR | WAR |\n| --- | --- | --- |\n{table}\n\n"
        "![Confusion matrix](confusion_matrix.png)"
    )


__all__ = ["write_model_card"]
