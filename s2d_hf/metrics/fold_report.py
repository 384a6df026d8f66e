"""Folds of a data set, averaged: the table of our scores beside the authors', fold by fold, and what made ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.paper_datasets import AuthorsScores, PaperDataset

VARIANTS = {
    "plain": "each training sample once in an epoch",
    "oversampling": "classes drawn equally often in training",
}

# What the report says of each fold, beside its scores.
_NEEDED = (
    "paper_dataset",
    "fold",
    "samples",
    "left_out",
    "seed",
    "check_counts",
    "validate_on_test",
    "recipe",
    "provenance",
)


def collect_results(folder: str | Path, dataset: PaperDataset) -> dict[str, dict[str, dict[str, Any]]]:
    """
    What stands in `folder/<variant>/fold-<fold>/metrics.json`: metrics by variant and fold. Folds that aren't finished
    are left out.

    Raises:
        ValueError: if a file is damaged, or of another data set or fold than its place says.
    """
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in VARIANTS:
        for fold in dataset.folds:
            path = Path(folder, variant, f"fold-{fold}", "metrics.json")
            if not path.is_file():
                continue
            metrics = _read_metrics(path)
            if (metrics.get("paper_dataset"), metrics.get("fold")) != (dataset.name, fold):
                raise ValueError(
                    f"{path} is of {metrics.get('paper_dataset')}, fold {metrics.get('fold')}, and not of "
                    f"{dataset.name}, fold {fold}: take another folder."
                )
            results.setdefault(variant, {})[fold] = metrics
    return results


def _read_metrics(path: Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: if the file is damaged, or what the report needs is missing; the message names it.
    """
    try:
        metrics = dict(json.loads(path.read_text(encoding="utf-8")))
        scores = [metrics["test"][name] for name in ("uar", "war")]
        if not all(isinstance(score, float) and 0 <= score <= 1 for score in scores):
            raise ValueError(f"UAR and WAR must be from 0 to 1, and are {scores}")
        if "benchmark" in metrics:  # as version 0.1 wrote it
            metrics.setdefault("paper_dataset", metrics.pop("benchmark"))
        missing = [name for name in _NEEDED if name not in metrics]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return metrics
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be used ({error}): remove it, and its fold is run again.") from error


