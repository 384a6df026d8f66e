"""Augmentations against Pillow, plain loops and their own statistics."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from s2d_hf.data import ClipAugmentation, RandomErasing, apply_rand_augment_op, mixup_cutmix
from s2d_hf.data.augmentation import RAND_AUGMENT_OPS


@pytest.fixture(scope="module")
def clip(face) -> torch.Tensor:
    """Two different frames of a real face, `(2, 3, 96, 120)`, with something to do for AutoContrast."""
    frames = [face[20:116, 40:160] // 2 + 30, face[40:136, 50:170] // 3 + 60]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def pillow_references(level: float, sign: int, width: int, height: int, interpolation: Image.Resampling) -> dict:
    """timm's operations in Pillow, for the level and sign."""

    def shifted_by(image, matrix):
        """Pillow's affine transform: where each pixel of the result comes from."""
        return image.transform(image.size, Image.Transform.AFFINE, matrix, interpolation, fillcolor=(9, 99, 200))

    factor = max(0.1, 1 + sign * level * 0.09)
    added = int(level * 11)
    return {
        "AutoContrast": ImageOps.autocontrast,
        "Equalize": ImageOps.equalize,
        "Invert": ImageOps.invert,
        "Rotate": lambda i: i.rotate(sign * level * 3, interpolation, fillcolor=(9, 99, 200)),
        "Posterize": lambda i: ImageOps.posterize(i, 4 - int(level * 0.4)),
        "Solarize": lambda i: ImageOps.solarize(i, 256 - int(level * 25.6)),
        "SolarizeAdd": lambda i: i.point([min(255, v + added) if v < 128 else v for v in range(256)] * 3),
        "Color": lambda i: ImageEnhance.Color(i).enhance(factor),
        "Contrast": lambda i: ImageEnhance.Contrast(i).enhance(factor),
        "Brightness": lambda i: ImageEnhance.Brightness(i).enhance(factor),
        "Sharpness": lambda i: ImageEnhance.Sharpness(i).enhance(factor),
        "ShearX": lambda i: shifted_by(i, (1, sign * level * 0.03, 0, 0, 1, 0)),
        "ShearY": lambda i: shifted_by(i, (1, 0, 0, sign * level * 0.03, 1, 0)),
        "TranslateX": lambda i: shifted_by(i, (1, 0, -round(sign * level * 0.045 * width), 0, 1, 0)),
        "TranslateY": lambda i: shifted_by(i, (1, 0, 0, 0, 1, -round(sign * level * 0.045 * height))),
    }


@pytest.mark.parametrize(("level", "sign"), [(7.3, 1), (7.3, -1), (2.6, 1)])
@pytest.mark.parametrize("name", RAND_AUGMENT_OPS)
def test_each_operation_does_to_every_frame_what_pillow_does(clip, name, level, sign):
    result = apply_rand_augment_op(clip, name, level, sign, fill=(9, 99, 200))
    reference = pillow_references(level, sign, clip.shape[-1], clip.shape[-2], Image.Resampling.BILINEAR)[name]
    assert result.dtype == torch.uint8 and result.shape == clip.shape
    for before, after in zip(clip, result, strict=True):
        image = Image.fromarray(before.permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(reference(image))).permute(2, 0, 1)
        difference = (after.int() - expected.int()).abs().float()
        # rounding differs a little everywhere, and the interpolation at edges of the moved frame
        assert difference.mean() < 1.5, difference.mean()
        assert (difference > 4).float().mean() < 0.03


@pytest.mark.parametrize(("level", "sign"), [(7.3, 1), (7.3, -1), (2.6, 1)])
@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_bicubic_moves_are_those_of_pillow(clip, name, level, sign):
    result = apply_rand_augment_op(clip, name, level, sign, fill=(9, 99, 200), interpolation="bicubic")
    assert result.dtype == torch.uint8 and result.shape == clip.shape
    references = {}
    for interpolation in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR):
        reference = pillow_references(level, sign, clip.shape[-1], clip.shape[-2], interpolation)[name]
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip]
        references[interpolation.name] = torch.stack(
            [torch.from_numpy(np.array(reference(image))).permute(2, 0, 1) for image in images]
        )
    difference = (result.int() - references["BICUBIC"].int()).abs().float()
    assert difference.mean() < 0.05, difference.mean()
    if not name.startswith("Translate"):  # by whole pixels
        to_bilinear = (result.int() - references["BILINEAR"].int()).abs().float()
        assert to_bilinear.mean() > 5 * difference.mean() and to_bilinear.max() > 4


