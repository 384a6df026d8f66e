"""Training of a landmark encoder on images whose 68 points are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate.utils import broadcast
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF
from tqdm.auto import tqdm
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..data import Sample, read_sample
from ..landmark_encoders_s2d import NUM_LANDMARKS, MobileFaceNetLandmarkEncoder
from .checkpoints import write_checksums
from .finite import FiniteCallback, check_weights
from .samplers import EpochCallback

POINTS_FILE = "points.npz"
# Which of the iBUG 68 points each one becomes in a mirrored face.
MIRRORED_LANDMARKS = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *range(54, 47, -1),  # upper and
    *range(59, 54, -1),  # lower outer lip
    *range(64, 59, -1),  # upper and
    *range(67, 64, -1),  # lower inner lip
)
_OUTER_EYE_CORNERS = (36, 45)


class LandmarkPointsDataset(Dataset):
    """
    Images of faces and their 68 points, all kept in memory.

    Args:
        files (`Sequence[str | Path]`): The images.
        points (`np.ndarray` or `torch.Tensor` of shape `(len(files), 68, 2)`): (x, y) in the iBUG 68 order, as
            fractions of the frame's width and height.
        size (`int`): Height and width to which images of another size are resized, in pixels.
        flip_probability (`float`): Of the horizontal flip.
        jitter (`float`): Brightness and contrast are each changed by a factor from `1 - jitter` to `1 + jitter`.
        seed (`int`): With the epoch and the index, the only source of randomness.
        progress (`bool`): Show a progress bar while the images are read.

    An item is a dict of `frames`, uint8 `(3, size, size)`, and `landmarks`, float32 `(68, 2)`.

    Raises:
        ValueError: if an argument is out of range, there are no files, `points` don't have the shape above or are not
            finite, or a file is no image.
        FileNotFoundError: if a file is missing.

    Example:
    ```python
    >>> dataset = LandmarkPointsDataset(*read_still_points("faces/stills/train"), size=64, flip_probability=0.5)
    ```
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        points: np.ndarray | torch.Tensor,
        size: int,
        *,
        flip_probability: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        progress: bool = True,
    ):
        landmarks = torch.as_tensor(points, dtype=torch.float32).clone()
        if not len(files) or landmarks.shape != (len(files), NUM_LANDMARKS, 2):
            raise ValueError(
                f"`points` must have the shape (number of files, {NUM_LANDMARKS}, 2), got {tuple(landmarks.shape)} "
                f"for {len(files)} files."
            )
        if not landmarks.isfinite().all():
            raise ValueError("`points` hold NaN or infinite values.")
        if size < 1:
            raise ValueError(f"`size` must be at least 1 pixel, got {size}.")
        for name, value in (("flip_probability", flip_probability), ("jitter", jitter)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must lie in 0..1, got {value}.")
        if seed < 0:
            raise ValueError(f"`seed` must not be negative, got {seed}.")
        self.size = size
        self.flip_probability = flip_probability
        self.jitter = jitter
        self.seed = seed
        self.landmarks = landmarks
        self.frames = torch.empty((len(files), 3, size, size), dtype=torch.uint8)
        for frame, file in zip(self.frames, tqdm(files, desc="Reading images", disable=not progress), strict=True):
            image = read_sample(Sample(Path(file).name, 0, path=file), "image")[0]
            frame.copy_(tvF.resize(image, [size, size], interpolation=InterpolationMode.BILINEAR, antialias=True))
        # in shared memory, so that workers which live longer than an epoch see it change
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Makes the items those of another epoch; accelerate's data loaders call it."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"The index {index} is outside the dataset's {len(self)} images.")
        index = int(index) % len(self)
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        frame, landmarks = self.frames[index].clone(), self.landmarks[index].clone()
        if rng.random() < self.flip_probability:
            frame, landmarks = frame.flip(-1), mirror_landmarks(landmarks)
        if self.jitter:
            brightness, contrast = rng.uniform(1 - self.jitter, 1 + self.jitter, 2)
            frame = tvF.adjust_contrast(tvF.adjust_brightness(frame, brightness), contrast)
        return {"frames": frame, "landmarks": landmarks}


def mirror_landmarks(landmarks: torch.Tensor) -> torch.Tensor:
    """
    The points of a horizontally flipped frame.

    Args:
        landmarks (`torch.Tensor` of shape `(..., 68, 2)`): (x, y) in the iBUG 68 order, as fractions of the frame.

    Returns:
        `torch.Tensor` of the same shape.
    """
    mirrored = landmarks[..., list(MIRRORED_LANDMARKS), :]
    return torch.stack((1 - mirrored[..., 0], mirrored[..., 1]), dim=-1)


def read_still_points(folder: str | Path) -> tuple[list[Path], np.ndarray]:
    """
    Stills whose landmarks are known, as training/synthetic/dataset.py writes them: images, and `points.npz` with their
    `files` and `points`.

    Args:
        folder (`str` or `Path`): Of one split.

    Returns:
        `list[Path]` of `n` images, and `np.ndarray` of shape `(n, 68, 2)`, float32: the points of each in iBUG order,
        (x, y) as fractions of the frame.

    Raises:
        FileNotFoundError: if the folder holds no `points.npz`.
    """
    path = Path(folder) / POINTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There are no landmarks of stills in {folder}: no file {POINTS_FILE}.")
    with np.load(path, allow_pickle=False) as content:
        return [Path(folder) / name for name in content["files"].tolist()], content["points"]


def size_of_stills(files: Sequence[Path]) -> int:
    """Height and width of the stills, in pixels, as the first one has it."""
    with Image.open(files[0]) as image:
        return image.height


def normalized_mean_error(predictions: np.ndarray, landmarks: np.ndarray) -> float:
    """
    The points' mean distance to the true ones, in units of the distance between the outer corners of the eyes.

    Args:
        predictions (`np.ndarray` of shape `(n, 68, 2)`): Points in the iBUG 68 order.
        landmarks (`np.ndarray` of shape `(n, 68, 2)`): The true points; their eyes set the unit of each face.

    Returns:
        `float`: the mean over points and faces.
    """
    left, right = _OUTER_EYE_CORNERS
    error = np.linalg.norm(predictions - landmarks, axis=-1).mean(axis=-1)
    unit = np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=-1)
    return float((error / unit).mean())


