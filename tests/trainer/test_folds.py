"""Miniatures of the data sets, in their layouts, through recipes and training/folds.py."""

import copy
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from s2d_hf import S2DForImageClassification, S2DForVideoClassification
from s2d_hf.data.paper_datasets import PAPER_DATASETS, find_paper_dataset
from s2d_hf.metrics.fold_report import build_report, collect_results, format_report
from s2d_hf.trainer import read_recipe, run_recipe
from tests.data.paper_layouts import miniatures

from .small_image_model import write_image_model

ROOT = Path(__file__).resolve().parents[2]
# what a small model on a CPU needs to run otherwise than the recipes say
SMALL = [
    "--num_train_epochs", "1", "--use_cpu", "--fp16", "false", "--bf16", "false", "--dataloader_num_workers", "0",
    "--check_counts", "false", "--report_to", "none", "--disable_tqdm", "true",
]  # fmt: skip


@pytest.fixture(scope="module")
def image_model(tmp_path_factory) -> Path:
    return write_image_model(tmp_path_factory.mktemp("image_model"))


def recipe_of(name: str) -> Path:
    stem = "affectnet" if name.startswith("AffectNet") else name.lower().replace("-", "")
    return ROOT / "training" / "recipes" / f"{stem}.yaml"


def run_script(monkeypatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["folds.py", *argv])
    runpy.run_path(str(ROOT / "training" / "folds.py"), run_name="__main__")


def test_every_data_set_is_tested():
    assert set(miniatures.WRITERS) == set(PAPER_DATASETS)


@pytest.mark.parametrize("name", sorted(miniatures.WRITERS))
def test_one_epoch_of_the_recipe(name, image_model, tmp_path):
    root = miniatures.WRITERS[name](tmp_path / "data")
    dataset = find_paper_dataset(name)
    arguments = ["--paper_dataset", name, "--data_root", str(root), "--output_dir", str(tmp_path / "out"), *SMALL]
    arguments += ["--model_name_or_path", str(image_model)]
    (result,) = run_recipe(read_recipe([str(recipe_of(name)), *arguments], default=""))
    metrics = result.metrics
    assert tuple(metrics["test"]["label_names"]) == dataset.labels
    expected = {split: len(dataset.read(root, split, fold="1", check_counts=False)) for split in dataset.splits}
    if dataset.kind == "video":
        expected["validation"] = expected["test"]  # the authors choose the epoch on the test videos
    assert metrics["samples"] == expected
    model_class = S2DForVideoClassification if dataset.kind == "video" else S2DForImageClassification
    model = model_class.from_pretrained(result.folder)
    assert tuple(model.config.id2label.values()) == dataset.labels
    recipe = read_recipe([str(recipe_of(name)), *arguments], default="").stages[0]
    if dataset.kind == "video":
        assert (recipe.data.num_windows, recipe.data.num_crops, model.config.num_frames) == (2, 2, 16)
        assert model.config.temporal_adapters and metrics["parameters"]["tunable"] < metrics["parameters"]["total"]
        assert recipe.training.anchor_distillation == (name == "FERV39k")
    else:
        assert metrics["parameters"]["tunable"] == metrics["parameters"]["total"]
        assert recipe.training.layer_decay == 0.65


def test_five_folds_and_their_report(image_model, tmp_path, monkeypatch, capsys):
    root = miniatures.write_dfew(tmp_path / "data")
    out = tmp_path / "out"
    common = ["dfew", "--data_root", str(root), "--output_dir", str(out), "--model_name_or_path", str(image_model)]
    common += ["--variants", "plain", "oversampling", *SMALL]
    run_script(monkeypatch, *common, "--folds", "2", "4")  # as one job of several
    assert "mean of 2 of 5 folds" in (out / "report.md").read_text()
    first = (out / "plain" / "fold-2" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    run_script(monkeypatch, *common)
    assert capsys.readouterr().out.count("is finished") == 4
    assert (out / "plain" / "fold-2" / "model.safetensors").stat().st_mtime_ns == first

    report = json.loads((out / "report.json").read_text())
    for variant, authors_mean in (("plain", (61.82, 76.03)), ("oversampling", (65.45, 74.81))):
        content = report["variants"][variant]
        assert list(content["folds"]) == ["1", "2", "3", "4", "5"]
        scores = []
        for fold in content["folds"]:
            metrics = json.loads((out / variant / f"fold-{fold}" / "metrics.json").read_text())
            assert metrics["fold"] == fold and metrics["balanced_sampling"] == (variant == "oversampling")
            confusion = torch.tensor(metrics["test"]["confusion_matrix"]).double()
            uar = (confusion.diagonal() / confusion.sum(dim=1)).mean() * 100
            war = confusion.trace() / confusion.sum() * 100
            assert content["folds"][fold]["uar"] == pytest.approx(float(uar))
            assert content["folds"][fold]["war"] == pytest.approx(float(war))
            scores.append((float(uar), float(war)))
            assert (out / variant / f"fold-{fold}" / "confusion_matrix.png").is_file()
        means = torch.tensor(scores).mean(dim=0).tolist()
        assert [content["mean"]["uar"], content["mean"]["war"]] == pytest.approx(means, abs=1e-4)
        authors = content["reported_by_the_authors"]["mean"]
        assert (authors["uar"], authors["war"]) == authors_mean
    text = (out / "report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| **mean** |"))
    content = report["variants"]["plain"]
    assert row == f"| **mean** | {content['mean']['uar']:.2f} | {content['mean']['war']:.2f} | 61.82 | 76.03 | 35 |"
    assert "- folds 1, 2, 3, 4, 5: recipe dfew, 1 epochs, seed 0" in text and str(tmp_path) not in text
    assert "sizes were not checked" in text


