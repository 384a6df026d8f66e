"""What is drawn on a frame: boxes, tags and panels with bars."""

import itertools

import numpy as np
import pytest
import skimage.data
from PIL import ImageDraw

from s2d_hf.colors import label_colours, to_rgb
from s2d_hf.labels import LABELS
from s2d_hf.timeline import VideoTimeline
from s2d_hf.timeline.annotation import FramePainter

from .made_timelines import ASTRONAUT_BOX, SURE, draw_on_grey, made_face, made_timeline, sure_timeline


def test_a_positive_angle_is_clockwise():
    """The upper side's right end is lower than its left end."""
    frame = draw_on_grey(sure_timeline((800, 400, 1000, 600), angle=20, size=(1920, 1080)))
    yellow = (frame == to_rgb(label_colours(LABELS["DFEW"])["happy"])).all(axis=-1)
    # from the face's middle upwards
    first, second = (500 - np.flatnonzero(yellow[500::-1, column])[0] for column in (870, 960))
    assert second - first == pytest.approx(90 * np.tan(np.deg2rad(20)), abs=3)


@pytest.mark.parametrize("size", [(426, 240), (640, 480), (1920, 1080), (1080, 1920), (3840, 2160)])
@pytest.mark.parametrize("labels", ["DFEW", "MAFW"])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.05, 0.1), (0.95, 0.1), (0.05, 0.95), (1.0, 0.9)])
def test_nothing_covers_a_face_that_leaves_room(size, labels, place):
    width, height = size
    side = 0.25 * min(size)
    box = (
        place[0] * width - side / 2,
        place[1] * height - side / 2,
        place[0] * width + side / 2,
        place[1] * height + side / 2,
    )
    face = made_face(1, labels=LABELS[labels], box=box, thumbnails=False)
    timeline = made_timeline(face, labels=LABELS[labels], size=size)
    drawn = draw_on_grey(timeline) != 128
    line = max(6, round(0.01 * min(size)))
    left, top, right, bottom = (round(value) for value in box)
    assert not drawn[max(0, top + line) : bottom - line, max(0, left + line) : right - line].any()
    # box, tag and a panel of at least four rows are there
    assert drawn.any(axis=-1).mean() > 0.01


def test_panels_and_tags_cover_no_neighbour():
    boxes = [(300, 200, 500, 400), (900, 260, 1100, 460), (1400, 700, 1600, 900)]
    drawn = (draw_on_grey(sure_timeline(*boxes, size=(1920, 1080))) != 128).any(axis=-1)
    for x1, y1, x2, y2 in boxes:
        assert not drawn[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].any()
    # what is drawn with all three is what each draws alone
    alone = sum((draw_on_grey(sure_timeline(box, size=(1920, 1080))) != 128).any(axis=-1).sum() for box in boxes)
    assert drawn.sum() == pytest.approx(alone, rel=0.02)


def test_a_crowd_keeps_its_faces_free():
    boxes = [(x, y, x + 90, y + 90) for x in range(60, 1800, 240) for y in range(60, 1000, 240)]
    drawn = (draw_on_grey(sure_timeline(*boxes, size=(1920, 1080))) != 128).any(axis=-1)
    assert len(boxes) > 20
    for x1, y1, x2, y2 in boxes:
        assert drawn[y1 - 2 : y1 + 4, x1:x2].any() and not drawn[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].any()


def test_a_face_that_fills_the_frame_still_has_a_panel():
    drawn = (draw_on_grey(sure_timeline((-50, -50, 1000, 1000), size=(1280, 720))) != 128).any(axis=-1)
    assert drawn.mean() > 0.02
    filled = (draw_on_grey(sure_timeline((-300, -300, 1600, 1600), size=(1280, 720))) != 128).any(axis=-1)
    # in a corner, and not on the middle of the face
    assert filled.mean() > 0.02 and not filled[180:540, 320:960].any()


def colours_in(frame: np.ndarray, labels: tuple[str, ...], rows: slice, columns: slice) -> list[str]:
    """The labels whose colours a part of a frame has, by their first rows."""
    part = frame[rows, columns]
    found = {}
    for label, colour in label_colours(labels).items():
        hits = np.flatnonzero((part == to_rgb(colour)).all(axis=-1).any(axis=1))
        if hits.size:
            found[label] = hits[0]
    return sorted(found, key=found.get)


