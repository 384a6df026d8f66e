"""Augmentations against timm's, with which the authors trained: the same random numbers give the same clips."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from s2d_hf.data import ClipAugmentation, RandomErasing, apply_rand_augment_op, mixup_cutmix
from s2d_hf.data.augmentation import RAND_AUGMENT_OPS

auto_augment = pytest.importorskip("timm.data.auto_augment")
mixup = pytest.importorskip("timm.data.mixup")
random_erasing = pytest.importorskip("timm.data.random_erasing")

FILL = (9, 99, 200)
# timm's name of each of our operations, in the variant `inc1`
TIMM_NAMES = {
    name.removesuffix("Increasing").removesuffix("Rel"): name for name in auto_augment._RAND_INCREASING_TRANSFORMS
}


class Draws:
    """
    `random` or `numpy.random`, as timm calls them, out of the generator that our functions make of a seed.

    Args:
        seed (`int`): Of the generator.
        ahead (`tuple[float, ...]`): What `random` gives first: numbers that timm draws and ours doesn't need.
        endpoint (`bool`): Whether `randint` gives its upper bound too: that of `random` does.
    """

    def __init__(self, seed: int, ahead: tuple[float, ...] = (), endpoint: bool = False):
        self.rng = np.random.default_rng(seed)
        self.ahead = list(ahead)
        self.endpoint = endpoint
        self.uniform, self.rand = self.rng.uniform, self.random

    def random(self) -> float:
        return self.ahead.pop() if self.ahead else self.rng.random()

    def randint(self, low: int, high: int, size: None = None) -> int:
        return int(self.rng.integers(low, high, endpoint=self.endpoint))

    def beta(self, a: float, b: float) -> float:
        self.lam = self.rng.beta(a, b)
        return self.lam

    def choice(self, ops: list, size: int, replace: bool, p: None) -> list:
        assert replace and p is None
        return [ops[index] for index in self.rng.choice(len(ops), size)]

    def gauss(self, mean: float, std: float) -> float:
        level = self.rng.normal(mean, std)
        self.sign = 1 if self.rng.random() < 0.5 else -1  # ours draws it of every operation
        return level


@pytest.fixture(scope="module")
def clip(face) -> torch.Tensor:
    """Two different frames of a real face, `(2, 3, 100, 120)`."""
    frames = [face[20:120, 40:160] // 2 + 30, face[40:140, 50:170] // 3 + 60]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def test_the_same_operations_are_drawn(monkeypatch):
    """Names, levels and signs, of the authors' own string."""
    drawn = []
    for ours, name in TIMM_NAMES.items():

        def record(level: float, hparams: dict, ours: str = ours) -> tuple:
            drawn.append((ours, level, draws.sign))
            return ()

        monkeypatch.setitem(auto_augment.LEVEL_TO_ARG, name, record)
        monkeypatch.setitem(auto_augment.NAME_TO_OP, name, lambda image, **how: image)
    augment = auto_augment.rand_augment_transform("rand-m7-n4-mstd0.5-inc1", {"img_mean": FILL})
    counts = set()
    for seed in range(500):
        draws = Draws(seed)
        monkeypatch.setattr(auto_augment, "random", draws)
        monkeypatch.setattr(auto_augment, "np", SimpleNamespace(random=draws))
        drawn.clear()
        augment(None)
        assert ClipAugmentation()._draw_ops(np.random.default_rng(seed)) == drawn
        counts.add(len(drawn))
    assert counts == {0, 1, 2, 3, 4}


