"""Annotated videos: boxes in their places, and files that players take."""

import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skimage.data

from s2d_hf.colors import label_colours, to_rgb
from s2d_hf.timeline.annotation import FramePainter, annotate_video

from ..videos import turn_video
from .made_timelines import made_face, made_timeline, sure_timeline
from .videos_with_sound import read_frames, read_sound, read_times, scene, write_video_with_sound


def differs(a: np.ndarray, b: np.ndarray, by: int = 40) -> np.ndarray:
    return (np.abs(a.astype(int) - b.astype(int)) > by).any(axis=-1)


def corners_by_complex_numbers(box: tuple[float, ...], angle: float) -> list[tuple[float, float]]:
    """Upper left, upper right, lower right, lower left; the y axis points down, so that i turns clockwise."""
    middle = complex((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    half = (box[2] - box[0]) / 2
    turned = [
        middle + half * (x + y * 1j) * np.exp(1j * np.deg2rad(angle)) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    return [(point.real, point.imag) for point in turned]


def edge_points(corners: list[tuple[float, float]]) -> np.ndarray:
    """Points along the sides of a square `(num_points, 2)`."""
    points = np.array(corners)
    steps = np.linspace(0, 1, 30, endpoint=False)[:, None]
    return np.concatenate([a + steps * (b - a) for a, b in zip(points, np.roll(points, -1, axis=0), strict=True)])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Two seconds of 640x360 with sound, dark first and bright later."""
    frames = [scene() // 3 if i < 25 else np.clip(scene() + 60, 0, 255).astype(np.uint8) for i in range(50)]
    return write_video_with_sound(tmp_path_factory.mktemp("annotation") / "source.mp4", frames)


@pytest.mark.parametrize("angle", [0, 20, -35])
def test_box_is_drawn_where_the_face_is(source, tmp_path, angle):
    box = (100.0, 120.0, 200.0, 220.0)
    timeline = sure_timeline(box, movement=(60, 20), angle=angle)
    timeline.source = str(source)
    target = timeline.annotate(tmp_path / "out.mp4", progress=False)
    assert target == tmp_path / "out.mp4"
    (times, before), (_, after) = read_frames(source), read_frames(target)
    colours = {label: np.array(to_rgb(colour)) for label, colour in label_colours(timeline.labels).items()}
    for number in (0, 12, 30, 49):
        time = times[number]
        moved = np.add(box, time * np.array([60, 20, 60, 20]))
        corners = corners_by_complex_numbers(moved, angle)
        drawn = differs(after[number], before[number])
        points = np.round(edge_points(corners)).astype(int)
        assert drawn[points[:, 1], points[:, 0]].mean() > 0.97
        # colours have half the resolution after compression
        seen = np.median(after[number][points[:, 1], points[:, 0]], axis=0)
        assert min(colours, key=lambda label: np.linalg.norm(colours[label] - seen)) == "happy"
        inside = cv2.fillConvexPoly(np.zeros(drawn.shape, np.uint8), np.round(corners).astype(np.int32), 1)
        inside = cv2.erode(inside, np.ones((15, 15)))
        assert inside.sum() > 5000 and not drawn[inside > 0].any()
        # all that is drawn lies about the face: a tag and a panel
        rows, columns = np.nonzero(drawn)
        assert columns.min() > moved[0] - 220 and columns.max() < moved[2] + 220
        assert rows.min() > moved[1] - 60 and rows.max() < moved[3] + 60
        assert drawn.mean() < 0.15


def test_frames_outside_of_the_tracks_stay_as_they_are(source, tmp_path):
    face = made_face(1, 0.5, 1.2, box=(300, 100, 400, 200), thumbnails=False)
    target = annotate_video(made_timeline(face, size=(640, 360)), tmp_path / "out.mp4", source, progress=False)
    (times, before), (_, after) = read_frames(source), read_frames(target)
    changed = [time for time, a, b in zip(times, before, after, strict=True) if differs(a, b).any()]
    assert changed == [time for time in times if 0.5 <= time <= 1.2]


def test_last_frames_after_the_last_sample_keep_the_box(source, tmp_path):
    """At 8 frames a second the last frame looked at is at 1.875 s, and the video's last frame at 1.96 s."""
    face = made_face(1, 0, 1.875, box=(300, 100, 400, 200), thumbnails=False)
    timeline = made_timeline(face, size=(640, 360), duration=2.0)
    target = annotate_video(timeline, tmp_path / "out.mp4", source, progress=False)
    (_, before), (_, after) = read_frames(source), read_frames(target)
    assert differs(before[-1], after[-1]).any()


def test_without_tracks_the_video_stays_as_it_is(tmp_path):
    """Also its colours: saturated ones show a wrong matrix."""
    picture = skimage.data.astronaut()
    frames = [np.roll(picture, i, axis=1) for i in range(12)]
    source = write_video_with_sound(tmp_path / "in.mp4", frames)
    target = annotate_video(made_timeline(), tmp_path / "out.mp4", source, progress=False)
    (before_times, before), (after_times, after) = read_frames(source), read_frames(target)
    assert after_times == before_times
    for a, b in zip(before, after, strict=True):
        smooth = [cv2.GaussianBlur(x, (0, 0), 3).astype(int) for x in (a, b)]
        assert np.abs(smooth[0] - smooth[1]).mean() < 2


def test_result_is_what_players_expect(source, tmp_path):
    target = annotate_video(made_timeline(size=(640, 360)), tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 640, 360)
        assert container.format.name.startswith("mov")
    content = target.read_bytes()
    # the index is before the pictures, so that a browser can start at once
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_variable_frame_rate_stays_variable(tmp_path):
    gaps = np.random.default_rng(0).integers(10, 120, size=40)
    times = [Fraction(int(milliseconds), 1000) for milliseconds in np.cumsum([0, *gaps])]
    source = write_video_with_sound(tmp_path / "in.mkv", [scene(120, 160)] * len(times), times)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    assert read_times(source) == pytest.approx([float(time) for time in times])
    assert read_times(target) == pytest.approx([float(time) for time in times], abs=1e-9)
    assert len(read_sound(target)) == len(read_sound(source))


@pytest.mark.parametrize("size", [(161, 121), (160, 121), (161, 120)])
def test_odd_sizes_are_padded(size, tmp_path):
    width, height = size
    frames = [scene(height, width)] * 5
    source = write_video_with_sound(tmp_path / "in.mkv", frames, pix_fmt="yuv444p")
    target = annotate_video(made_timeline(size=size), tmp_path / "out.mp4", source, progress=False)
    after = read_frames(target)[1][2]
    assert after.shape == (height + height % 2, width + width % 2, 3)
    assert not differs(after[:height, :width], frames[2], by=12).any()
    if width % 2:
        assert not differs(after[:height, -1], frames[2][:, -1], by=12).any()


def test_a_turned_video_comes_out_upright(tmp_path):
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:60, :80], picture[60:, 80:] = (220, 30, 30), (30, 30, 220)
    plain = write_video_with_sound(tmp_path / "plain.mp4", [picture] * 5)
    source = turn_video(plain, tmp_path / "turned.mp4", 0, 1, -1, 0)
    timeline = made_timeline(made_face(1, 0, 1, box=(40, 60, 80, 100), thumbnails=False), size=(120, 160))
    target = annotate_video(timeline, tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        after = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert after.shape == (160, 120, 3)
    # by a quarter turn clockwise the upper left corner comes to the upper right, and the lower right to the lower left
    assert np.abs(after[10, 110].astype(int) - (220, 30, 30)).max() < 25
    assert np.abs(after[150, 10].astype(int) - (30, 30, 220)).max() < 25


def test_ten_bits_become_eight(tmp_path):
    source = write_video_with_sound(tmp_path / "in.mkv", [scene(120, 160)] * 5, pix_fmt="yuv420p10le")
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert not differs(read_frames(target)[1][2], scene(120, 160), by=12).any()


def test_an_error_midway_leaves_no_file(source, tmp_path, monkeypatch):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"an earlier result")
    draw = FramePainter.draw

    def fail_late(self, frame, time):
        if time > 1:
            raise RuntimeError("midway")
        draw(self, frame, time)

    monkeypatch.setattr(FramePainter, "draw", fail_late)
    timeline = sure_timeline((100, 120, 200, 220))
    with pytest.raises(RuntimeError, match="midway"):
        annotate_video(timeline, target, source, progress=False)
    assert os.listdir(tmp_path) == ["out.mp4"] and target.read_bytes() == b"an earlier result"
    monkeypatch.undo()
    annotate_video(timeline, target, source, progress=False)
    assert os.listdir(tmp_path) == ["out.mp4"] and len(read_frames(target)[0]) == 50


def test_the_source_is_never_overwritten(tmp_path):
    source = write_video_with_sound(tmp_path / "in.mp4", [scene(120, 160)] * 3)
    content = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(source)
    for target in (source, tmp_path / "link.mp4", tmp_path / "hard.mp4", tmp_path / "." / "in.mp4"):
        with pytest.raises(ValueError, match="is the source itself"):
            annotate_video(made_timeline(size=(160, 120)), target, source, progress=False)
    assert source.read_bytes() == content and len(os.listdir(tmp_path)) == 3


def test_what_cannot_be_annotated_is_named(source, tmp_path):
    timeline = made_timeline(size=(640, 360), source=str(tmp_path / "gone.mp4"))
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: pass `source=`"):
        annotate_video(timeline, tmp_path / "new" / "out.mp4", progress=False)
    for path in ("out.avi", "out"):
        with pytest.raises(ValueError, match=r"`path` must end in \.mp4"):
            annotate_video(timeline, tmp_path / path, source)
    for camera in ("0", "camera 0"):
        timeline.source = camera
        with pytest.raises(ValueError, match=r"is a camera.*`source=`"):
            annotate_video(timeline, tmp_path / "out.mp4")
    timeline.source = str(tmp_path)
    with pytest.raises(ValueError, match=r"is a folder of frames.*`source=`"):
        annotate_video(timeline, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match=r"640x360 pixels.*512x512"):
        annotate_video(made_timeline(), tmp_path / "out.mp4", source, progress=False)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text\.mp4 could not be"):
        annotate_video(timeline, tmp_path / "out.mp4", tmp_path / "text.mp4")
    assert os.listdir(tmp_path) == ["text.mp4"]


def test_missing_folders_are_made_and_progress_is_shown(source, tmp_path, capsys):
    timeline = made_timeline(size=(640, 360))
    annotate_video(timeline, tmp_path / "new" / "quiet.mp4", source, progress=False)
    assert capsys.readouterr().err == ""
    annotate_video(timeline, tmp_path / "new" / "loud.mp4", source)
    shown = capsys.readouterr().err
    assert "Annotating: 100%" in shown and "2.0/2.0 s" in shown
    assert sorted(os.listdir(tmp_path / "new")) == ["loud.mp4", "quiet.mp4"]


@pytest.mark.parametrize("name", ["笑顔 😀".encode(), "مرحبا".encode(), b"a\xffb", b"-two\nlines"])
def test_any_names_of_files_are_written_and_read(name, source, tmp_path, capfd):
    """Also those that aren't valid UTF-8: Python has lone surrogates for their bytes."""
    original = tmp_path / os.fsdecode(name + b".mp4")
    try:
        shutil.copy(source, original)
    except OSError:
        pytest.skip("The file system allows no such name.")
    timeline = sure_timeline((100, 120, 200, 220))
    timeline.source = str(original)
    target = timeline.annotate(tmp_path / os.fsdecode(name + b" annotated.mp4"))
    assert sorted(os.listdir(os.fsencode(tmp_path))) == [name + b" annotated.mp4", name + b".mp4"]
    assert len(read_frames(target)[0]) == 50
    output, shown = capfd.readouterr()
    assert output == "" and "Annotating: 100%" in shown
    assert {line.split(":")[0] for line in shown.split("\r") if line.strip()} == {"Annotating"}
