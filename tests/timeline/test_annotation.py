import itertools
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skimage.data
from PIL import ImageDraw

from s2d_hf.colors import label_colours, to_rgb
from s2d_hf.labels import LABELS
from s2d_hf.timeline import VideoTimeline
from s2d_hf.timeline.annotation import FramePainter, annotate_video
from s2d_hf.timeline.streaming import open_stream

from ..videos import turn_video
from .made_timelines import ASTRONAUT_BOX, made_face, made_timeline

RATE = 44100
SWITCH = 1.0  # seconds, when the picture turns bright and the tone begins
SURE = np.tile([0.5, 0.04, 0.24, 0.12, 0.05, 0.03, 0.02], (10, 1))  # of the labels of DFEW: "happy" above all


def write_video_with_sound(
    path: Path,
    frames: list[np.ndarray],
    times: list[Fraction] | None = None,
    sound: str | None = "aac",
    pix_fmt: str = "yuv420p",
    video: str = "libx264",
    start: Fraction = Fraction(0),
) -> Path:
    """
    RGB frames at `times` in seconds (25 a second), and two tones, one in each ear, which begin at `SWITCH`; everything
    is `start` seconds later in the file.
    """
    times = [Fraction(i, 25) for i in range(len(frames))] if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            ears = container.add_stream(sound, rate=RATE if sound != "libopus" else 48000, layout="stereo")
        for time, image in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round((time + start) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            seconds = np.arange(round(float(times[-1]) * RATE)) / RATE
            tone = 12000 * np.sin(2 * np.pi * np.array([[440], [523]]) * seconds) * (seconds >= SWITCH)
            for first in range(0, len(seconds), 1024):
                samples = tone[:, first : first + 1024].T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(samples.astype(np.int16), format="s16", layout="stereo")
                frame.rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = first + round(start * RATE)
                container.mux(ears.encode(frame))
            container.mux(ears.encode())
    return path


def read_frames(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with open_stream(path) as stream:
        frames = [(frame.time, stream.to_rgb(frame.picture)) for frame in stream.frames()]
    return [time for time, _ in frames], [pixels for _, pixels in frames]


def read_sound(path: Path) -> list[tuple[float, bytes]]:
    """Times and contents of the packets."""
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(audio=0) if packet.size
        ]


def read_times(path: Path) -> list[float]:
    """Times of the pictures as the file has them."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def tone_delay(path: Path) -> float:
    """Seconds from the first bright picture to the first loud sample."""
    with av.open(str(path)) as container:
        bright = next(f.time for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 128)
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo")
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                loud = np.flatnonzero(np.abs(part.to_ndarray()[0].astype(int)) > 1000)
                if loud.size:
                    return float(part.pts * part.time_base) + loud[0] / part.rate - bright
    raise AssertionError("There is no tone.")


def scene(height: int = 360, width: int = 640) -> np.ndarray:
    """A quiet background without sharp edges, which compression hardly changes."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([90 + 60 * columns / width, 100 + 50 * rows / height, np.full(rows.shape, 120)], -1).astype(
        np.uint8
    )


def differs(a: np.ndarray, b: np.ndarray, by: int = 40) -> np.ndarray:
    return (np.abs(a.astype(int) - b.astype(int)) > by).any(axis=-1)


def sure_timeline(*boxes: tuple[float, ...], size: tuple[int, int] = (640, 360), **options) -> VideoTimeline:
    """A timeline of faces that are happy for `end` = 10 seconds."""
    faces = [made_face(i + 1, scores=SURE, box=box, thumbnails=False, **options) for i, box in enumerate(boxes)]
    return made_timeline(*faces, size=size)


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


def test_a_positive_angle_is_clockwise():
    """The upper side's right end is lower than its left end."""
    frame = draw_on_grey(sure_timeline((800, 400, 1000, 600), angle=20, size=(1920, 1080)))
    yellow = (frame == to_rgb(label_colours(LABELS["DFEW"])["happy"])).all(axis=-1)
    # from the face's middle upwards
    first, second = (500 - np.flatnonzero(yellow[500::-1, column])[0] for column in (870, 960))
    assert second - first == pytest.approx(90 * np.tan(np.deg2rad(20)), abs=3)


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


