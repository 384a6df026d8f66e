"""`S2DTimeline` with the real detectors on videos of a real face, whose places and times are known."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from s2d_hf import S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.face_cropping_s2d import crop_square
from s2d_hf.fast_cpu import FastLinear
from s2d_hf.timeline import S2DTimeline
from s2d_hf.timeline.streaming import CameraStream, open_stream
from s2d_hf.video_files_s2d import TimedFrame

from ..face_videos import PlacedFace, draw_faces
from ..videos import turn_video, write_timed_video, write_video

FPS = 25
# Detections are a quarter of a second apart.
TIME_TOLERANCE = 0.25


def first_face(seconds: float) -> PlacedFace:
    """Moves to the right, grows, and sways; away between 3 and 4.5 seconds."""
    center = (130 + 30 * seconds, 180 + 10 * np.sin(seconds))
    return PlacedFace(center, 100 + 5 * seconds, angle=12 * np.sin(2 * seconds))


SECOND_FACE = PlacedFace((520, 150), 90, mirrored=True)


def scene(seconds: float) -> np.ndarray:
    """Two faces, one of whom leaves and returns; after 6 seconds a cut to an empty scene."""
    faces = []
    if seconds < 3 or 4.5 <= seconds < 6:
        faces.append(first_face(seconds))
    if 1 <= seconds < 4:
        faces.append(SECOND_FACE)
    return draw_faces(faces if seconds < 6 else [], background=90 if seconds < 6 else 230)


@pytest.fixture(scope="module")
def scene_video(tmp_path_factory) -> Path:
    frames = [scene(i / FPS) for i in range(int(7.2 * FPS))]
    return write_video(tmp_path_factory.mktemp("scene") / "scene.mp4", frames, FPS)


@pytest.fixture(scope="module")
def short_video(tmp_path_factory) -> Path:
    """The first face for a second and a half."""
    frames = [draw_faces([first_face(i / FPS)]) for i in range(int(1.5 * FPS))]
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", frames, FPS)


@pytest.fixture(scope="module")
def empty_video(tmp_path_factory) -> Path:
    picture = skimage.data.coffee()[:360, :600]
    frames = [np.roll(picture, i, axis=1) for i in range(50)]
    return write_video(tmp_path_factory.mktemp("empty") / "empty.mp4", frames, FPS)


def load(converted: Path, weights: Path, detector: str = "yunet", **settings) -> S2DTimeline:
    return S2DTimeline.from_pretrained(
        converted,
        detector,
        weights,
        device="cpu",
        **({"window_stride": 2, "dtype": "float32"} | settings),
    )


@pytest.fixture(scope="module")
def timelines(converted, retinaface_weights, yunet_weights, scene_video) -> dict:
    weights = {"retinaface": retinaface_weights, "yunet": yunet_weights}
    return {name: load(converted, path, name)(scene_video, progress=False) for name, path in weights.items()}


@pytest.mark.parametrize("detector", ["retinaface", "yunet"])
def test_tracks_places_and_times(timelines, scene_video, detector):
    timeline = timelines[detector]
    assert (timeline.source, timeline.width, timeline.height) == (str(scene_video), 640, 360)
    assert timeline.duration == pytest.approx(7.2) and timeline.cuts == [6.0]
    assert [face.track for face in timeline.tracks] == [1, 2, 3]
    known = [(0.0, 3.0, first_face), (1.0, 4.0, lambda seconds: SECOND_FACE), (4.5, 6.0, first_face)]
    for face, (start, end, place) in zip(timeline.tracks, known, strict=True):
        assert 0 <= face.start - start <= TIME_TOLERANCE and 0 <= end - face.end <= TIME_TOLERANCE
        np.testing.assert_allclose(np.diff(face.box_times), 1 / 8)
        for time, box, angle in zip(face.box_times, face.boxes, face.angles, strict=True):
            true = place(time)
            center, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
            assert np.linalg.norm(center - true.center) < 0.06 * true.side
            assert side / 1.1 == pytest.approx(true.side, rel=0.12)
            assert angle == pytest.approx(true.angle, abs=6)
        # smooth: the boxes' speed changes little from frame to frame
        assert np.abs(np.diff(face.boxes, 2, axis=0)).max() < 2.5
    # the last frame before the cut was looked at, though no detection was due
    assert timeline.tracks[2].end == 5.875


def test_windows_and_segments_cover_the_tracks(timelines):
    for face in timelines["yunet"].tracks:
        np.testing.assert_allclose(face.ends - face.starts, 3 / 8)  # the model takes 4 frames
        np.testing.assert_allclose(np.diff(face.starts)[:-1], 2 / 8)
        assert face.starts[0] == face.start and face.end - face.ends[-1] < 1 / 8
        np.testing.assert_allclose(face.scores.sum(axis=1), 1, atol=1e-6)
        assert face.segments[0].start == face.start and face.segments[-1].end == face.end
        thumbnail_times = [seconds for seconds, _ in face.thumbnails]
        assert thumbnail_times == pytest.approx(np.arange(face.start, face.end + 1e-6, 1.0))
        assert {picture.shape for _, picture in face.thumbnails} == {(80, 80, 3)}


def test_scores_are_those_of_processor_and_model(timelines, converted, scene_video):
    """The crops are cut anew, by the boxes, from frames that the test picks itself."""
    model = S2DForVideoClassification.from_pretrained(converted)
    processor = S2DVideoProcessor.from_pretrained(converted)
    with open_stream(scene_video) as stream:
        frames = dict(enumerate(stream.to_rgb(frame.picture) for frame in stream.frames()))
    face = timelines["yunet"].tracks[0]
    for window in (0, 3, len(face.times) - 1):
        crops = []
        for seconds in face.starts[window] + np.arange(4) / 8:
            box, angle = face.box_at(seconds)
            number = next(i for i in frames if abs(i / FPS - seconds) <= 0.5 / FPS + 1e-9)
            crops.append(crop_square(frames[number], (box[:2] + box[2:]) / 2, box[2] - box[0], angle, 224))
        with torch.no_grad():
            expected = model(**processor(crops, return_tensors="pt")).logits.softmax(-1)[0]
        np.testing.assert_allclose(face.scores[window], expected, atol=2e-3)
    differences = np.abs(np.diff(face.scores, axis=0)).max()
    assert differences > 4e-3  # which windows that were mixed up would show


def record_batches(analyse: S2DTimeline) -> list[int]:
    """How many windows go through the model each time."""
    sizes: list[int] = []
    analyse.model.register_forward_pre_hook(
        lambda module, arguments, inputs: sizes.append(len(inputs["pixel_values"])), with_kwargs=True
    )
    return sizes


def test_batches_and_reports_change_nothing(timelines, converted, yunet_weights, scene_video):
    reported = []
    analyse = load(converted, yunet_weights, batch_size=5)
    sizes = record_batches(analyse)
    batched = analyse(scene_video, progress=False, on_window=reported.append)
    assert set(sizes[:-1]) == {5} and sum(sizes) == len(reported)  # windows of all faces together
    for face, alone in zip(batched.tracks, timelines["yunet"].tracks, strict=True):
        np.testing.assert_allclose(face.scores, alone.scores, atol=1e-5)
        np.testing.assert_array_equal(face.boxes, alone.boxes)
        windows = [window for window in reported if window.track == face.track]
        np.testing.assert_array_equal([window.start for window in windows], face.starts)
        np.testing.assert_array_equal([window.time for window in windows], face.times)
        np.testing.assert_array_equal(np.stack([window.scores for window in windows]), face.scores)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "int8"])
def test_other_precisions(converted, yunet_weights, short_video, dtype):
    analyse = load(converted, yunet_weights, dtype=dtype)
    assert analyse(short_video, progress=False).dtype == analyse.precision
    assert analyse.precision == dtype or (dtype == "auto" and analyse.precision in ("bfloat16", "float32"))
    face = analyse(short_video, progress=False).tracks[0]
    exact = load(converted, yunet_weights)(short_video, progress=False).tracks[0]
    np.testing.assert_array_equal(face.boxes, exact.boxes)  # of the detector, which stays in float32
    difference = np.abs(face.scores - exact.scores).max()
    assert difference < 0.02 and (difference > 0 or analyse.precision == "float32")


def test_devices_that_are_not_here(converted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda:1", torch.device("cuda:1"), "mps"):
        with pytest.raises(ValueError, match=f"`device`: PyTorch finds no {device} here. Leave it out, or take cpu"):
            S2DTimeline.from_pretrained(converted, device=device, dtype="int8")
    for device in ("cuda:x", "gpu"):
        with pytest.raises(ValueError, match=f"`device` must be cpu, cuda, cuda:1 or the like, got '{device}'"):
            S2DTimeline.from_pretrained(converted, device=device)


def test_progress_is_told_for_every_frame_and_may_end_the_analysis(converted, yunet_weights, empty_video):
    analyse = load(converted, yunet_weights)
    times: list[float] = []
    analyse(empty_video, progress=False, on_progress=times.append)
    assert times == pytest.approx(np.arange(16) / 8)

    def stop(seconds: float) -> None:
        if seconds >= 0.5:
            raise RuntimeError(f"stopped at {seconds}")

    with pytest.raises(RuntimeError, match=r"stopped at 0\.5"):
        analyse(empty_video, progress=False, on_progress=stop)


def test_short_tracks(timelines, converted, yunet_weights, scene_video):
    analyse = load(converted, yunet_weights, min_duration=1.9)
    reported = []
    timeline = analyse(scene_video, progress=False, on_window=reported.append)
    assert [(face.track, round(face.start)) for face in timeline.tracks] == [(1, 0), (2, 1)]
    assert {window.track for window in reported} == {1, 2}  # none of a track that was dropped, and none lost
    assert len(reported) == sum(len(face.times) for face in timeline.tracks)
    # a track that is shorter than a window: its last frame is repeated
    whole = load(converted, yunet_weights, fps=1.0, detect_every=1, min_duration=0, max_gap=0)(
        scene_video, progress=False
    )
    short = [face for face in whole.tracks if len(face.box_times) < 4]
    assert short and all(len(face.times) == 1 and face.ends[0] == face.end for face in short)


def test_a_strides_rest_is_covered(converted, yunet_weights, short_video):
    """A window more covers the end of a track if half a stride of its frames would be left over."""
    for stride in (3, 4, 5, 7):
        face = load(converted, yunet_weights, window_stride=stride)(short_video, progress=False).tracks[0]
        starts = np.rint((face.starts - face.start) * 8).astype(int)
        count = len(face.box_times)
        assert count == 12
        regular = list(range(0, count - 3, stride))
        rest = count - (regular[-1] + 4)
        expected = regular + ([count - 4] if rest >= max(1, stride // 2) else [])
        assert starts.tolist() == expected


def test_video_without_faces(converted, yunet_weights, empty_video, tmp_path):
    timeline = load(converted, yunet_weights)(empty_video, progress=False)
    assert timeline.tracks == [] and timeline.duration == 2
    assert len(timeline.to_dataframe()) == 0
    timeline.plot(tmp_path / "none.png")
    timeline.annotate(tmp_path / "none.mp4", progress=False)
    with open_stream(tmp_path / "none.mp4") as stream:
        assert len(list(stream.frames())) == 50


def test_every_face_of_a_crowd(converted, yunet_weights, tmp_path):
    places = [(90 + 150 * column, 90 + 170 * row) for row in range(2) for column in range(4)]
    frame = draw_faces([PlacedFace(place, 80, mirrored=i % 2 == 1) for i, place in enumerate(places)])
    path = write_video(tmp_path / "crowd.mp4", [frame] * 15)
    timeline = load(converted, yunet_weights, batch_size=3)(path, progress=False)
    assert len(timeline.tracks) == 8
    found = np.array([(face.boxes[0, :2] + face.boxes[0, 2:]) / 2 for face in timeline.tracks])
    for place in places:
        assert np.linalg.norm(found - place, axis=1).min() < 6


UNUSUAL = {
    "4K": ((2160, 3840), {"pts": list(range(0, 124, 8))}),
    "odd size": ((353, 641), {"pix_fmt": "yuv444p"}),
    "ten bits": ((360, 640), {"pix_fmt": "yuv420p10le"}),
    "variable frame rate": ((360, 640), {"pts": [0, 3, 30, 33, 36, 75, 80, 120]}),
    "slow": ((360, 640), {"pts": [0, 40, 80, 120]}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_videos(converted, yunet_weights, tmp_path, name):
    (height, width), options = UNUSUAL[name]
    pts = options.get("pts", list(range(0, 124, 4)))
    unit = height / 360

    def place(seconds: float) -> PlacedFace:
        return PlacedFace((unit * (200 + 40 * seconds), unit * 180), unit * 110)

    frames = [draw_faces([place(i / 100)], height, width) for i in pts]
    path = write_timed_video(tmp_path / "video.mp4", frames, **(options | {"pts": pts}))
    timeline = load(converted, yunet_weights)(path, progress=False)
    assert (timeline.height, timeline.width) == (height, width)
    (face,) = timeline.tracks
    assert face.start == 0 and face.end == pytest.approx(1.125, abs=0.13)
    for seconds, box in zip(face.box_times, face.boxes, strict=True):
        # the frame that is shown then
        shown = min(pts, key=lambda value: abs(value / 100 - seconds)) / 100
        # a picture that stands still and then leaps is followed by a smooth box, half a leap off at most
        tolerance = 16 if name in ("slow", "variable frame rate") else 5
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, place(shown).center, atol=tolerance * unit)


def test_video_that_is_turned(converted, yunet_weights, tmp_path):
    upright = [draw_faces([PlacedFace((180, 300), 120)], height=640, width=360)] * 25
    lying = write_video(tmp_path / "lying.mp4", [np.rot90(frame) for frame in upright])
    turned = turn_video(lying, tmp_path / "turned.mp4", 0, 1, -1, 0)
    timeline = load(converted, yunet_weights)(turned, progress=False)
    assert (timeline.width, timeline.height) == (360, 640)
    (face,) = timeline.tracks
    np.testing.assert_allclose((face.boxes[0, :2] + face.boxes[0, 2:]) / 2, (180, 300), atol=6)
    assert abs(face.angles[0]) < 6


def test_thumbnails_of_a_long_track_are_few(converted, yunet_weights, tmp_path):
    frame = draw_faces([first_face(0)], width=320)
    path = write_timed_video(tmp_path / "long.mp4", [frame] * 50, list(range(0, 5000, 100)))
    analyse = load(converted, yunet_weights, fps=1.0, detect_every=1, window_stride=8)
    (face,) = analyse(path, progress=False).tracks
    times = np.array([seconds for seconds, _ in face.thumbnails])
    assert 8 <= len(times) <= 16 and times[0] == 0 and times[-1] > 45
    assert len(set(np.diff(times))) == 1


def test_image_model_and_bfloat16(image_folder, converted, yunet_weights, short_video):
    image = load(image_folder, yunet_weights)(short_video, progress=False)
    assert len(image.tracks) == 1 and image.tracks[0].scores.shape == (5, 7)
    half = load(converted, yunet_weights, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    full = load(converted, yunet_weights)(short_video, progress=False)
    for a, b in zip(half(short_video, progress=False).tracks, full.tracks, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_allclose(a.scores, b.scores, atol=0.03)


def test_without_landmark_encoder(converted, retinaface_weights, short_video):
    model = S2DForVideoClassification.from_pretrained(converted)
    with pytest.raises(ValueError, match="its processor has no landmark encoder"):
        S2DTimeline(model, S2DVideoProcessor())
    plain = S2DForVideoClassification.from_pretrained(converted, prompt_type="none")
    processor = S2DVideoProcessor(do_landmarks=False, face_detector_weights=retinaface_weights)
    analyse = S2DTimeline(plain, processor)
    assert type(plain.s2d.layers[0].mlp.fc1) is FastLinear  # faster on CPUs
    timeline = analyse(short_video, progress=False)
    assert len(timeline.tracks) == 1 and not timeline.tracks[0].angles.any()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("fps", 0),
        ("window_stride", 0),
        ("detect_every", -1),
        ("batch_size", 0),
        ("max_gap", -1),
        ("switch_cost", -0.1),
    ],
)
def test_bad_arguments(converted, argument, value):
    model = S2DForVideoClassification.from_pretrained(converted)
    with pytest.raises(ValueError, match=f"`{argument}`"):
        S2DTimeline(model, S2DVideoProcessor.from_pretrained(converted), **{argument: value})


class InterruptedCamera(CameraStream):
    """Shows a face for two seconds, then the user presses Ctrl-C."""

    name, width, height, fps = "camera 0", 640, 360, 8.0

    def __init__(self):
        self.latest = -1.0

    def close(self) -> None:
        pass

    def frames(self) -> Iterator[TimedFrame]:
        picture = cv2.cvtColor(draw_faces([first_face(0)]), cv2.COLOR_RGB2BGR)
        for i in range(16):
            self.latest = i / 8
            yield TimedFrame(self.latest, picture)
        raise KeyboardInterrupt


def test_interrupted_camera(converted, yunet_weights, monkeypatch):
    camera = InterruptedCamera()
    monkeypatch.setattr("s2d_hf.timeline.analysis.open_stream", lambda source: camera)
    analyse = load(converted, yunet_weights, batch_size=5)
    sizes = record_batches(analyse)
    delays: list[float] = []
    timeline = analyse(0, progress=False, on_progress=lambda seconds: delays.append(camera.latest - seconds))
    assert delays == [0.0] * 16  # no frame lies waiting for the one that is looked at
    assert set(sizes) == {1}  # nobody who is watched live waits for others
    assert len(timeline.tracks) == 1 and timeline.tracks[0].end == 15 / 8
    assert len(timeline.tracks[0].times) == 7


@pytest.mark.parametrize("num_frames", [1, 3])
def test_faces_of_photographs_and_of_videos_that_are_shorter_than_a_track(
    converted, yunet_weights, tmp_path, num_frames
):
    """A real face, as a video, and of one frame as a picture, too."""
    picture = skimage.data.astronaut()
    videos = [write_video(tmp_path / "short.mp4", [picture] * num_frames)]
    if num_frames == 1:
        Image.fromarray(picture).save(tmp_path / "photo.jpg")
        videos.append(tmp_path / "photo.jpg")
    for video in videos:
        (face,) = load(converted, yunet_weights)(video, progress=False).tracks
        x1, y1, x2, y2 = face.boxes[0]
        assert x1 < 178 + 30 and x2 > 268 - 30 and y1 < 60 + 30 and y2 > 178 - 30
        assert len(face.scores) == 1 and face.end < 0.5 and len(face.segments) == 1
    black = write_video(tmp_path / "black.mp4", [np.zeros_like(picture)])
    assert load(converted, yunet_weights)(black, progress=False).tracks == []


def test_damage_is_part_of_the_result(converted, yunet_weights, tmp_path, caplog):
    frames = [scene(i / FPS) for i in range(50)]
    whole = write_video(tmp_path / "whole.mp4", frames, movflags="faststart")
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])  # its index is there, its last frames are not
    analyse = load(converted, yunet_weights)
    assert analyse(whole, progress=False).damage == ""
    timeline = analyse(tmp_path / "cut.mp4", progress=False)
    assert "of 2.0 s that its header states" in timeline.damage
    assert timeline.duration < 1.9 and len(timeline.tracks) >= 1
    assert caplog.text.count("cut.mp4 is damaged: ") == 1


def test_scores_that_are_not_numbers_are_no_answer(converted, yunet_weights, short_video):
    analyse = load(converted, yunet_weights)
    with torch.no_grad():
        analyse.model.classifier.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"scores from 0\.\d\d s on are NaN"):
        analyse(short_video)
