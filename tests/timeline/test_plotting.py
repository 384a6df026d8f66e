import itertools
import os
import sys
import warnings
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from s2d_hf.colors import fade, label_colours, text_colour, to_rgb
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


def on_white(colour: str, strength: float) -> np.ndarray:
    """What is seen of white paper through a layer of a colour: red, green and blue, 0 to 255."""
    white, full = (Image.new("RGB", (1, 1), name) for name in ("#FFFFFF", colour))
    return np.array(Image.blend(white, full, strength).getpixel((0, 0)))


def pixels_of(path: Path) -> np.ndarray:
    """RGB `(height, width, 3)`, as whole numbers that can be negative."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def rows_and_columns(figure: Figure, artist: object) -> tuple[slice, slice]:
    """Where an artist of a figure that was drawn is in the picture."""
    place, height = artist.get_window_extent(), figure.bbox.height
    return (
        slice(round(height - place.y1), round(height - place.y0)),
        slice(round(place.x0), round(place.x1)),
    )


def weak_scores(num_windows: int = 10, score: float = 0.24) -> np.ndarray:
    """Of the labels of DFEW: "angry" first, but by little."""
    rest = [0.2, 0.12, 0.12, 0, 0.12, 0.1, 0.1]
    scores = np.array(rest) / sum(rest) * (1 - score)
    scores[3] = score
    return np.tile(scores, (num_windows, 1))


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
    colours = label_colours(LABELS["MAFW"]).values()
    for colour in [fade(colour, strength) for colour in colours for strength in np.linspace(0, 1, 41)]:
        both = luminance(to_rgb(colour)), luminance(to_rgb(text_colour(colour)))
        assert (max(both) + 0.05) / (min(both) + 0.05) > 4.5


def test_faded_colours_are_those_of_a_thin_layer_on_white():
    for colour in label_colours(LABELS["MAFW"]).values():
        assert (fade(colour, 1), fade(colour, 0)) == (colour, "#FFFFFF")
        assert (fade(colour, 1.5), fade(colour, -0.1)) == (colour, "#FFFFFF")
        for strength in (0.1, 0.24, 0.5, 0.9):
            assert np.abs(to_rgb(fade(colour, strength)) - on_white(colour, strength)).max() <= 1


def luminance(rgb: tuple[int, int, int]) -> float:
    values = np.array(rgb) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_bands_are_the_segments_and_as_strong_as_their_mean_scores():
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
        drawn = bands_of(bands[face.track])
        assert len(face.segments) > 1
        assert np.allclose([band[:2] for band in drawn], [(part.start, part.end) for part in face.segments])
        for (_, _, colour), segment in zip(drawn, face.segments, strict=True):
            inside = (face.times > segment.start) & (face.times < segment.end)
            mean = face.scores[inside, timeline.labels.index(segment.label)].mean()
            assert np.abs(to_rgb(colour) - on_white(colours[segment.label], mean)).max() <= 1


def test_a_weak_segment_is_pale_but_seen(tmp_path):
    faces = [made_face(1, scores=weak_scores()), made_face(2, scores=np.tile(np.eye(7)[3], (10, 1)))]
    figure = plot_timeline(made_timeline(*faces), tmp_path / "plot.png")
    pixels = pixels_of(tmp_path / "plot.png")
    red = label_colours(LABELS["DFEW"])["angry"]
    for track, score in ((1, 0.24), (2, 1.0)):
        axes = axes_of(figure, "segments")[track]
        rows, columns = rows_and_columns(figure, axes.patches[0])
        band = pixels[rows, columns]
        # left of the text, between the white rims
        field = band[4:-8, 10:300]
        assert np.abs(field - on_white(red, score)).max() <= 1
        # a thin line beneath it has the full colour
        full = (np.abs(band[:, 10:300] - to_rgb(red)).max(axis=-1) <= 1).all(axis=1)
        assert full[-6:].sum() >= 2 and full[4:-6].any() == (score == 1)
        thumbnails = axes_of(figure, "thumbnails")[track]
        rows, columns = rows_and_columns(figure, thumbnails.patches[3])
        left = pixels[rows.start + 10 : rows.stop - 10, columns.start]
        assert np.abs(left - on_white(red, score)).max() <= 1
    assert "angry 24 %" in all_text(figure) and "angry 100 %" in all_text(figure)


def test_names_are_written_where_they_fit():
    scores = np.full((100, 2), 0.02)
    # 84 seconds, 11, and 5
    scores[:84, 0] = scores[84:95, 1] = scores[95:, 0] = 0.98
    labels = ("disappointment", "helplessness")
    timeline = made_timeline(made_face(1, 0, 100, labels=labels, scores=scores), labels=labels, duration=100)
    figure = plot_timeline(timeline)
    axes = axes_of(figure, "segments")[1]
    assert len(axes.patches) == 3
    assert [text.get_text() for text in axes.texts] == ["disappointment 98 %", "helplessness"]
    figure.canvas.draw()
    for text, patch in zip(axes.texts, axes.patches[:2], strict=True):
        written, field = text.get_window_extent(), patch.get_window_extent()
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
    legend, note = figure.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert sorted(entries) == sorted([*labels, "cut"])
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    # beneath it the first row begins
    assert box.y0 >= max(axes.get_window_extent().y1 for axes in figure.axes if axes.get_label() != "cut")
    # above it, and below the title, is what the strength of the bands means
    above = note.get_window_extent()
    assert above.y0 >= box.y1 and above.x1 <= figure.bbox.x1
    assert above.y1 <= min(text.get_window_extent().y0 for text in figure.texts)


def test_legend_says_what_pale_bands_are():
    figure = plot_timeline(made_timeline(made_face(1)))
    note = figure.legends[1]
    assert [text.get_text() for text in note.get_texts()] == ["band: the paler, the lower its mean score"]
    shades = [luminance(np.array(patch.get_facecolor()[:3]) * 255) for patch in note.findobj(Rectangle)[:-1]]
    assert len(shades) > 3 and shades == sorted(set(shades))
    assert len(plot_timeline(made_timeline()).legends) == 1  # without a face there are no bands


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
    pixels = pixels_of(tmp_path / "plot.png")
    share = (pixels == to_rgb(label_colours(timeline.labels)["sad"])).all(axis=-1).mean()
    assert 0.2 < share < 0.6


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("笑顔.mp4".encode(), "□□.mp4"),
        ("مرحبا.mp4".encode(), "مرحبا.mp4"),
        ("हँसी 😀🫠.mp4".encode(), "□□□□ 😀□.mp4"),
        (b"a\xff--b.mp4", "a□--b.mp4"),
        ("two\nlines\x01\u3000&<$x$.mp4".encode(), "two lines□ &<$x$.mp4"),
    ],
)
def test_any_name_of_a_file_is_drawn_without_warnings(name, title, tmp_path):
    """Also one that isn't valid UTF-8: Python has lone surrogates for its bytes."""
    try:
        (tmp_path / os.fsdecode(name)).touch()
    except OSError:
        pytest.skip("The file system allows no such name.")
    (video,) = tmp_path.iterdir()
    timeline = made_timeline(made_face(1), source=str(video))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in (".png", ".pdf", ".svg"):
            figure = timeline.plot(f"{video}{suffix}")
    assert figure.texts[0].get_text() == title
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted([name, name + b".pdf", name + b".png", name + b".svg"])
    assert len(xml.etree.ElementTree.parse(f"{video}.svg").getroot())
    # the title is there: of the height of letters, and wide
    ink = (pixels_of(Path(f"{video}.png"))[20:70, 200:1000] < 100).all(axis=-1)
    assert ink.any(axis=0).sum() > 50 and ink.any(axis=1).sum() > 15