def texts_drawn(timeline: VideoTimeline, time: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on a frame, in that order: the tag, and labels and scores of the bars."""
    texts = []
    draw_text = ImageDraw.ImageDraw.text

    def remember(self: ImageDraw.ImageDraw, place: tuple[float, float], text: str, **options: object) -> None:
        texts.append(text)
        draw_text(self, place, text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", remember)
        draw_on_grey(timeline, time)
    return texts


def test_tag_box_and_first_bar_say_the_same_at_every_moment(monkeypatch):
    """Where a smoothed segment goes on while another label is higher for a while, the other label is shown."""
    scores = np.tile([0.2, 0.12, 0.12, 0.24, 0.12, 0.1, 0.1], (10, 1))
    scores[6:8, 0], scores[6:8, 3] = 0.25, 0.19
    face = made_face(1, scores=scores, box=(800, 400, 1000, 600), thumbnails=False)
    assert [segment.label for segment in face.segments] == ["angry"]
    timeline = made_timeline(face, size=(1920, 1080))
    # between two windows' middles, 5.5 and 6.5 s, the lines of their scores cross at 5.9 s
    moments = [
        (2.0, "angry", "happy", "24%"), (5.7, "angry", "happy", "23%"), (6.1, "happy", "angry", "23%"),
        (7.0, "happy", "angry", "25%"), (9.9, "angry", "happy", "24%"),
    ]  # fmt: skip
    for time, best, second, score in moments:
        frame = draw_on_grey(timeline, time)
        around, beside = slice(790, 1010), slice(1030, 1400)
        assert colours_in(frame, timeline.labels, slice(330, 620), around) == [best]
        assert colours_in(frame, timeline.labels, slice(0, 1080), beside)[:2] == [best, second]
        texts = texts_drawn(timeline, time, monkeypatch)
        assert texts[0] == f"#1 {best} {score}" and texts[1:3] == [best, score] and texts[3] == second


def test_a_weak_segment_on_a_real_face():
    """The tag's colour, the box's and the first bar's are one."""
    picture = skimage.data.astronaut().copy()
    scores = np.tile([0.22, 0.12, 0.12, 0.24, 0.1, 0.1, 0.1], (10, 1))
    scores[4:6, 0], scores[4:6, 3] = 0.26, 0.2
    timeline = made_timeline(made_face(1, scores=scores))
    assert timeline.tracks[0].segment_at(5.0).label == "angry"
    FramePainter(timeline).draw(picture, 5.0)
    changed = (picture != skimage.data.astronaut()).any(axis=-1)
    yellow = (picture == to_rgb(label_colours(timeline.labels)["happy"])).all(axis=-1)
    x1, y1, x2, y2 = ASTRONAUT_BOX
    for x, y in ((x1, 110), (x2, 110), (220, y1), (220, y2)):
        assert yellow[y - 2 : y + 3, x - 2 : x + 3].any()
    # the face's middle is free
    assert not changed[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].any()
    red = (picture == to_rgb(label_colours(timeline.labels)["angry"])).all(axis=-1)
    assert not red[y1 - 30 : y2 + 4, x1 - 4 : x2 + 4].any()


def test_bars_are_sorted_by_their_scores_and_equal_ones_by_their_labels():
    rank = {"surprise": 0.3, "sad": 0.2, "fear": 0.2, "disgust": 0.1, "happy": 0.1, "angry": 0.06, "neutral": 0.04}
    scores = np.tile([rank[label] for label in LABELS["DFEW"]], (10, 1))
    face = made_face(1, scores=scores, box=(800, 400, 1000, 600), thumbnails=False)
    timeline = made_timeline(face, size=(1920, 1080))
    shown = colours_in(draw_on_grey(timeline), timeline.labels, slice(0, 1080), slice(1030, 1400))
    assert shown == ["surprise", "sad", "fear", "happy", "disgust", "angry", "neutral"]


def test_bars_are_as_long_as_the_scores():
    timeline = sure_timeline((800, 400, 1000, 600), size=(1920, 1080))
    frame = draw_on_grey(timeline)
    lengths = {}
    for label, colour in label_colours(timeline.labels).items():
        columns = np.flatnonzero((frame == to_rgb(colour)).all(axis=-1).any(axis=0))
        # to the right of the face, whose box and tag have the colour of "happy"
        columns = columns[columns > 1040]
        lengths[label] = columns.max() - columns.min() + 1
    for label, score in zip(timeline.labels, SURE[0], strict=True):
        assert lengths[label] / lengths["happy"] == pytest.approx(score / 0.5, abs=0.02)


def test_of_many_labels_the_highest_of_the_moment_are_shown():
    labels = LABELS["MAFW"]
    scores = np.tile([0.02, 0.3, 0.02, 0.2, 0.02, 0.02, 0.02, 0.02, 0.02, 0.12, 0.24], (10, 1))
    # in the second half another one is among the four, while the segment goes on
    scores[5:, 3], scores[5:, 6] = 0.02, 0.2
    face = made_face(1, labels=labels, scores=scores, box=(800, 400, 1000, 600), thumbnails=False)
    assert len(face.segments) == 1
    timeline = made_timeline(face, labels=labels, size=(1920, 1080))
    painter = FramePainter(timeline)
    for time, third in ((2.0, "disappointment"), (8.0, "happiness"), (3.0, "disappointment")):
        frame = np.full((1080, 1920, 3), 128, np.uint8)
        painter.draw(frame, time)
        shown = colours_in(frame, labels, slice(0, 1080), slice(1040, 1500))
        assert shown == ["anxiety", "surprise", third, "sadness"]


@pytest.mark.parametrize("grey", [0, 255])
def test_panel_reads_on_black_and_on_white(grey):
    """White letters on a panel that is dark on any background."""
    frame = draw_on_grey(sure_timeline((800, 400, 1000, 600), size=(1920, 1080)), grey=grey)
    panel = frame[410:590, 1030:1290]
    # most of the panel is its ground
    ground = np.median(panel.reshape(-1, 3), axis=0)
    assert (panel.max(axis=-1) > 240).mean() > 0.02
    assert ground.max() < 90
    assert (np.abs(panel.astype(int) - ground) < 20).all(axis=-1).mean() > 0.4


def test_sizes_follow_the_frame():
    shares = []
    for height in (720, 1080, 2160):
        box = np.array([0.4, 0.4, 0.6, 0.6]) * height
        timeline = sure_timeline(tuple(box), size=(height * 16 // 9, height))
        shares.append((draw_on_grey(timeline) != 128).any(axis=-1).mean())
    assert max(shares) < 1.25 * min(shares)
    # but letters of a small video stay large enough to be read
    assert FramePainter(sure_timeline((60, 60, 120, 120), size=(320, 180))).font.size >= 11


@pytest.mark.parametrize("name", ["سعيد", "שמח", "радость", "⌢", "two\nlines"])
def test_labels_of_other_scripts_are_drawn_with_a_font_that_has_them(name, caplog):
    """None of them has the ink of a box."""
    labels = (name, "sad", "calm")
    painter = FramePainter(made_timeline(made_face(1, labels=labels), labels=labels))
    font = painter.fonts[name]
    if name != "two\nlines":
        box = bytes(font.getmask("\U0010fff0"))
        assert all(bytes(font.getmask(letter)) != box for letter in name)
    assert painter.names[name] == name.replace("\n", " ") and caplog.messages == []


def test_labels_that_no_font_has_are_escaped_and_told_of(caplog):
    name = "\U0010fff2x"
    labels = (name, "sad")
    painter = FramePainter(made_timeline(made_face(1, labels=labels), labels=labels))
    assert painter.names == {name: "U+10FFF2 x", "sad": "sad"}
    painter.draw(np.full((512, 512, 3), 128, np.uint8), 1.0)
    FramePainter(painter.timeline)
    (message,) = caplog.messages
    assert r"'\U0010fff2x' as U+10FFF2 x. Install a font" in message


def test_panel_stays_at_its_side_while_another_face_passes():
    """A face walks past a panel: the panel may step aside, but it doesn't jump to and fro."""
    still, passing = (800, 400, 1000, 600), (1900, 420, 2000, 520)
    faces = [
        made_face(1, scores=SURE, box=still, thumbnails=False),
        made_face(2, scores=SURE, box=passing, movement=(-230, 0), thumbnails=False),
    ]
    painter = FramePainter(made_timeline(*faces, size=(1920, 1080)))
    sides = []
    for number in range(100):
        painter.draw(np.full((1080, 1920, 3), 128, np.uint8), number / 10)
        sides.append(painter.choices[1])
    changes = sum(a != b for a, b in itertools.pairwise(sides))
    assert 1 <= changes <= 4


def test_a_frame_smaller_than_the_panel_has_the_box():
    timeline = sure_timeline((10, 10, 50, 50), size=(64, 64))
    assert (draw_on_grey(timeline) != 128).any()


@pytest.mark.parametrize("labels", [("веселье", "грусть"), ("Überraschung", "$\\x$")])
def test_names_in_other_letters_are_drawn(labels):
    """Different names of the same length give different pictures: neither is a row of boxes."""
    pictures = []
    for names in (labels, tuple(name[::-1] for name in labels)):
        face = made_face(
            1, labels=names, scores=np.tile([0.7, 0.3], (10, 1)), box=(200, 100, 300, 200), thumbnails=False
        )
        pictures.append(draw_on_grey(made_timeline(face, labels=names, size=(640, 360))))
    assert (pictures[0] != pictures[1]).any()
