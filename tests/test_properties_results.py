"""Any scores, labels and times: losses, metrics and timelines agree with plain loops, or refuse in one line."""

import csv
import io
import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from s2d_hf.losses import EmotionAnchors
from s2d_hf.metrics import classification_report
from s2d_hf.timeline import FaceTimeline, Segment, VideoTimeline
from s2d_hf.timeline.results import TABLE_FIELDS, find_segments, smooth_labels

from .refusals import result_or_none

SCORES = st.sampled_from([0.0, 1e-12, 0.1, 0.25, 0.5, 0.9, 1.0])
BROKEN = st.sampled_from([-1.0, 2.0, float("nan"), float("inf"), -float("inf"), 1e300])
TEXT = st.text(max_size=6) | st.sampled_from(["=1+1", "a,b", '"', "\r", "NaN", " a ", "track_score", *TABLE_FIELDS])
SECONDS = st.floats(-9, 9)
SWITCH_COSTS = st.sampled_from([0, 0.1, 1.0, 3, 100, float("inf"), float("nan"), -1])


@st.composite
def tables(draw, rows: int = 5, columns: int = 3) -> np.ndarray:
    """Scores `(num_windows, num_labels)`."""
    shape = draw(st.integers(0, rows)), draw(st.integers(0, columns))
    values = SCORES if draw(st.integers(0, 3)) else SCORES | BROKEN
    return np.array([draw(values) for _ in range(shape[0] * shape[1])], dtype=float).reshape(shape)


@given(sizes=st.tuples(*[st.integers(0, 4)] * 4), rows=st.sampled_from([1, 3]), scale=st.sampled_from([0, 1, 1e-3]),
       batches=st.lists(st.lists(st.integers(-1, 4), max_size=6), max_size=5),
       wrong=st.sampled_from([None, None, None, "clips", "logits"]))  # fmt: skip
@example(sizes=(2, 3, 1, 1), batches=[[0, 1]], rows=1, scale=0, wrong=None)
@example(sizes=(2, 3, 1, 1), batches=[[0, 1]], rows=1, scale=1, wrong="clips")
def test_anchors_are_the_nearest_of_the_last(sizes, batches, rows, scale, wrong):
    classes, width, size, k = sizes
    anchors = result_or_none("`(num_labels|hidden_size|queue_size|num_neighbours)`", EmotionAnchors, *sizes)
    assert (anchors is None) == (min(sizes) < 1 or k > size)
    if anchors is None:
        return
    generator = torch.Generator().manual_seed(0)
    queues = [[] for _ in range(classes)]
    for labels in batches:
        features = torch.rand(len(labels), width, generator=generator) + 0.01  # no similarity is negative
        logits = torch.randn(len(labels), classes, generator=generator)
        result_or_none("`labels`", anchors.update, features, logits, torch.tensor(labels, dtype=torch.int64))
        if all(0 <= label < classes for label in labels):
            for label, feature, row in zip(labels, features, logits.softmax(-1), strict=True):
                queues[label] = [*queues[label], (feature, row)][-size:]
    ready = [queue for queue in queues if len(queue) == size]
    clips = (torch.rand(rows, width + (wrong == "clips"), generator=generator) + 0.01) * scale
    logits = torch.randn(rows + (wrong == "logits"), classes, generator=generator)
    targets = result_or_none("`features`|No class has its", anchors.soft_targets, clips)
    assert (targets is None) == (not ready or wrong == "clips")
    loss = result_or_none("`(logits|features)`", anchors, logits, clips)
    assert (loss is None) == bool(ready and wrong)
    if targets is None or loss is None:
        return
    torch.testing.assert_close(targets.sum(-1), torch.ones(rows))
    torch.testing.assert_close(anchors.soft_targets(clips.flip(0)), targets.flip(0))
    plain = -(targets * logits.sigmoid().log() + (1 - targets) * (-logits).sigmoid().log()).mean()
    torch.testing.assert_close(loss, plain)
    for clip, target in zip(clips, targets, strict=True) if scale and width > 1 else ():
        alike = [[(float(torch.cosine_similarity(clip, feature, 0)), row) for feature, row in q] for q in ready]
        near = [pair for pairs in alike for pair in sorted(pairs, key=lambda pair: pair[0])[-k:]]
        expected = sum(weight * row for weight, row in near) / sum(weight for weight, _ in near)
        torch.testing.assert_close(target, expected, rtol=1e-4, atol=1e-4)


@given(scores=tables(8, 4).map(np.ndarray.tolist), names=st.lists(st.text(max_size=3), max_size=4), fits=st.booleans(),
       labels=st.lists(st.integers(0, 3) | st.integers(-1, 2**63), min_size=1, max_size=8))  # fmt: skip
