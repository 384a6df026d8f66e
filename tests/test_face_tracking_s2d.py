import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
import skimage.data

from s2d_hf.face_tracking_s2d import FaceFollower, FollowedFrame, is_cut_between

from .face_videos import PlacedFace, draw_faces

HEIGHT, WIDTH = 90, 160
RED, GREEN, BLUE = (220, 60, 50), (40, 200, 60), (60, 70, 230)
PICTURES = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "camera")}
PICTURES["camera"] = np.stack([PICTURES["camera"]] * 3, axis=-1)


@dataclass
class Film:
    """
    Frames with squares for faces, and a detector that knows where they are.

    Args:
        faces (`list[list[tuple]]`): For each frame x and y of the middle, side and colour of each face.
        times (`np.ndarray`, *optional*): In seconds; by default 8 frames a second.
        noise (`float`): Standard deviation of the detections' errors in pixels.
        backgrounds (`list[np.ndarray]`, *optional*): Plain grey by default.
    """

    faces: list[list[tuple]]
    times: np.ndarray | None = None
    noise: float = 0.0
    backgrounds: list[np.ndarray] | None = None
    detected: list[int] = field(default_factory=list)

    def __post_init__(self):
        if self.times is None:
            self.times = np.arange(len(self.faces)) / 8
        rng = np.random.default_rng(0)
        self.errors = [rng.normal(0, self.noise, (len(faces), 2)) for faces in self.faces]

    def frame(self, i: int) -> np.ndarray:
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8) if self.backgrounds is None else self.backgrounds[i].copy()
        for x, y, side, colour in self.faces[i]:
            x1, y1, x2, y2 = (round(value) for value in (x - side / 2, y - side / 2, x + side / 2, y + side / 2))
            frame[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = colour
        frame[0, 0] = (i // 256, i % 256, 0)
        return frame

    def detect(self, frames) -> list[np.ndarray]:
        return [self.detect_one(int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1])) for frame in frames]

    def detect_one(self, i: int) -> np.ndarray:
        self.detected.append(i)
        rows = [
            (x + dx - side / 2, y + dy - side / 2, x + dx + side / 2, y + dy + side / 2, 0.9)
            for (x, y, side, _), (dx, dy) in zip(self.faces[i], self.errors[i], strict=True)
        ]
        return np.array(rows, dtype=float).reshape(-1, 5)

    def follow(self, **settings) -> list[FollowedFrame]:
        follower = FaceFollower(self.detect, **settings)
        done = []
        for i, time in enumerate(self.times):
            done += follower.add(float(time), self.frame(i))
        done += follower.finish()
        check_frames(self, done)
        return done


def check_frames(film: Film, followed: list[FollowedFrame]) -> None:
    """What holds of every film: frames in order, each track in one piece that says where it ends."""
    assert [frame.time for frame in followed] == film.times.tolist()
    for i, frame in enumerate(followed):
        assert np.array_equal(frame.frame, film.frame(i))
        assert len({face.track for face in frame.faces}) == len(frame.faces)
    for track in tracks_of(followed).values():
        frames = list(track)
        assert frames == list(range(frames[0], frames[-1] + 1))
        assert [face.is_last for face in track.values()] == [False] * (len(track) - 1) + [True]
    firsts = {number: next(iter(track)) for number, track in tracks_of(followed).items()}
    assert sorted(firsts) == list(range(len(firsts)))
    assert sorted(firsts.values()) == [firsts[number] for number in sorted(firsts)]


def tracks_of(followed: list[FollowedFrame]) -> dict[int, dict]:
    """Of each track its faces by index of the frame."""
    tracks = defaultdict(dict)
    for i, frame in enumerate(followed):
        for face in frame.faces:
            tracks[face.track][i] = face
    return dict(tracks)


def spans_of(followed: list[FollowedFrame]) -> list[tuple[int, int]]:
    """First and last frame of each track."""
    return sorted((min(track), max(track)) for track in tracks_of(followed).values())


def centers_of(followed: list[FollowedFrame]) -> np.ndarray:
    """Of a film with one track `(num_frames, 2)`."""
    (track,) = tracks_of(followed).values()
    assert len(track) == len(followed)
    return np.stack([face.center for face in track.values()])


