import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from s2d_hf.colors import label_colours, text_colour, to_rgb
from s2d_hf.labels import LABELS
from s2d_hf.timeline import VideoTimeline
from s2d_hf.timeline.plotting import plot_timeline

from .made_timelines import made_face, made_timeline, smooth_scores

# Machado, Oliveira and Fernandes 2009: how linear RGB looks without one kind of cones
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def axes_of(figure: Figure, kind: str) -> dict[int, object]:
    """The axes of each track that show its "thumbnails", "scores" or "segments"."""
    named = (axes.get_label().split() for axes in figure.axes)
    found = [(name[1], axes) for name, axes in zip(named, figure.axes, strict=True) if name[0] == kind]
    return {int(track): axes for track, axes in found}


def bands_of(axes: object) -> list[tuple[float, float, str]]:
    """Start, end and colour of what is drawn in a band."""
    boxes = [(patch.get_x(), patch.get_x() + patch.get_width(), patch) for patch in axes.patches]
    return [(start, end, to_hex(patch.get_facecolor()).upper()) for start, end, patch in boxes]


def all_text(figure: Figure) -> str:
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in texts)


def simulated(rgb: np.ndarray, kind: str | None) -> np.ndarray:
    if kind is None:
        return rgb
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(BLINDNESS[kind]), 0, 1)
    return np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", [None, *BLINDNESS])
@pytest.mark.parametrize("dataset", LABELS)
def test_colours_of_the_benchmarks_can_be_told_apart(dataset, kind):
    colours = label_colours(LABELS[dataset])
    lab = rgb2lab(simulated(np.array([to_rgb(colour) for colour in colours.values()]) / 255, kind))
    closest = min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(lab, 2))
    assert closest > (12 if len(colours) > 7 else 15)


def test_an_expression_has_one_colour_under_each_of_its_names():
    together = {}
    for labels in LABELS.values():
        together |= label_colours(labels)
    for labels in LABELS.values():
        assert label_colours(labels[::-1]) == {label: together[label] for label in labels}
    for one, other in (("happy", "happiness"), ("sad", "sadness"), ("angry", "anger")):
        assert together[one] == together[other]
    assert len(set(together.values())) == 11
    assert label_colours(["Happy "])["Happy "] == together["happy"]


def test_other_labels_have_colours_of_their_own():
    labels = ["happy", "happiness", *(f"class {i}" for i in range(22))]
    colours = label_colours(labels)
    assert list(colours) == labels and len(set(colours.values())) == 24
    assert colours["happy"] == label_colours(["happy"])["happy"]


def test_text_on_colours_has_the_contrast_that_wcag_asks_for():
    for colour in label_colours(LABELS["MAFW"]).values():
        both = luminance(to_rgb(colour)), luminance(to_rgb(text_colour(colour)))
        assert (max(both) + 0.05) / (min(both) + 0.05) > 4.5


def luminance(rgb: tuple[int, int, int]) -> float:
    values = np.array(rgb) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_bands_are_the_segments():
    faces = [
        made_face(1, 0.5, 20, scores=smooth_scores(60, 7, 3)),
        made_face(4, 3, 12.25, scores=smooth_scores(30, 7, 5)),
    ]
    timeline = made_timeline(*faces, duration=21)
    figure = plot_timeline(timeline)
    colours = label_colours(timeline.labels)
    bands = axes_of(figure, "segments")
    assert list(bands) == [1, 4]
    for face in faces:
        wanted = [(segment.start, segment.end, colours[segment.label]) for segment in face.segments]
        drawn = bands_of(bands[face.track])
        assert len(wanted) > 1 and [band[2] for band in drawn] == [band[2] for band in wanted]
        assert np.allclose([band[:2] for band in drawn], [band[:2] for band in wanted])


def test_names_are_written_where_they_fit():
    scores = np.full((100, 2), 0.02)
    # 96 seconds, and 4
    scores[:96, 0] = scores[96:, 1] = 0.98
    labels = ("disappointment", "helplessness")
    timeline = made_timeline(made_face(1, 0, 100, labels=labels, scores=scores), labels=labels, duration=100)
    figure = plot_timeline(timeline)
    axes = axes_of(figure, "segments")[1]
    assert len(axes.patches) == 2
    (text,) = axes.texts
    assert text.get_text() == "disappointment"
    figure.canvas.draw()
    written, field = text.get_window_extent(), axes.patches[0].get_window_extent()
    assert field.x0 < written.x0 and written.x1 < field.x1 and field.y0 <= written.y0 and written.y1 <= field.y1