@pytest.mark.parametrize("name", ["Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness"])
def test_severity_grows_with_the_level(face, name):
    clip = torch.from_numpy(face).permute(2, 0, 1)[None]
    changes = [
        (apply_rand_augment_op(clip, name, level).float() - clip.float()).abs().mean() for level in (0, 3, 6, 9)
    ]
    assert changes == sorted(changes) and changes[3] > changes[1] > 0


def test_level_10_keeps_a_picture(clip):
    for name in RAND_AUGMENT_OPS:
        assert apply_rand_augment_op(clip, name, 10).unique().numel() > 1, name


def test_unknown_operation(clip):
    with pytest.raises(ValueError, match=r"no operation 'Blur'.*AutoContrast"):
        apply_rand_augment_op(clip, "Blur", 7)


def test_all_frames_of_a_clip_change_alike(clip):
    augmentation = ClipAugmentation(size=48)
    still = clip[:1].expand(3, -1, -1, -1)
    seen = set()
    for seed in range(40):
        result = augmentation(still, seed)
        assert result.shape == (3, 3, 48, 48) and result.dtype == torch.uint8
        assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])
        seen.add(result.numpy().tobytes())
    assert len(seen) == 40


class MovesRight(ClipAugmentation):
    """RandAugment does but one thing: it moves frames to the right by 0.45 * 0.8 of their width."""

    def _draw_ops(self, rng: np.random.Generator) -> list[tuple[str, float, int]]:
        return [("TranslateX", 8.0, 1)]


def test_order_decides_what_rand_augment_gets():
    """Fill takes up a fixed share of the result after the crop, and what the crop meets of it before."""
    clip = torch.full((3, 3, 100, 100), 200, dtype=torch.uint8)
    shares = {"crop_first": [], "rand_augment_first": []}
    for order, seen in shares.items():
        augmentation = MovesRight(size=50, order=order, fill=(1, 2, 3), scale=(0.2, 0.6))
        for seed in range(30):
            result = augmentation(clip, seed)
            assert all(torch.equal(frame, result[0]) for frame in result)
            filled = (result[0] < 100).all(dim=0)
            assert (filled == filled[0]).all()  # in whole columns
            seen.append(int(filled[0].sum()) / 50)
            _, left, _, width = augmentation._draw_crop(100, 100, np.random.default_rng(seed))
            expected = 0.36 if order == "crop_first" else min(max(0, 36 - left), width) / width
            assert seen[-1] == pytest.approx(expected, abs=0.03), seed
    assert set(shares["crop_first"]) == {0.36}
    assert 0.0 in shares["rand_augment_first"] and max(shares["rand_augment_first"]) > 0.5
    result = MovesRight(size=100, order="rand_augment_first", fill=(1, 2, 3), scale=(1, 1), ratio=(1, 1))(clip, 0)
    colours = {tuple(pixel) for pixel in result[0].flatten(1).T.tolist()}
    assert {(1, 2, 3), (200, 200, 200)} <= colours


def test_the_same_is_drawn_in_either_order(clip):
    """Operations that treat each pixel alone give the same in either order, up to rounding, with the same seed."""

    class Inverts(ClipAugmentation):
        def _draw_ops(self, rng: np.random.Generator) -> list[tuple[str, float, int]]:
            return [("Invert", level, sign) for _, level, sign in super()._draw_ops(rng)]

    seen = set()
    for seed in range(20):
        first, last = (Inverts(size=48, order=order)(clip, seed) for order in ("rand_augment_first", "crop_first"))
        assert (first.int() - last.int()).abs().max() <= 2, seed
        seen.add(first.numpy().tobytes())
    assert len(seen) == 20


@pytest.mark.parametrize("order", ["crop_first", "rand_augment_first"])
def test_all_frames_change_alike_in_either_order(clip, order):
    augmentation = ClipAugmentation(size=48, order=order, interpolation="bicubic", fill=(128, 128, 128))
    still = clip[:1].expand(3, -1, -1, -1)
    results = [augmentation(still, seed) for seed in range(20)]
    assert all(torch.equal(frame, result[0]) for result in results for frame in result)
    assert len({result.numpy().tobytes() for result in results}) == 20
    assert all(torch.equal(augmentation(still, seed), result) for seed, result in enumerate(results))


