"""The synthetic faces: what they show, where their points lie, and what is written to disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic.clips import SYNTHETIC_LABELS, SyntheticFaces, label_expression
from synthetic.dataset import write_synthetic_dataset
from synthetic.face_drawing import draw_face
from synthetic.face_shape import EXPRESSION_PARAMETERS, FaceIdentity, FacePose, Scene, project, shape_points

from s2d_hf.frames_s2d import read_image, to_rgb
from s2d_hf.trainer.landmark_encoder_training import read_still_points
from s2d_hf.video_reading_s2d import read_video

FADING_PAIRS = (("happy", "happy_fading"), ("surprise", "surprise_fading"))
BRIGHT = Scene(light_strength=0.0, background=(40, 60, 200), background_end=(40, 60, 200))
JAW, OUTER_LIPS = slice(2, 15), slice(48, 60)
SHIFTS = [(0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)]


def expression(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in EXPRESSION_PARAMETERS])


POSES_AND_EXPRESSIONS = [
    (FacePose(), expression()),
    (FacePose(yaw=0.3, pitch=-0.1), expression(mouth_corner=1, mouth_width=0.7, lip_raise=0.8, cheek_raise=1)),
    (FacePose(yaw=-0.25, roll=0.15, scale=0.9), expression(brow_raise=1, lid_open=1, mouth_open=0.7)),
    (FacePose(pitch=0.15, shift=(0.02, -0.02)), expression(brow_slant=-1, brow_pinch=1, brow_raise=-0.6)),
]


def colours_at(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The pixels in which points `(n, 2)` in fractions of the frame lie, `(n, 3)`."""
    pixels = np.clip(np.floor(points * len(image)).astype(int), 0, len(image) - 1)
    return image[pixels[:, 1], pixels[:, 0]].astype(float)


# what varies, and what does not


def test_a_clip_follows_from_its_numbers_alone():
    faces = SyntheticFaces(7, num_frames=4)
    first = faces.clip(2, "sad", 1)
    faces.clip(0, "happy", 0)
    again, elsewhere = faces.clip(2, "sad", 1), SyntheticFaces(7, num_frames=4).clip(2, "sad", 1)
    for clip in (again, elsewhere):
        np.testing.assert_array_equal(clip[0], first[0])
        np.testing.assert_array_equal(clip[1], first[1])


@pytest.mark.parametrize(
    "seed, identity, label, index", [(8, 2, "sad", 1), (7, 3, "sad", 1), (7, 2, "angry", 1), (7, 2, "sad", 0)]
)
def test_other_numbers_give_another_clip(seed: int, identity: int, label: str, index: int):
    frames, points = SyntheticFaces(7, num_frames=3).clip(2, "sad", 1)
    other_frames, other_points = SyntheticFaces(seed, num_frames=3).clip(identity, label, index)
    assert np.abs(frames.astype(int) - other_frames).mean() > 5
    assert np.abs(points - other_points).max() > 0.005


def test_identities_differ_and_keep_their_looks():
    faces = SyntheticFaces(0)
    people = [faces.identity(i) for i in range(40)]
    assert len(set(people)) == 40
    assert people[3] == SyntheticFaces(0).identity(3) != SyntheticFaces(1).identity(3)
    assert len({person.hair_style for person in people}) >= 5
    assert {person.glasses for person in people} >= {"none", "round"}
    assert len({person.beard for person in people}) >= 3


def test_shapes_follow_the_settings():
    frames, points = SyntheticFaces(0, image_size=49, num_frames=5).clip(0, "neutral", 0)
    assert frames.shape == (5, 49, 49, 3) and frames.dtype == np.uint8
    assert points.shape == (5, 68, 2) and points.dtype == np.float32


def test_the_size_of_the_image_does_not_move_the_points():
    small, large = (SyntheticFaces(0, image_size=size, num_frames=2).clip(1, "happy", 0)[1] for size in (48, 200))
    np.testing.assert_array_equal(small, large)


