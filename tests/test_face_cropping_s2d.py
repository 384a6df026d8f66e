import math

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from transformers.image_utils import SizeDict

from s2d_hf import S2DVideoProcessor
from s2d_hf.face_cropping_s2d import crop_square, find_roll_angles

from .face_videos import PlacedFace, draw_faces


def slow_crop(frame: np.ndarray, center, side: float, angle: float, size: int) -> np.ndarray:
    """The mean over each pixel's samples, each one bilinear between the middles of four pixels; black outside."""
    height, width = frame.shape[:2]
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = frame
    factor = max(1, math.ceil(side / size - 1e-6))
    turn = np.array(
        [
            [math.cos(math.radians(angle)), -math.sin(math.radians(angle))],
            [math.sin(math.radians(angle)), math.cos(math.radians(angle))],
        ]
    )
    # positions of the samples within the square, from -side / 2 to side / 2
    places = ((np.arange(size * factor) + 0.5) / (size * factor) - 0.5) * side
    v, u = np.meshgrid(places, places, indexing="ij")
    x, y = np.einsum("ij,jkl->ikl", turn, np.stack([u, v])) + np.reshape(center, (2, 1, 1)) - 0.5 + 1
    x, y = np.clip(x, 0, width + 1 - 1e-9), np.clip(y, 0, height + 1 - 1e-9)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    right, below = (x - column)[..., None], (y - row)[..., None]
    samples = (
        padded[row, column] * (1 - right) * (1 - below)
        + padded[row, column + 1] * right * (1 - below)
        + padded[row + 1, column] * (1 - right) * below
        + padded[row + 1, column + 1] * right * below
    )
    return samples.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("seed", range(40))
def test_crops_are_those_of_a_slow_reimplementation(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 200, 2)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1.0)
    center = rng.uniform(-10, 10, 2) + rng.uniform(0, 1, 2) * (width, height)
    side, angle = float(np.exp(rng.uniform(np.log(5), np.log(300)))), float(rng.choice([0, rng.uniform(-180, 180)]))
    size = int(rng.integers(4, 80))
    crop = crop_square(frame, center, side, angle, size)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    difference = abs(crop - slow_crop(frame, center, side, angle, size))
    # OpenCV may place samples on 1/32 of a pixel, and rounds twice; neighbours differ by up to 60 grey levels here
    assert difference.mean() < 0.75
    assert difference.max() < 4


def test_squares_of_whole_pixels_are_slices():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for size in (1, 2, 7, 16, 31):
        x, y = 20, 10
        crop = crop_square(frame, (x + size / 2, y + size / 2), size, 0, size)
        np.testing.assert_array_equal(crop, frame[y : y + size, x : x + size])
    # turned by right angles: what is up in the crop is to the right in the frame, if the square is turned clockwise
    square = frame[10:41, 20:51]
    for angle, turns in ((90, 1), (180, 2), (-90, 3), (270, 3)):
        crop = crop_square(frame, (35.5, 25.5), 31, angle, 31)
        np.testing.assert_array_equal(crop, np.rot90(square, turns))
    # and shrunk by a whole number: means of blocks
    crop = crop_square(frame, (40, 30), 60, 0, 20)
    blocks = frame[:, 10:70].reshape(20, 3, 20, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop, blocks, atol=0.5 + 1e-6)


def test_outside_of_the_frame_is_black():
    frame = np.full((40, 40, 3), 200, np.uint8)
    crop = crop_square(frame, (0, 20), 40, 0, 40)
    assert (crop[:, :20] == 0).all() and (crop[:, 20:] == 200).all()
    assert not crop_square(frame, (-50, 500), 40, 30, 16).any()
    # a square larger than the frame shows all of it
    whole = crop_square(frame, (20, 20), 80, 0, 80)
    np.testing.assert_array_equal(whole[20:60, 20:60], frame)
    assert whole.sum() == frame.sum()


@pytest.mark.parametrize(("side", "size"), [(40, 40), (100, 40), (33.3, 48)])
def test_fractions_of_pixels_move_the_content_smoothly(side, size):
    rows, columns = np.mgrid[:120, :120] + 0.5
    blob = 250 * np.exp(-0.5 * ((columns - 60.3) ** 2 + (rows - 58.6) ** 2) / 4**2)
    frame = np.repeat(blob[..., None], 3, axis=2).round().astype(np.uint8)
    for shift in np.linspace(-1.5, 1.5, 25):
        center = (60.3 + shift, 58.6 - 0.5 * shift)
        crop = crop_square(frame, center, side, 0, size)[..., 0].astype(float)
        places = (np.arange(size) + 0.5) * side / size - side / 2
        x = (crop.sum(axis=0) * places).sum() / crop.sum()
        y = (crop.sum(axis=1) * places).sum() / crop.sum()
        assert math.hypot(x + shift, y - 0.5 * shift) < 0.05  # in pixels of the frame