def test_the_same_generator_gives_the_same_result(clip):
    augmentation = ClipAugmentation(size=48)
    first, second, other = (augmentation(clip, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    torch.manual_seed(0)
    by_global = augmentation(clip), augmentation(clip)
    torch.manual_seed(0)
    assert torch.equal(by_global[0], augmentation(clip)) and not torch.equal(*by_global)
    state = torch.random.get_rng_state()
    augmentation(clip, 3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_operations_are_drawn_as_timm_draws_them():
    rng = np.random.default_rng(0)
    drawn = [ClipAugmentation()._draw_ops(rng) for _ in range(4000)]
    ops = [op for draw in drawn for op in draw]
    counts = np.bincount([len(draw) for draw in drawn], minlength=5) / 4000
    np.testing.assert_allclose(counts, np.array([1, 4, 6, 4, 1]) / 16, atol=0.025)  # binomial with p = 0.5
    names, levels, signs = zip(*ops, strict=True)
    shares = np.array([names.count(name) for name in RAND_AUGMENT_OPS]) / len(names)
    np.testing.assert_allclose(shares, 1 / 15, atol=0.012)
    assert abs(np.mean(levels) - 7) < 0.03 and abs(np.std(levels) - 0.5) < 0.03
    assert abs(np.mean(signs)) < 0.05 and set(signs) == {-1, 1}
    assert any(len({name for name, _, _ in draw}) < len(draw) for draw in drawn)  # with replacement


def test_levels_are_clipped():
    rng = np.random.default_rng(0)
    levels = [
        op[1] for _ in range(50) for op in ClipAugmentation(magnitude=9, magnitude_std=20, num_ops=9)._draw_ops(rng)
    ]
    assert min(levels) == 0 and max(levels) == 10


@pytest.mark.parametrize(("height", "width"), [(224, 224), (90, 160)])
def test_crops_have_the_areas_and_ratios_asked_for(height, width):
    rng = np.random.default_rng(0)
    crops = np.array([ClipAugmentation()._draw_crop(height, width, rng) for _ in range(2000)])
    tops, lefts, heights, widths = crops.T
    assert tops.min() == 0 and lefts.min() == 0
    assert (tops + heights).max() == height and (lefts + widths).max() == width
    areas, ratios = heights * widths / (height * width), widths / heights
    assert 0.075 < areas.min() < 0.1 and areas.max() > 0.7  # 4:3 in 16:9 covers 0.75
    assert 0.72 < ratios.min() < 0.78 and 1.28 < ratios.max() < 1.37


def test_ratios_favour_neither_tall_nor_wide_boxes():
    rng = np.random.default_rng(0)
    augmentation = ClipAugmentation(ratio=(1 / 8, 8), scale=(0.05, 0.1))
    ratios = np.array([np.divide(*augmentation._draw_crop(200, 200, rng)[2:]) for _ in range(1500)])
    assert abs(np.log(ratios).mean()) < 0.12 and np.log(ratios).std() == pytest.approx(np.log(8) / 3**0.5, rel=0.05)
    erasing, pixels = RandomErasing(p=1, ratio=(1 / 8, 8), scale=(0.05, 0.1)), torch.full((3, 100, 100), 50.0)
    changed = [(erasing(pixels, seed)[0] != 50) for seed in range(500)]
    ratios = [float(box.any(1).sum() / box.any(0).sum()) for box in changed]
    assert abs(np.log(ratios).mean()) < 0.2


def test_crop_of_frames_too_long_for_any_allowed_ratio():
    crops = {ClipAugmentation(scale=(0.9, 1))._draw_crop(10, 200, np.random.default_rng(s)) for s in range(5)}
    assert crops == {(0, 93, 10, 13)}  # 4:3, from the middle
    assert ClipAugmentation(size=8, scale=(0.9, 1))(torch.zeros(1, 3, 200, 10), 0).shape == (1, 3, 8, 8)


def test_flip_and_crop_alone(clip):
    whole = {"size": 96, "num_ops": 0, "scale": (1, 1), "ratio": (1, 1)}
    square = clip[..., :96]
    assert torch.equal(ClipAugmentation(flip_probability=0, **whole)(square, 0), square)
    assert torch.equal(ClipAugmentation(flip_probability=1, **whole)(square, 0), square.flip(-1))
    flips = [torch.equal(ClipAugmentation(**whole)(square, seed), square.flip(-1)) for seed in range(200)]
    assert 70 < sum(flips) < 130


def test_floats_are_taken_as_0_to_255(clip):
    augmentation = ClipAugmentation(size=48)
    assert torch.equal(augmentation(clip.float() + 0.2, 1), augmentation(clip, 1))
    for bad in (clip / 255, clip.float() - 100, clip.float() * torch.nan):
        with pytest.raises(ValueError, match=r"0\.\.255"):
            augmentation(bad, 1)
    for bad in (clip[0], clip.permute(0, 2, 3, 1), clip[:0]):
        with pytest.raises(ValueError, match="num_frames, 3, height, width"):
            augmentation(bad, 1)
    with pytest.raises(ValueError, match="int32"):
        augmentation(clip.int(), 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0},
        {"num_ops": -1},
        {"magnitude": 11},
        {"magnitude_std": -1},
        {"op_probability": 2},
        {"flip_probability": -0.1},
        {"scale": (0, 1)},
        {"ratio": (2, 1)},
        {"fill": (0, 0, 256)},
        {"fill": (128,)},
        {"order": "flip_first"},
        {"interpolation": "nearest"},
    ],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        ClipAugmentation(**arguments)


class TestRandomErasing:
    pixels = torch.full((4, 3, 60, 80), 50.0)  # farther from 0 than the noise gets

    def box(self, erased: torch.Tensor) -> tuple[int, int, int, int]:
        changed = (erased != 50).any(0)
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1

    def test_erases_the_same_box_of_every_frame(self):
        for seed in range(30):
            erased = RandomErasing(p=1)(self.pixels, seed)
            boxes = {self.box(frame) for frame in erased}
            assert len(boxes) == 1
            top, bottom, left, right = boxes.pop()
            inside = erased[..., top:bottom, left:right]
            assert (inside != 50).all() and (erased != 50).sum() == inside.numel()
            height, width = bottom - top, right - left
            assert 0.015 < height * width / 4800 < 0.35 and 0.25 < height / width < 4

    def test_every_pixel_gets_its_own_normal_noise(self):
        noise = RandomErasing(p=1, scale=(0.3, 0.3))(self.pixels, 0)
        noise = noise[noise != 50]
        assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
        assert noise.unique().numel() > 0.99 * noise.numel()

    def test_noise_of_frames(self):
        own, same = (RandomErasing(p=1, same_noise=value)(self.pixels, 0) for value in (False, True))
        assert not torch.equal(own[0], own[1])
        assert all(torch.equal(same[0], frame) for frame in same)
        assert not torch.equal(same[0, 0], same[0, 1])  # channels differ all the same

    def test_probability_and_reproducibility(self):
        before = self.pixels.clone()
        erased = [not torch.equal(RandomErasing()(self.pixels, seed), self.pixels) for seed in range(400)]
        assert 70 < sum(erased) < 130  # p = 0.25
        assert torch.equal(before, self.pixels)
        assert torch.equal(RandomErasing(p=1)(self.pixels, 5), RandomErasing(p=1)(self.pixels, 5))

    def test_images_and_half_precision(self):
        erased = RandomErasing(p=1)(self.pixels[0].half(), 0)
        assert erased.shape == (3, 60, 80) and erased.dtype == torch.float16 and (erased != 50).any()

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"normalised pixels.*uint8"):
            RandomErasing()(self.pixels.to(torch.uint8))
        with pytest.raises(ValueError, match="one clip"):
            RandomErasing()(self.pixels[None])
        with pytest.raises(ValueError, match="`p`"):
            RandomErasing(p=1.5)


class TestMixupCutmix:
    labels = torch.eye(4)[[0, 1, 2, 3, 0, 1]]

    def batch(self, frames: tuple[int, ...] = (2,)) -> torch.Tensor:
        """Clip i holds the value i everywhere."""
        return torch.arange(6.0).reshape(6, *[1] * (len(frames) + 3)).expand(6, *frames, 3, 40, 50).contiguous()

    @pytest.mark.parametrize("frames", [(), (2,)])
    def test_mixup_blends_pixels_and_labels_by_the_same_share(self, frames):
        batch = self.batch(frames)
        for seed in range(10):
            mixed, soft = mixup_cutmix(batch, self.labels, cutmix_alpha=0, label_smoothing=0, generator=seed)
            lam = float(soft[0, 0])  # clip 0 has label 0, its partner, clip 5, has label 1
            assert 0 <= lam <= 1 and mixed.shape == batch.shape
            for i in range(6):
                expected = lam * i + (1 - lam) * (5 - i)
                assert torch.allclose(mixed[i], torch.tensor(expected), atol=1e-5)
                assert torch.allclose(soft[i], lam * self.labels[i] + (1 - lam) * self.labels[5 - i])

    @pytest.mark.parametrize("frames", [(), (2,)])
    def test_cutmix_pastes_one_box_and_counts_its_pixels(self, frames):
        batch = self.batch(frames)
        shares = []
        for seed in range(40):
            mixed, soft = mixup_cutmix(batch, self.labels, mixup_alpha=0, label_smoothing=0, generator=seed)
            pasted = mixed != batch
            assert (pasted == pasted.reshape(-1, 40, 50)[0]).all()  # the same box everywhere
            for i in range(6):
                assert set(mixed[i].unique().tolist()) <= {float(i), 5.0 - i}
            mask = pasted.reshape(-1, 40, 50)[0]
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            if mask.any():
                assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            kept = 1 - float(mask.float().mean())
            assert soft[0, 0] == pytest.approx(kept, abs=1e-6) and soft[0, 1] == pytest.approx(1 - kept, abs=1e-6)
            shares.append(kept)
        assert min(shares) < 0.5 and max(shares) > 0.9

    def test_lam_follows_the_beta_distribution(self):
        pixels, labels = torch.zeros(2, 3, 1, 1), torch.eye(2)
        for alpha in (0.8, 4.0):
            lam = [
                float(mixup_cutmix(pixels, labels, alpha, 0, label_smoothing=0, generator=s)[1][0, 0])
                for s in range(2000)
            ]
            assert np.mean(lam) == pytest.approx(0.5, abs=0.03)
            assert np.var(lam) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)

    def test_switches_between_the_two(self):
        batch = self.batch()
        pasted = [(mixup_cutmix(batch, self.labels, generator=s)[0][0].unique().numel()) == 2 for s in range(200)]
        assert 60 < sum(pasted) < 130
        for probability, expected in ((0.0, False), (1.0, True)):
            mixed, _ = mixup_cutmix(batch, self.labels, switch_prob=probability, generator=2)
            assert (mixed[0].unique().numel() == 2) is expected

    def test_smoothed_labels(self):
        pixels = self.batch()
        mixed, soft = mixup_cutmix(pixels, self.labels.long(), 0, 0, label_smoothing=0.1)
        assert torch.equal(mixed, pixels)
        expected = torch.full((6, 4), 0.025)
        for i, label in enumerate(self.labels.argmax(-1)):
            expected[i, label] = 0.925
        assert torch.allclose(soft, expected)
        assert torch.allclose(mixup_cutmix(pixels, self.labels, generator=1)[1].sum(-1), torch.ones(6))

    def test_smoothed_labels_agree_with_the_loss_of_torch(self):
        """Cross entropy with our soft labels is torch's own label smoothing."""
        torch.manual_seed(0)
        logits = torch.randn(6, 4)
        _, soft = mixup_cutmix(self.batch(), self.labels, 0, 0, label_smoothing=0.1)
        ours = torch.nn.functional.cross_entropy(logits, soft)
        assert torch.allclose(
            ours, torch.nn.functional.cross_entropy(logits, self.labels.argmax(-1), label_smoothing=0.1)
        )

    def test_leaves_its_input_alone_and_is_reproducible(self):
        batch, labels = self.batch(), self.labels.clone()
        first = mixup_cutmix(batch, labels, generator=torch.Generator().manual_seed(1))
        second = mixup_cutmix(batch, labels, generator=torch.Generator().manual_seed(1))
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert torch.equal(batch, self.batch()) and torch.equal(labels, self.labels)

    def test_bad_input(self):
        batch = self.batch()
        with pytest.raises(ValueError, match="one_hot"):
            mixup_cutmix(batch, torch.arange(6))
        with pytest.raises(ValueError, match="sum to 1"):
            mixup_cutmix(batch, self.labels * 2)
        with pytest.raises(ValueError, match="uint8"):
            mixup_cutmix(batch.to(torch.uint8), self.labels)
        with pytest.raises(ValueError, match="`cutmix_alpha`"):
            mixup_cutmix(batch, self.labels, cutmix_alpha=-1)
        with pytest.raises(ValueError, match="`label_smoothing`"):
            mixup_cutmix(batch, self.labels, label_smoothing=1.5)