# rising and fading


@pytest.mark.parametrize("rising, fading", FADING_PAIRS)
def test_a_fading_clip_is_a_rising_one_backwards(rising: str, fading: str):
    faces = SyntheticFaces(3, num_frames=5)
    frames, points = faces.clip(1, rising, 2)
    backwards, points_backwards = faces.clip(1, fading, 2)
    np.testing.assert_array_equal(frames[::-1], backwards)
    np.testing.assert_array_equal(points[::-1], points_backwards)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 3  # so the order can be told


@pytest.mark.parametrize("label", [label for label in SYNTHETIC_LABELS if label != "neutral"])
def test_expressions_unfold_in_the_direction_that_the_label_says(label: str):
    faces = SyntheticFaces(0, ambiguous=0.0)
    parameter = {"happy": "mouth_corner", "surprise": "brow_raise", "angry": "brow_pinch", "sad": "brow_slant"}
    expression_name, fading = label_expression(label)
    column = EXPRESSION_PARAMETERS.index(parameter[expression_name])
    for index in range(10):
        script = faces.script(0, label, index)
        intensities = script.intensities[::-1] if fading else script.intensities
        assert (np.diff(intensities) >= 0).all()
        assert intensities[0] < 0.1 and intensities[-1] > 0.95
        values = script.expressions[:, column]
        assert (values[-4:].mean() > values[:4].mean() + 0.3) != fading


def test_a_neutral_face_shows_no_expression_but_speech_and_small_movements():
    faces, mouth_open = SyntheticFaces(0, ambiguous=0.0), EXPRESSION_PARAMETERS.index("mouth_open")
    talked = 0.0
    for index in range(12):
        script = faces.script(0, "neutral", index)
        np.testing.assert_allclose(script.expressions[:, mouth_open], script.talking)
        talked = max(talked, script.talking.max())
        for name in ("lid_open", "lip_raise", "cheek_raise", "nose_wrinkle", "brow_pinch"):
            assert not script.expressions[:, EXPRESSION_PARAMETERS.index(name)].any()
    assert talked > 0.25


def test_the_share_of_ambiguous_clips_can_be_set():
    corner = EXPRESSION_PARAMETERS.index("mouth_corner")
    clear, weak, half = (
        [SyntheticFaces(0, ambiguous=share, num_frames=8).script(0, "happy", index) for index in range(60)]
        for share in (0.0, 1.0, 0.5)
    )
    assert not any(script.ambiguous for script in clear) and all(script.ambiguous for script in weak)
    assert 18 <= sum(script.ambiguous for script in half) <= 42
    peaks = [np.mean([script.expressions[-1, corner] for script in scripts]) for scripts in (clear, weak)]
    assert 0.2 < peaks[1] < 0.7 * peaks[0]


def test_the_share_of_occluded_clips_can_be_set():
    def occluders(share: float) -> set[str]:
        return {SyntheticFaces(0, occlusion=share, num_frames=2).script(0, "sad", i).scene.occluder for i in range(30)}

    assert occluders(0.0) == {"none"}
    assert occluders(1.0) == {"hand", "strand", "mask"}


@pytest.mark.parametrize("occluder", ["hand", "strand", "mask"])
def test_an_occluder_hides_a_part_and_leaves_the_points(occluder: str):
    face = FaceIdentity()
    plain, points = draw_face(face, expression(), scene=BRIGHT)
    hidden, same_points = draw_face(face, expression(), scene=replace(BRIGHT, occluder=occluder))
    np.testing.assert_array_equal(points, same_points)
    assert 0.02 < (np.abs(plain.astype(int) - hidden).max(-1) > 10).mean() < 0.4


# points


def test_no_face_leaves_the_frame():
    faces = SyntheticFaces(0, num_frames=4)
    for identity in range(100):
        script = faces.script(identity, "surprise", 0)
        for values, pose in zip(script.expressions, script.poses, strict=True):
            points = project(shape_points(faces.identity(identity), values), pose)
            assert points.min() > 0.01 and points.max() < 0.99


