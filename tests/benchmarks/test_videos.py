"""Whole videos and archives on tiny models: what is shown, what is found, and what is said of the time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import s2d_hf
from benchmarks import archive, speed
from benchmarks.commit_timeline import CommitTimeline
from benchmarks.commits import ROOT
from benchmarks.detectors import choose_detector, width_of, write_video
from benchmarks.made_video import real_face, write_face_video
from benchmarks.processors import measure_processors
from benchmarks.settings import Settings
from benchmarks.timeline import largest_difference, measure_timeline, write_model
from benchmarks.timeline_runner import TimelineRunner
from s2d_hf.face_detection_s2d import FaceDetector

WITH_DETECTOR = ("--detector", "yunet", "--detector-weights")
QUICK = Settings(size_name="tiny", rounds=1, heights=(120,), faces=(1,), seconds=1.0, videos=2)


@pytest.mark.parametrize(("height", "faces"), [(120, 1), (240, 2), (360, 6)])
def test_a_detector_finds_the_faces_where_they_are_said_to_be(tmp_path, yunet_weights, height, faces):
    width = width_of(height)
    boxes = write_face_video(tmp_path / "a.mp4", width, height, 3.0, faces, real_face())
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 75 and frames[0].shape == (height, width, 3)
    expected = np.array([[(x1 + x2) / 2, (y1 + y2) / 2] for x1, y1, x2, y2 in boxes])
    side = boxes[0][2] - boxes[0][0]
    middles = []
    for found in FaceDetector("yunet", yunet_weights)(frames[::8]):
        assert len(found) == faces
        found = found[np.argsort(found[:, 0])]
        middles.append((found[:, :2] + found[:, 2:4]) / 2)
        assert np.abs(middles[-1] - expected).max() < 0.3 * side
        assert np.abs((found[:, 2:4] - found[:, :2]).max(axis=1) / side - 1).max() < 0.35
    # they move, across and up and down
    assert np.ptp(middles, axis=0).min() > 0.05 * side


def test_timeline_with_a_detector(tmp_path, yunet_weights):
    arguments = ["--quick", "--rounds", "2", "--parts", "timeline", *WITH_DETECTOR, str(yunet_weights)]
    folder = speed.main([*arguments, "--faces", "2", "1", "--output", str(tmp_path)])
    results = json.loads((folder / "results.json").read_text())["timeline"]
    assert (results["detector"], results["stand_in"], results["seconds"]) == ("yunet", None, 1)
    assert [(video["faces"], video["height"], video["width"]) for video in results["videos"]] == [
        (2, 120, 214),
        (1, 120, 214),
    ]
    for video in results["videos"]:
        plain = {"float32", "bfloat16"}
        assert {*video["candidates"]} == plain | {f"{name}, fast path" for name in (*plain, "int8")}
        for facts in video["candidates"].values():
            # 8 frames of the tiny model's 4, every 2 of them
            assert (facts["tracks"], facts["windows"]) == (video["faces"], 3 * video["faces"])
            for factor, seconds in zip(facts["real_time_factor"]["values"], facts["seconds"]["values"], strict=True):
                assert factor * seconds == pytest.approx(1)
            assert facts["shares"].keys() == facts["stages"].keys() and "total" not in facts["shares"]
            # the whole analysis lies within what was timed from outside
            for stage, share in facts["shares"].items():
                spent = facts["stages"][stage]
                assert max(spent["values"]) <= max(facts["seconds"]["values"])
                assert all(0 <= value <= 1 for value in share["values"])
        assert "compared_with" not in video["candidates"]["float32"]
        differences = [video["candidates"][name]["largest_difference"] for name in ("bfloat16", "int8, fast path")]
        assert min(differences) > 0 and max(differences) < 0.1
    text = (folder / "results.md").read_text()
    assert "### 214x120, faces: 2" in text and "Faces are found by yunet." in text and "**" not in text


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("skimage.data", "scikit-image is missing"), ("face_alignment.detection.yunet", "needs face-alignment")],
)
def test_known_boxes_stand_in(tmp_path, yunet_weights, monkeypatch, missing, reason):
    monkeypatch.setitem(sys.modules, missing, None)
    settings = Settings(**(vars(QUICK) | {"faces": (2,), "detector": "yunet", "detector_weights": str(yunet_weights)}))
    (results,) = list(measure_timeline(settings))
    assert results["detector"] is None and reason in results["stand_in"]
    assert results["videos"][0]["candidates"]["float32"]["tracks"] == 2


def test_nothing_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "--detector-weights" in choose_detector(QUICK).stand_in
    (tmp_path / "other.onnx").write_bytes(b"no network")
    settings = Settings(**(vars(QUICK) | {"detector": "yunet", "detector_weights": str(tmp_path / "other.onnx")}))
    with pytest.raises(ValueError, match=r"other\.onnx does not hold the weights"):
        choose_detector(settings)


def test_fast_path_that_is_turned_off(monkeypatch):
    monkeypatch.setenv("S2D_FAST_CPU", "0")
    (results,) = list(measure_timeline(QUICK))
    assert {*results["videos"][0]["candidates"]} == {"float32", "bfloat16"}
    assert {*results["unavailable"]} == {f"{name}, fast path" for name in ("float32", "bfloat16", "int8")}


def test_largest_difference():
    run = {"windows": [[0.5, 0.2, 0.8], [1.5, 0.6, 0.4]]}
    other = {"windows": [[0.5, 0.2, 0.8], [1.5, 0.5, 0.5]]}
    assert largest_difference(run, run) == 0 and largest_difference(run, other) == pytest.approx(0.1)
    assert largest_difference(run, {"windows": other["windows"][:1]}) is None
    assert largest_difference(run, {"windows": [[0.5, 0.2, 0.8], [1.6, 0.6, 0.4]]}) is None
    # of two faces, and of one
    assert largest_difference({"windows": [[0.5, 0.2, 0.8], [0.5, 0.6, 0.4]]}, {"windows": [[0.5, 0.2, 0.8]]}) is None
    assert largest_difference({"windows": []}, {"windows": []}) is None


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with a copy of the package, in which all logits are halved."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "clone"
    shutil.copytree(Path(s2d_hf.__file__).parent, root / "s2d_hf", ignore=shutil.ignore_patterns("__pycache__"))
    modeling = root / "s2d_hf" / "modeling_s2d.py"
    line = "self.classifier(self.dropout(outputs.pooler_output))"
    assert line in modeling.read_text()
    modeling.write_text(modeling.read_text().replace(line, f"0.5 * {line}"))
    _git(root, "init", "-q")
    _commit(root)
    return root


def _commit(root: Path) -> None:
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", "a change")


def _git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, check=True)


def test_a_commit_runs_its_own_package(tmp_path, repository):
    """Half the logits are the square roots of the probabilities, but for their sum."""
    # in an image model, the timeline itself goes from features to logits
    model = write_model(Settings(**(vars(QUICK) | {"kind": "video"})), tmp_path / "model")
    boxes = write_video(tmp_path / "a.mp4", 120, 1.0, 1, choose_detector(QUICK))
    if boxes is None:
        pytest.skip("retinaface's weights are here")
    ours = TimelineRunner(str(model), "cpu")(str(tmp_path / "a.mp4"), boxes=boxes)
    commit = CommitTimeline("HEAD", repository, folder=str(model), device="cpu")
    try:
        theirs = commit(video=str(tmp_path / "a.mp4"), boxes=boxes)
        with pytest.raises(RuntimeError, match=r"commit HEAD: FileNotFoundError.*no-such\.mp4"):
            commit(video=str(tmp_path / "no-such.mp4"), boxes=boxes)
        assert commit(video=str(tmp_path / "a.mp4"), boxes=boxes)["windows"] == theirs["windows"]
    finally:
        commit.close()
    ours_scores, theirs_scores = (np.array(run["windows"])[:, 1:] for run in (ours, theirs))
    roots = np.sqrt(ours_scores)
    np.testing.assert_allclose(theirs_scores, roots / roots.sum(axis=1, keepdims=True), rtol=0, atol=1e-6)
    assert np.abs(ours_scores - theirs_scores).max() > 1e-3  # so that the tolerance says something
    assert theirs["timings"].keys() == ours["timings"].keys()
    assert not Path(commit._folder.name).exists()


def test_a_commit_that_cannot_be_run(tmp_path, repository):
    (repository / "s2d_hf" / "__init__.py").write_text("raise ImportError('an older world')\n")
    _commit(repository)
    with pytest.raises(RuntimeError, match="commit HEAD: its process ended with exit code 1"):
        CommitTimeline("HEAD", repository, folder=str(tmp_path), device="cpu")


def test_timeline_against_a_commit(tmp_path, head):
    arguments = ["--quick", "--rounds", "1", "--parts", "timeline", "--faces", "1", "--against", "HEAD"]
    folder = speed.main([*arguments, "--output", str(tmp_path)])
    (video,) = json.loads((folder / "results.json").read_text())["timeline"]["videos"]
    for precision in ("float32", "bfloat16"):
        ours = video["candidates"][precision]
        name = f"commit {head}" + ("" if precision == "float32" else ", bfloat16")
        assert (ours["compared_with"], ours["largest_difference"]) == (name, 0)
        times = [video["candidates"][each]["seconds"]["values"][0] for each in (name, precision)]
        assert ours["times_as_fast"]["median"] == pytest.approx(times[0] / times[1])


def test_where_the_time_of_a_job_went():
    log = [
        {"loaded": 14.0},
        {"begin": 15.0, "end": 18.0, "timings": {"decoding": 1.0, "model": 2.5, "total": 3.0}},
        {"begin": 18.5, "end": 20.5, "timings": {"decoding": 0.5, "model": 1.5, "total": 2.0}},
    ]
    assert archive.divide_job(10.0, 22.0, log) == {
        "job": 12.0,
        "start-up": 4.0,
        "analysis": 5.0,
        "analysis, decoding": 1.5,
        "analysis, model": 4.0,
        "writing": 3.0,
    }


def test_archive(monkeypatch):
    """In this process, as the start of another one takes long."""
    monkeypatch.setattr(archive, "STALL_LIMIT", None)
    results = archive.measure_archive(QUICK)
    assert (results["videos"], results["seconds"], results["height"], results["without_face"]) == (2, 1, 120, 0)
    times = {part: summary["values"][0] for part, summary in results["times"].items()}
    assert times["job"] == pytest.approx(times["start-up"] + times["analysis"] + times["writing"])
    assert all(value >= 0 for value in times.values())
    assert times["analysis, model"] < times["analysis"] < times["job"]


@pytest.mark.slow
def test_archive_with_its_process(tmp_path):
    arguments = ["--quick", "--rounds", "1", "--parts", "archive", "--videos", "3", "--output", str(tmp_path)]
    results = json.loads((speed.main(arguments) / "results.json").read_text())["archive"]
    assert results["videos"] == 3
    assert results["times"]["start-up"]["median"] > 1  # torch and transformers are imported anew
    assert "Hours of video an hour: " in (tmp_path / "results.md").read_text()


def test_an_archive_that_fails(monkeypatch):
    monkeypatch.setattr(archive, "STALL_LIMIT", None)
    monkeypatch.setattr(archive.shutil, "copy", lambda source, target: target.write_bytes(b"no video"))
    with pytest.raises(RuntimeError, match=r"the job failed with videos: .*0\.mp4.*; .*1\.mp4"):
        archive.measure_archive(QUICK)


def test_decoding_without_decord(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    results = measure_processors(QUICK)
    assert {*results["unavailable"]} == {"decoding, decord"}
    assert "needs decord" in results["unavailable"]["decoding, decord"]
    assert all("pipeline, all" in stages for stages in results["videos"].values())


# Python as it is where these are not installed
_MISSING = """
import sys
from importlib.machinery import PathFinder
missing = {"accelerate", "cv2", "decord", "face_alignment", "matplotlib", "pandas", "scipy", "skimage"}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: None if name in missing else find(name, path, target)
from benchmarks.speed import main
main(sys.argv[1:])
"""


def test_a_machine_that_has_little(tmp_path):
    arguments = ["--quick", "--rounds", "1", "--no-memory", "--modes", "float32", "float32-device-map"]
    arguments += ["--parts", "forward", "processors", "scaling", "timeline", "archive", "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-c", _MISSING, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == 1 and "Not measured, see above: timeline, archive." in run.stderr, run.stderr
    assert "Nothing was drawn: No module named 'matplotlib'" in run.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert {*results["not_measured"]} == {"timeline", "archive"}
    assert results["not_measured"]["timeline"] == "ModuleNotFoundError: No module named 'cv2'"
    assert "float32" in results["forward"]["runs"][0]["candidates"]
    assert "accelerate" in results["forward"]["unavailable"]["float32-device-map"]
    assert len(results["processors"]["videos"]) == 2 and "decoding, decord" in results["processors"]["unavailable"]
    assert results["scaling"]["timeline"] == {"not_measured": "No module named 'cv2'"}
    assert "The timeline was not measured: No module named 'cv2'." in (tmp_path / "results.md").read_text()