def test_evaluate_only_reproduces_the_trained_models_scores(image_model, tmp_path, monkeypatch):
    root = miniatures.write_dfew(tmp_path / "data")
    common = ["DFEW", "--data_root", str(root), "--folds", "1", "3"]
    trained, evaluated = tmp_path / "trained", tmp_path / "evaluated"
    run_script(monkeypatch, *common, "--output_dir", str(trained), "--model_name_or_path", str(image_model), *SMALL)
    checkpoints = str(trained / "plain" / "fold-{fold}")
    run_script(monkeypatch, *common, "--output_dir", str(evaluated), "--evaluate_only", checkpoints, *SMALL)
    for fold in ("1", "3"):
        first, second = (
            json.loads((f / "plain" / f"fold-{fold}" / "metrics.json").read_text()) for f in (trained, evaluated)
        )
        assert second["test"] == first["test"] and second["checkpoint"] == f"plain/fold-{fold}"
        assert not (evaluated / "plain" / f"fold-{fold}" / "model.safetensors").exists()
    assert "evaluation of `plain/fold-1`" in (evaluated / "report.md").read_text()


def test_mistakes_are_named(image_model, tmp_path, monkeypatch):
    root = miniatures.write_dfew(tmp_path / "data", folds=("1",))
    with pytest.raises(SystemExit, match="Unknown data set 'CK'"):
        run_script(monkeypatch, "CK", "--data_root", str(root))
    with pytest.raises(SystemExit, match="DFEW has the folds 1, 2, 3, 4, 5, and no 7"):
        run_script(monkeypatch, "DFEW", "--data_root", str(root), "--folds", "7")
    out = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"expected 9,356 .*samples, found 14"):
        run_script(monkeypatch, "DFEW", "--data_root", str(root), *out, "--model_name_or_path", str(image_model))
    with pytest.raises(SystemExit, match=r"has the labels LABEL_0, LABEL_1, and the test data happy"):
        run_script(
            monkeypatch, "DFEW", "--data_root", str(root), *out, "--folds", "1", "--evaluate_only", str(image_model),
            *SMALL,
        )  # fmt: skip
    with pytest.raises(SystemExit, match="RAF-DB has images, and the dynamic stage needs videos"):
        run_script(
            monkeypatch, "RAF-DB", "--data_root", str(root), *out, "--recipe", str(recipe_of("DFEW")),
            "--model_name_or_path", str(image_model), *SMALL,
        )  # fmt: skip


def fake_metrics(dataset: str, fold: str, uar: float) -> dict:
    return {
        "paper_dataset": dataset, "fold": fold, "recipe": "dfew", "seed": 3, "train": {"epoch": 100.0},
        "check_counts": True, "validate_on_test": True, "samples": {"test": 2341},
        "left_out": {"test": ["00012"]} if fold == "2" else {},
        "test": {"uar": uar, "war": uar + 0.1, "recall": {"happy": uar, "fear": None}},
        "provenance": {
            "date": "2026-01-02", "s2d_hf": "0.1.0", "torch": "2.11", "transformers": "5.17", "hardware": "a GPU",
            "processes": 2, "commit": "abc123",
        },
    }  # fmt: skip


