"""Trainings on two processes of the CPU end like those on one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from s2d_hf import S2DForVideoClassification
from s2d_hf.trainer import S2DTrainingArguments
from tests.warm_python import WarmPython

from .frames_dataset import make_trainer
from .plain_loops import CASES, FSDP_CASES, TRAINER_CASES, Batches, train
from .processes import launch

FSDP2 = {"fsdp": True, "fsdp_config": {"version": 2}}


def run_cases(python: WarmPython, processes: int, folder: Path, cases: list[dict[str, Any]]) -> None:
    folder.mkdir()
    command = ["-m", "tests.trainer.train_on_processes", str(folder), *(json.dumps(case) for case in cases)]
    if processes > 1:
        launch(processes, *command)
    else:
        run = python.run(*command, timeout=300)
        assert run.returncode == 0, run.stderr[-5000:]


def read_reports(folder: Path, processes: int) -> list[dict[str, Any]]:
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("process*.json"))]
    assert [report["processes"] for report in reports] == [processes] * processes
    return reports


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Anchors and averaged weights, which every process has."""
    first, *others = (load_file(path) for path in sorted(folder.glob("process*.safetensors")))
    for name, tensor in first.items():
        assert all(torch.equal(other[name], tensor) for other in others), name
    assert int(first["counts"].max()) == 3
    return first


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """A saved model's weights, but for the key's bias, which changes no score: Adam makes steps of its rounding."""
    model, info = S2DForVideoClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    weights = model.state_dict()
    for name, tensor in weights.items():
        if name.endswith("attention.qkv.bias"):
            tensor.chunk(3)[1].zero_()
    return weights


def assert_same(given: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: n + m)


def assert_resumed(folder: Path) -> None:
    """A training that was resumed ended with the weights of the one that wrote the checkpoint."""
    assert_same(read_model(folder / "resumed"), read_model(folder / "model"), 1e-6)


@pytest.mark.parametrize("update", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_two_processes_equal_one_with_twice_the_batch(update, warm_python, tmp_path):
    results, predictions = {}, []
    for processes, batch_size in ((1, 4), (2, 2)):
        case = {"name": "small", "frozen": True, "per_device_train_batch_size": batch_size, "anchor_update": update}
        case |= {"gradient_checkpointing": True, "ema_decay": 0.9}
        run_cases(warm_python, processes, tmp_path / str(processes), [case])
        folder = tmp_path / str(processes) / "small"
        reports = read_reports(folder, processes)
        for report in reports:
            assert report["epochs"] == [0, 0, 0, 0, 1, 1, 1, 1]
            assert report["resumed_epochs"] == [1, 1, 1]
            assert report["resumed_losses"] == pytest.approx(report["losses"][5:], abs=1e-6)
            assert report["labels"] == [0, 1, 2, 3, 4, 0, 1]  # no video is counted twice
        assert_resumed(folder)
        predictions.append(torch.tensor(reports[0]["predictions"]))
        results[processes] = (torch.tensor(reports[0]["losses"]), read_tensors(folder))
    torch.testing.assert_close(*predictions, atol=1e-3, rtol=1e-3)
    assert predictions[0].shape == (7, 5) and predictions[0].std(dim=0).min() > 1e-2
    (losses_1, tensors_1), (losses_2, tensors_2) = results[1], results[2]
    assert len(losses_1) == 8 and losses_1.std() > 1e-3
    torch.testing.assert_close(losses_2, losses_1, atol=1e-4, rtol=1e-4)
    assert_same(tensors_2, tensors_1, 1e-4)


@pytest.mark.slow
def test_ddp_and_fsdp2_equal_one_process(warm_python, tmp_path):
    settings = [(frozen, steps) for frozen in (True, False) for steps in (1, 2)]
    for processes, kinds in ((1, {"one": {}}), (2, {"ddp": {}, "fsdp2": FSDP2})):
        cases = []
        for kind, arguments in kinds.items():
            for frozen, steps in settings:
                case = {"name": f"{kind}-{frozen}-{steps}", "frozen": frozen, "gradient_accumulation_steps": steps}
                cases.append(case | arguments | {"per_device_train_batch_size": 4 // processes // steps})
        cases[-1]["gradient_checkpointing"] = True
        run_cases(warm_python, processes, tmp_path / str(processes), cases)
    for frozen, steps in settings:
        one = tmp_path / "1" / f"one-{frozen}-{steps}"
        losses = read_reports(one, 1)[0]["losses"]
        for kind, distributed_type in (("ddp", "MULTI_CPU"), ("fsdp2", "FSDP")):
            two = tmp_path / "2" / f"{kind}-{frozen}-{steps}"
            reports = read_reports(two, 2)
            assert [report["kind"] for report in reports] == [distributed_type] * 2
            # rounding, since sums over the batch have another order
            assert reports[0]["losses"] == pytest.approx(losses, abs=2e-4)
            assert reports[0]["resumed_losses"] == pytest.approx(losses[5 * steps :], abs=2e-4)
            assert_same(read_tensors(two), read_tensors(one), 1e-5)
            assert_same(read_model(two / "model"), read_model(one / "model"), 1e-5)
            assert_resumed(two)


def test_fsdp_that_accelerate_would_leave_out_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"for processes on GPUs alone.* on 'cpu': remove `fsdp`"):
        make_trainer(tmp_path)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="with a GPU they train together")
def test_processes_that_would_train_alone_are_refused(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    # a group that is there already, or this process would wait for the other one
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"2 processes were started.*`--use_cpu true`"):
            S2DTrainingArguments(output_dir=str(tmp_path), report_to="none")
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    launch(2, "-m", "tests.trainer.plain_loops", str(folder))
    return folder


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        (kind, case)
        for kind, cases in (("ddp", CASES), ("fsdp2", FSDP_CASES), ("trainer", TRAINER_CASES))
        for case in cases
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_training_without_our_trainer(plain_folder, kind, case):
    model = case.make_model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, Batches(case, model.config).shares(0, 1))
    expected = model.state_dict()
    assert_same(load_file(plain_folder / f"{kind}-{case.name}.safetensors"), expected, 1e-5)
    changed = {name for name, tensor in expected.items() if not torch.equal(tensor, start[name])}
    assert changed == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