def test_points_are_in_anatomical_order():
    faces = SyntheticFaces(0, image_size=32)
    for identity, label in enumerate(SYNTHETIC_LABELS):
        for index in range(2):
            points = faces.clip(identity, label, index)[1]
            x, y = points[..., 0], points[..., 1]
            corners = [0, 36, 39, 42, 45, 16]
            assert (np.diff(x[:, corners]) > 0.02).all()  # from left to right
            assert (np.diff(x[:, JAW]) > 0).all()
            assert (np.diff(x[:, 31:36]) > 0).all() and (np.diff(x[:, 48:55]) > 0).all()
            assert (np.diff(x[:, 54:60]) < 0).all()
            brows, eyes, nose = y[:, 17:27].mean(1), y[:, 36:48].mean(1), y[:, 33]
            heights = np.stack([brows, eyes, nose, y[:, 51], y[:, 57], y[:, 8]], axis=1)
            assert (np.diff(heights) > 0.01).all()  # from top to bottom
            for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65)):
                assert (y[:, lower] - y[:, upper] > -0.012).all()


def test_lips_are_closed_when_a_neutral_face_is_silent_and_open_when_it_talks():
    faces = SyntheticFaces(0, ambiguous=0.0, image_size=32)
    closed, opened = [], []
    for index in range(8):
        script, (_, points) = faces.script(0, "neutral", index), faces.clip(0, "neutral", index)
        gap = np.linalg.norm(points[:, 66] - points[:, 62], axis=1)
        closed += gap[script.talking < 0.002].tolist()
        opened += gap[script.talking > 0.2].tolist()
    assert len(closed) > 10 and len(opened) > 5
    assert max(closed) < 0.001 and min(opened) > 0.02


def test_a_blink_closes_the_lids():
    for blink, least, most in ((0.0, 0.04, 0.1), (1.0, 0.0, 0.008)):
        points = draw_face(FaceIdentity(), expression(), blink=blink)[1]
        gap = points[[41, 40, 47, 46], 1] - points[[37, 38, 43, 44], 1]
        assert least <= gap.min() and gap.max() <= most


def test_yaw_moves_the_nose_against_the_outline():
    straight, turned = (draw_face(FaceIdentity(), expression(), FacePose(yaw=yaw))[1] for yaw in (0.0, 0.3))
    moved = turned[:, 0] - straight[:, 0]
    assert moved[30] > moved[[36, 45]].mean() + 0.02 > moved[[0, 16]].mean() + 0.04


@pytest.mark.parametrize("pose, values", POSES_AND_EXPRESSIONS)
def test_jaw_points_lie_on_the_edge_of_the_face(pose: FacePose, values: np.ndarray):
    image, points = draw_face(FaceIdentity(hair_style="bald"), values, pose, BRIGHT, image_size=224)

    def found(points: np.ndarray) -> float:
        """The share of jaw points across which skin becomes something else."""
        jaw = points[JAW]
        outwards = jaw - points[28]
        outwards = 0.012 * outwards / np.linalg.norm(outwards, axis=1, keepdims=True)
        inside, outside = colours_at(image, jaw - outwards), colours_at(image, jaw + outwards)
        return float((np.abs(inside - outside).sum(1) > 60).mean())

    assert found(points) == 1.0
    assert max(found(points + np.array(shift)) for shift in SHIFTS) < 0.6


