"""Random changes of training clips: RandAugment, crop and flip; random erasing; mixup and CutMix."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import IMAGENET_DEFAULT_MEAN

RAND_AUGMENT_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
MAX_LEVEL = 10.0
FILL = tuple(round(255 * mean) for mean in IMAGENET_DEFAULT_MEAN)
ORDERS = ("crop_first", "rand_augment_first")
INTERPOLATIONS = ("bilinear", "bicubic")


def apply_rand_augment_op(
    clip: torch.Tensor,
    name: str,
    level: float,
    sign: int = 1,
    fill: tuple[int, int, int] = FILL,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> torch.Tensor:
    """
    One operation of RandAugment (Cubuk et al., arXiv 1909.13719) on every frame of a clip, in the "increasing" variant
    of timm: the higher the level, the stronger the change.

    | operation | at level `m`, with `s = m / 10` |
    | --- | --- |
    | AutoContrast, Equalize, Invert | the same at every level |
    | Rotate | by `sign * 30 * s` degrees |
    | Posterize | keeps `4 - int(4 * s)` bits, at least 1 (timm: 0, a black frame, at level 10) |
    | Solarize | inverts values from `256 - int(256 * s)` up |
    | SolarizeAdd | adds `int(110 * s)` to values under 128 |
    | Color, Contrast, Brightness, Sharpness | by the factor `1 + sign * 0.9 * s`, at least 0.1 |
    | ShearX, ShearY | by `sign * 0.3 * s`, with the upper left corner fixed |
    | TranslateX, TranslateY | by `sign * 0.45 * s` of the width or height |

    Args:
        clip (`torch.Tensor` of shape `(num_frames, 3, height, width)`): uint8.
        name (`str`): One of `RAND_AUGMENT_OPS`.
        level (`float`): 0 to 10.
        sign (`int`): 1 or -1, the direction of operations that have one.
        fill (`tuple[int, int, int]`): The colour that shows where a frame was moved away; ImageNet's mean.
        interpolation (`"bilinear"` or `"bicubic"`): How Rotate, Shear and Translate find the new pixels.

    Returns:
        `torch.Tensor`: uint8, in the shape of `clip`.

    Raises:
        ValueError: if there is no such operation.
    """
    strength = level / MAX_LEVEL
    factor = max(0.1, 1 + sign * 0.9 * strength)
    height, width = clip.shape[-2:]

    def move(function: Callable[..., Any], **how: Any) -> torch.Tensor:
        how |= {"interpolation": InterpolationMode(interpolation), "fill": list(fill)}
        if interpolation == "bilinear":
            return function(clip, **how)
        # torchvision moves tensors in no other way, but Pillow's images
        frames = [function(tvF.to_pil_image(frame), **how) for frame in clip]
        return torch.stack([tvF.pil_to_tensor(frame) for frame in frames])

    def affine(shear: tuple[float, float] = (0, 0), shift: tuple[float, float] = (0, 0)) -> torch.Tensor:
        return move(
            tvF.affine,
            angle=0.0,
            translate=[round(shift[0]), round(shift[1])],
            scale=1.0,
            shear=[math.degrees(math.atan(sign * part)) for part in shear],
            center=[0, 0],
        )

    match name:
        case "AutoContrast":
            return tvF.autocontrast(clip)
        case "Equalize":
            return tvF.equalize(clip)
        case "Invert":
            return tvF.invert(clip)
        case "Rotate":
            return move(tvF.rotate, angle=sign * 30 * strength)
        case "Posterize":
            return tvF.posterize(clip, max(1, 4 - int(4 * strength)))
        case "Solarize":
            threshold = 256 - int(256 * strength)
            return tvF.solarize(clip, threshold) if threshold < 256 else clip
        case "SolarizeAdd":
            added = (clip.to(torch.int16) + int(110 * strength)).clamp(max=255).to(torch.uint8)
            return torch.where(clip < 128, added, clip)
        case "Color":
            return tvF.adjust_saturation(clip, factor)
        case "Contrast":
            return tvF.adjust_contrast(clip, factor)
        case "Brightness":
            return tvF.adjust_brightness(clip, factor)
        case "Sharpness":
            return tvF.adjust_sharpness(clip, factor)
        case "ShearX":
            return affine(shear=(0.3 * strength, 0))
        case "ShearY":
            return affine(shear=(0, 0.3 * strength))
        case "TranslateX":
            return affine(shift=(sign * 0.45 * strength * width, 0))
        case "TranslateY":
            return affine(shift=(0, sign * 0.45 * strength * height))
    raise ValueError(f"There is no operation {name!r}; RandAugment has {', '.join(RAND_AUGMENT_OPS)}.")


@dataclass(frozen=True)
class ClipAugmentation:
    """
    Random resized crop, horizontal flip and RandAugment, each with one set of parameters for all frames of a clip. The
    defaults are timm's `rand-m7-n4-mstd0.5-inc1`.

    Args:
        size (`int`): Height and width of the result, in pixels.
        num_ops (`int`): Operations that RandAugment draws for a clip, with replacement; 0 turns it off.
        magnitude (`float`): Mean of their levels, 0 to 10; see [`apply_rand_augment_op`].
        magnitude_std (`float`): Standard deviation of their levels, which are clipped to 0..10.
        op_probability (`float`): The probability with which each drawn operation is applied.
        scale (`tuple[float, float]`): The crop's area, as a fraction of the frame's.
        ratio (`tuple[float, float]`): The crop's width over its height, drawn evenly on a logarithmic scale.
        flip_probability (`float`): Of the horizontal flip.
        fill (`tuple[int, int, int]`): The colour that shows where a frame was moved away, 0 to 255.
        order (`"crop_first"` or `"rand_augment_first"`): Whether RandAugment gets the crop, flipped or not, or the
            frames as they are, as in the authors' code.
        interpolation (`"bilinear"` or `"bicubic"`): How RandAugment's Rotate, Shear and Translate find the new pixels;
            bicubically in the authors' code.

    Called with a clip `(num_frames, 3, height, width)`, uint8 or floats in 0..255 (an image is a clip of one frame),
    it returns uint8 `(num_frames, 3, size, size)`, resized bilinearly as the processors do. `generator` is a
    `torch.Generator` or a seed that makes the result reproducible; torch's global generator if not given.

    AutoContrast, Equalize and Contrast have no random parameters of their own to share: they measure every frame for
    itself.

    Raises:
        ValueError: if an argument is out of range, or the clip is not as above.
    """

    size: int = 224
    num_ops: int = 4
    magnitude: float = 7.0
    magnitude_std: float = 0.5
    op_probability: float = 0.5
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    fill: tuple[int, int, int] = FILL
    order: Literal["crop_first", "rand_augment_first"] = "crop_first"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"`size` must be at least 1 pixel, got {self.size}.")
        if self.num_ops < 0:
            raise ValueError(f"`num_ops` must not be negative, got {self.num_ops}.")
        if not 0 <= self.magnitude <= MAX_LEVEL:
            raise ValueError(f"`magnitude` must lie in 0..10, got {self.magnitude}.")
        if self.magnitude_std < 0:
            raise ValueError(f"`magnitude_std` must not be negative, got {self.magnitude_std}.")
        for name in ("op_probability", "flip_probability"):
            _check_probability(name, getattr(self, name))
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"`scale` must be two ascending fractions in (0, 1], got {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"`ratio` must be two ascending numbers over 0, got {self.ratio}.")
        if len(self.fill) != 3 or not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"`fill` must be red, green and blue, 0 to 255, got {self.fill}.")
        for name, choices in (("order", ORDERS), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")

    def __call__(self, clip: torch.Tensor, generator: torch.Generator | int | None = None) -> torch.Tensor:
        """A clip `(num_frames, 3, height, width)` to uint8 `(num_frames, 3, size, size)`."""
        clip = _as_uint8_clip(clip)
        rng = _numpy_generator(generator)
        box = self._draw_crop(clip.shape[-2], clip.shape[-1], rng)
        flips = rng.random() < self.flip_probability
        ops = self._draw_ops(rng)
        if self.order == "rand_augment_first":
            clip = self._apply_ops(clip, ops)
        clip = tvF.resized_crop(clip, *box, [self.size, self.size], InterpolationMode.BILINEAR, antialias=True)
        if flips:
            clip = tvF.horizontal_flip(clip)
        if self.order == "crop_first":
            clip = self._apply_ops(clip, ops)
        return clip.contiguous()

    def _apply_ops(self, clip: torch.Tensor, ops: list[tuple[str, float, int]]) -> torch.Tensor:
        for name, level, sign in ops:
            clip = apply_rand_augment_op(clip, name, level, sign, self.fill, self.interpolation)
        return clip

    def _draw_ops(self, rng: np.random.Generator) -> list[tuple[str, float, int]]:
        """Name, level and sign of the operations to apply."""
        ops = []
        for name in rng.choice(RAND_AUGMENT_OPS, self.num_ops):
            if rng.random() < self.op_probability:
                level = float(np.clip(rng.normal(self.magnitude, self.magnitude_std), 0, MAX_LEVEL))
                ops.append((str(name), level, 1 if rng.random() < 0.5 else -1))
        return ops

    def _draw_crop(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop, in pixels."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*np.log(self.ratio)))
            crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < crop_height <= height and 0 < crop_width <= width:
                top = int(rng.integers(height - crop_height, endpoint=True))
                left = int(rng.integers(width - crop_width, endpoint=True))
                return top, left, crop_height, crop_width
        # long frames may leave no room for such a crop: take the largest one of an allowed ratio, from the middle
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        crop_height = max(1, min(height, round(width / ratio)))
        crop_width = max(1, min(width, round(height * ratio)))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


@dataclass(frozen=True)
class RandomErasing:
    """
    Random erasing by pixel (Zhong et al., arXiv 1708.04896, with timm's parameters): overwrites one box with standard
    normal noise, the same box in every frame of a clip. Acts on normalised pixels, after the processor.

    Args:
        p (`float`): The probability that a clip is erased at all.
        scale (`tuple[float, float]`): The box's area, as a fraction of the frame's.
        ratio (`tuple[float, float]`): The box's height over its width, drawn evenly on a logarithmic scale.
        same_noise (`bool`): Whether all frames get the same noise. By default each frame gets its own.

    Called with `(num_frames, 3, height, width)` or `(3, height, width)` floats, it returns a new tensor of the same
    shape, dtype and device. `generator` is a `torch.Generator` or a seed; torch's global generator if not given.

    Raises:
        ValueError: if an argument is out of range, or the pixels are not as above.
    """

    p: float = 0.25
    scale: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    same_noise: bool = False

    def __post_init__(self) -> None:
        _check_probability("p", self.p)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"`scale` must be two ascending fractions in (0, 1], got {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"`ratio` must be two ascending numbers over 0, got {self.ratio}.")

    def __call__(self, pixel_values: torch.Tensor, generator: torch.Generator | int | None = None) -> torch.Tensor:
        """Normalised pixels of one clip or image, with a box erased with probability `p`."""
        if pixel_values.ndim not in (3, 4) or pixel_values.shape[-3] != 3 or not pixel_values.is_floating_point():
            raise ValueError(
                "Random erasing takes normalised pixels of one clip (num_frames, 3, height, width) or image "
                f"(3, height, width); got {pixel_values.dtype} of shape {tuple(pixel_values.shape)}."
            )
        rng = _numpy_generator(generator)
        if rng.random() >= self.p:
            return pixel_values.clone()
        height, width = pixel_values.shape[-2:]
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*np.log(self.ratio)))
            box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_height < height and 0 < box_width < width:
                break
        else:  # no box fits, as in very long frames: they stay whole
            return pixel_values.clone()
        top = int(rng.integers(height - box_height, endpoint=True))
        left = int(rng.integers(width - box_width, endpoint=True))
        leading = (3,) if self.same_noise else pixel_values.shape[:-2]
        noise = torch.from_numpy(rng.standard_normal((*leading, box_height, box_width), dtype=np.float32))
        erased = pixel_values.clone()
        erased[..., top : top + box_height, left : left + box_width] = noise.to(erased)
        return erased


def mixup_cutmix(
    pixel_values: torch.Tensor,
    labels_one_hot: torch.Tensor,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    switch_prob: float = 0.5,
    label_smoothing: float = 0.1,
    generator: torch.Generator | int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mixes a batch with itself in reversed order, by mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899), one of the
    two and one share `lam` for the whole batch, as timm does by default.

    Mixup blends `lam * clip + (1 - lam) * other`. CutMix puts the other's pixels into a box of the area `1 - lam`
    around a random point, the same box in all frames and clips; where the frame cuts the box off, `lam` becomes the
    share that was truly kept. The middle clip of an odd batch is mixed with itself, which changes nothing.

    Args:
        pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)` or `(batch_size, 3, height,
            width)`): Floats.
        labels_one_hot (`torch.Tensor` of shape `(batch_size, num_labels)`): Rows that sum to 1.
        mixup_alpha (`float`): `lam` of mixup is drawn from Beta(alpha, alpha); 0 turns mixup off.
        cutmix_alpha (`float`): The same for CutMix. With both at 0, labels are only smoothed.
        switch_prob (`float`): The probability of CutMix where both are on.
        label_smoothing (`float`): A label's value `y` becomes `y * (1 - s) + s / num_labels` before mixing.
        generator (`torch.Generator` or `int`, *optional*): A generator or seed; torch's global one if not given.

    Returns:
        Mixed pixels in the shape of `pixel_values`, and soft labels `(batch_size, num_labels)` whose rows sum to 1,
        in float32 or the labels' own floating-point dtype. Both are new tensors.

    Raises:
        ValueError: if shapes or dtypes are not as above, or an argument is out of range.
    """
    if pixel_values.ndim not in (4, 5) or not pixel_values.is_floating_point():
        raise ValueError(
            "`pixel_values` must be floats (batch_size, num_frames, 3, height, width) or (batch_size, 3, height, "
            f"width); got {pixel_values.dtype} of shape {tuple(pixel_values.shape)}."
        )
    if labels_one_hot.ndim != 2 or len(labels_one_hot) != len(pixel_values):
        raise ValueError(
            f"`labels_one_hot` must have the shape (batch_size, num_labels) with batch_size {len(pixel_values)}, got "
            f"{tuple(labels_one_hot.shape)}. Label indices become one-hot with `torch.nn.functional.one_hot`."
        )
    labels = labels_one_hot if labels_one_hot.is_floating_point() else labels_one_hot.float()
    if not torch.allclose(labels.sum(-1), torch.ones_like(labels[:, 0]), atol=1e-2):
        raise ValueError("The rows of `labels_one_hot` must each sum to 1.")
    for name, value in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if value < 0:
            raise ValueError(f"`{name}` must not be negative, got {value}.")
    _check_probability("switch_prob", switch_prob)
    _check_probability("label_smoothing", label_smoothing)

    labels = labels * (1 - label_smoothing) + label_smoothing / labels.shape[1]
    if mixup_alpha == 0 and cutmix_alpha == 0:
        return pixel_values.clone(), labels
    rng = _numpy_generator(generator)
    is_cutmix = cutmix_alpha > 0 and (mixup_alpha == 0 or rng.random() < switch_prob)
    alpha = cutmix_alpha if is_cutmix else mixup_alpha
    lam = float(rng.beta(alpha, alpha))
    if is_cutmix:
        height, width = pixel_values.shape[-2:]
        half_height = int(height * math.sqrt(1 - lam)) // 2
        half_width = int(width * math.sqrt(1 - lam)) // 2
        row, column = int(rng.integers(height)), int(rng.integers(width))
        top, bottom = max(0, row - half_height), min(height, row + half_height)
        left, right = max(0, column - half_width), min(width, column + half_width)
        lam = 1 - (bottom - top) * (right - left) / (height * width)
        mixed = pixel_values.clone()
        mixed[..., top:bottom, left:right] = pixel_values.flip(0)[..., top:bottom, left:right]
    else:
        mixed = lam * pixel_values + (1 - lam) * pixel_values.flip(0)
    return mixed, lam * labels + (1 - lam) * labels.flip(0)


def _numpy_generator(generator: torch.Generator | int | None) -> np.random.Generator:
    """NumPy draws from all the distributions needed here, and takes its seed from torch."""
    if isinstance(generator, int):
        return np.random.default_rng(generator)
    device = "cpu" if generator is None else generator.device
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=device)))


def _as_uint8_clip(clip: torch.Tensor) -> torch.Tensor:
    if clip.ndim != 4 or clip.shape[1] != 3 or clip.numel() == 0:
        raise ValueError(
            f"A clip must have the shape (num_frames, 3, height, width), got {tuple(clip.shape)}; an image is a clip "
            "of one frame."
        )
    if clip.dtype == torch.uint8:
        return clip
    if not clip.is_floating_point():
        raise ValueError(f"A clip must be uint8 or floats in 0..255, got {clip.dtype}.")
    low, high = float(clip.min()), float(clip.max())
    if not ((low >= 0 and 1 < high <= 255) or low == high == 0):  # written so that NaN fails too
        raise ValueError(
            f"The floats of a clip must lie in 0..255, got {low:.3g} to {high:.3g}. Multiply pixels in [0, 1] by 255, "
            "and augment before the processor normalises."
        )
    return clip.round().to(torch.uint8)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must lie in 0..1, got {value}.")


__all__ = ["RAND_AUGMENT_OPS", "ClipAugmentation", "RandomErasing", "apply_rand_augment_op", "mixup_cutmix"]