def test_shrunk_crops_do_not_flicker():
    """Stripes as fine as pixels become grey, wherever the square begins."""
    frame = np.zeros((400, 400, 3), np.uint8)
    frame[:, ::2] = 255
    crops = [crop_square(frame, (200 + shift, 200), 300, 0, 50) for shift in np.linspace(0, 2, 9)]
    assert abs(np.stack(crops).astype(float) - 127.5).max() < 3


@pytest.mark.parametrize("angle", [-35, -10, 15, 40])
def test_turned_faces_become_upright(angle):
    upright = draw_faces([PlacedFace((320, 180), 150)])
    turned = draw_faces([PlacedFace((320, 180), 150, angle=angle)])
    expected = crop_square(upright, (320, 180), 165, 0, 96).astype(float)
    difference = abs(crop_square(turned, (320, 180), 165, angle, 96) - expected)
    assert difference.mean() < 3
    for wrong in (0, -angle):
        assert abs(crop_square(turned, (320, 180), 165, wrong, 96) - expected).mean() > 4 * difference.mean()


@pytest.mark.parametrize(("side", "size"), [(0, 10), (-1, 10), (10, 0), (10, -3)])
def test_bad_sizes(side, size):
    with pytest.raises(ValueError, match=f"must be positive, got {side} and {size}"):
        crop_square(np.zeros((20, 20, 3), np.uint8), (10, 10), side, 0, size)


def landmarks_with_eyes(left: tuple[float, float], right: tuple[float, float]) -> torch.Tensor:
    """Points at random places but for the eyes, whose six points each lie around their middles."""
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
    ring = torch.tensor([[math.cos(a), math.sin(a)] for a in np.arange(6) * math.pi / 3]) * 0.04
    points[36:42] = torch.tensor(left) + ring
    points[42:48] = torch.tensor(right) + ring
    return points


def test_roll_angles_of_known_landmarks():
    eyes = {
        0: ((0.3, 0.4), (0.7, 0.4)),
        45: ((0.3, 0.3), (0.6, 0.6)),  # the eye on the right is lower: turned clockwise
        -30: ((0.4, 0.5), (0.4 + 0.3 * math.cos(math.pi / 6), 0.5 - 0.15)),
        180: ((0.7, 0.6), (0.3, 0.6 + 1e-9)),  # upside down
        90: ((0.5, 0.3), (0.5, 0.7)),
    }
    angles = find_roll_angles(torch.stack([landmarks_with_eyes(*pair) for pair in eyes.values()]))
    off = (angles - list(eyes) + 180) % 360 - 180
    np.testing.assert_allclose(off, 0, atol=1e-3)


def test_faces_in_profile_have_no_roll_angle():
    points = torch.stack([landmarks_with_eyes((0.4, 0.4), (0.4 + across, 0.42)) for across in (0.05, 0.1, 0.3)])
    angles = find_roll_angles(points.half())
    assert np.isnan(angles).tolist() == [True, True, False]
    assert find_roll_angles(torch.zeros(0, 68, 2)).shape == (0,)


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    """Eight grey frames whose brightness is their number."""
    return [torch.full((3, 100, 200), 20 + i, dtype=torch.uint8) for i in range(8)]


def cropper(boxes: dict[int, list[tuple]], **settings) -> S2DVideoProcessor:
    """A processor whose detector finds boxes by the frames' brightness."""
    processor = S2DVideoProcessor(do_landmarks=False, size={"shortest_edge": 20}, **settings)
    found = {number: np.array([(*box, 0.9) for box in of_frame]) for number, of_frame in boxes.items()}

    def detect(arrays):
        return [found.get(int(array[0, 0, 0]) - 20, np.zeros((0, 5))) for array in arrays]

    processor.get_face_detector = lambda device=None: detect
    return processor


def test_the_square_around_a_box(frames):
    processor = cropper({i: [(40, 30, 60, 70)] for i in range(8)})
    crops, boxes = processor.crop_faces(frames)
    assert [tuple(crop.shape) for crop in crops] == [(3, 20, 20)] * 8
    assert [crop.unique().tolist() for crop in crops] == [[20 + i] for i in range(8)]
    # the longer edge is 40, the margin 0.1
    np.testing.assert_allclose(boxes, [[50 - 22, 50 - 22, 50 + 22, 50 + 22]] * 8, atol=1e-6)
    np.testing.assert_allclose(processor.crop_faces(frames, face_margin=0.5)[1], [[20, 20, 80, 80]] * 8, atol=1e-6)
    np.testing.assert_allclose(processor.crop_faces(frames, face_margin=-0.5)[1], [[40, 40, 60, 60]] * 8, atol=1e-6)
    for size in ({"height": 9, "width": 9}, {"shortest_edge": 9}, 9, SizeDict(shortest_edge=9)):
        assert processor.crop_faces(frames, size=size)[0][0].shape == (3, 9, 9)
    with pytest.raises(ValueError, match="`face_margin` must be above -1, got -1"):
        processor.crop_faces(frames, face_margin=-1)


