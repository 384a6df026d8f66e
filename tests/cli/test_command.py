import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoImageProcessor, AutoVideoProcessor

from s2d_hf import S2DForVideoClassification, __version__
from s2d_hf.archive import read_archive
from s2d_hf.cli import main
from s2d_hf.demo.limits import PageLimits

from ..face_videos import PlacedFace, draw_faces
from ..videos import write_video

CONSOLE_SCRIPT = Path(sys.executable).parent / "s2d-hf"


def test_convert_reports_and_writes(official_state, landmark_weights, tmp_path, capsys):
    torch.save({"model": official_state | {"weak_head.bias": torch.zeros(7)}}, tmp_path / "dfew.pth")
    arguments = ["convert", str(tmp_path / "dfew.pth"), str(tmp_path / "out"), "--dataset", "DFEW", "--num-heads", "4"]
    arguments += ["--landmark-weights", str(landmark_weights)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"Mapped {len(official_state) - 2} tensors" in printed  # without the norm that nothing uses
    assert "weak_head.bias: a head that only the authors' training uses" in printed
    model = S2DForVideoClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label[0] == "happy" and model.config.num_attention_heads == 4
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert not AutoVideoProcessor.from_pretrained(tmp_path / "out").do_crop_faces
    assert main([*arguments, "--overwrite", "--crop-faces"]) == 0
    for processor in (AutoVideoProcessor, AutoImageProcessor):
        assert processor.from_pretrained(tmp_path / "out").do_crop_faces


def test_own_labels(official_state, landmark_weights, tmp_path, capsys):
    torch.save({"model": official_state}, tmp_path / "own.pth")
    arguments = ["convert", str(tmp_path / "own.pth"), str(tmp_path / "out"), "--landmark-weights"]
    arguments += [str(landmark_weights), "--labels", "a, b,c,d,e,f,g"]
    assert main(arguments) == 0
    assert "attention heads, which no tensor tells, was taken as 1" in capsys.readouterr().out
    config = S2DForVideoClassification.from_pretrained(tmp_path / "out").config
    assert list(config.id2label.values()) == list("abcdefg")


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["--help"], 0, "convert"),
    (["predict", "--help"], 0, "hf://OWNER/REPOSITORY/FILE"),
    (["--version"], 0, __version__),
    (["predict", "a.mp4", "--fast"], 2, "s2d-hf predict: error: unrecognized arguments: --fast"),
    (["demo", "--port", "99999"], 2, "argument --port: 99999 is not from 0 to 65535"),
    (["demo", "--port", "x"], 2, "argument --port: invalid whole number value: 'x'"),
    (["export-onnx", "a", "b", "--opset", "-5"], 2, "argument --opset: -5 is not at least 18"),
    (["predict", "nowhere.mp4"], 1, "no video or folder nowhere.mp4"),
    (["predict", "{video}", "--model", "./nowhere"], 1, "--model: there is no file or folder ./nowhere"),
    (["predict", "{video}", "--face-detector-weights", "no.pth"], 1, "detector-weights: there is no file no.pth"),
    (["predict", "{video}", "--plot", "plot.gif"], 1, "--plot plot.gif must end in"),
    (["convert", "nowhere.pth", "out"], 1, "no checkpoint file nowhere.pth"),
    (["archive", "./nowhere", "out"], 1, "no folder or table ./nowhere"),
    (["export-onnx", "./nowhere", "out"], 1, "no file or folder ./nowhere"),
    (["demo", "--model", "./nowhere"], 1, "no file or folder ./nowhere"),
])  # fmt: skip
def test_quick_answers(arguments, code, said, face_video):
    """In half a second and 100 MB, measured by a plain Python process; the time is that of a machine at work."""
    command = [str(CONSOLE_SCRIPT), *(argument.format(video=face_video) for argument in arguments)]
    measure = (
        "import resource, subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        "run = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "seconds = time.perf_counter() - started\n"
        "memory = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(run.returncode, seconds, memory.ru_maxrss, memory.ru_utime + memory.ru_stime)\n"
        "print(run.stdout + run.stderr)"
    )
    measured = [sys.executable, "-I", "-c", measure, *command]
    numbers, _, output = subprocess.check_output(measured, text=True).partition("\n")
    returned, _, kilobytes, computing = map(float, numbers.split())
    assert returned == code and said in output and "Traceback" not in output
    assert kilobytes < 100_000 and computing < 0.5


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


