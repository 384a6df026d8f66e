"""The scores as a module of `evaluate`, as it stands in the package and on the Hub."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from huggingface_hub.repocard import metadata_load
from sklearn.metrics import balanced_accuracy_score

import s2d_hf.metrics
from s2d_hf import S2DForImageClassification, S2DImageProcessor
from s2d_hf.metrics import classification_report
from s2d_hf.metrics.uar_war.uar_war import UarWar
from tests.trainer.small_image_model import write_image_model

from .test_classification import NAMES, count_by_hand, draw_samples

FOLDER = Path(s2d_hf.metrics.__file__).parent / "uar_war"

ACCURACY = """
import datasets
import evaluate


class Accuracy(evaluate.Metric):
    def _info(self):
        value = datasets.Value("int64")
        features = datasets.Features({"predictions": value, "references": value})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"accuracy": sum(p == r for p, r in zip(predictions, references)) / len(references)}
"""

LOADED_FROM_PATHS = """
import json, sys
import evaluate
folder, accuracy, predictions, references = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
metric = evaluate.load(folder)
whole = metric.compute(predictions=predictions, references=references)
for start in range(0, len(predictions), 7):
    metric.add_batch(predictions=predictions[start : start + 7], references=references[start : start + 7])
in_batches = metric.compute()
for prediction, reference in zip(predictions, references):
    metric.add(prediction=prediction, reference=reference)
one_by_one = metric.compute()
both = evaluate.combine([metric, evaluate.load(accuracy)])
combined = both.compute(predictions=predictions, references=references)
print("FOUND" + json.dumps([metric.name, whole, in_batches, one_by_one, combined]))
"""


@pytest.fixture
def metric(tmp_path) -> UarWar:
    return UarWar(cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def accuracy_script(tmp_path) -> Path:
    """In place of the Hub's, which is not on this machine."""
    path = tmp_path / "accuracy" / "accuracy.py"
    path.parent.mkdir()
    path.write_text(ACCURACY)
    return path


def run_offline(python: str | Path, code: str, *arguments: str | Path, home: Path, cwd: Path | None = None) -> str:
    """What a program prints that has empty caches, and no Hub."""
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment, cwd=cwd,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_it_loads_from_its_path_offline_without_the_package(clean_python, accuracy_script, tmp_path):
    logits, true = draw_samples(10, 40, [0, 1, 3])
    predicted = logits.argmax(axis=1)
    arguments = (FOLDER, accuracy_script, json.dumps(predicted.tolist()), json.dumps(true.tolist()))
    printed = run_offline(clean_python, LOADED_FROM_PATHS, *arguments, home=tmp_path / "home")
    name, *results, combined = json.loads(printed.split("FOUND")[1])
    assert name == "uar_war"
    expected = count_by_hand(logits, true)
    assert combined.pop("accuracy") == pytest.approx(expected["war"])
    for result in (*results, combined):
        assert list(result) == ["uar", "war", "f1", *(f"recall_{index}" for index in range(5))]
        assert [result[key] for key in ("uar", "war", "f1")] == pytest.approx(
            [expected[key] for key in ("uar", "war", "f1")]
        )
        for index in range(5):
            wanted = expected["recalls"].get(index, math.nan)
            assert result[f"recall_{index}"] == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 2, 3, 3, 4], [0, 0, 2, 4], [3]])
def test_it_agrees_with_counting_scikit_learn_and_the_report(labels, metric):
    logits, true = draw_samples(11, 120, labels)
    predicted = logits.argmax(axis=1)
    result = metric.compute(predictions=predicted, references=true, label_names=NAMES)
    expected, report = count_by_hand(logits, true), classification_report(logits, true, NAMES)
    for key in ("uar", "war", "f1"):
        assert result[key] == pytest.approx(expected[key]) == pytest.approx(getattr(report, key))
    recalls = np.array([np.mean(predicted[true == index] == index) for index in sorted(set(labels))])
    assert result["uar"] == pytest.approx(recalls.mean())
    if len(labels) > 4:  # scikit-learn's own has no way to leave out classes that are only predicted
        assert result["uar"] == pytest.approx(balanced_accuracy_score(true, predicted))
    for index, name in enumerate(NAMES):
        wanted = expected["recalls"].get(index, math.nan)
        assert result[f"recall_{name}"] == pytest.approx(wanted, nan_ok=True)


def test_the_number_of_classes_is_given_or_found(metric):
    assert list(metric.compute(predictions=[2, 0], references=[0, 1]))[3:] == ["recall_0", "recall_1", "recall_2"]
    found = metric.compute(predictions=torch.tensor([1, 0]), references=[0, 0], num_labels=4)
    assert (found["uar"], found["recall_0"]) == (0.5, 0.5) and math.isnan(found["recall_3"])