@pytest.mark.parametrize(
    ("suffix", "sound"),
    [(".mp4", "aac"), (".mkv", "aac"), (".mkv", "libopus"), (".mkv", "libmp3lame"), (".mkv", "flac")],
)
def test_sound_is_copied(suffix, sound, tmp_path):
    frames = [scene(120, 160) // 3 if i < 25 else np.full((120, 160, 3), 200, np.uint8) for i in range(50)]
    source = write_video_with_sound(tmp_path / f"in{suffix}", frames, sound=sound)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    before, after = read_sound(source), read_sound(target)
    assert len(before) > 15 and [content for _, content in after] == [content for _, content in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.0006)
    assert tone_delay(target) == pytest.approx(tone_delay(source), abs=0.001)
    assert abs(tone_delay(target)) < 0.02


@pytest.mark.parametrize(
    ("suffix", "sound", "video"),
    [(".mov", "pcm_s16le", "libx264"), (".avi", "pcm_s16le", "mpeg4"), (".mkv", "mp2", "libx264")],
)
def test_sound_that_does_not_belong_into_mp4_is_encoded_anew(suffix, sound, video, tmp_path):
    frames = [scene(120, 160) // 3 if i < 25 else np.full((120, 160, 3), 200, np.uint8) for i in range(50)]
    source = write_video_with_sound(tmp_path / f"in{suffix}", frames, sound=sound, video=video)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        (stream,) = container.streams.audio
        assert (stream.codec_context.name, stream.rate, stream.layout.name) == ("aac", RATE, "stereo")
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    assert abs(tone_delay(target) - tone_delay(source)) < 0.003
    # each ear has its own tone
    late = heard[:, int(1.3 * RATE) : int(1.3 * RATE) + RATE // 2]
    peaks = np.abs(np.fft.rfft(late)).argmax(axis=1) * 2
    assert np.abs(peaks - [440, 523]).max() <= 3


def test_every_stream_of_sound_is_kept(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        sounds = [container.add_stream(codec, rate=RATE, layout="mono") for codec in ("aac", "pcm_s16le", "aac")]
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(scene(120, 160), format="rgb24")))
        for number, sound in enumerate(sounds):
            tone = 9000 * np.sin(2 * np.pi * 200 * (number + 1) * np.arange(RATE) / RATE)
            frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        for stream in (video, *sounds):
            container.mux(stream.encode())
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    heard = []
    for number in range(3):
        with av.open(str(target)) as container:
            assert len(container.streams.audio) == 3
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=number)])
        heard.append(np.abs(np.fft.rfft(samples[8000:30050])).argmax() * 2)
    assert heard == pytest.approx([200, 400, 600], abs=3)


def test_a_video_without_sound(tmp_path):
    source = write_video_with_sound(tmp_path / "in.mp4", [scene(120, 160)] * 10, sound=None)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    with av.open(str(target)) as container:
        assert len(container.streams) == 1 and len(list(container.decode(video=0))) == 10


def test_a_variable_frame_rate_stays_variable(tmp_path):
    gaps = np.random.default_rng(0).integers(10, 120, size=40)
    times = [Fraction(int(milliseconds), 1000) for milliseconds in np.cumsum([0, *gaps])]
    source = write_video_with_sound(tmp_path / "in.mkv", [scene(120, 160)] * len(times), times)
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    assert read_times(source) == pytest.approx([float(time) for time in times])
    assert read_times(target) == pytest.approx([float(time) for time in times], abs=1e-9)
    assert len(read_sound(target)) == len(read_sound(source))


def test_a_video_that_does_not_begin_at_zero(tmp_path):
    frames = [scene(120, 160) // 3 if i < 25 else np.full((120, 160, 3), 200, np.uint8) for i in range(50)]
    source = write_video_with_sound(tmp_path / "in.mkv", frames, start=Fraction(7, 2))
    target = annotate_video(made_timeline(size=(160, 120)), tmp_path / "out.mp4", source, progress=False)
    assert read_times(source)[0] == 3.5
    assert read_times(target) == pytest.approx([i / 25 for i in range(50)])
    assert tone_delay(target) == pytest.approx(tone_delay(source), abs=0.001)
    assert [content for _, content in read_sound(target)] == [content for _, content in read_sound(source)]


def heard_samples(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_sound_before_the_first_picture_is_kept(suffix, tmp_path):
    dark, bright = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    times = [Fraction(7, 10) + Fraction(i, 25) for i in range(30)]
    frames = [bright if time >= SWITCH else dark for time in times]
    path = write_video_with_sound(tmp_path / f"lead{suffix}", frames, times)
    target = annotate_video(made_timeline(size=(96, 64)), tmp_path / "out.mp4", path, progress=False)
    assert heard_samples(target) == heard_samples(path)
    assert read_times(target)[0] == pytest.approx(0.7, abs=0.03)  # a codec's padding comes before the sound
    assert tone_delay(target) == pytest.approx(tone_delay(path), abs=0.005)


def test_recordings_behind_each_other_keep_their_sound_in_time(tmp_path):
    """Three recordings in a transport stream, each of which starts its times again."""
    dark, bright = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    parts = [
        write_video_with_sound(tmp_path / f"{i}.ts", [bright if j >= 25 else dark for j in range(length)])
        for i, length in enumerate((50, 40, 45))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    target = annotate_video(made_timeline(size=(96, 64)), tmp_path / "out.mp4", path, progress=False)
    times = read_times(target)
    np.testing.assert_allclose(times, np.arange(135) / 25, atol=0.002)
    assert heard_samples(target) >= heard_samples(path) - 3 * 1024  # up to the packet that is cut at each end
    with av.open(str(target)) as container:
        brightness = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    with av.open(str(target)) as container:
        sound = [(frame.time, np.abs(frame.to_ndarray()).mean()) for frame in container.decode(audio=0)]
    bright_since = [times[i] for i in range(1, 135) if brightness[i] > 128 > brightness[i - 1]]
    loud_since = [now for (_, before), (now, level) in itertools.pairwise(sound) if level > 0.02 > before]
    assert len(bright_since) == 3
    for begins in bright_since:
        assert min(abs(begins - heard) for heard in loud_since) < 0.06


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


def draw_on_grey(timeline: VideoTimeline, time: float = 5.0, grey: int = 128) -> np.ndarray:
    frame = np.full((timeline.height, timeline.width, 3), grey, np.uint8)
    FramePainter(timeline).draw(frame, time)
    return frame


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