@pytest.mark.parametrize("pose, values", POSES_AND_EXPRESSIONS)
def test_lip_points_lie_on_the_edge_of_the_lips(pose: FacePose, values: np.ndarray):
    image, points = draw_face(FaceIdentity(lips=(200, 40, 50)), values, pose, BRIGHT, image_size=224)

    def found(points: np.ndarray) -> float:
        """The share of outer lip points across which red becomes skin."""
        lips = points[OUTER_LIPS]
        outwards = lips - 0.5 * (points[62] + points[66])
        outwards = 0.012 * outwards / np.linalg.norm(outwards, axis=1, keepdims=True)
        inside, outside = colours_at(image, lips - outwards), colours_at(image, lips + outwards)
        redness = [colour[:, 0] / colour[:, 1:].mean(1) for colour in (inside, outside)]
        return float((redness[0] > redness[1] + 0.25).mean())

    assert found(points) == 1.0
    assert max(found(points + np.array(shift)) for shift in SHIFTS) < 0.6


@pytest.mark.parametrize("pose, values", POSES_AND_EXPRESSIONS)
@pytest.mark.parametrize("part", [slice(17, 27), slice(31, 36)], ids=["brows", "nose"])
def test_brow_and_nose_points_lie_on_dark_lines(pose: FacePose, values: np.ndarray, part: slice):
    face = FaceIdentity()
    image, points = draw_face(face, values, pose, BRIGHT, image_size=224)

    def found(points: np.ndarray) -> float:
        """The share of the points that are darker than any shade of the skin."""
        brightness = colours_at(image, points[part]).mean(1)
        return float((brightness < 0.75 * np.mean(face.skin)).mean())

    assert found(points) == 1.0
    assert max(found(points + np.array(shift)) for shift in SHIFTS) < 0.85


@pytest.mark.parametrize("pose, values", POSES_AND_EXPRESSIONS)
def test_points_of_upper_lids_lie_on_the_lashes(pose: FacePose, values: np.ndarray):
    face = FaceIdentity(lashes=0.6)
    image, points = draw_face(face, values, pose, BRIGHT, image_size=448)

    def found(points: np.ndarray) -> float:
        """The share of the points that are dark, with skin right above."""
        lids = points[[37, 38, 43, 44]]
        lash, above = (colours_at(image, lids - np.array([0, up])) for up in (0, 0.01))
        skin = (above.mean(1) > 0.6 * np.mean(face.skin)) & (above[:, 0] > above[:, 2] + 40)  # redder than the eye
        return float(((lash.mean(1) < 0.6 * np.mean(face.skin)) & skin).mean())

    assert found(points) == 1.0
    assert max(found(points + np.array(shift)) for shift in SHIFTS) <= 0.5


@pytest.mark.parametrize("pose, values", POSES_AND_EXPRESSIONS)
def test_what_is_seen_of_the_irises_lies_between_the_lids(pose: FacePose, values: np.ndarray):
    (blue, points), (brown, _) = (
        draw_face(FaceIdentity(iris=iris), values, pose, BRIGHT, image_size=224)
        for iris in ((60, 110, 220), (90, 60, 30))
    )
    rows, columns = np.nonzero(np.abs(blue.astype(int) - brown).sum(2) > 100)
    seen = (np.stack([columns, rows], axis=1) + 0.5) / 224
    for eye in (points[36:42], points[42:48]):
        half = seen[np.abs(seen - eye.mean(0)).max(1) < 0.12]
        assert len(half) > 40
        assert (half > eye.min(0) - 0.005).all() and (half < eye.max(0) + 0.005).all()
        assert np.abs(half.mean(0) - eye.mean(0)).max() < 0.02


def test_contours_of_random_faces_lie_on_edges_of_the_picture():
    """Over many people, poses, lights and expressions, the picture changes most where the points are."""
    faces = SyntheticFaces(5, num_frames=2, occlusion=0.0)
    jaw, lips = np.zeros(1 + len(SHIFTS)), np.zeros(1 + len(SHIFTS))
    for identity in range(21):
        frames, points = faces.clip(identity, SYNTHETIC_LABELS[identity % 7], 0)
        image = frames[-1].astype(float)
        redness = (image[..., 0] + 8) / (image[..., 1:].mean(-1) + 8)
        for changes, picture, part in ((jaw, image.mean(-1), JAW), (lips, redness, OUTER_LIPS)):
            edges = np.hypot(*np.gradient(picture))[..., None]
            strength = np.array([colours_at(edges, points[-1, part] + np.array(s)).mean() for s in [(0, 0), *SHIFTS]])
            changes += strength / strength[0]
    assert jaw[1:].max() < 0.4 * jaw[0]
    assert lips[1:].max() < 0.8 * lips[0]