def test_areas_are_the_scores():
    face = made_face(1, 2, 12, scores=smooth_scores(10, 7, 1))
    timeline = made_timeline(face, duration=15)
    axes = axes_of(plot_timeline(timeline), "scores")[1]
    assert len(axes.collections) == 7
    below = np.zeros(12)
    for index, area in enumerate(axes.collections):
        assert to_hex(area.get_facecolor()[0]).upper() == label_colours(timeline.labels)[timeline.labels[index]]
        corners = area.get_paths()[0].vertices
        for time, under in zip((2, *face.times, 12), below, strict=True):
            heights = corners[np.isclose(corners[:, 0], time), 1]
            assert heights.min() == pytest.approx(under, abs=1e-6)
            assert heights.max() == pytest.approx(under + face.scores_at(time)[index], abs=1e-6)
        below = below + [face.scores_at(time)[index] for time in (2, *face.times, 12)]
    assert below == pytest.approx(np.ones(12))


def test_all_rows_share_the_time_of_the_video():
    timeline = made_timeline(made_face(1, 1, 3), made_face(2, 5, 8), duration=9.5, cuts=[4.0, 8.5])
    figure = plot_timeline(timeline)
    assert {axes.get_xlim() for axes in figure.axes} == {(0, 9.5)}
    places = [axes.get_position() for axes in figure.axes]
    assert len({(round(place.x0, 6), round(place.x1, 6)) for place in places}) == 1
    cuts = next(axes for axes in figure.axes if axes.get_label() == "cuts")
    assert [line.get_xdata()[0] for line in cuts.lines] == [4.0, 8.5]
    # rows lie beneath each other
    rows = [axes.get_position() for axes in figure.axes if axes.get_label().split()[-1] in "12"]
    assert len(rows) == 6
    assert all(a.y0 >= b.y1 for a, b in itertools.pairwise(rows))
    assert rows[0].y1 <= 1 and rows[-1].y0 >= 0


@pytest.mark.parametrize("times", [range(100), (0.0, 0.2, 99.9, 100.0), (50.0,)])
def test_thumbnails_do_not_overlap_and_stay_near_their_times(times):
    face = made_face(1, 0, 100)
    picture = face.thumbnails[0][1]
    # the brightness says which it is
    face.thumbnails = [(float(time), np.full_like(picture, index)) for index, time in enumerate(times)]
    figure = plot_timeline(made_timeline(face, duration=100))
    axes = axes_of(figure, "thumbnails")[1]
    extents = [(*image.get_extent()[:2], int(image.get_array()[0, 0, 0])) for image in axes.images]
    assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(extents))
    assert all(left >= 0 and right <= 100 for left, right, _ in extents)
    for left, right, index in extents:
        assert left - 1e-9 <= times[index] <= right + 1e-9
    # 17 are as wide as the plot
    assert len(extents) in {100: range(13, 18), 4: [2], 1: [1]}[len(times)]
    # undistorted: as wide as high on the paper
    figure.canvas.draw()
    place = axes.images[0].get_window_extent()
    assert place.width == pytest.approx(place.height, rel=0.02)


def test_of_many_tracks_the_longest_are_shown():
    lengths = np.random.default_rng(0).permutation(30) + 1.0
    faces = [made_face(i + 1, 10 * i, 10 * i + length, thumbnails=False) for i, length in enumerate(lengths)]
    figure = plot_timeline(made_timeline(*faces, duration=330))
    shown = list(axes_of(figure, "segments"))
    assert sorted(lengths[track - 1] for track in shown) == list(range(19, 31))
    assert shown == sorted(shown)
    assert "30 face tracks, the longest 12 are shown, 18 are left out" in all_text(figure)
    assert figure.get_size_inches()[1] < 30


def test_figure_grows_with_the_tracks():
    heights = [
        plot_timeline(made_timeline(*(made_face(i + 1, thumbnails=False) for i in range(count)))).get_size_inches()[1]
        for count in (1, 2, 4, 8)
    ]
    assert heights == sorted(heights) and heights[0] < 6


