"""
A short training on one or several processes: `train_on_processes.py FOLDER BATCH_SIZE ANCHOR_UPDATE` writes the losses
and epochs of all steps, the emotion anchors, the averaged weights and the predictions for a test set into FOLDER; and
the losses and epochs of a second training, which is resumed from a checkpoint that the first wrote in the middle of an
epoch.
"""

import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

from s2d_hf.trainer import S2DTrainer, S2DTrainingArguments
from tests.trainer.frames_dataset import EpochFramesDataset, FramesDataset, small_model, small_processor

folder, batch_size = Path(sys.argv[1]), int(sys.argv[2])


class RecordingTrainer(S2DTrainer):
    def training_step(self, model: torch.nn.Module, inputs: dict, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        losses.append(self.accelerator.gather(loss.reshape(1)).mean().item())
        epochs.append(int(inputs["epoch"].unique()))
        return loss

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # with several processes on CPUs, transformers loads to the device "cpu:0", which torch.load doesn't know
        load = torch.load
        with mock.patch("torch.load", lambda *args, **kwargs: load(*args, **kwargs | {"map_location": "cpu"})):
            super()._load_optimizer_and_scheduler(checkpoint)


def make_trainer() -> RecordingTrainer:
    arguments = S2DTrainingArguments(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=batch_size,
        num_train_epochs=2,
        learning_rate=1e-4,
        learning_rate_batch=8,
        weight_decay=0.05,
        save_strategy="steps",
        save_steps=5,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        balanced_sampling=True,
        gradient_checkpointing=True,
        ema_decay=0.9,
        anchor_distillation=True,
        anchor_update=sys.argv[3],
        anchor_queue_size=3,
        anchor_weight_times=[0],
        anchor_weights=[0.5],
        anchor_first_update=0,
        anchor_update_every=1,
    )
    return RecordingTrainer(
        model=small_model().freeze_for_video_tuning(),
        args=arguments,
        train_dataset=EpochFramesDataset([0, 1, 2, 3, 4, 0, 1, 2] * 2),
        processing_class=small_processor(),
    )


losses, epochs = [], []
trainer = make_trainer()
trainer.train()
report = {"losses": losses, "epochs": epochs, "processes": trainer.args.world_size}
name = f"process{trainer.args.process_index}"
save_file(trainer.anchors.state_dict() | trainer.weight_average.state_dict(), folder / f"{name}.safetensors")
# seven videos of three views, which don't share out evenly
videos = FramesDataset([0, 1, 2, 3, 4, 0, 1], num_views=3)
prediction = trainer.predict(videos)
report |= {"predictions": prediction.predictions.tolist(), "labels": prediction.label_ids.tolist()}
losses, epochs = [], []
trainer = make_trainer()
trainer.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-5"))
report |= {"resumed_losses": losses, "resumed_epochs": epochs}
(folder / f"{name}.json").write_text(json.dumps(report))
trainer.accelerator.end_training()
# All is written. Now and then torch's gloo threads abort a process while it unloads, after Python has ended.
sys.stdout.flush()
os._exit(0)