def test_the_mouth_shows_dark_between_the_lips_as_it_opens():
    def middle(mouth_open: float) -> np.ndarray:
        image, points = draw_face(FaceIdentity(), expression(mouth_open=mouth_open), scene=BRIGHT, image_size=224)
        return colours_at(image, 0.6 * points[[62]] + 0.4 * points[[66]])[0]

    skin = np.array(FaceIdentity().skin)
    assert middle(0.8).mean() < 0.4 * skin.mean()
    image, points = draw_face(FaceIdentity(), expression(mouth_open=0.8), scene=BRIGHT, image_size=224)
    for shift in ((0.12, 0), (-0.12, 0), (0, 0.14), (0, -0.14)):
        assert colours_at(image, points[[66]] + np.array(shift)).mean() > middle(0.8).mean() + 40


# on disk


SETTINGS = {
    "seed": 4,
    "train_identities": 2,
    "test_identities": 1,
    "clips_per_identity_and_class": 1,
    "image_size": 64,
    "num_frames": 6,
    "progress": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    assert write_synthetic_dataset(folder, workers=2, **SETTINGS) == folder
    return folder


def test_videos_lie_in_folders_by_class_and_other_people_are_tested(root: Path):
    people = {}
    for split, clips in (("train", 2), ("test", 1)):
        assert sorted(path.name for path in (root / split).iterdir()) == sorted(SYNTHETIC_LABELS)
        files = list((root / split).glob("*/*.mp4"))
        assert len(files) == clips * len(SYNTHETIC_LABELS)
        people[split] = {file.name.split("_")[0] for file in files}
    assert people == {"train": {"0000", "0001"}, "test": {"0002"}}


@pytest.mark.parametrize("label, index", [("angry", 0), ("happy", 0), ("happy_fading", 1)])
def test_videos_show_what_was_drawn(root: Path, label: str, index: int):
    drawn = SyntheticFaces(4, image_size=64, num_frames=6).clip(1, label, index)[0].astype(int)
    decoded, metadata = read_video(root / "train" / label / "0001_00.mp4")
    decoded = np.stack([frame.permute(1, 2, 0).numpy() for frame in decoded])
    assert decoded.shape == drawn.shape and metadata.fps == 8
    error = np.abs(decoded - drawn).mean(axis=(1, 2, 3))
    assert error.max() < 8  # what 4:2:0 chroma and compression change
    assert error.mean() < 0.7 * np.abs(decoded - drawn[::-1]).mean()


def test_no_fading_video_is_a_rising_one_backwards(root: Path):
    for rising, fading in FADING_PAIRS:
        first, second = (
            np.stack([frame.numpy() for frame in read_video(root / "train" / label / "0000_00.mp4")[0]]).astype(int)
            for label in (rising, fading)
        )
        assert np.abs(first - second[::-1]).mean() > 8


def test_stills_are_frames_with_their_points(root: Path):
    for split, people in (("train", (0, 1)), ("test", (2,))):
        files, points = read_still_points(root / "stills" / split)
        assert len(files) == len(points) == len(set(files)) == 2 * len(SYNTHETIC_LABELS) * len(people)
        assert sorted(files) == sorted((root / "stills" / split).glob("*/*.png"))
        assert {int(file.name[:4]) for file in files} == set(people)
    file, its_points = files[-1], points[-1]
    identity, _, time = (int(part) for part in file.stem.split("_"))
    frames, drawn_points = SyntheticFaces(4, image_size=64, num_frames=6).clip(identity, file.parent.name, 0)
    np.testing.assert_array_equal(to_rgb(read_image(file)).permute(1, 2, 0).numpy(), frames[time])
    np.testing.assert_array_equal(its_points, drawn_points[time])


@pytest.mark.parametrize("stills", [2, 5])
def test_stills_show_the_expression_of_their_clip(tmp_path: Path, stills: int):
    settings = SETTINGS | {"train_identities": 6, "test_identities": 0, "num_frames": 12, "image_size": 32}
    write_synthetic_dataset(tmp_path / "new", workers=0, stills_per_clip=stills, **settings)
    faces = SyntheticFaces(4, image_size=32, num_frames=12)
    times: dict[tuple[str, int], list[int]] = {}
    for file in read_still_points(tmp_path / "new" / "stills" / "train")[0]:
        identity, _, time = (int(part) for part in file.stem.split("_"))
        times.setdefault((file.parent.name, identity), []).append(time)
    assert len(times) == 6 * len(SYNTHETIC_LABELS)
    neutral, too_few, choices = set(), 0, set()
    for (label, identity), chosen in times.items():
        assert len(set(chosen)) == stills
        if label == "neutral":
            neutral.update(chosen)
            continue
        intensities = faces.script(identity, label, int(label_expression(label)[1])).intensities
        shown = np.flatnonzero(intensities >= 0.6 * intensities.max()).tolist()
        if len(shown) < stills:
            too_few += 1
            assert set(shown) < set(chosen)
            assert intensities[chosen].min() >= np.delete(intensities, chosen).max()
        else:
            assert set(chosen) <= set(shown)
            choices.add(tuple(chosen))
    assert max(neutral) - min(neutral) > 8
    assert len(choices) > 8  # neither always the first ones nor the strongest
    assert bool(too_few) == (stills == 5)


def test_the_files_do_not_depend_on_the_workers(root: Path, tmp_path: Path):
    write_synthetic_dataset(tmp_path, workers=0, **SETTINGS)
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    different = [file for file in files if (root / file).read_bytes() != (tmp_path / file).read_bytes()]
    assert not different


def test_neither_stills_nor_test_people_are_needed(tmp_path: Path):
    settings = SETTINGS | {"train_identities": 1, "test_identities": 0, "num_frames": 2}
    write_synthetic_dataset(tmp_path / "new", workers=0, stills_per_clip=0, **settings)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["train"]
    with pytest.raises(FileNotFoundError, match=r"no file points\.npz"):
        read_still_points(tmp_path / "new" / "stills" / "train")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="not an empty folder"):
            write_synthetic_dataset(folder, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("seed", -1),
        ("train_identities", 0),
        ("test_identities", -1),
        ("clips_per_identity_and_class", 0),
        ("stills_per_clip", 7),
        ("stills_per_clip", -1),
        ("image_size", 65),
        ("image_size", 16),
        ("num_frames", 0),
        ("num_frames", 2.5),
        ("ambiguous", 1.5),
        ("occlusion", -0.1),
        ("fps", 0),
        ("workers", -1),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, name: str, value: float):
    with pytest.raises(ValueError, match=f"`{name}`"):
        write_synthetic_dataset(tmp_path / "new", **(SETTINGS | {name: value}))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name, value", [("identity", -1), ("label", "disgust"), ("index", -1), ("index", True)])
def test_bad_clips_are_named(name: str, value: int | str):
    with pytest.raises(ValueError, match=f"`{name}`"):
        SyntheticFaces(0).clip(**({"identity": 0, "label": "sad", "index": 0} | {name: value}))


def test_bad_drawings_are_named():
    with pytest.raises(ValueError, match="`image_size`"):
        draw_face(FaceIdentity(), expression(), image_size=8)
    with pytest.raises(ValueError, match="`expression`"):
        draw_face(FaceIdentity(), np.zeros(3))
    with pytest.raises(ValueError, match="`hair_style`"):
        FaceIdentity(hair_style="mohawk")
    with pytest.raises(ValueError, match="`occluder`"):
        Scene(occluder="cat")