def test_frames_without_the_face_take_the_nearest_in_time(frames):
    box = (40, 30, 60, 70)
    times = np.array([0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2, 2.3])
    processor = cropper({2: [box], 3: [box]})
    np.testing.assert_allclose(processor.crop_faces(frames, times)[1], [[28, 28, 72, 72]] * 8, atol=1e-6)
    # a face of other colours, seen later and shorter, does not take over; one of the same colours is the same one
    processor = cropper({0: [box], 1: [(42, 30, 62, 70)], 7: [(120, 30, 150, 70)]})
    boxes = processor.crop_faces(frames, times)[1]
    np.testing.assert_allclose(boxes[7], [113, 28, 157, 72], atol=1e-6)
    other = frames[7].clone()
    other[:, 30:70, 120:150] = torch.tensor([250, 120, 20]).view(3, 1, 1)
    boxes = processor.crop_faces([*frames[:7], other], times)[1]
    np.testing.assert_allclose(boxes, [[28, 28, 72, 72]] + [[30, 28, 74, 72]] * 7, atol=1e-6)


def test_positions_between_are_those_of_the_time(frames):
    processor = cropper({0: [(40, 30, 60, 70)], 6: [(60, 30, 80, 70)]})
    times = np.array([0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.9])
    boxes = processor.crop_faces(frames[:7], times)[1]
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2]) / 2, 50 + 20 * times / 0.9, atol=1e-6)


def test_the_largest_and_longest_seen_face_is_the_main_one(frames):
    small, large = (10, 30, 30, 50), (100, 10, 160, 70)
    centers = {
        "large": {i: [small, large] for i in range(8)},
        "long": {i: [small, large] if i in (3, 4) else [small] for i in range(8)},  # 8 x 20 against 2 x 60
    }
    for name, expected in (("large", (130, 40)), ("long", (20, 40))):
        boxes = cropper(centers[name]).crop_faces(frames)[1]
        np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, [expected] * 8, atol=1e-6)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_repeated_last_frames_and_single_frames(frames):
    processor = cropper({i: [(40 + 5 * i, 30, 60 + 5 * i, 70)] for i in range(8)})
    clip, times = [*frames[:3], frames[2], frames[2]], np.array([0, 0.04, 0.08, 0.08, 0.08])
    crops, boxes = processor.crop_faces(clip, times)
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2]) / 2, [50, 55, 60, 60, 60], atol=1e-6)
    assert [int(crop[0, 0, 0]) for crop in crops] == [20, 21, 22, 22, 22]
    crops, boxes = processor.crop_faces(frames[4:5])
    np.testing.assert_allclose(boxes, [[48, 28, 92, 72]], atol=1e-6)


def test_frames_that_are_seconds_apart_are_not_smoothed(frames):
    rng = np.random.default_rng(0)
    x = 90 + rng.uniform(-15, 15, 8)
    processor = cropper({i: [(x[i] - 20, 30, x[i] + 20, 70)] for i in range(8) if i != 3})
    boxes = processor.crop_faces(frames, np.arange(8) * 4.0)[1]
    known = np.arange(8) != 3
    np.testing.assert_allclose(((boxes[:, 0] + boxes[:, 2]) / 2)[known], x[known], atol=1e-6)
    assert (boxes[3, 0] + boxes[3, 2]) / 2 == pytest.approx((x[2] + x[4]) / 2)


def test_no_face(frames):
    with pytest.raises(ValueError, match="No face was found in 8 frames"):
        cropper({}).crop_faces(frames)


def test_alignment_needs_a_landmark_encoder(frames):
    processor = cropper({i: [(40, 30, 60, 70)] for i in range(8)})
    for value in (None, False):
        assert len(processor.crop_faces(frames, do_align_faces=value)[0]) == 8
    with pytest.raises(ValueError, match="`do_align_faces=True` needs a landmark encoder"):
        processor.crop_faces(frames, do_align_faces=True)


def test_crops_of_a_face_look_the_same_at_every_scale():
    frame = skimage.data.astronaut()
    expected = crop_square(frame, (223, 119), 130, 0, 64).astype(float)
    for scale in (1.5, 2.0, 3.0):
        large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        crop = crop_square(large, (223 * scale, 119 * scale), 130 * scale, 0, 64)
        assert abs(crop - expected).mean() < 3
