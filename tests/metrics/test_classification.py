import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.modeling_outputs import ImageClassifierOutput

from s2d_hf.metrics import classification_report, compute_metrics_fn

NAMES = ("happy", "sad", "neutral", "angry", "surprise")
FIVE_IN_FIVE = [[1, 0, 0, 0, 0]] * 5


def draw_samples(seed: int, count: int, labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (count, 5) that are right more often than not, and true classes (count,) out of `labels`."""
    generator = np.random.default_rng(seed)
    true = generator.choice(labels, count)
    logits = generator.normal(size=(count, len(NAMES)))
    logits[np.arange(count), true] += 1.0
    return logits, true


def count_by_hand(logits: np.ndarray, true: np.ndarray) -> dict:
    """The same numbers from counts of single samples."""
    size = logits.shape[1]
    matrix = [[0] * size for _ in range(size)]
    for row, label in zip(logits.tolist(), true.tolist(), strict=True):
        matrix[label][row.index(max(row))] += 1
    recalls, f1s = {}, []
    for label in range(size):
        hits, support = matrix[label][label], sum(matrix[label])
        if support == 0:
            continue
        recalls[label] = hits / support
        predicted = sum(matrix[row][label] for row in range(size))
        precision = hits / predicted if predicted else 0.0
        f1s.append(2 * precision * recalls[label] / (precision + recalls[label]) if hits else 0.0)
    return {
        "matrix": matrix,
        "recalls": recalls,
        "uar": sum(recalls.values()) / len(recalls),
        "war": sum(matrix[label][label] for label in range(size)) / len(true),
        "f1": sum(f1s) / len(f1s),
    }


@pytest.mark.parametrize(
    ("seed", "count", "labels"),
    [
        (0, 200, [0, 0, 0, 1, 2, 3, 3, 4]),
        # classes that don't occur, but are predicted
        (1, 60, [0, 0, 0, 2, 4]),
        (2, 40, [3]),
        (3, 1, [1]),
    ],
    ids=["all classes", "three classes", "one class", "one sample"],
)
def test_report_agrees_with_counting_by_hand(seed, count, labels):
    logits, true = draw_samples(seed, count, labels)
    expected = count_by_hand(logits, true)
    report = classification_report(logits, true, NAMES)

    assert report.label_names == NAMES
    assert report.uar == pytest.approx(expected["uar"])
    assert report.war == pytest.approx(expected["war"])
    assert report.f1 == pytest.approx(expected["f1"])
    assert report.confusion_matrix.tolist() == expected["matrix"]
    assert report.support == {name: (true == index).sum() for index, name in enumerate(NAMES)}
    assert report.absent_labels == tuple(name for index, name in enumerate(NAMES) if index not in labels)
    assert list(report.recall) == list(NAMES)
    for index, name in enumerate(NAMES):
        wanted = expected["recalls"].get(index)
        assert report.recall[name] is None if wanted is None else report.recall[name] == pytest.approx(wanted)


def test_uar_counts_classes_alike_and_war_counts_samples_alike():
    # nine of ten right in the one class, none of one in the other
    logits = [[1.0, 0.0]] * 9 + [[0.0, 1.0]] + [[1.0, 0.0]]
    report = classification_report(logits, [0] * 10 + [1], ["often", "seldom"])
    assert (report.uar, report.war) == (pytest.approx(0.45), pytest.approx(9 / 11))


def test_report_of_a_class_that_is_never_predicted_warns_of_nothing(recwarn):
    report = classification_report([[1.0, 0.0, 0.0]] * 2, [0, 1], ["a", "b", "c"])
    assert (report.recall["b"], report.uar, report.f1) == (0.0, 0.5, pytest.approx(1 / 3))
    assert not recwarn.list


def test_report_takes_tensors_in_half_precision_and_lists():
    logits, true = draw_samples(4, 50, [0, 1, 2, 3, 4])
    tensor = torch.tensor(logits, dtype=torch.bfloat16, requires_grad=True)
    from_tensors = classification_report(tensor, torch.tensor(true), NAMES)
    from_lists = classification_report(tensor.tolist(), true.tolist(), list(NAMES))
    assert from_tensors.to_dict() == from_lists.to_dict()
    assert from_tensors.war == count_by_hand(np.array(tensor.tolist()), true)["war"]


def test_report_becomes_strict_json_and_comes_back():
    report = classification_report(*draw_samples(5, 30, [0, 2]), NAMES)
    contents = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert contents == report.to_dict()
    assert contents["recall"]["sad"] is None and contents["absent_labels"] == ["sad", "angry", "surprise"]
    assert all(type(value) is float for value in (report.uar, report.war, report.f1, report.recall["happy"]))
    assert np.array_equal(contents["confusion_matrix"], report.confusion_matrix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FIVE_IN_FIVE, [0] * 4, NAMES), r"`labels` has 4 entries, but `logits_or_scores` has 5 rows"),
        ((FIVE_IN_FIVE, [0] * 5, NAMES[:4]), r"`label_names` has 4 names, but `logits_or_scores` has 5 columns"),
        ((np.zeros((0, 5)), [], NAMES), r"`logits_or_scores` is empty"),
        ((np.zeros((3, 0)), [0] * 3, NAMES), r"`logits_or_scores` is empty"),
        (([1.0, 2.0], [0, 1], NAMES), r"`logits_or_scores` must have shape \(N, C\).*\(2,\)"),
        (([[1.0, 2.0], [1.0]], [0, 1], NAMES), r"`logits_or_scores` must be an array of numbers"),
        (([["a", "b"]], [0], ["a", "b"]), r"`logits_or_scores` must be an array of numbers"),
        (([[0.0, 1.0], [math.nan, 0.0]], [0, 1], ["a", "b"]), r"`logits_or_scores` must be finite.*index 1"),
        (([[0.0, math.inf]], [0], ["a", "b"]), r"`logits_or_scores` must be finite.*index 0"),
        (
            (FIVE_IN_FIVE, [0, 1, 5, 2, 7], NAMES),
            r"`labels` must be from 0 to 4, but 2 of 5 are not.* 5, at index 2",
        ),
        ((FIVE_IN_FIVE, [0, 1, 2, -100, 2], NAMES), r"`labels` must be from 0 to 4.*-100, at index 3"),
        ((FIVE_IN_FIVE, FIVE_IN_FIVE, NAMES), r"`labels` must have shape \(N,\).*\(5, 5\)"),
        ((FIVE_IN_FIVE, [0.0, 1.0, 2.0, 3.0, 4.0], NAMES), r"`labels` must be integers, got an array of float64"),
        ((FIVE_IN_FIVE, [[0], [1, 2]], NAMES), r"`labels` must be integers"),
        ((FIVE_IN_FIVE, [0] * 5, "abcde"), r"`label_names` must be a list of strings"),
        ((FIVE_IN_FIVE, [0] * 5, dict(enumerate(NAMES))), r"`label_names` must be a list of strings"),
        ((FIVE_IN_FIVE, [0] * 5, []), r"`label_names` must be a list of strings"),
        ((FIVE_IN_FIVE, [0] * 5, ["a", "b", "a", "c", "d"]), r"`label_names` must differ.* a repeats"),
    ],
)
def test_report_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        classification_report(*arguments)


@pytest.mark.parametrize("missing", ["sklearn.metrics", "evaluate"])
def test_what_is_not_installed_is_named(missing, monkeypatch):
    monkeypatch.delitem(sys.modules, "s2d_hf.metrics.uar_war.uar_war", raising=False)
    monkeypatch.delattr("s2d_hf.metrics.uar_war.uar_war", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"evaluate and scikit-learn.*s2d-hf\[train\]"):
        classification_report(FIVE_IN_FIVE, [0] * 5, NAMES)
    with pytest.raises(ImportError, match=r"evaluate and scikit-learn.*s2d-hf\[train\]"):
        compute_metrics_fn(NAMES)


def test_compute_metrics_has_the_same_keys_whichever_classes_occur():
    compute_metrics = compute_metrics_fn(NAMES)
    logits, true = draw_samples(6, 40, [0, 3])
    metrics = compute_metrics(EvalPrediction(predictions=logits, label_ids=true))
    assert list(metrics) == ["uar", "war", "f1", *(f"recall_{name}" for name in NAMES)]
    expected = count_by_hand(logits, true)
    assert [metrics[key] for key in ("uar", "war", "f1")] == pytest.approx(
        [expected[key] for key in ("uar", "war", "f1")]
    )
    assert metrics["recall_angry"] == pytest.approx(expected["recalls"][3])
    assert math.isnan(metrics["recall_sad"])


def test_compute_metrics_takes_the_first_of_several_outputs():
    logits, true = draw_samples(7, 20, [0, 1, 2, 3, 4])
    compute_metrics = compute_metrics_fn(NAMES)
    several = compute_metrics(EvalPrediction(predictions=(logits, np.zeros((20, 8))), label_ids=true))
    assert several == compute_metrics(EvalPrediction(predictions=logits, label_ids=true))


def test_compute_metrics_refuses_names_before_the_training():
    with pytest.raises(ValueError, match="`label_names` must differ"):
        compute_metrics_fn(["a", "a"])


class EchoModel(torch.nn.Module):
    """Gives its inputs as logits, as transformers' models do."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> ImageClassifierOutput:
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=(logits[:, :2],))


