"""
A short training on one or several processes: `train_on_processes.py FOLDER BATCH_SIZE` writes the losses of all steps
and the emotion anchors into FOLDER.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from s2d_hf.trainer import S2DTrainer, S2DTrainingArguments
from tests.trainer.frames_dataset import FramesDataset, small_model, small_processor

folder, batch_size = Path(sys.argv[1]), int(sys.argv[2])
losses = []


class RecordingTrainer(S2DTrainer):
    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        losses.append(self.accelerator.gather(loss.reshape(1)).mean().item())
        return loss


arguments = S2DTrainingArguments(
    output_dir=str(folder / "run"),
    per_device_train_batch_size=batch_size,
    num_train_epochs=2,
    learning_rate=1e-4,
    learning_rate_batch=8,
    weight_decay=0.05,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
    balanced_sampling=True,
    anchor_distillation=True,
    anchor_queue_size=3,
    anchor_weight_times=[0],
    anchor_weights=[0.5],
    anchor_first_update=0,
    anchor_update_every=1,
)
model = small_model().freeze_for_video_tuning()
trainer = RecordingTrainer(
    model=model,
    args=arguments,
    train_dataset=FramesDataset([0, 1, 2, 3, 4, 0, 1, 2] * 2),
    processing_class=small_processor(),
)
trainer.train()
name = f"process{trainer.args.process_index}"
save_file(trainer.anchors.state_dict(), folder / f"{name}.safetensors")
(folder / f"{name}.json").write_text(json.dumps({"losses": losses, "processes": trainer.args.world_size}))
trainer.accelerator.end_training()
# All is written. Now and then torch's gloo threads abort a process while it unloads, after Python has ended.
sys.stdout.flush()
os._exit(0)