def build_report(dataset: PaperDataset, results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """
    The report as JSON can hold it; scores are in percent.

    Args:
        dataset ([`PaperDataset`]): The data set, with the authors' scores.
        results (`dict`): Metrics by variant and fold, as [`collect_results`] gives them.

    Returns:
        `dict` with `paper_dataset`, `num_folds` and, in `variants`, for each variant its `folds` (UAR, WAR and what
        made them), the `mean` over the folds that are there, and the same of the authors (`reported_by_the_authors`).
    """
    variants = {}
    for variant, by_fold in results.items():
        folds = {
            fold: {
                "uar": 100 * metrics["test"]["uar"],
                "war": 100 * metrics["test"]["war"],
                "recall": {label: _percent(recall) for label, recall in metrics["test"]["recall"].items()},
                "num_test": metrics["samples"]["test"],
                "left_out": metrics["left_out"],
                "seed": metrics["seed"],
                "epochs": metrics.get("train", {}).get("epoch"),
                "check_counts": metrics["check_counts"],
                "validate_on_test": metrics["validate_on_test"],
                "checkpoint": metrics.get("checkpoint"),
                "recipe": metrics["recipe"],
                "provenance": metrics["provenance"],
            }
            for fold, metrics in by_fold.items()
        }
        variants[variant] = {
            "folds": folds,
            "mean": {metric: _mean([fold[metric] for fold in folds.values()]) for metric in ("uar", "war")},
            "reported_by_the_authors": _as_dict(dataset.reported.get(variant)),
        }
    return {"paper_dataset": dataset.name, "num_folds": len(dataset.folds), "variants": variants}


def format_report(report: dict[str, Any]) -> str:
    """A report of [`build_report`] in Markdown."""
    lines = [f"# {report['paper_dataset']}", ""]
    if not report["variants"]:
        lines.append("No fold is finished.")
    for variant, content in report["variants"].items():
        lines += _format_variant(variant, content, report["num_folds"])
    return "\n".join(lines).rstrip() + "\n"


def _format_variant(variant: str, content: dict[str, Any], num_folds: int) -> list[str]:
    folds, reported = content["folds"], content["reported_by_the_authors"] or {}
    theirs = reported.get("folds", {})
    lines = [f"## {variant.capitalize()}: {VARIANTS[variant]}", ""]
    header, rule = ["fold", "UAR", "WAR", "test samples"], ["---", "---:", "---:", "---:"]
    if reported:
        header[3:3], rule[3:3] = ["authors' UAR", "authors' WAR"], ["---:", "---:"]
    lines += [f"| {' | '.join(header)} |", f"| {' | '.join(rule)} |"]

    def row(name: str, own: dict[str, float], their: dict[str, float] | None, count: int) -> str:
        cells = [name, f"{own['uar']:.2f}", f"{own['war']:.2f}"]
        if reported:
            cells += [f"{their[metric]:.2f}" if their else "" for metric in ("uar", "war")]
        return f"| {' | '.join([*cells, f'{count:,}'])} |"

    lines += [row(fold, scores, theirs.get(fold), scores["num_test"]) for fold, scores in folds.items()]
    if num_folds > 1:
        whole = len(folds) == num_folds
        name = "**mean**" if whole else f"mean of {len(folds)} of {num_folds} folds"
        total = sum(scores["num_test"] for scores in folds.values())
        lines.append(row(name, content["mean"], reported.get("mean") if whole else None, total))
    lines += ["", "In percent. The authors' numbers are those of their paper; ours are of one run for each fold."]
    trained = [scores for scores in folds.values() if scores["checkpoint"] is None]
    if any(scores["validate_on_test"] for scores in trained):
        lines.append(
            "As the authors do, the epoch was chosen on the test samples, so the scores are a little too good."
        )
    if not all(scores["check_counts"] for scores in folds.values()):
        lines.append("**The sizes were not checked: these may not be the whole data.**")
    lines.append("")
    origins: dict[str, list[str]] = {}
    for fold, scores in folds.items():
        origins.setdefault(_format_origin(scores), []).append(fold)
    for origin, names in origins.items():
        lines.append(f"- fold{'s' if len(names) > 1 else ''} {', '.join(names)}: {origin}")
    lines += ["", "Confusion matrices: " + ", ".join(_picture(variant, fold) for fold in folds) + ".", ""]
    left_out = sum(len(names) for scores in folds.values() for names in scores["left_out"].values())
    if left_out:
        lines += [f"**{left_out} files could not be read and were left out**; `report.json` names them.", ""]
    return lines


def _format_origin(scores: dict[str, Any]) -> str:
    origin = scores["provenance"]
    checkpoint = scores["checkpoint"]
    if checkpoint is None:
        what = f"{scores['epochs']:g} epochs, seed {scores['seed']}"
    else:
        what = f"evaluation of `{checkpoint}`"
    commit = f", commit {origin['commit']}" if "commit" in origin else ""
    processes = "1 process" if origin["processes"] == 1 else f"{origin['processes']} processes"
    return (
        f"recipe {scores['recipe']}, {what}, on {origin['hardware']}, {processes}, {origin['date']}; s2d_hf "
        f"{origin['s2d_hf']}{commit}, torch {origin['torch']}, transformers {origin['transformers']}"
    )


def _picture(variant: str, fold: str) -> str:
    return f"[fold {fold}]({variant}/fold-{fold}/confusion_matrix.png)"


def _as_dict(scores: AuthorsScores | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {"folds": {fold: score._asdict() for fold, score in scores.folds.items()}, "mean": scores.mean._asdict()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


__all__ = ["VARIANTS", "build_report", "collect_results", "format_report"]
