"""
Trains models without this package's trainer: `plain_loops.py FOLDER`, on several processes. FOLDER gets the weights
that a plain loop with DDP, one with FSDP2 and transformers' Trainer end with, each for some models of `CASES`.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainingArguments

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification
from tests.small_models import TINY, random_inputs, randomise

STEPS, BATCH_SIZE, LEARNING_RATE = 3, 4, 0.05


class Case(NamedTuple):
    """A model, and how it is trained."""

    name: str
    fields: dict = {}
    video: bool = True
    frozen: bool = False
    frozen_head: bool = False
    backbone_only: bool = False
    checkpointing: bool = False

    def make_model(self) -> PreTrainedModel:
        config = S2DConfig(**(TINY | {"classifier_dropout_prob": 0.0, "temporal_adapters": self.video} | self.fields))
        model_class = S2DForVideoClassification if self.video else S2DForImageClassification
        model = randomise(model_class(config)).train()
        if self.frozen:
            model.freeze_for_video_tuning()
        if self.frozen_head:
            model.classifier.requires_grad_(False)
        if self.backbone_only:
            model = model.s2d
        if self.checkpointing:
            model.gradient_checkpointing_enable()
        return model


CASES = [
    Case("video"),
    Case("video-checkpointing", checkpointing=True),
    Case("video-frozen", frozen=True),
    Case("video-frozen-checkpointing", frozen=True, checkpointing=True),
    Case("video-frozen-head", frozen=True, frozen_head=True),
    Case("video-backbone", backbone_only=True),
    Case("video-shallow", {"prompt_type": "shallow"}),
    Case("video-none", {"prompt_type": "none"}),
    Case("image", video=False),
    Case("image-frozen-head", video=False, frozen_head=True),
    Case("image-shallow", {"prompt_type": "shallow"}, video=False),
    Case("image-none", {"prompt_type": "none"}, video=False),
    Case("one-block", {"num_hidden_layers": 1}),
]
FSDP_CASES = [case for case in CASES if case.name.startswith("video")]
TRAINER_CASES = [case for case in CASES if case.name in ("video", "video-frozen-checkpointing", "image")]


class Batches(Dataset):
    """The samples of all steps, in their order."""

    def __init__(self, case: Case, config: S2DConfig):
        steps = [random_inputs(config, BATCH_SIZE, case.video, seed=step) for step in range(STEPS)]
        self.samples = {name: torch.cat([step[name] for step in steps]) for name in steps[0]}
        if config.prompt_type == "none":
            del self.samples["landmark_features"]
        if not case.backbone_only:
            self.samples["labels"] = torch.arange(STEPS * BATCH_SIZE) % config.num_labels

    def __len__(self) -> int:
        return STEPS * BATCH_SIZE

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: samples[index] for name, samples in self.samples.items()}

    def shares(self, rank: int, processes: int) -> Iterator[dict[str, torch.Tensor]]:
        """What one process gets of each step's batch."""
        size = BATCH_SIZE // processes
        for step in range(STEPS):
            start = step * BATCH_SIZE + rank * size
            yield {name: samples[start : start + size] for name, samples in self.samples.items()}


def train(model: nn.Module, batches: Iterator[dict[str, torch.Tensor]]) -> None:
    """The plainest loop there is."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], LEARNING_RATE)
    for batch in batches:
        outputs = model(**batch)
        loss = outputs.loss if "labels" in batch else outputs.pooler_output.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def train_with_ddp(case: Case, rank: int, processes: int) -> dict[str, torch.Tensor]:
    model = case.make_model()
    wrapped = DistributedDataParallel(model)
    train(wrapped, Batches(case, model.config).shares(rank, processes))
    return model.state_dict()


def train_with_fsdp2(case: Case, rank: int, processes: int) -> dict[str, torch.Tensor]:
    model = case.make_model()
    mesh = torch.distributed.init_device_mesh("cpu", (processes,))
    for module in reversed(list(model.modules())):  # from the bottom up
        if type(module).__name__ in model._no_split_modules or module is model:
            fully_shard(module, mesh=mesh)
    train(model, Batches(case, model.config).shares(rank, processes))
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def train_with_trainer(case: Case, folder: Path, processes: int) -> dict[str, torch.Tensor]:
    model = case.make_model()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH_SIZE // processes,
        max_steps=STEPS,
        optim="sgd",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        gradient_checkpointing=case.checkpointing,
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
    Trainer(model, arguments, train_dataset=Batches(case, model.config)).train()
    return model.state_dict()


def main() -> None:
    folder = Path(sys.argv[1])
    torch.distributed.init_process_group("gloo")
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    states = {}
    for case in CASES:
        states[f"ddp-{case.name}"] = train_with_ddp(case, rank, processes)
    for case in FSDP_CASES:
        states[f"fsdp2-{case.name}"] = train_with_fsdp2(case, rank, processes)
    for case in TRAINER_CASES:
        states[f"trainer-{case.name}"] = train_with_trainer(case, folder, processes)
    if rank == 0:
        for name, state in states.items():
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / f"{name}.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # all is written; see train_on_processes.py
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