def even_and_odd_times(num_frames: int) -> dict[str, np.ndarray]:
    gaps = np.random.default_rng(5).uniform(0.03, 0.24, num_frames)
    return {"even": np.arange(num_frames) / 8, "irregular": 100 + np.cumsum(gaps)}


@pytest.mark.parametrize("spacing", ["even", "irregular"])
@pytest.mark.parametrize("detect_every", [1, 2, 3, 5])
def test_steady_motion_is_recovered_exactly(detect_every, spacing):
    times = even_and_odd_times(41)[spacing]
    seconds = times - times[0]
    x, y, side = 30 + 14 * seconds, 60 - 5 * seconds, 20 * np.exp(0.1 * seconds)
    film = Film([[(*place, RED)] for place in zip(x, y, side, strict=True)], times)
    followed = film.follow(detect_every=detect_every)
    np.testing.assert_allclose(centers_of(followed), np.stack([x, y], axis=1), atol=1e-6)
    np.testing.assert_allclose([frame.faces[0].side for frame in followed], side, rtol=1e-9)
    # the last frame too, so that nothing has to be guessed there
    assert film.detected == sorted({*range(0, 41, detect_every), 40})


def test_noise_shrinks_and_movement_is_not_delayed():
    times = np.arange(500) / 25
    truth = np.stack([20 + 6 * times, 45 + 0 * times], axis=1)
    film = Film([[(x, y, 30, RED)] for x, y in truth], times, noise=1.0)
    errors = centers_of(film.follow(detect_every=1)) - truth
    raw = np.concatenate(film.errors)
    # a Gaussian of 0.2 s averages over about 0.2 * 25 * sqrt(4 * pi) = 18 detections
    assert np.sqrt((errors**2).mean()) < 0.35 * np.sqrt((raw**2).mean())
    assert abs(errors[:, 0].mean() - raw[:, 0].mean()) / 6 < 0.01  # in seconds
    # where only one side is known
    for edge in (errors[:3], errors[-3:]):
        assert abs(edge).max() < 2.5


def test_positions_do_not_jump():
    times = np.arange(300) / 8
    truth = np.stack([80 + 20 * np.sin(times / 3), 45 + 10 * np.cos(times / 2)], axis=1)
    for detect_every in (1, 2, 3):
        film = Film([[(x, y, 30, RED)] for x, y in truth], times, noise=1.0)
        centers = centers_of(film.follow(detect_every=detect_every))
        detected = np.concatenate(film.errors)[film.detected] + truth[film.detected]
        straight = np.stack([np.interp(times, times[film.detected], detected[:, i]) for i in range(2)], axis=1)
        ours, theirs = np.diff(centers, 2, axis=0), np.diff(straight, 2, axis=0)
        assert abs(ours).max() < 1.2
        assert np.sqrt((ours**2).mean()) < 0.7 * np.sqrt((theirs**2).mean())