def test_trainer_reports_the_metrics(tmp_path):
    logits, true = draw_samples(8, 11, [0, 1, 2, 3, 4])
    rows = [{"logits": torch.tensor(row), "labels": int(label)} for row, label in zip(logits, true, strict=True)]
    arguments = TrainingArguments(
        output_dir=tmp_path, per_device_eval_batch_size=4, report_to="none", use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(EchoModel(), arguments, eval_dataset=rows, compute_metrics=compute_metrics_fn(NAMES))
    metrics = trainer.evaluate()
    expected = count_by_hand(logits, true)
    assert metrics["eval_uar"] == pytest.approx(expected["uar"])
    assert metrics["eval_war"] == pytest.approx(expected["war"])
    assert metrics["eval_f1"] == pytest.approx(expected["f1"])
    assert metrics["eval_recall_sad"] == pytest.approx(expected["recalls"][1])


def test_evaluations_at_once_do_not_meet():
    """As of several processes, each of which computes the scores of all samples."""
    compute_metrics = compute_metrics_fn(NAMES)
    samples = [draw_samples(seed, 300, [0, 1, 2, 3, 4]) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda s: compute_metrics(EvalPrediction(predictions=s[0], label_ids=s[1])), samples))
    assert [metrics["war"] for metrics in found] == [count_by_hand(*sample)["war"] for sample in samples]
