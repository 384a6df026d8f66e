"""Random clips in memory, and a small model, processor and trainer for them."""

from pathlib import Path

import torch
from torch.utils.data import Dataset

from s2d_hf import LandmarkEncoder, S2DConfig, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.landmark_encoders_s2d import LandmarkOutput
from s2d_hf.trainer import S2DTrainer, S2DTrainingArguments
from tests.small_models import TINY, randomise


class FramesDataset(Dataset):
    """
    Clips whose class decides their mean colour; `clean_frames` are brighter than `frames`. With `num_views`, that many
    views of each, as for evaluation.
    """

    def __init__(
        self, labels: list[int], num_frames: int = 4, size: int = 32, seed: int = 0, num_views: int | None = None
    ):
        generator = torch.Generator().manual_seed(seed)
        self.label_indices = labels
        views = () if num_views is None else (num_views,)
        noise = torch.randint(0, 60, (len(labels), *views, num_frames, 3, size, size), generator=generator)
        shift = torch.tensor(labels).view(-1, *[1] * (noise.ndim - 1)) * 25
        self.frames = (noise + shift).to(torch.uint8)
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.label_indices)

    def __getitem__(self, index: int) -> dict:
        self.order.append(index)
        frames = self.frames[index]
        return {"frames": frames, "clean_frames": frames + 50, "labels": self.label_indices[index]}


class EpochFramesDataset(FramesDataset):
    """Each epoch has noise of its own, as in [`ClipDataset`] it has an augmentation of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        generator = torch.Generator().manual_seed(1000 * int(self.epoch) + index)
        noise = torch.randint(0, 40, item["frames"].shape, generator=generator, dtype=torch.uint8)
        return item | {"frames": item["frames"] + noise, "epoch": int(self.epoch)}


class SmallLandmarkEncoder(LandmarkEncoder):
    """One convolution; the trainer must not care which encoder the processor has."""

    encoder_type = "small"
    num_channels = TINY["landmark_channels"]
    feature_size = TINY["landmark_size"]

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, self.num_channels, kernel_size=8, stride=6)
        self._freeze()

    def _encode(self, frames: torch.Tensor, return_landmarks: bool) -> LandmarkOutput:
        return LandmarkOutput(self.conv(frames).tanh())


def small_model(**fields) -> S2DForVideoClassification:
    """A video model for these clips, without dropout."""
    return randomise(S2DForVideoClassification(S2DConfig(**(TINY | {"classifier_dropout_prob": 0.0} | fields))))


def small_processor() -> S2DVideoProcessor:
    """A processor for 32x32 pixels, with a landmark encoder of random weights."""
    torch.manual_seed(0)
    size = {"height": 32, "width": 32}
    return S2DVideoProcessor(
        landmark_encoder=SmallLandmarkEncoder(), size={"shortest_edge": 32}, crop_size=size, num_frames=4
    )


def make_trainer(folder: Path, model=None, dataset=None, eval_dataset=None, **arguments) -> S2DTrainer:
    defaults = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "save_strategy": "no",
        "per_device_train_batch_size": 4, "num_train_epochs": 1, "disable_tqdm": True,
    }  # fmt: skip
    return S2DTrainer(
        model=small_model() if model is None else model,
        args=S2DTrainingArguments(**(defaults | arguments)),
        train_dataset=FramesDataset([0, 1, 2, 3, 4, 0, 1, 2]) if dataset is None else dataset,
        eval_dataset=eval_dataset,
        processing_class=small_processor(),
    )