def test_report_says_what_is_missing(tmp_path):
    dfew = find_paper_dataset("DFEW")
    results = {"plain": {fold: fake_metrics("DFEW", fold, 0.6) for fold in ("1", "2")}}
    text = format_report(build_report(dfew, results))
    assert "| 1 | 60.00 | 70.00 | 61.56 | 76.16 | 2,341 |" in text
    assert "| mean of 2 of 5 folds | 60.00 | 70.00 |  |  | 4,682 |" in text
    assert "**1 files could not be read" in text and "sizes were not checked" not in text
    assert "chosen on the test samples" in text
    assert "- folds 1, 2: recipe dfew, 100 epochs, seed 3, on a GPU, 2 processes, 2026-01-02" in text
    assert text.count("commit abc123") == 1
    assert "No fold is finished" in format_report(build_report(dfew, {}))
    raf = find_paper_dataset("RAF-DB")  # the authors' numbers for it aren't known here
    text = format_report(build_report(raf, {"plain": {"1": fake_metrics("RAF-DB", "1", 0.9)}}))
    assert "authors' UAR" not in text and "| 1 | 90.00 | 100.00 | 2,341 |" in text and "mean" not in text


def test_results_of_another_fold_are_refused(tmp_path):
    path = tmp_path / "plain" / "fold-2" / "metrics.json"
    path.parent.mkdir(parents=True)
    metrics = fake_metrics("DFEW", "2", 0.5)
    path.write_text(json.dumps(metrics))
    assert collect_results(tmp_path, find_paper_dataset("DFEW")) == {"plain": {"2": metrics}}
    old = {
        "benchmark" if name == "paper_dataset" else name: value for name, value in metrics.items()
    }  # of version 0.1
    path.write_text(json.dumps(old))
    assert collect_results(tmp_path, find_paper_dataset("DFEW")) == {"plain": {"2": metrics}}
    wrong = copy.deepcopy(metrics) | {"fold": "3"}
    path.write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=r"fold-2.metrics\.json is of DFEW, fold 3"):
        collect_results(tmp_path, find_paper_dataset("DFEW"))


def test_all_folds_are_checked_before_one_is_trained(image_model, tmp_path, monkeypatch):
    root = miniatures.write_dfew(tmp_path / "data", folds=("1", "2"))  # and none of the other three
    common = ["DFEW", "--data_root", str(root), "--output_dir", str(tmp_path / "out"), *SMALL]
    with pytest.raises(SystemExit) as stopped:
        run_script(monkeypatch, *common, "--model_name_or_path", str(image_model))
    assert re.search(r"folds.py: error: .*set_3", stopped.value.code)
    assert not (tmp_path / "out").exists()


def test_a_fold_that_breaks_stops_no_others(image_model, tmp_path, monkeypatch, capsys):
    root, out = miniatures.write_dfew(tmp_path / "data"), tmp_path / "out"
    models = {fold: tmp_path / f"model-{fold}" for fold in "123"}
    trained = ["DFEW", "--data_root", str(root), "--folds", "1", "--output_dir", str(tmp_path / "trained")]
    run_script(monkeypatch, *trained, "--model_name_or_path", str(image_model), *SMALL)
    for folder in models.values():
        shutil.copytree(tmp_path / "trained" / "plain" / "fold-1", folder)
    weights = models["2"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    common = ["DFEW", "--data_root", str(root), "--folds", "1", "2", "3", "--output_dir", str(out), *SMALL]
    common += ["--evaluate_only", str(tmp_path / "model-{fold}")]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_script(monkeypatch, *common)
    broken = f"1 of 3 broke: plain, fold 2: The weights of {models['2']} can't be read"
    assert stopped.value.code.startswith(f"folds.py: error: {broken}") and "\n" not in stopped.value.code
    assert "covered. The report holds the others" in stopped.value.code
    assert "mean of 2 of 5 folds" in (out / "report.md").read_text()
    assert "folds.py: plain, fold 2: The weights of" in capsys.readouterr().err
    # what is mended goes on
    shutil.copy(models["1"] / "model.safetensors", weights)
    run_script(monkeypatch, *common)
    shown = capsys.readouterr().out
    assert shown.count("is finished") == 2 and "mean of 3 of 5 folds" in shown
    path = out / "plain" / "fold-1" / "metrics.json"
    metrics = json.loads(path.read_text())
    nan = metrics | {"test": metrics["test"] | {"uar": float("nan")}}
    others = [nan, metrics | {"test": {"uar": "x"}}, [1], {name: metrics[name] for name in metrics if name != "seed"}]
    for content in (path.read_text()[:100], "[" * 100_000, *map(json.dumps, others)):
        path.write_text(content)
        with pytest.raises(SystemExit) as stopped:  # before anything is run
            run_script(monkeypatch, *common)
        assert re.search(r"fold-1/metrics.json can't be used .*remove it", stopped.value.code)
