"""
A training that may be killed on its way: `train_until_killed.py FOLDER [--resume] [--kill-after STEP]
[--kill-in-checkpoint STEP]` writes what it ends with into FOLDER. It is killed some time after a step, or while it
writes the checkpoint of a step.
"""

import argparse
import json
import os
import signal
from pathlib import Path

from safetensors.torch import save_file
from transformers import TrainerCallback

from tests.trainer.frames_dataset import EpochFramesDataset, make_trainer, small_model


class KillAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--kill-after", type=int)
parser.add_argument("--kill-in-checkpoint", type=int)
options = parser.parse_args()
trainer = make_trainer(
    options.folder / "run",
    small_model(classifier_dropout_prob=0.3, hidden_dropout_prob=0.1),
    # five batches and three optimizer steps in an epoch, fifteen steps in all
    EpochFramesDataset([0] * 8 + [1] * 4 + [2] * 3 + [3, 3, 3, 4, 4]),
    EpochFramesDataset([0, 1, 2, 3, 4, 0], seed=1),
    num_train_epochs=5,
    gradient_accumulation_steps=2,
    learning_rate=3e-3,
    lr_scheduler_type="cosine",
    warmup_steps=3,
    weight_decay=0.05,
    balanced_sampling=True,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
    label_smoothing_factor=0.1,
    random_erasing_prob=0.5,
    ema_decay=0.9,
    anchor_distillation=True,
    anchor_queue_size=2,
    anchor_neighbours=1,
    anchor_weight_times=[0, 3.5],
    anchor_weights=[0.2, 0.5],
    # in the third epoch, in whose middle it is resumed, and in the fifth
    anchor_first_update=2,
    anchor_update_every=2,
    save_strategy="steps",
    save_steps=4,
    eval_strategy="steps",
    eval_steps=3,
    logging_steps=1,
)
if options.kill_after:
    trainer.add_callback(KillAfter(options.kill_after))
if options.kill_in_checkpoint:
    save_scaler = trainer._save_scaler

    def kill(output_dir: str) -> None:
        if trainer.state.global_step == options.kill_in_checkpoint:
            os.kill(os.getpid(), signal.SIGKILL)
        save_scaler(output_dir)

    trainer._save_scaler = kill
trainer.train(resume_from_checkpoint=options.resume)
save_file(trainer.anchors.state_dict(), options.folder / "anchors.safetensors")
save_file(trainer.weight_average.state_dict(), options.folder / "average.safetensors")
save_file(dict(trainer.model.state_dict()), options.folder / "weights.safetensors")
metrics = trainer.evaluate()
(options.folder / "report.json").write_text(json.dumps({"metrics": metrics, "log": trainer.state.log_history}))