def test_there_are_the_same_operations():
    assert tuple(TIMM_NAMES) == RAND_AUGMENT_OPS


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", RAND_AUGMENT_OPS)
def test_each_operation_does_to_every_frame_what_timms_does(clip, name, interpolation, monkeypatch):
    rng = np.random.default_rng(RAND_AUGMENT_OPS.index(name))
    for level in rng.uniform(0, 9.99, 25):  # at 10, timm's Posterize makes frames black
        sign = int(rng.choice([-1, 1]))
        moved = -sign if name.startswith("Translate") else sign  # timm's moves to the left, and as often to the right
        if name.startswith("Translate"):  # ours moves by whole pixels
            pixels = clip.shape[-1 if name.endswith("X") else -2]
            level = round(level * 0.045 * pixels) / (0.045 * pixels)
        monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value, moved=moved: moved * value)
        hparams = {"img_mean": FILL, "interpolation": Image.Resampling[interpolation.upper()]}
        operation = auto_augment.AugmentOp(TIMM_NAMES[name], prob=1.0, magnitude=level, hparams=hparams)
        images = [operation(Image.fromarray(frame.permute(1, 2, 0).numpy())) for frame in clip]
        expected = torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2)
        result = apply_rand_augment_op(clip, name, level, sign, FILL, interpolation)
        difference = (result.int() - expected.int()).abs().float()
        assert difference.mean() < 1.5, (level, sign, difference.mean())
        # the last digit, and the edge of the moved frame
        assert (difference > 4).float().mean() < 0.03, (level, sign)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_the_same_box_is_erased_with_the_same_noise(num_frames, monkeypatch):
    """timm's erases another box of each frame: of a clip whose frames are channels, it is one box."""
    torch.manual_seed(0)
    pixels = torch.randn(num_frames, 3, 40, 60)
    erased = 0
    for seed in range(300):
        draws = Draws(seed, endpoint=True)

        def noise(per_pixel: bool, rand_color: bool, size: tuple, dtype: torch.dtype, device: torch.device, rng=draws):
            assert per_pixel
            return torch.from_numpy(rng.rng.standard_normal(size, dtype=np.float32))

        monkeypatch.setattr(random_erasing, "random", draws)
        monkeypatch.setattr(random_erasing, "_get_pixels", noise)
        expected = random_erasing.RandomErasing(0.25, mode="pixel")(pixels.flatten(0, 1).clone()).view_as(pixels)
        assert torch.equal(RandomErasing(0.25)(pixels, seed), expected), seed
        erased += not torch.equal(expected, pixels)
    assert 40 < erased < 110


@pytest.mark.parametrize(
    ("mixup_alpha", "cutmix_alpha", "switch_prob", "smoothing"),
    [(0.8, 1.0, 0.5, 0.1), (0.8, 0.0, 0.5, 0.0), (0.0, 1.0, 0.5, 0.3), (4.0, 0.3, 0.9, 0.1)],
)
@pytest.mark.parametrize("num_frames", [1, 4])
def test_batches_are_mixed_alike(mixup_alpha, cutmix_alpha, switch_prob, smoothing, num_frames, monkeypatch):
    """
    timm's takes images, and cuts clips along other axes: here a clip's frames are channels of an image. Newer ones
    cut boxes of an odd height or width by one pixel larger than those that the authors trained with, and ours.
    """
    torch.manual_seed(0)
    height, width = 20, 26
    pixels, labels = torch.randn(6, num_frames, 3, height, width), torch.tensor([0, 3, 1, 4, 4, 2])
    one_hot = torch.nn.functional.one_hot(labels, 5)
    mix = mixup.Mixup(mixup_alpha, cutmix_alpha, switch_prob=switch_prob, label_smoothing=smoothing, num_classes=5)
    num_exact = 0
    for seed in range(200):
        draws = Draws(seed, ahead=(0.0,))  # whether to mix at all
        monkeypatch.setattr(mixup, "np", SimpleNamespace(random=draws, sqrt=np.sqrt, clip=np.clip))
        expected, expected_labels = mix(pixels.flatten(1, 2).clone(), labels)
        expected = expected.view_as(pixels)
        mixed, mixed_labels = mixup_cutmix(pixels, one_hot, mixup_alpha, cutmix_alpha, switch_prob, smoothing, seed)
        is_cut = bool((expected == pixels).any() or (expected == pixels.flip(0)).all())
        side = (1 - draws.lam) ** 0.5
        if is_cut and (int(height * side) % 2 or int(width * side) % 2):
            ours, timms = ((result != pixels)[0, 0, 0] for result in (mixed, expected))
            assert (ours <= timms).all()
            if ours.any():
                assert all(timms.any(axis).sum() - ours.any(axis).sum() in (0, 1) for axis in (0, 1))
            continue
        num_exact += 1
        torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(mixed_labels, expected_labels, rtol=0, atol=1e-6)
    assert num_exact > 40
