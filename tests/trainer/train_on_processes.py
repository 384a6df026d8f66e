"""
Short trainings on one or several processes: `train_on_processes.py FOLDER CASE...`, each case a JSON object with a
`name`, `frozen` (only what the video stage tunes is trained) and training arguments. FOLDER/NAME gets the trained
model and, of each process, the losses and epochs of all steps, the predictions for a test set, the emotion anchors and
the averaged weights; and losses, epochs and model of a second training, which is resumed from a checkpoint that the
first wrote in the middle of an epoch.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file

from s2d_hf.trainer import S2DTrainer, S2DTrainingArguments
from tests.trainer.frames_dataset import EpochFramesDataset, FramesDataset, small_model, small_processor

RESUMED_STEP = 5


class RecordingTrainer(S2DTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []
        self.epochs: list[int] = []

    def training_step(self, model: torch.nn.Module, inputs: dict, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.losses.append(self.accelerator.gather(loss.reshape(1)).mean().item())
        self.epochs.append(int(inputs["epoch"].unique()))
        return loss

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # with several processes on CPUs, transformers 5.17 loads to the device "cpu:0", which torch.load doesn't know
        load = torch.load
        with mock.patch("torch.load", lambda *args, **kwargs: load(*args, **kwargs | {"map_location": "cpu"})):
            super()._load_optimizer_and_scheduler(checkpoint)


def allow_fsdp_on_cpus() -> None:
    """accelerate 1.15 takes FSDP on GPUs alone, and DDP without a word on CPUs; torch has it on both."""
    initialise = AcceleratorState.__init__

    def initialise_with_fsdp(self: AcceleratorState, *args, fsdp_plugin: Any = None, **kwargs) -> None:
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.num_processes > 1:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = initialise_with_fsdp


def make_trainer(folder: Path, frozen: bool, **arguments) -> RecordingTrainer:
    defaults = {
        "num_train_epochs": 2,
        "learning_rate": 1e-4,
        "learning_rate_batch": 8,
        "weight_decay": 0.05,
        "save_strategy": "steps",
        "save_steps": RESUMED_STEP,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "balanced_sampling": True,
        "anchor_distillation": True,
        "anchor_queue_size": 3,
        "anchor_weight_times": [0],
        "anchor_weights": [0.5],
        "anchor_first_update": 0,
        "anchor_update_every": 1,
    }
    model = small_model()
    return RecordingTrainer(
        model=model.freeze_for_video_tuning() if frozen else model,
        args=S2DTrainingArguments(output_dir=str(folder / "run"), **(defaults | arguments)),
        train_dataset=EpochFramesDataset([0, 1, 2, 3, 4, 0, 1, 2] * 2),
        processing_class=small_processor(),
    )


def run_case(folder: Path, **case) -> None:
    trainer = make_trainer(folder, **case)
    trainer.train()
    report = {"losses": trainer.losses, "epochs": trainer.epochs, "processes": trainer.args.world_size}
    report["kind"] = trainer.accelerator.distributed_type.value
    trainer.save_model(str(folder / "model"))
    name = f"process{trainer.args.process_index}"
    average = {} if trainer.weight_average is None else trainer.weight_average.state_dict()
    save_file(trainer.anchors.state_dict() | average, folder / f"{name}.safetensors")
    # seven videos of three views, which don't share out evenly
    prediction = trainer.predict(FramesDataset([0, 1, 2, 3, 4, 0, 1], num_views=3))
    report |= {"predictions": prediction.predictions.tolist(), "labels": prediction.label_ids.tolist()}
    trainer = make_trainer(folder, **case)
    trainer.train(resume_from_checkpoint=str(folder / "run" / f"checkpoint-{RESUMED_STEP}"))
    trainer.save_model(str(folder / "resumed"))
    report |= {"resumed_losses": trainer.losses, "resumed_epochs": trainer.epochs}
    (folder / f"{name}.json").write_text(json.dumps(report))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    allow_fsdp_on_cpus()
    for text in sys.argv[2:]:
        case = json.loads(text)
        folder = Path(sys.argv[1], case.pop("name"))
        folder.mkdir(exist_ok=True)
        run_case(folder, **case)
    if torch.distributed.is_initialized():  # not where one process trains alone
        torch.distributed.destroy_process_group()
    # All is written. Now and then torch's gloo threads abort a process while it unloads, after Python has ended.
    sys.stdout.flush()
    os._exit(0)