class _LandmarkRegression(nn.Module):
    """A landmark encoder that trains: uint8 frames to points and their mean absolute error."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, encoder: MobileFaceNetLandmarkEncoder):
        super().__init__()
        self.encoder = encoder
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "_LandmarkRegression":
        self.training = mode
        # the encoder's own `train` would keep it in eval mode
        nn.Module.train(self.encoder, mode)
        return self

    def forward(self, frames: torch.Tensor, landmarks: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = (frames / 255 - self.mean) / self.std
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # a quarter less time on CPUs
        # the encoder's own `forward` computes without gradients
        points = cast(torch.Tensor, self.encoder._encode(pixels, return_landmarks=True).landmarks)
        return {"loss": nn.functional.l1_loss(points.float(), landmarks), "predictions": points}


class _LandmarkTrainer(Trainer):
    """Leaves out a last training batch of a single image, on which batch norm can't train."""

    def get_train_dataloader(self) -> DataLoader:
        given = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = given or len(self.train_dataset) % self.args.train_batch_size == 1
        try:
            return super().get_train_dataloader()
        finally:
            self.args.dataloader_drop_last = given  # the loader for evaluation is made by it, too

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # as in `S2DTrainer`
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_checksums(output_dir)


def train_landmark_encoder(
    encoder: MobileFaceNetLandmarkEncoder,
    train_dataset: LandmarkPointsDataset,
    eval_dataset: LandmarkPointsDataset | None = None,
    *,
    args: TrainingArguments,
) -> dict[str, float]:
    """
    Trains a landmark encoder on images with known points, by transformers' Trainer, on one or several processes.

    Minimises the points' mean absolute error. The encoder is changed in place: its last layer starts anew, around the
    mean of the training points; the other layers go on from their weights. In the end it is frozen again, on the
    device of the training.

    Args:
        encoder ([`MobileFaceNetLandmarkEncoder`]): Of any width.
        train_dataset ([`LandmarkPointsDataset`]): What to train on.
        eval_dataset ([`LandmarkPointsDataset`], *optional*): What to measure the result on.
        args ([`~transformers.TrainingArguments`]): Of the training. An incomplete last batch of a single image is left
            out, as batch norm can't train on it.

    Returns:
        `train_loss`, the mean over the training; `train_runtime` in seconds; and with `eval_dataset` also `eval_loss`
        and `nme`, see [`normalized_mean_error`].

    Raises:
        TypeError: if `encoder` is another kind of encoder.
        ValueError: if batches hold a single image.
        NotFiniteError: if a gradient or, in the end, a weight is NaN or infinite.

    Example:
    ```python
    >>> args = TrainingArguments(
    ...     "landmarks", num_train_epochs=5, per_device_train_batch_size=32, learning_rate=4e-3, warmup_steps=0.2,
    ...     lr_scheduler_type="cosine", save_strategy="no",
    ... )
    >>> metrics = train_landmark_encoder(MobileFaceNetLandmarkEncoder(width=0.25), train_set, test_set, args=args)
    ```
    """
    if not isinstance(encoder, MobileFaceNetLandmarkEncoder):
        raise TypeError(f"Only a MobileFaceNetLandmarkEncoder can be trained, got {type(encoder).__name__}.")
    if min(len(train_dataset), args.train_batch_size) < 2:
        raise ValueError(
            f"Batches must hold at least 2 images to train batch norm: there are {len(train_dataset)} images, and "
            f"`per_device_train_batch_size` is {args.per_device_train_batch_size}."
        )
    try:
        encoder.requires_grad_(True)
        output_norm = encoder.output_layer.bn
        output_norm.reset_running_stats()
        with torch.no_grad():
            output_norm.bias.copy_(train_dataset.landmarks.mean(dim=0).flatten())
            output_norm.weight.fill_(0.05)  # about how far points lie from their means: learning is faster for it
        trainer = _LandmarkTrainer(
            model=_LandmarkRegression(encoder),
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=_compute_metrics,
            callbacks=[EpochCallback()],
        )
        trainer.label_names = ["landmarks"]
        trainer.add_callback(FiniteCallback(trainer))
        result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        for buffer in encoder.buffers():  # each process has averaged batch statistics of its own
            buffer.copy_(broadcast(buffer))
        check_weights(encoder.state_dict().items(), "The landmark encoder")
        metrics = {name: result.metrics[name] for name in ("train_loss", "train_runtime")}
        if eval_dataset is not None:
            evaluation = trainer.evaluate()
            metrics |= {"eval_loss": evaluation["eval_loss"], "nme": evaluation["eval_nme"]}
    finally:
        encoder._freeze()
    return metrics


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    return {"nme": normalized_mean_error(prediction.predictions, prediction.label_ids)}


__all__ = [
    "MIRRORED_LANDMARKS",
    "LandmarkPointsDataset",
    "mirror_landmarks",
    "normalized_mean_error",
    "train_landmark_encoder",
]