@pytest.mark.parametrize(("smoothing", "max_gap"), [(0.25, 1.0), (0.6, 0.3)])
def test_smoothing_is_a_weighted_straight_line(smoothing, max_gap):
    """Against numpy's polynomial fit over all of the film's detections."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.05, 0.2, 120))
    places = np.cumsum(rng.normal(0, 2, (120, 2)), axis=0) + np.array([80, 45])
    film = Film([[(x, y, 40, RED)] for x, y in places], times)
    centers = centers_of(film.follow(detect_every=2, smoothing=smoothing, max_gap=max_gap))
    known = np.array(film.detected)
    for i in range(120):
        near = known[np.abs(times[known] - times[i]) <= 2 * smoothing]
        weights = np.exp(-0.5 * ((times[near] - times[i]) / smoothing) ** 2)
        for axis in range(2):
            line = np.polyfit(times[near] - times[i], places[near, axis], 1, w=np.sqrt(weights))
            expected = np.clip(line[1], places[near, axis].min(), places[near, axis].max())
            assert centers[i, axis] == pytest.approx(expected, abs=1e-6)


def test_without_smoothing_detections_are_met():
    rng = np.random.default_rng(2)
    places = np.cumsum(rng.normal(0, 2, (30, 2)), axis=0) + np.array([80, 45])
    film = Film([[(x, y, 40, RED)] for x, y in places])
    np.testing.assert_allclose(centers_of(film.follow(detect_every=1, smoothing=0.0)), places, atol=1e-6)


@pytest.mark.parametrize("detect_every", [1, 2])
def test_faces_that_cross_keep_their_tracks(detect_every):
    steps = np.arange(40)
    left, right = 20 + 3 * steps, 140 - 3 * steps
    film = Film([[(a, 40, 24, RED), (b, 50, 24, BLUE)] for a, b in zip(left, right, strict=True)])
    tracks = tracks_of(film.follow(detect_every=detect_every))
    assert len(tracks) == 2
    ends = {round(track[0].center[0]): track[39].center[0] for track in tracks.values()}
    assert ends == pytest.approx({20: 137, 140: 23}, abs=1)


@pytest.mark.parametrize("num_before", [4, 5])
@pytest.mark.parametrize("num_after", [4, 5])
def test_the_assignment_is_the_cheapest_of_all(num_before, num_after):
    """Faces of one colour, all near enough to each other, so that distance and size decide."""
    rng = np.random.default_rng(3)
    for _ in range(25):
        before, after = (
            [(*rng.uniform((60, 25), (100, 65)), rng.uniform(40, 60), (90, 90, 90)) for _ in range(count)]
            for count in (num_before, num_after)
        )
        followed = Film([before, after], np.array([0.0, 1.0])).follow(detect_every=1, smoothing=0.0)

        def index(face, faces):
            (found,) = (i for i, (x, y, *_) in enumerate(faces) if np.allclose(face.center, (x, y), atol=1e-6))
            return found

        first = {face.track: index(face, before) for face in followed[0].faces}
        pairs = {first[f.track]: index(f, after) for f in followed[1].faces if f.track in first}

        def cost(i, j, before=before, after=after):
            (x, y, side, _), (u, v, other, _) = before[i], after[j]
            return math.hypot(x - u, y - v) / ((side + other) / 2) + abs(math.log(side / other))

        few, many = sorted((num_before, num_after))
        assert len(pairs) == few
        cheapest = min(
            sum(cost(*((k, j) if num_before == few else (j, k))) for k, j in enumerate(choice))
            for choice in itertools.permutations(range(many), few)
        )
        assert sum(cost(i, j) for i, j in pairs.items()) == pytest.approx(cheapest, abs=1e-6)


@pytest.mark.parametrize("start", [0.0, 0.2, 1000.3])  # 0.2: differences of times are rounded up
@pytest.mark.parametrize("fps", [8, 25, 30])
def test_short_gaps_are_bridged_and_long_ones_end_the_track(fps, start):
    def film(missing: int) -> Film:
        faces = [[(40 + i, 45, 30, RED)] for i in range(3 * fps)]
        faces[fps : fps + missing] = [[]] * missing
        return Film(faces, start + np.arange(3 * fps) / fps)

    # from the last detection before to the first one after, one second passes
    bridged = centers_of(film(fps - 1).follow(detect_every=1, max_gap=1.0))
    np.testing.assert_allclose(bridged[:, 0], 40 + np.arange(3 * fps), atol=1e-6)
    ended = film(fps).follow(detect_every=1, max_gap=1.0)
    assert spans_of(ended) == [(0, fps - 1), (2 * fps, 3 * fps - 1)]


@pytest.mark.parametrize("max_gap", [0.0, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_faces_found_every_time_are_one_track_however_rare_detections_are(max_gap, smoothing):
    film = Film([[(40 + 2 * i, 45, 30, RED)] for i in range(20)], np.arange(20) * 1.0)
    centers = centers_of(film.follow(detect_every=2, max_gap=max_gap, smoothing=smoothing))
    np.testing.assert_allclose(centers[:, 0], 40 + 2 * np.arange(20), atol=1e-6)
    # one that is missed once is not, where that is longer than `max_gap`
    missed = Film([[] if i == 8 else faces for i, faces in enumerate(film.faces)], film.times)
    assert spans_of(missed.follow(detect_every=2, max_gap=max_gap, smoothing=smoothing)) == [(0, 6), (10, 19)]


def test_colours_decide_between_faces_that_are_about_as_near():
    reddish = (190, 60, 50)
    before, after = [(40, 45, 30, RED), (80, 45, 30, reddish)], [(63, 45, 30, RED)]
    tracks = tracks_of(Film([before, after], np.array([0.0, 1.0])).follow(detect_every=1, smoothing=0.0))
    (kept,) = (track for track in tracks.values() if 1 in track)
    assert kept[0].center[0] == pytest.approx(40)  # the one that is further away


def test_a_face_that_gains_speed_is_expected_further_on():
    """At last it moves by its own length from frame to frame."""
    x = [20, 32, 50, 70, 90, 110, 130]
    assert spans_of(Film([[(value, 45, 20, RED)] for value in x]).follow(detect_every=1)) == [(0, 6)]
    # from where it stands, the same is too far
    x = [20, 20, 20, 40]
    assert spans_of(Film([[(value, 45, 20, RED)] for value in x]).follow(detect_every=1)) == [(0, 2), (3, 3)]


def shots(lengths: dict[str, int]) -> list[np.ndarray]:
    return [
        cv2.resize(PICTURES[name], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        for name, length in lengths.items()
        for _ in range(length)
    ]


@pytest.mark.parametrize("detect_every", [1, 5])
def test_cuts_end_tracks_and_start_others(detect_every):
    backgrounds = shots({"astronaut": 14, "coffee": 1, "rocket": 12})
    # one face that would go on over the cuts
    film = Film([[(60 + i, 45, 20, RED)] for i in range(27)], backgrounds=backgrounds)
    followed = film.follow(detect_every=detect_every)
    assert [i for i, frame in enumerate(followed) if frame.after_cut] == [14, 15]
    assert spans_of(followed) == [(0, 13), (14, 14), (15, 26)]
    assert {0, 13, 14, 15, 26} <= set(film.detected)
    assert len(film.detected) == len(set(film.detected))
    centers = np.array([frame.faces[0].center for frame in followed])
    np.testing.assert_allclose(centers[:, 0], 60 + np.arange(27), atol=1e-6)


def small(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(picture), (64, 36), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(PICTURES, 2)))
def test_other_pictures_are_cuts(before, after):
    assert is_cut_between(small(PICTURES[before]), small(PICTURES[after]))


@pytest.mark.parametrize("name", list(PICTURES))
def test_a_moving_camera_does_not_cut(name):
    picture = PICTURES[name]
    height, width = picture.shape[:2]
    window = width // 2
    rows = min(height, window * 9 // 16)
    for step in (window // 40, window // 10, window // 6):  # up to a sixth of the view from frame to frame
        views = [small(picture[:rows, x : x + window]) for x in range(0, window, step)]
        assert not any(itertools.starmap(is_cut_between, itertools.pairwise(views)))
    zooms = [small(picture[i * 5 : height - i * 5, i * 8 : width - i * 8]) for i in range(10)]
    assert not any(itertools.starmap(is_cut_between, itertools.pairwise(zooms)))


def test_moving_and_appearing_subjects_do_not_cut():
    empty = draw_faces([])
    near = [draw_faces([PlacedFace((x, 180), 200)]) for x in (200, 290, 380)]
    for before, after in [(empty, near[0]), *itertools.pairwise(near), (near[2], empty)]:
        assert not is_cut_between(small(before), small(after))
    astronaut = small(PICTURES["astronaut"])
    assert not is_cut_between(astronaut, astronaut)
    assert not is_cut_between(astronaut, np.clip(astronaut * 1.1 + 5, 0, 255).astype(np.uint8))


def test_another_face_at_the_same_place_is_another_track():
    film = Film([[(80, 45, 40, RED if i < 12 else BLUE)] for i in range(24)])
    assert spans_of(film.follow(detect_every=1)) == [(0, 11), (12, 23)]
    grown = Film([[(80, 45, 20 if i < 12 else 60, RED)] for i in range(24)])
    assert len(spans_of(grown.follow(detect_every=1))) == 2
    far = Film([[(20 if i < 12 else 140, 45, 20, RED)] for i in range(24)])
    assert len(spans_of(far.follow(detect_every=1))) == 2
    # light that changes bit by bit does not
    dimmed = Film([[(80, 45, 40, tuple(int(value * (1 - i / 48)) for value in RED))] for i in range(24)])
    assert spans_of(dimmed.follow(detect_every=1)) == [(0, 23)]


@pytest.mark.parametrize("seed", range(12))
def test_any_film_comes_out_whole_and_in_time(seed):
    """Faces that come and go at random, with cuts; `follow` checks the frames and tracks."""
    rng = np.random.default_rng(seed)
    num_frames = 120
    faces: list[list[tuple]] = [[] for _ in range(num_frames)]
    for _ in range(rng.integers(1, 6)):
        first = rng.integers(0, num_frames)
        x, y, colour = rng.uniform(20, 140), rng.uniform(20, 70), tuple(rng.integers(30, 226, 3))
        for i in range(first, min(num_frames, first + rng.integers(1, 80))):
            x, y = x + rng.normal(0, 1.5), y + rng.normal(0, 1.5)
            if rng.random() < 0.8:
                faces[i].append((x, y, 20, colour))
    names = list(rng.permutation(list(PICTURES))[:3])
    backgrounds = shots(dict(zip(names, (50, 37, 33), strict=True)))
    film = Film(faces, even_and_odd_times(num_frames)["irregular"], 0.5, backgrounds)
    settings = {
        "detect_every": int(rng.integers(1, 6)),
        "max_gap": float(rng.choice([0.0, 0.3, 1.0])),
        "smoothing": float(rng.choice([0.0, 0.2])),
    }
    followed = film.follow(**settings)
    assert all(last < 50 or first >= 50 for first, last in spans_of(followed))
    # every detection is a face of its frame
    counts = np.array([len(frame.faces) for frame in followed])
    assert all(counts[i] >= len(faces[i]) for i in film.detected)


@pytest.mark.parametrize("detect_every", [1, 3])
def test_delay_and_memory_are_bounded(detect_every):
    times = np.arange(600) / 8
    film = Film([[(80, 45, 30, RED)] if i % 40 < 37 else [] for i in range(600)], times)
    follower = FaceFollower(film.detect, detect_every=detect_every, max_gap=1.0, smoothing=0.2)
    waiting, num_observations = 0, []
    for i, time in enumerate(times):
        done = follower.add(float(time), film.frame(i))
        waiting += 1 - len(done)
        assert waiting <= (1.0 + 2 * 0.2) * 8 + detect_every + 1
        num_observations.append(sum(len(track.observations) for track in follower._tracks))
    assert max(num_observations[300:]) <= max(num_observations[:300])
    assert len(follower.finish()) == waiting


def follow_angles(angles: list[float], **settings) -> np.ndarray:
    film = Film([[(80, 45, 30, RED)]] * len(angles))

    def find(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        assert boxes.shape == (1, 4)
        np.testing.assert_allclose(boxes[0], (65, 30, 95, 60))
        return np.array([angles[int(frame[0, 0, 1])]])

    # all frames of the film are alike but for their number
    followed = film.follow(find_angles=find, **settings)
    return np.array([frame.faces[0].angle for frame in followed])


def test_angles_are_followed_where_they_are_known():
    steps = np.arange(40)
    ramp = 0.5 * steps - 8
    np.testing.assert_allclose(follow_angles(list(ramp)), ramp, atol=1e-6)
    holes = np.where(np.isin(steps, (4, 5, 11, 20, 21, 22)), np.nan, ramp)
    np.testing.assert_allclose(follow_angles(list(holes), detect_every=1), ramp, atol=1e-6)
    # at the edges the nearest known ones count
    edges = follow_angles([np.nan] * 2 + [12.0] * 20 + [np.nan] * 2, detect_every=1)
    np.testing.assert_allclose(edges, 12)
    np.testing.assert_array_equal(follow_angles([np.nan] * 20), 0)


@pytest.mark.parametrize("num_unknown", [8, 16, 80])
def test_an_angle_that_is_unknown_for_long_does_not_jump(num_unknown):
    """A tilted head that turns into profile for a while."""
    found = follow_angles([20.0] * 20 + [np.nan] * num_unknown + [20.0] * 20, detect_every=1)
    np.testing.assert_allclose(found, 20)


def test_without_a_finder_angles_are_zero():
    followed = Film([[(80, 45, 30, RED)]] * 5).follow()
    assert [frame.faces[0].angle for frame in followed] == [0] * 5


def test_no_frames_and_no_faces():
    assert FaceFollower(Film([]).detect).finish() == []
    followed = Film([[]] * 10).follow()
    assert [frame.faces for frame in followed] == [[]] * 10
    assert len(Film([[(80, 45, 30, RED)]]).follow()[0].faces) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detect_every": 0}, "`detect_every` must be at least 1, got 0"),
        ({"max_gap": -0.1}, "must not be negative, got -0.1 and 0.2"),
        ({"smoothing": -1}, "must not be negative, got 1.0 and -1"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        FaceFollower(Film([]).detect, **settings)
