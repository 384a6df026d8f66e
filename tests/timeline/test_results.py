import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from s2d_hf.timeline import FaceTimeline, Segment, VideoTimeline
from s2d_hf.timeline.results import find_segments, smooth_labels

from .made_timelines import made_face, made_timeline, smooth_scores

LABELS = ("happy", "sad", "neutral")


def gain(path: tuple[int, ...], scores: np.ndarray, switch_cost: float) -> float:
    """What a sequence of labels is worth, from the definition."""
    likelihood = sum(math.log(scores[window, label]) for window, label in enumerate(path))
    return likelihood - switch_cost * sum(a != b for a, b in itertools.pairwise(path))


@pytest.mark.parametrize("switch_cost", [0.0, 0.3, 1.0, 2.5, 100.0])
@pytest.mark.parametrize("seed", range(8))
def test_smoothed_labels_are_the_best_of_all_sequences(seed, switch_cost):
    num_windows = 1 + seed % 7
    scores = np.random.default_rng(seed).dirichlet(np.full(3, 0.7), size=num_windows)
    best = max(itertools.product(range(3), repeat=num_windows), key=lambda path: gain(path, scores, switch_cost))
    assert smooth_labels(scores, switch_cost).tolist() == list(best)


def test_a_flicker_is_smoothed_away_and_a_lasting_change_is_not():
    flicker = np.array([[0.6, 0.4]] * 5 + [[0.45, 0.55]] + [[0.6, 0.4]] * 5)
    assert smooth_labels(flicker).tolist() == [0] * 11
    assert smooth_labels(flicker, switch_cost=0).tolist() == [0] * 5 + [1] + [0] * 5
    lasting = np.array([[0.6, 0.4]] * 8 + [[0.4, 0.6]] * 8)
    assert smooth_labels(lasting).tolist() == [0] * 8 + [1] * 8


def test_a_probability_of_zero_is_no_obstacle():
    assert smooth_labels(np.array([[1.0, 0.0], [0.0, 1.0]])).tolist() == [0, 1]


def test_smoothing_refuses_what_makes_no_sense():
    for scores in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(ValueError, match="`scores` must be"):
            smooth_labels(scores)
    with pytest.raises(ValueError, match="`switch_cost` must not be negative"):
        smooth_labels(np.ones((2, 2)), switch_cost=-1)


@pytest.mark.parametrize("num_windows", [1, 2, 40])
def test_segments_tile_the_track(num_windows):
    scores = smooth_scores(num_windows, 3, seed=num_windows, change=1.0)
    times = 2 + np.arange(num_windows) * 0.5
    segments = find_segments(times, scores, LABELS, 1.5, times[-1] + 0.75)
    assert segments[0].start == 1.5 and segments[-1].end == times[-1] + 0.75
    assert all(a.end == b.start and a.label != b.label for a, b in itertools.pairwise(segments))
    assert all(segment.start < segment.end for segment in segments)
    # each window lies in the segment of its smoothed label, whose score is the mean over its windows
    path = smooth_labels(scores)
    for segment in segments:
        windows = [i for i, time in enumerate(times) if segment.start <= time < segment.end]
        assert {LABELS[path[i]] for i in windows} == {segment.label}
        assert segment.score == pytest.approx(np.mean([scores[i, LABELS.index(segment.label)] for i in windows]))
    if num_windows == 40:
        assert len(segments) >= 3


def small_face(track: int = 1) -> FaceTimeline:
    return FaceTimeline(
        track=track,
        times=np.array([1.0, 2.0]),
        starts=np.array([0.5, 1.5]),
        ends=np.array([1.5, 2.5]),
        scores=np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]),
        segments=[Segment("happy", 0.5, 1.5, 0.7), Segment("sad", 1.5, 2.5, 0.6)],
        box_times=np.array([0.5, 1.5, 2.5]),
        boxes=np.array([[10.0, 20, 30, 40], [20, 20, 40, 40], [20, 0, 60, 40]]),
        angles=np.array([0.0, 10, -10]),
    )