def test_what_nobody_thought_of_is_one_line_too(monkeypatch, capsys):
    """And `--debug` shows where it happened, of other errors as well."""

    def fail(*arguments, **settings):
        raise KeyError("no such\nfield")

    monkeypatch.setattr("s2d_hf.demo.launch_demo", fail)
    assert main(["demo", "--model", "dfew-set1"]) == 1
    line = "s2d-hf: error: unexpected KeyError: 'no such\\nfield' (--debug shows where)\n"
    assert capsys.readouterr().err == line
    assert main(["demo", "--model", "dfew-set1", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and 'raise KeyError("no such' in shown and shown.endswith(line)
    assert main(["convert", "nowhere.pth", "out", "--debug"]) == 1
    assert "in _convert" in capsys.readouterr().err


def test_archive_of_real_videos_equals_one_by_one(converted, yunet_weights, tmp_path, capsys):
    """The whole way from the command to the tables; tests/archive has what can go wrong on it."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, start in (("a.mp4", 200), ("b.mp4", 320)):
        write_video(folder / name, [draw_faces([PlacedFace((start + 2 * i, 180), 120)]) for i in range(25)])
    write_video(folder / "empty.mp4", [draw_faces([])] * 20)
    options = ["--model", str(converted), "--face-detector", "yunet", "--face-detector-weights", str(yunet_weights)]
    options += ["--device", "cpu", "--window-stride", "2", "--quiet"]
    arguments = ["archive", str(folder), str(tmp_path / "results"), *options]
    assert main(arguments) == 0
    counts = {"num_videos": 3, "num_done": 3, "num_without_face": 1, "num_failed": 0}
    assert json.loads(capsys.readouterr().out) == counts
    for name in ("a.mp4", "b.mp4"):
        assert main(["predict", str(folder / name), "--timeline", str(tmp_path / f"{name}.csv"), *options]) == 0
    capsys.readouterr()
    table = read_archive(tmp_path / "results")
    for name in ("a.mp4", "b.mp4"):
        alone = pd.read_csv(tmp_path / f"{name}.csv").drop(columns="video")
        rows = table[table["video"] == name].drop(columns="video").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone, check_dtype=False, rtol=1e-4)
    # a broken video is told, and nothing is done twice
    (folder / "broken.mp4").write_text("no video")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == counts | {"num_videos": 4, "num_failed": 1}
    assert "s2d-hf: 1 video failed; " in captured.err
    assert "broken.mp4 could not be opened" in (tmp_path / "results" / "failures.csv").read_text()


def test_demo_starts_with_the_settings(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(
        "s2d_hf.demo.launch_demo", lambda *arguments, **settings: started.append((arguments, settings))
    )
    options = ["--port", "7999", "--device", "cpu", "--fps", "4", "--face-detector", "yunet"]
    options += ["--max-upload", "5", "--max-wait", "30", "--allowed-host", "a.example", "--allowed-host", "b.example"]
    assert main(["demo", "--model", "dfew-set1", *options]) == 0
    ((arguments, settings),) = started
    limits = PageLimits(max_upload=5, max_wait=30)
    assert arguments == ("dfew-set1", "127.0.0.1", 7999, False, limits, ["a.example", "b.example"])
    assert settings == {"device": "cpu", "fps": 4.0, "face_detector": "yunet", "detect_every": 2}


def test_console_script():
    for command, expected in (
        ([], "convert"),
        (["convert"], "--landmark-weights FILE"),
        (["predict"], "hf://OWNER/REPOSITORY/FILE"),
    ):
        run = subprocess.run([CONSOLE_SCRIPT, *command, "--help"], capture_output=True, text=True, check=True)
        assert expected in run.stdout
    run = subprocess.run([CONSOLE_SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["s2d-hf", __version__]
    assert subprocess.run([CONSOLE_SCRIPT], capture_output=True, check=False).returncode == 2


@pytest.mark.skipif(os.name != "posix", reason="of POSIX shells")
@pytest.mark.parametrize(("closed", "expected"), [(">&-", b"no video"), ("<&- 2>&-", b"")])
def test_closed_streams_are_not_replaced_by_others(tmp_path, closed, expected):
    command = f"{shlex.quote(sys.executable)} -m s2d_hf.cli predict nowhere.mp4 --debug {closed}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert expected in done.stderr and bool(expected) == bool(done.stderr)


@pytest.mark.parametrize("name", ["https://a.b/c", "a.b/c", "a.b:80", "", "a b"])
def test_hosts_are_names(name, capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--allowed-host", name])
    assert "is no name of a host" in capsys.readouterr().err
