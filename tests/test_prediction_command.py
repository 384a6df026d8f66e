"""`s2d-hf predict`: what it prints, writes and returns."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.data
from PIL import Image

from s2d_hf.cli import main
from s2d_hf.timeline import VideoTimeline
from s2d_hf.timeline.streaming import open_stream

from .face_videos import PlacedFace, draw_faces
from .videos import write_video


@pytest.fixture(scope="module")
def face_clip(tmp_path_factory) -> Path:
    frames = [draw_faces([PlacedFace((300 + i, 170), 130)]) for i in range(30)]
    return write_video(tmp_path_factory.mktemp("clips") / "face.mp4", frames)


@pytest.fixture(scope="module")
def empty_clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "empty.mp4", [skimage.data.coffee()[:300, :500]] * 20)


@pytest.fixture
def predict(converted, shared, capsys):
    weights = shared / "weights" / "face_detection_yunet_2026may.onnx"
    options = ["--model", converted, "--face-detector", "yunet", "--face-detector-weights", weights, "--device", "cpu"]

    def run(*arguments) -> tuple[int, list[dict], str]:
        code = main([str(item) for item in ("predict", *arguments, *options)])
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
    (track,) = video["tracks"]
    assert track["segments"][0]["start"] == track["start"] == 0 and track["segments"][-1]["end"] == track["end"]
    assert list(track["scores"].values()) == pytest.approx(table[labels].mean().tolist(), abs=1e-4)
    assert np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).std() > 10
    with open_stream(tmp_path / "a.mp4") as stream:
        assert len(list(stream.frames())) == 30


def test_json_timeline_and_quiet(predict, face_clip, tmp_path):
    code, lines, errors = predict(face_clip, "--timeline", tmp_path / "t.json", "--quiet")
    assert code == 0 and "s of video" not in errors
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
    code, lines, _ = predict(videos, "--timeline", tmp_path / "t.csv")
    assert code == 0
    ended = [line for line in lines if line["event"] == "video"]
    assert [Path(line["video"]).name for line in ended] == ["9.MP4", "10.mp4"]
    assert len(pd.read_csv(tmp_path / "t-10.mp4.csv")) > 0 and len(pd.read_csv(tmp_path / "t-9.MP4.csv")) == 0
    # a broken one is named, the others are still analysed
    (videos / "1.mkv").write_bytes(b"broken")
    code, lines, errors = predict(videos, "--quiet")
    assert code == 1 and len([line for line in lines if line["event"] == "video"]) == 2
    (failed,) = [line for line in lines if line["event"] == "error"]
    assert failed["video"] == str(videos / "1.mkv") and "could not be opened" in failed["error"]
    assert "1.mkv could not be opened" in errors


def test_mistakes_are_told_before_the_work(predict, face_clip, tmp_path):
    (tmp_path / "none").mkdir()
    for arguments, message in [
        ((tmp_path / "missing.mp4",), "There is no video or folder"),
        ((tmp_path / "none",), "holds no videos"),
        ((face_clip, "--timeline", tmp_path / "t.xlsx"), "must end in .csv or .json"),
        ((face_clip, "--plot", tmp_path / "p.mp4"), "must end in .png or .pdf or .svg"),
        ((face_clip, "--annotate", tmp_path / "missing" / "a.mp4"), "there is no folder"),
        ((face_clip, "--annotate", face_clip), "would overwrite the video itself"),
        (("7", "--annotate", tmp_path / "a.mp4"), "a camera's frames are not kept"),
        (("97",), "no camera 97"),
        ((face_clip, "--fps", "0"), "`fps` must be positive"),
    ]:
        code, lines, errors = predict(*arguments, "--quiet")
        assert code == 1 and message in errors
        assert all(line["event"] == "error" for line in lines)


def test_model_comes_from_the_environment(face_clip, converted, shared, capsys, monkeypatch):
    weights = str(shared / "weights" / "retinaface_mobilenet0.25.pth")
    arguments = ["predict", str(face_clip), "--face-detector-weights", weights, "--quiet", "--dtype", "bfloat16"]
    monkeypatch.delenv("S2D_HF_MODEL", raising=False)
    assert main(arguments) == 1
    assert "name a model: --model" in capsys.readouterr().err
    monkeypatch.setenv("S2D_HF_MODEL", str(converted))
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tracks"]