def test_labels_that_no_font_has_are_escaped_and_told_of(caplog):
    labels = (
        "\U0010fff0\U0010fff1",
        "sad\udcff",
        "two\nlines",
        "a \u200dzwj\ufe0f",
    )  # private ones, which no script has
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_timeline(made_timeline(made_face(1, labels=labels), labels=labels))
        figure.canvas.draw()
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[:3] == ["U+10FFF0 U+10FFF1", "sad U+DCFF", "two lines"] and "zwj" in shown[3]
    (message,) = [message for message in caplog.messages if "U+10FFF0" in message]
    assert (
        r"'\U0010fff0\U0010fff1' as U+10FFF0 U+10FFF1, 'sad\udcff' as sad U+DCFF. Install" in message
        and "zwj" not in message
    )


def test_characters_of_another_font_are_drawn(caplog):
    name = "⌢"  # which the font that is set lacks
    timeline = made_timeline(made_face(1, labels=(name, "sad")), labels=(name, "sad"), source=f"{name}.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_timeline(timeline)
        figure.canvas.draw()
    assert figure.texts[0].get_text() == "⌢.mp4" and figure.legends[0].get_texts()[0].get_text() == name
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["plot.jpg", "plot", "plot.mp4"])
def test_other_formats_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.png, \.pdf, \.svg"):
        plot_timeline(made_timeline(made_face()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_drawing_needs_no_pyplot(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot_timeline(made_timeline(made_face()), tmp_path / "plot.png")
    assert Path(tmp_path / "plot.png").stat().st_size