def test_a_mistake_leaves_nothing_behind(metric):
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        metric.compute(predictions=[1, 2], references=[0, 1], num_labels=2)
    assert metric.compute(predictions=[1], references=[1])["war"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": [0, 1], "references": [1]}, "There are 2 `predictions` and 1 `references`"),
        ({"predictions": [], "references": []}, "There are no `predictions` and `references`"),
        ({"predictions": [1]}, "`references` is missing"),
        ({"predictions": [1.7], "references": [1]}, "`predictions` must be class indices, integers.*float64"),
        ({"predictions": ["sad"], "references": [1]}, "`predictions` must be class indices, integers"),
        ({"predictions": [True], "references": [1]}, "`predictions` must be class indices, integers.*bool"),
        ({"predictions": 3, "references": [1]}, "`predictions` must be class indices"),
        ({"predictions": [[0.1, 0.9]], "references": [1]}, "`predictions`.*of logits, take the argmax"),
        ({"predictions": [0], "references": [-1]}, "`references` must be from 0 to 0.*-1, at index 0"),
        (
            {"predictions": [0, 7], "references": [1, 1], "label_names": NAMES},
            "from 0 to 4, but 1 of 2.*7, at index 1",
        ),
        ({"predictions": [0], "references": [0], "label_names": ["a", "a"]}, "must differ.* a repeats"),
        ({"predictions": [0], "references": [0], "label_names": "ab"}, "must be a list of strings"),
        ({"predictions": [0], "references": [0], "label_names": ["a"], "num_labels": 2}, "`num_labels` is 2.*1 names"),
        ({"predictions": [0], "references": [0], "num_labels": 0}, "`num_labels` must be a whole number"),
    ],
)
def test_it_refuses(arguments, message, metric):
    with pytest.raises(ValueError, match=message):
        metric.compute(**arguments)


def test_one_sample_at_a_time_is_checked_too(metric):
    with pytest.raises(ValueError, match="`reference` must be class indices, integers"):
        metric.add(prediction=1, reference=0.5)
    with pytest.raises(ValueError, match="`prediction` is missing"):
        metric.add(reference=1)


def test_evaluator_gives_the_scores_of_the_image_pipeline(accuracy_script, tmp_path):
    folder = write_image_model(tmp_path / "model")
    model = S2DForImageClassification.from_pretrained(folder).eval()
    processor = S2DImageProcessor.from_pretrained(folder)
    names = list(model.config.label2id)
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(9)]
    true = [0, 1, 0, 0, 1, 0, 0, 0, 1]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    data = Dataset.from_dict({"image": pictures, "label": true}, features=features)
    with torch.no_grad():
        predicted = model(**processor(pictures, return_tensors="pt")).logits.argmax(dim=-1).tolist()
    hits = [[p == t for p, t in zip(predicted, true, strict=True) if t == label] for label in (0, 1)]

    run = evaluate.evaluator("image-classification")
    # by its folder: for a pipeline object, evaluate 0.4.6 looks for TensorFlow's models, which transformers 5 has not
    options = {"model_or_pipeline": str(folder), "data": data, "label_mapping": model.config.label2id}
    accuracy = evaluate.load(str(accuracy_script), cache_dir=str(tmp_path / "cache"))
    assert run.compute(**options, metric=accuracy)["accuracy"] == pytest.approx(sum(map(sum, hits)) / 9)
    found = run.compute(**options, metric=UarWar(cache_dir=str(tmp_path / "cache")))
    assert found["war"] == pytest.approx(sum(map(sum, hits)) / 9)
    assert found["uar"] == pytest.approx(sum(sum(of) / len(of) for of in hits) / 2)


def test_card_is_that_of_a_space_and_its_examples_are_right(clean_python, tmp_path):
    card = (FOLDER / "README.md").read_text()
    metadata = metadata_load(FOLDER / "README.md")
    assert metadata["sdk"] == "gradio" and {"evaluate", "metric"} <= set(metadata["tags"])
    assert (FOLDER / metadata["app_file"]).is_file() and "2008.05924" in card
    first, second = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    first = first.replace("metric.compute", "scores = metric.compute")
    show = "\nprint({name: round(score, 3) for name, score in scores.items()})\n"
    # in the folder above, the name is the path
    printed = run_offline(clean_python, first + show + second + show, home=tmp_path, cwd=FOLDER.parent)
    shown = [re.search(r"# (\{.*\})", block).group(1) for block in (first, second)]
    assert printed.splitlines() == shown


APP = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("app", sys.argv[1])
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)
print("FOUND" + json.dumps(app.compute([["0", "0"], ["1", 1], ["1", "1"], ["0", "1"], ["", ""]], "sad, happy, fear")))
try:
    app.compute([["sad", "0"]], "")
except app.gr.Error as error:
    print(error)
"""


@pytest.mark.slow
def test_page_of_the_space_computes(tmp_path):
    pytest.importorskip("gradio")
    printed = run_offline(sys.executable, APP, FOLDER / "app.py", home=tmp_path, cwd=tmp_path)
    found, error = printed.split("FOUND")[1].splitlines()
    found = json.loads(found)
    assert found["uar"] == pytest.approx(5 / 6) and found["recall_happy"] == pytest.approx(2 / 3)
    assert found["recall_fear"] is None and "sad" in error


def test_numbers_that_are_no_class_indices_are_refused_at_once(metric):
    with pytest.raises(ValueError, match="go up to 1000000000000: if these are class indices, give `num_labels`"):
        metric.compute(predictions=[10**12], references=[1])
