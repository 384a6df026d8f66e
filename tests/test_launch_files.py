"""What starts trainings on several machines: accelerate takes the configurations, and Slurm's commands are right."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

TRAINING = Path(__file__).resolve().parents[1] / "training"


@pytest.mark.parametrize(
    ("name", "machines", "processes", "kind"),
    [("one_node", 1, 8, "MULTI_GPU"), ("several_nodes", 2, 16, "MULTI_GPU"), ("fsdp", 1, 8, "FSDP")],
)
def test_accelerate_takes_the_configuration(name, machines, processes, kind):
    config = load_config_from_file(str(TRAINING / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes, config.distributed_type) == (machines, processes, kind)


def test_every_configuration_is_tested():
    assert {path.stem for path in (TRAINING / "accelerate").iterdir()} == {"one_node", "several_nodes", "fsdp"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_slurm_script_launches_one_part_on_each_node(tmp_path):
    commands = {
        "srun": 'shift\nexec "$@"',  # runs the line on this "node" alone
        "scontrol": "printf 'node7\\nnode8\\n'",
        "accelerate": "printf '%s\\n' \"$@\"",
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"ARRAY_TASK_ID": "3", "GPUS_ON_NODE": "8", "NNODES": "2", "NODEID": "1", "JOB_NODELIST": "node[7-8]"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    command = ["bash", TRAINING / "slurm" / "train.sbatch", "training/folds.py", "DFEW"]
    command += ["--data_root", "my data", "--folds", "FOLD"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    expected = shlex.split(
        "launch --multi_gpu --num_machines 2 --machine_rank 1 --num_processes 16 --main_process_ip node7 "
        "--main_process_port 29500 --rdzv_backend c10d training/folds.py DFEW --data_root 'my data' --folds 3"
    )
    assert run.stdout.splitlines() == expected