def test_boxes_and_scores_lie_linearly_between_the_known_ones():
    face = small_face()
    box, angle = face.box_at(0.75)
    assert box.tolist() == [12.5, 20, 32.5, 40] and angle == 2.5
    box, angle = face.box_at(2.0)
    assert box.tolist() == [20, 10, 50, 40] and angle == 0
    for time in (0.5, 2.5):
        assert face.box_at(time) is not None
    for time in (0.499, 2.501):
        assert face.box_at(time) is None

    assert face.scores_at(1.25) == pytest.approx([0.55, 0.3, 0.15])
    assert face.scores_at(0.5).tolist() == [0.7, 0.2, 0.1]
    assert face.scores_at(9).tolist() == [0.1, 0.6, 0.3]
    assert face.mean_scores == pytest.approx([0.4, 0.4, 0.2])
    assert [face.segment_at(time).label for time in (0, 0.5, 1.49, 1.5, 2.5, 9)] == ["happy"] * 3 + ["sad"] * 3


def test_table_has_a_row_for_each_window():
    timeline = made_timeline(small_face(1), small_face(2), labels=LABELS, source="a, b.mp4")
    table = timeline.to_dataframe()
    assert len(table) == 4
    second = table.iloc[3].to_dict()
    expected = {
        "video": "a, b.mp4", "track": 2, "start": 1.5, "time": 2.0, "end": 2.5, "label": "sad", "score": 0.6,
        "segment": "sad", "x1": 20, "y1": 10, "x2": 50, "y2": 40, "happy": 0.1, "sad": 0.6, "neutral": 0.3,
    }  # fmt: skip
    assert second == expected and list(table.columns) == list(expected)


@pytest.mark.parametrize("num_tracks", [0, 3])
def test_csv_reads_back(num_tracks, tmp_path):
    timeline = made_timeline(*(made_face(i + 1, i, i + 4.0) for i in range(num_tracks)), source='a "b", c.mp4')
    path = tmp_path / "timeline.csv"
    assert timeline.to_csv(path) is None
    table = timeline.to_dataframe()
    assert len(table) == 4 * num_tracks
    dtypes = {name: str(dtype) for name, dtype in table.dtypes.items()}
    pd.testing.assert_frame_equal(pd.read_csv(path, dtype=dtypes), table, rtol=1e-5)
    assert timeline.to_csv() == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("num_tracks", [0, 2])
def test_json_reads_back(num_tracks, tmp_path):
    faces = [made_face(i + 1, i, i + 4.0, movement=(1.5, -2), angle=3) for i in range(num_tracks)]
    timeline = made_timeline(*faces, source="Gesicht ☺.mp4", cuts=[1.0, 2.5])
    timeline.damage = "1 packet could not be decoded"
    path = tmp_path / "timeline.json"
    assert timeline.to_json(path) is None
    again = VideoTimeline.from_json(path)
    for name in ("source", "labels", "duration", "width", "height", "fps", "cuts", "damage"):
        assert getattr(again, name) == getattr(timeline, name)
    assert len(again.tracks) == num_tracks
    for face, read in zip(timeline.tracks, again.tracks, strict=True):
        assert (read.track, read.segments) == (face.track, face.segments)
        for name in ("times", "starts", "ends", "scores", "box_times", "boxes", "angles"):
            assert np.array_equal(getattr(read, name), getattr(face, name))
        assert read.thumbnails == []
    assert json.loads(timeline.to_json()) == json.loads(path.read_text(encoding="utf-8"))


def test_json_that_is_no_timeline_is_refused(tmp_path):
    data = made_timeline(made_face()).to_dict()
    broken = {
        "text": "no JSON",
        "list": "[1]",
        "version": json.dumps(data | {"format_version": 99}),
        "missing": json.dumps({name: value for name, value in data.items() if name != "cuts"}),
        "windows": json.dumps(data | {"tracks": [data["tracks"][0] | {"windows": {"times": "x"}}]}),
    }
    for name, text in broken.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"{name}\.json is no timeline"):
            VideoTimeline.from_json(path)
    with pytest.raises(FileNotFoundError):
        VideoTimeline.from_json(tmp_path / "absent.json")
