import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2d_hf import S2DForVideoClassification, __version__
from s2d_hf.cli import main

CONSOLE_SCRIPT = Path(sys.executable).parent / "s2d-hf"


def test_convert_reports_and_writes(official_state, landmark_weights, tmp_path, capsys):
    torch.save({"model": official_state | {"weak_head.bias": torch.zeros(7)}}, tmp_path / "dfew.pth")
    arguments = ["convert", str(tmp_path / "dfew.pth"), str(tmp_path / "out"), "--dataset", "DFEW", "--num-heads", "4"]
    arguments += ["--landmark-weights", str(landmark_weights)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"Mapped {len(official_state)} tensors" in printed
    assert "weak_head.bias: a head that only the authors' training uses" in printed
    model = S2DForVideoClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label[0] == "happy" and model.config.num_attention_heads == 4
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_own_labels(official_state, landmark_weights, tmp_path, capsys):
    torch.save({"model": official_state}, tmp_path / "own.pth")
    arguments = ["convert", str(tmp_path / "own.pth"), str(tmp_path / "out"), "--landmark-weights"]
    arguments += [str(landmark_weights), "--labels", "a, b,c,d,e,f,g"]
    assert main(arguments) == 0
    assert "1 attention heads assumed" in capsys.readouterr().out
    config = S2DForVideoClassification.from_pretrained(tmp_path / "out").config
    assert list(config.id2label.values()) == list("abcdefg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "nowhere.pth", "out"], "no checkpoint file nowhere.pth"),
        (["convert", "nowhere.pth", "out", "--dataset", "KITTI"], "Unknown data set 'KITTI'"),
    ],
)
def test_errors_go_to_stderr_with_exit_code_1(arguments, message, capsys):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and not captured.out


def test_console_script():
    for command, expected in (([], "convert"), (["convert"], "--landmark-weights FILE")):
        run = subprocess.run([CONSOLE_SCRIPT, *command, "--help"], capture_output=True, text=True, check=True)
        assert expected in run.stdout
    run = subprocess.run([CONSOLE_SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["s2d-hf", __version__]
    assert subprocess.run([CONSOLE_SCRIPT], capture_output=True, check=False).returncode == 2