def test_a_track_of_one_window():
    figure = plot_timeline(made_timeline(made_face(1, 2, 4, num_windows=1), duration=20))
    assert [band[:2] for band in bands_of(axes_of(figure, "segments")[1])] == [(2, 4)]


def test_an_hour_is_drawn_with_its_changes():
    scores = np.full((3600, 2), [0.9, 0.1])
    scores[1800:] = [0.2, 0.8]
    labels = ("happy", "sad")
    face = made_face(1, 0, 3600, labels=labels, scores=scores, thumbnails=False)
    figure = plot_timeline(made_timeline(face, labels=labels, duration=3600))
    corners = axes_of(figure, "scores")[1].collections[0].get_paths()[0].vertices
    assert len(corners) < 4000
    top = corners[corners[:, 1] > 0]
    assert np.allclose(top[top[:, 0] < 1790, 1], 0.9) and np.allclose(top[top[:, 0] > 1810, 1], 0.2)
    ticks = next(axes for axes in figure.axes if axes.get_label() == "time").get_xticklabels()
    assert [tick.get_text() for tick in ticks][:2] == ["0:00:00", "0:05:00"]


@pytest.mark.parametrize(
    ("duration", "first", "last"),
    [(0.5, "0", "0.5"), (9.9, "0", "9"), (30, "0", "30"), (119, "0", "110"), (600, "0:00", "10:00"),
     (7000, "0:00:00", "1:50:00")],
)  # fmt: skip
def test_times_are_written_as_suits_the_duration(duration, first, last):
    axes = next(axes for axes in plot_timeline(made_timeline(duration=duration)).axes if axes.get_label() == "time")
    texts = [tick.get_text() for tick in axes.get_xticklabels()]
    assert (texts[0], texts[-1]) == (first, last)
    assert 5 <= len(texts) <= 14


def test_no_face():
    figure = plot_timeline(made_timeline(duration=10))
    assert "No face was found" in all_text(figure)
    assert not axes_of(figure, "segments")
    assert "No face was found" in all_text(plot_timeline(made_timeline(duration=0)))


def test_a_timeline_from_json_has_no_row_of_thumbnails(tmp_path):
    timeline = made_timeline(made_face(1), made_face(2))
    timeline.to_json(tmp_path / "timeline.json")
    figure = plot_timeline(VideoTimeline.from_json(tmp_path / "timeline.json"))
    assert not axes_of(figure, "thumbnails") and list(axes_of(figure, "scores")) == [1, 2]
    assert figure.get_size_inches()[1] < plot_timeline(timeline).get_size_inches()[1]


@pytest.mark.parametrize("labels", [LABELS["MAFW"], ("$\\nothing$", "_hidden", "a long name of a class " * 3)])
def test_legend_names_every_label_within_the_figure(labels):
    face = made_face(1, labels=labels)
    figure = plot_timeline(made_timeline(face, labels=labels, cuts=[3.0]))
    (legend,) = figure.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert sorted(entries) == sorted([*labels, "cut"])
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    # beneath it the first row begins
    assert box.y0 >= max(axes.get_window_extent().y1 for axes in figure.axes if axes.get_label() != "cut")


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("b.PDF", b"%PDF"), ("new/c.svg", b"<?xml")], ids=str
)
def test_files_are_what_their_names_say(name, start, tmp_path):
    timeline = made_timeline(made_face(1), cuts=[2.0])
    figure = timeline.plot(tmp_path / name)
    assert isinstance(figure, Figure)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_picture_has_the_colours_of_the_segments(tmp_path):
    timeline = made_timeline(made_face(1, 0, 10, scores=np.tile(np.eye(7)[1], (10, 1))), duration=10)
    plot_timeline(timeline, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    share = (pixels == to_rgb(label_colours(timeline.labels)["sad"])).all(axis=-1).mean()
    assert 0.2 < share < 0.6


@pytest.mark.parametrize("name", ["plot.jpg", "plot", "plot.mp4"])
def test_other_formats_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.png, \.pdf, \.svg"):
        plot_timeline(made_timeline(made_face()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_drawing_needs_no_pyplot(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot_timeline(made_timeline(made_face()), tmp_path / "plot.png")
    assert Path(tmp_path / "plot.png").stat().st_size
