"""`s2d-hf predict`: what it prints, writes and returns."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.data
from PIL import Image

from s2d_hf.cli import main
from s2d_hf.timeline import VideoTimeline
from s2d_hf.timeline.streaming import open_stream

from ..face_videos import PlacedFace, draw_faces
from ..videos import write_video


@pytest.fixture(scope="module")
def face_clip(tmp_path_factory) -> Path:
    frames = [draw_faces([PlacedFace((300 + i, 170), 130)]) for i in range(30)]
    return write_video(tmp_path_factory.mktemp("clips") / "face.mp4", frames)


@pytest.fixture(scope="module")
def empty_clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "empty.mp4", [skimage.data.coffee()[:300, :500]] * 20)


@pytest.fixture
def predict(converted, yunet_weights, capsys):
    options = ["--model", converted, "--face-detector", "yunet", "--face-detector-weights", yunet_weights]
    options += ["--device", "cpu"]

    def run(*arguments) -> tuple[int, list[dict], str]:
        code = main([str(item) for item in ("predict", *options, *arguments)])
        output = capsys.readouterr()
        return code, [json.loads(line) for line in output.out.splitlines()], output.err

    return run


def test_video_with_everything(predict, face_clip, tmp_path):
    code, lines, errors = predict(
        face_clip, "--timeline", tmp_path / "t.csv", "--plot", tmp_path / "p.png", "--annotate", tmp_path / "a.mp4",
        "--window-stride", 3, "--timings",
    )  # fmt: skip
    assert code == 0
    assert "s of video" in errors and "model " in errors  # the progress bar and the shares of time
    *scores, video = lines
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(scores) == len(table) >= 2
    labels = list(scores[0]["scores"])
    for line, (_, row) in zip(scores, table.iterrows(), strict=True):
        assert line["event"] == "scores" and line["video"] == str(face_clip) and line["track"] == row["track"] == 1
        assert line["start"] == pytest.approx(row["start"]) and line["end"] == pytest.approx(row["end"])
        assert list(line["scores"].values()) == pytest.approx(row[labels].tolist(), abs=1e-4)
        assert line["label"] == max(line["scores"], key=line["scores"].get) == row["label"]
    assert video["event"] == "video" and video["duration"] == 1.2 and video["cuts"] == []
    assert video["damage"] == ""
    (track,) = video["tracks"]
    assert track["segments"][0]["start"] == track["start"] == 0 and track["segments"][-1]["end"] == track["end"]
    assert list(track["scores"].values()) == pytest.approx(table[labels].mean().tolist(), abs=1e-4)
    assert np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).std() > 10
    with open_stream(tmp_path / "a.mp4") as stream:
        assert len(list(stream.frames())) == 30


def test_json_timeline_and_quiet(predict, face_clip, tmp_path):
    code, lines, errors = predict(face_clip, "--timeline", tmp_path / "t.json", "--quiet")
    assert code == 0 and errors == ""
    timeline = VideoTimeline.from_json(tmp_path / "t.json")
    assert len(timeline.tracks) == 1 and timeline.tracks[0].end == lines[-1]["tracks"][0]["end"]


def test_no_face(predict, empty_clip):
    code, lines, errors = predict(empty_clip)
    assert code == 3
    assert [line["event"] for line in lines] == ["video"] and lines[0]["tracks"] == []
    assert f"no face was found in {empty_clip}" in errors


def test_folder(predict, face_clip, empty_clip, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(face_clip, videos / "10.mp4")
    shutil.copy(empty_clip, videos / "9.MP4")
    (videos / "notes.txt").write_text("no video")
    (videos / "._10.mp4").write_bytes(b"what macOS leaves beside each file on other disks")
    (videos / ".hidden.mp4").write_bytes(b"")
    (videos / "more").mkdir()
    code, lines, errors = predict(videos, "--timeline", tmp_path / "t.csv")
    assert code == 0
    assert f"passed over in {videos}: " in errors
    for said in ("._10.mp4 (hidden)", ".hidden.mp4 (hidden)", "notes.txt (not a video file)", "more (a folder)"):
        assert said in errors
    ended = [line for line in lines if line["event"] == "video"]
    assert [Path(line["video"]).name for line in ended] == ["9.MP4", "10.mp4"]
    assert len(pd.read_csv(tmp_path / "t-10.mp4.csv")) > 0 and len(pd.read_csv(tmp_path / "t-9.MP4.csv")) == 0
    # and one table of all
    combined = pd.read_csv(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(combined, pd.read_csv(tmp_path / "t-10.mp4.csv"))
    assert all(str(tmp_path / name) in errors for name in ("t.csv", "t-9.MP4.csv", "t-10.mp4.csv"))
    code, _, _ = predict(videos, "--timeline", tmp_path / "t.json")
    combined = json.loads((tmp_path / "t.json").read_text())
    single = [json.loads((tmp_path / f"t-{name}.json").read_text()) for name in ("9.MP4", "10.mp4")]
    assert combined == single
    # a broken one is named, the others are still analysed
    (videos / "1.mkv").write_bytes(b"broken")
    code, lines, errors = predict(videos, "--quiet")
    assert code == 1 and len([line for line in lines if line["event"] == "video"]) == 2
    (failed,) = [line for line in lines if line["event"] == "error"]
    assert failed["video"] == str(videos / "1.mkv") and "could not be opened" in failed["error"]
    assert errors.count("1.mkv could not be opened") == 1 and "1 video of 3 failed." in errors


def test_mistakes_are_told_before_the_work(predict, face_clip, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.mp4", "x-a.mp4.mp4"):  # the second as an earlier run may have written it
        shutil.copy(face_clip, tmp_path / "two" / name)
    for arguments, message in [
        ((tmp_path / "missing.mp4",), "There is no video or folder"),
        ((tmp_path / "none",), "holds no videos"),
        ((face_clip, "--timeline", tmp_path / "t.xlsx"), "must end in .csv or .json"),
        ((face_clip, "--plot", tmp_path / "p.mp4"), "must end in .png or .pdf or .svg"),
        ((face_clip, "--annotate", tmp_path / "missing" / "a.mp4"), "there is no folder"),
        ((face_clip, "--annotate", face_clip), "one of the videos"),
        ((tmp_path / "two", "--annotate", tmp_path / "two" / "x.mp4"), "x-a.mp4.mp4, one of the videos"),
        ((tmp_path / "two", "--annotate", tmp_path / "two" / "a.mp4"), "a.mp4, one of the videos"),
        ((face_clip, "--timeline", tmp_path / "folder.csv"), "folder.csv is a folder"),
        ((face_clip, "--fps", "nan"), "--fps must be positive"),
        ((face_clip, "--fps", "inf"), "--fps must be positive"),
        ((face_clip, "--detect-every", "0"), "--detect-every must be at least 1"),
        ((face_clip, "--model", ""), "--model is empty"),
        (("7", "--annotate", tmp_path / "a.mp4"), "a camera's frames are not kept"),
        (("97",), "no camera 97"),
        ((face_clip, "--fps", "0"), "--fps must be positive"),
    ]:
        code, lines, errors = predict(*arguments, "--quiet")
        assert code == 1 and message in errors
        assert all(line["event"] == "error" for line in lines)


def test_model_comes_from_the_environment(face_clip, converted, retinaface_weights, capsys, monkeypatch):
    arguments = ["predict", str(face_clip), "--face-detector-weights", str(retinaface_weights)]
    arguments += ["--quiet", "--dtype", "bfloat16"]
    monkeypatch.setenv("S2D_HF_MODEL", "./nowhere")
    assert main(arguments) == 1
    assert "S2D_HF_MODEL: there is no file or folder ./nowhere" in capsys.readouterr().err
    monkeypatch.setenv("S2D_HF_MODEL", str(converted))
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tracks"]


class Terminal:
    """What a command prints to a terminal, as a person sees it: stdout is one, and stderr a file."""

    def __init__(self, command: list[str], **environment: str):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.PIPE, env=os.environ | environment, text=True
        ) as process:
            os.close(theirs)
            printed = b""
            try:
                while block := os.read(ours, 4096):
                    printed += block
            except OSError:  # how Linux says that it is closed
                pass
            self.errors = process.stderr.read()
        os.close(ours)
        self.code = process.returncode
        self.text = printed.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def command(converted, yunet_weights) -> list[str]:
    options = ["--model", converted, "--face-detector", "yunet", "--face-detector-weights", yunet_weights]
    options += ["--device", "cpu"]
    return [sys.executable, "-m", "s2d_hf.cli", "predict", *map(str, options)]


def test_in_a_terminal_there_is_a_table_for_each_face(command, face_clip, tmp_path):
    """It says what the JSON says; errors are told once."""
    shutil.copy(face_clip, tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"broken")
    seen = Terminal([*command, str(tmp_path), "--timeline", str(tmp_path / "t.json")])
    assert seen.code == 1
    (track,) = VideoTimeline.from_json(tmp_path / "t-a.mp4.json").tracks
    title, blank, face, heads, *rows = seen.text.strip().splitlines()
    assert title == f"{tmp_path / 'a.mp4'}: 0:01.2, 1 face" and face == "face 1" and blank == ""
    assert heads.split() == ["from", "to", "expression", "confidence"]
    assert len(rows) == len(track.segments) >= 1
    for row, segment in zip(rows, track.segments, strict=True):
        start, end, label, score = row.split()
        assert label == segment.label and score == f"{segment.score:.0%}"
        for text, seconds in ((start, segment.start), (end, segment.end)):
            minutes, rest = text.split(":")
            assert 60 * int(minutes) + float(rest) == pytest.approx(seconds, abs=0.051)
    assert seen.errors.count("b.mp4 could not be opened") == 1 and "b.mp4" not in seen.text
    assert "wrote" in seen.errors and "t-a.mp4.json" in seen.errors
    as_json = Terminal([*command, str(tmp_path / "a.mp4"), "--json", "--quiet"])
    assert all(json.loads(line)["event"] for line in as_json.text.splitlines()) and as_json.errors == ""


@pytest.mark.parametrize("files", [False, True])
def test_head_ends_it_without_an_error(command, face_clip, tmp_path, files):
    """And files that were asked for are written all the same."""
    options = f"--timeline {tmp_path / 't.csv'}" if files else ""
    line = f"{' '.join(command)} {face_clip} --window-stride 1 --quiet {options} | head -n 1; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stderr == ""
    assert json.loads(run.stdout)["event"] == "scores"
    assert (tmp_path / "t.csv").exists() == files
    if files:
        assert len(pd.read_csv(tmp_path / "t.csv")) > 5


def test_names_in_any_script_and_outputs_of_any_encoding(command, face_clip, tmp_path):
    """A name that is no UTF-8, as archives and old disks have them, beside one in Japanese and Arabic."""
    folder = tmp_path / "vidéos"
    folder.mkdir()
    names = ["会議 اجتماع 😀.mp4".encode(), b"caf\xe9.mp4", b"broken \xff.mkv"]
    for name in names[:2]:
        shutil.copy(os.fsencode(face_clip), os.path.join(os.fsencode(folder), name))
    Path(os.fsdecode(os.path.join(os.fsencode(folder), names[2]))).write_bytes(b"broken")
    outputs = ["--timeline", str(tmp_path / "t.csv"), "--plot", str(tmp_path / "p.png")]
    for encoding in ("ascii", "cp1252"):
        run = subprocess.run(
            [*command, str(folder), "--fps", "4", *(outputs if encoding == "ascii" else [])],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        errors = run.stderr.decode("latin-1")
        assert run.returncode == 1 and "Traceback" not in errors, errors
        lines = [json.loads(line) for line in run.stdout.decode(encoding).splitlines()]
        ended = [os.fsencode(Path(line["video"]).name) for line in lines if line["event"] != "scores"]
        assert sorted(ended) == sorted(names)
        assert "could not be opened" in errors and "1 video of 3 failed" in errors
    assert len(pd.read_csv(tmp_path / "t.csv")) >= 2 and len(list(tmp_path.glob("p-*.png"))) == 2
    seen = Terminal([*command, str(folder)], PYTHONIOENCODING="ascii")
    assert seen.code == 1 and seen.text.count("face 1\n") == 2


def test_a_camera_that_is_not_there_is_one_line(command):
    run = subprocess.run([*command, "97", "--quiet"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert re.fullmatch(r"s2d-hf: error: There is no camera 97.*\n", run.stderr)


def test_the_home_folder(command, face_clip, converted, tmp_path):
    shutil.copy(face_clip, tmp_path / "face.mp4")
    shutil.copytree(converted, tmp_path / "model")
    options = ["--model=~/model", "--timeline=~/t.csv", "--quiet"]
    run = subprocess.run(
        [*command, "~/face.mp4", *options], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "t.csv").is_file()


def test_a_decoder_that_fails_loses_no_other_video(predict, face_clip, shared, tmp_path):
    """Some errors of FFmpeg are LookupErrors and MemoryErrors."""
    shutil.copy(shared / "cases" / "hostile" / "fast_mp4__trunc02.mp4", tmp_path / "1.mp4")
    shutil.copy(face_clip, tmp_path / "2.mp4")
    code, lines, errors = predict(tmp_path, "--quiet", "--timeline", tmp_path / "t.csv")
    assert code == 1 and [line["event"] for line in lines if line["event"] != "scores"] == ["error", "video"]
    assert errors.count("1.mp4") == 1 and "Traceback" not in errors
    assert len(pd.read_csv(tmp_path / "t.csv")) >= 1


def test_names_do_not_move_the_terminal(command, face_clip, tmp_path):
    shutil.copy(face_clip, tmp_path / "\x1b[31mred\x07.mp4")
    (tmp_path / "\x1b[2J.txt").touch()
    seen = Terminal([*command, str(tmp_path)])
    assert seen.code == 0 and r"\x1b[31mred\x07.mp4" in seen.text and "\x1b[31m" not in seen.text
    assert r"\x1b[2J.txt" in seen.errors and "\x1b[2J" not in seen.errors