@example(scores=[[0.5, 0.5]], labels=[0], names=["\n", "\n"], fits=False)
def test_metrics_are_those_of_plain_loops(scores, labels, names, fits):
    fits = fits and bool(scores and scores[0])
    if fits:
        labels = [labels[i % len(labels)] % len(scores[0]) for i in range(len(scores))]
        names = [f"{i}{name}" for i, name in enumerate([*names, *[""] * 4])][: len(scores[0])]
    report = result_or_none("`(logits_or_scores|labels|label_names)`", classification_report, scores, labels, names)
    if report is None:
        assert not fits or not np.isfinite(scores).all()
        return
    assert np.isfinite(scores).all() and len(labels) == len(scores) and len(set(names)) == len(scores[0])
    predicted = [row.index(max(row)) for row in scores]
    pairs = list(zip(labels, predicted, strict=True))
    classes = range(len(names))
    hits, true = [pairs.count((i, i)) for i in classes], [labels.count(i) for i in classes]
    recalls = [hit / count if count else None for hit, count in zip(hits, true, strict=True)]
    f1s = [2 * hits[i] / (count + predicted.count(i)) for i, count in enumerate(true) if count]
    present = [recall for recall in recalls if recall is not None]
    assert list(report.support.values()) == true and list(report.recall.values()) == recalls
    assert report.confusion_matrix.tolist() == [[pairs.count((i, j)) for j in classes] for i in classes]
    expected = [sum(present) / len(present), sum(f1s) / len(f1s), sum(hits) / len(pairs)]
    np.testing.assert_allclose([report.uar, report.f1, report.war], expected)


@given(scores=tables(), switch_cost=SWITCH_COSTS)
@example(scores=np.zeros((2, 0)), switch_cost=0)
@example(scores=np.array([[0.25, np.nan]]), switch_cost=0)
def test_smooth_labels_are_the_best_of_all(scores, switch_cost):
    path = result_or_none("`(scores|switch_cost)`", smooth_labels, scores, switch_cost)
    assert (path is None) == (scores.size == 0 or not np.isfinite(scores).all() or not switch_cost >= 0)
    if path is None:
        return

    def gain(labels: tuple[int, ...]) -> float:
        switches = sum(a != b for a, b in itertools.pairwise(labels))
        chosen = sum(np.log(max(scores[i, label], 1e-9)) for i, label in enumerate(labels))
        return chosen - (switch_cost * switches if switches else 0.0)

    best = max(gain(labels) for labels in itertools.product(range(scores.shape[1]), repeat=len(scores)))
    assert len(path) == len(scores) and gain(tuple(path.tolist())) >= best - 1e-9


@given(scores=tables(), times=st.lists(SECONDS, max_size=5).map(sorted), bounds=st.tuples(SECONDS, SECONDS),
       labels=st.sampled_from(["", "a", "ab", "abc"]), fits=st.booleans(), switch_cost=SWITCH_COSTS)  # fmt: skip
def test_segments_cover_the_track(scores, times, bounds, labels, fits, switch_cost):
    times = np.arange(len(scores)) / 8 if fits else np.array(times)
    labels, bounds = ("abc"[: scores.shape[1]], (-1, 9)) if fits else (labels, bounds)
    segments = result_or_none("`", find_segments, times, scores, labels, *bounds, switch_cost)
    if segments is None:
        assert not fits or scores.size == 0 or not np.isfinite(scores).all() or not switch_cost >= 0
        return
    assert len(times) == len(scores) and len(labels) == scores.shape[1]
    assert (segments[0].start, segments[-1].end) == bounds and all(each.start <= each.end for each in segments)
    for left, right in itertools.pairwise(segments):
        assert left.end == right.start and left.label != right.label
    for time, index in zip(times, smooth_labels(scores, switch_cost), strict=True):
        assert any(each.start <= time <= each.end and each.label == labels[index] for each in segments)


@given(labels=st.lists(TEXT, min_size=1, max_size=4), source=TEXT, counts=st.lists(st.integers(1, 3), max_size=3),
       seed=st.integers(0, 99))  # fmt: skip
@example(labels=["track", "track_score"], source="", counts=[2], seed=0)
@example(labels=["a"], source="\r", counts=[1], seed=0)
def test_timelines_are_kept_in_every_form(labels, source, counts, seed):
    def numbers(*shape: int) -> np.ndarray:
        return generator.normal(size=shape) * 10.0 ** generator.integers(-9, 9, size=shape)

    generator, tracks = np.random.default_rng(seed), []
    for track, windows in enumerate(counts):
        times = [np.sort(numbers(count)) for count in (windows, windows, windows, 2)]
        segments = [Segment(labels[-1], *numbers(3).tolist())]
        boxes = {"box_times": times.pop(), "boxes": numbers(2, 4), "angles": numbers(2)}
        tracks.append(FaceTimeline(track, *times, numbers(windows, len(labels)), segments, **boxes))
    timeline = VideoTimeline(source, tuple(labels), 9.5, 3, 4, 8.0, tracks, numbers(2).tolist(), source)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "timeline"
        timeline.to_json(path)
        assert VideoTimeline.from_json(path).to_dict() == timeline.to_dict() == json.loads(timeline.to_json())
        text = result_or_none("labels", timeline.to_csv)
        assert (text is None) == (len(set(labels)) < len(labels))
        if text is None:
            return
        timeline.to_csv(path)
        assert path.read_bytes().decode() == text
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    columns = header[len(TABLE_FIELDS) :]
    assert header == list(timeline.to_dataframe()) and len(set(header)) == len(header)
    assert all(name == label or label in header for name, label in zip(columns, labels, strict=True))
    windows = [(face, window) for face in tracks for window in range(len(face.times))]
    for row, (face, window) in zip(rows, windows, strict=True):
        cells, scores = dict(zip(header, row, strict=True)), face.scores[window]
        texts = [cells[name] for name in ("video", "track", "label", "segment")]
        assert texts == [source, str(face.track), labels[int(scores.argmax())], labels[-1]]
        found = [float(cells[name]) for name in ("start", "time", "end", *columns)]
        times = [face.starts[window], face.times[window], face.ends[window]]
        np.testing.assert_allclose(found, [*times, *scores], rtol=1e-5)
