"""From what a user names to a model that loads: files, addresses, downloads, and what is said when they fail."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForVideoClassification

from s2d_hf import S2DForVideoClassification, S2DTimeline
from s2d_hf.downloads import LANDMARK_ADDRESS, LANDMARK_BLOB, parse_hub_address
from s2d_hf.labels import LABELS
from s2d_hf.model_sources import DEFAULT_MODEL, find_model

from .file_server import FileServer
from .hub_server import HubServer
from .warm_python import WarmPython

CARD = "---\nlicense: apache-2.0\n---\n# S2D\n"
LANDMARK_PATH = "/landmark/mobilefacenet_model_best.pth.tar"


@pytest.fixture
def checkpoint(shared) -> Path:
    return shared / "golden" / "split01_checkpoint-best.pth"


class Elsewhere:
    """The Hub and the code host of the authors, as far as they are needed, and a machine with empty caches."""

    def __init__(self, hub: HubServer, files: FileServer, home: Path, python: WarmPython):
        self.hub, self.files, self.home, self.python = hub, files, home, python
        self.blob = ""

    def run(self, *commands: Sequence[object], blob: str | None = None, **environment: str) -> list[SimpleNamespace]:
        """What `returncode`, `stdout` and `stderr` each command ends with; all in one process."""
        arguments = json.dumps([[str(argument) for argument in command] for command in commands])
        address = f"{self.files.url}{LANDMARK_PATH}"
        variables = self.hub.environment(self.home) | {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(self.home / "torch")}
        command = ["-m", "tests.run_command", address, blob or self.blob, arguments]
        run = self.python.run(*command, env=variables | environment)
        assert run.returncode == 0, run.stderr
        return [SimpleNamespace(**result) for result in json.loads(run.stdout.splitlines()[-1])]

    def downloads(self) -> list[str]:
        """What went over the line since the last call: whole or partial contents, not questions about them."""
        found = [request for request in self.hub.requests if request.startswith("GET /storage/")] + self.files.requests
        self.hub.requests.clear()
        self.files.requests.clear()
        return found


@pytest.fixture
def elsewhere(hub, checkpoint, landmark_state, warm_python, tmp_path) -> Iterator[Elsewhere]:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "README.md").write_text(CARD)
    shutil.copy(checkpoint, repository / "pretrain-AffectNet-7.pth")
    (repository / "DFEW").mkdir()
    shutil.copy(checkpoint, repository / "DFEW" / "set1.pth")
    hub.add_model("cyinen/S2D", repository)
    # in the form of its time
    state = {f"module.{name}": tensor.float() for name, tensor in landmark_state.items()}
    file = tmp_path / "landmarks.pth.tar"
    torch.save({"epoch": 80, "state_dict": state}, file, _use_new_zipfile_serialization=False)
    with FileServer() as files:
        files.content[LANDMARK_PATH] = file.read_bytes()
        place = Elsewhere(hub, files, tmp_path / "home", warm_python)
        # Git itself says what its id is
        place.blob = subprocess.run(
            ["git", "hash-object", file], capture_output=True, text=True, check=True
        ).stdout.strip()
        yield place


@pytest.fixture
def predict(face_video, yunet_weights) -> list[object]:
    """`s2d-hf predict` without a model, but with the face detector's weights."""
    options = ["--face-detector", "yunet", "--face-detector-weights", yunet_weights, "--device", "cpu"]
    return ["predict", face_video, *options, "--detect-every", 8, "--fps", 4]


def scores(run: SimpleNamespace) -> dict[str, float]:
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])["tracks"][0]["scores"]


def test_first_answer_downloads_and_converts_and_the_second_does_not(predict, elsewhere):
    (first,) = elsewhere.run(predict)
    assert tuple(scores(first)) == LABELS["AffectNet-7"]
    assert len(elsewhere.downloads()) == 2
    for said in (
        "Downloading hf://cyinen/S2D/pretrain-AffectNet-7.pth, 1 MB", "apache-2.0", "for research only",
        "no decisions about people", "labels are those of AffectNet-7", str(elsewhere.home),
        f"Downloading the authors' landmark detector from {elsewhere.files.url}{LANDMARK_PATH}, 4.",
    ):  # fmt: skip
        assert said in first.stderr
    (second,) = elsewhere.run(predict)
    assert scores(second) == scores(first)
    assert elsewhere.downloads() == []
    assert "Downloading" not in second.stderr and "Converted" not in second.stderr
    # without a network, too, and quietly
    (third,) = elsewhere.run([*predict, "--quiet"], HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert scores(third) == scores(first) and third.stderr == ""


@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_a_network_it_says_what_to_fetch(
    elsewhere, face_video, retinaface_weights, checkpoint, tmp_path, offline
):
    (run,) = elsewhere.run(["predict", face_video], **offline)
    assert run.returncode == 1 and run.stdout == ""
    error = run.stderr[run.stderr.index("s2d-hf: error: ") :]
    host = offline.get("HF_ENDPOINT", elsewhere.hub.url)
    addresses = [
        f"{host}/cyinen/S2D/resolve/main/pretrain-AffectNet-7.pth",
        f"{elsewhere.files.url}{LANDMARK_PATH}",
        "https://www.adrianbulat.com/downloads/python-fan/retinaface_mobilenet0.25.pth",
    ]
    assert [line.strip() for line in error.splitlines()[1:4]] == addresses
    command = error.splitlines()[-1]
    assert command.split() == [
        "s2d-hf", "predict", str(face_video), "--model", "pretrain-AffectNet-7.pth", "--landmark-weights",
        "mobilefacenet_model_best.pth.tar", "--face-detector-weights", "retinaface_mobilenet0.25.pth",
    ]  # fmt: skip
    # and that command works where the files are
    fetched = {
        "pretrain-AffectNet-7.pth": checkpoint,
        "mobilefacenet_model_best.pth.tar": tmp_path / "landmarks.pth.tar",
        "retinaface_mobilenet0.25.pth": retinaface_weights,
    }
    arguments = [fetched.get(word, word) for word in command.split()[1:]]
    if "HF_HUB_OFFLINE" in offline:
        named = shutil.copy(checkpoint, tmp_path / "pretrain-AffectNet-7.pth")
        (run,) = elsewhere.run([named if word == checkpoint else word for word in arguments], **offline)
        assert tuple(scores(run)) == LABELS["AffectNet-7"]


WRONG_NAMES = {
    "hf://cyinen/S2D/dfew.pth": ["has no file dfew.pth", "cyinen/S2D/DFEW/set1.pth", "pretrain-AffectNet-7.pth"],
    "hf://cyinen/S2D": ["names no file", "hf://cyinen/S2D/pretrain-AffectNet-7.pth"],
    "cyinen/S2D": ["is no model of transformers", "hf://cyinen/S2D/pretrain-AffectNet-7.pth"],
    "hf://cyinen/S3D/a.pth": ["no model repository cyinen/S3D"],
    "hf://cyinen/S2D@v9/DFEW/set1.pth": ["no revision v9"],
    "hf://datasets/cyinen/S2D/a.pth": ["names no model repository"],
    "hf://cyinen": ["hf://OWNER/REPOSITORY"],
}


def test_wrong_names_are_answered_with_the_right_ones(predict, elsewhere):
    runs = elsewhere.run(*([*predict, "--model", name] for name in WRONG_NAMES))
    for run, messages in zip(runs, WRONG_NAMES.values(), strict=True):
        assert run.returncode == 1 and run.stdout == ""
        assert all(message in run.stderr for message in messages), run.stderr
    assert elsewhere.downloads() == []


def test_a_landmark_file_of_another_content_is_not_opened(predict, elsewhere):
    (wrong,) = elsewhere.run(predict, blob="0" * 40)
    assert wrong.returncode == 1
    assert "is not the file that it should be" in wrong.stderr and "deleted, unopened" in wrong.stderr
    assert f"and not {'0' * 40}" in wrong.stderr and elsewhere.blob in wrong.stderr
    assert not list(elsewhere.home.rglob("mobilefacenet*"))
    scores(*elsewhere.run(predict))
    # it is checked again when it is taken from the cache
    (kept,) = elsewhere.home.rglob("mobilefacenet*")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    shutil.rmtree(next(elsewhere.home.rglob("converted")))
    (changed,) = elsewhere.run(predict)
    assert "deleted, unopened" in changed.stderr and not kept.exists()


@pytest.mark.slow
def test_downloads_that_break_off(predict, elsewhere):
    """Once, and the line is there again at once; or for good, and the next run goes on."""
    elsewhere.hub.breaks_left = elsewhere.files.breaks_left = 1
    scores(*elsewhere.run(predict))
    assert len(elsewhere.downloads()) == 4
    shutil.rmtree(elsewhere.home)
    elsewhere.files.breaks_left = 100
    (partly,) = elsewhere.run(predict)
    assert partly.returncode == 1
    assert "landmark detector is not on this machine" in partly.stderr and "--landmark-weights" in partly.stderr
    elsewhere.downloads()
    elsewhere.files.breaks_left = 0
    (part,) = elsewhere.home.rglob("*.part")
    part.write_bytes(elsewhere.files.content[LANDMARK_PATH][:54_321])  # as after a kill
    scores(*elsewhere.run(predict))
    assert elsewhere.downloads() == [f"{LANDMARK_PATH} bytes=54321-"]


@pytest.mark.slow
def test_other_sources(predict, elsewhere, tmp_path):
    address = f"{elsewhere.files.url}{LANDMARK_PATH}"
    missing = f"{elsewhere.files.url}/nothing.pth"
    convert = ["convert", "hf://cyinen/S2D@main/DFEW/set1.pth", tmp_path / "out", "--num-heads", 4]
    (part,) = [elsewhere.home / "assets" / "s2d_hf" / "downloads" / elsewhere.blob[:16]]
    part.mkdir(parents=True)
    (part / "mobilefacenet_model_best.pth.tar.part").write_bytes(bytes(10**8))  # what is left of another file
    converted, by_address, not_there = elsewhere.run(
        convert, [*predict, "--landmark-weights", address], [*predict, "--landmark-weights", missing]
    )
    assert converted.returncode == 0, converted.stderr
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label[0] == "happy"  # DFEW's, as the folder says
    assert "labels are those of DFEW" in converted.stdout and "--dataset or --labels" in converted.stdout
    scores(by_address)
    # a page of an error does not stay in the cache
    elsewhere.files.content["/later.pth"] = b"<html>Try again later</html>"
    later = [*predict, "--landmark-weights", f"{elsewhere.files.url}/later.pth"]
    (page,) = elsewhere.run(later)
    assert page.returncode == 1 and "web page" in page.stderr and "was deleted" in page.stderr
    elsewhere.files.content["/later.pth"] = elsewhere.files.content[LANDMARK_PATH]
    scores(*elsewhere.run(later))
    assert not_there.returncode == 1 and "404" in not_there.stderr and "--landmark-weights" in not_there.stderr
    (offline,) = elsewhere.run(["convert", "hf://cyinen/S2D/DFEW/other.pth", tmp_path / "other"], HF_HUB_OFFLINE="1")
    # the name of the file alone would not say which data set it is of
    assert (
        offline.returncode == 1 and f"s2d-hf convert other.pth {tmp_path / 'other'} --dataset DFEW" in offline.stderr
    )


def test_the_pinned_places():
    """Of the authors' detector and of their checkpoints; a change of one is a change of all results."""
    assert DEFAULT_MODEL == "hf://cyinen/S2D/pretrain-AffectNet-7.pth"
    assert "MSA-LMC/S2D/e1b5e5dfb57ab15f70103c933b346bfa62943159/landmark/mobilefacenet_model_best.pth.tar" in (
        LANDMARK_ADDRESS
    )
    assert LANDMARK_BLOB == "3f7d78be085b0dc33ec914bc1d70fc991ba04bfa"


@pytest.mark.parametrize(("address", "parts"), [
    ("hf://a/b/c.pth", ("a/b", "c.pth", None)),
    ("hf://a/b@v1/c/d.pth", ("a/b", "c/d.pth", "v1")),
    ("hf://a/b@refs/pr/3/c.pth", ("a/b", "c.pth", "refs/pr/3")),
    ("hf://a/b@my%2Fbranch/c.pth", ("a/b", "c.pth", "my/branch")),
    ("hf://a/b/c@d.pth", ("a/b", "c@d.pth", None)),
    ("hf://models/a/b/c.pth", ("a/b", "c.pth", None)),
])  # fmt: skip
def test_addresses_are_those_of_the_hubs_file_system(address, parts):
    file = parse_hub_address(address)
    assert (file.repo_id, file.name, file.revision) == parts


def test_a_checkpoint_is_converted_once_for_its_content(checkpoint, landmark_weights, tmp_path, caplog):
    file = tmp_path / "DFEW-1.pth"
    shutil.copy(checkpoint, file)
    options = {"landmark_weights": landmark_weights, "num_attention_heads": 4}
    folder = find_model(file, **options)
    assert "Converted" in caplog.text
    caplog.clear()
    assert find_model(str(file), **options) == folder and not caplog.text
    others = [find_model(file, **options, dataset="ferv39k"), find_model(file, **options, labels=tuple("abcdefg"))]
    labels = [AutoConfig.from_pretrained(other).id2label[0] for other in (folder, *others)]
    assert labels == ["happy", "angry", "a"]
    state = torch.load(checkpoint, weights_only=False)["model"]
    state["head.fc_cls.bias"] += 1
    torch.save({"model": state}, file)
    changed = find_model(file, **options)
    assert changed != folder
    old, new = (AutoModelForVideoClassification.from_pretrained(path) for path in (folder, changed))
    assert torch.equal(new.classifier.bias, old.classifier.bias + 1)


def test_labels_are_asked_for_where_the_name_is_silent(checkpoint, landmark_weights):
    with pytest.raises(ValueError, match=r"split01_checkpoint-best\.pth: .*name the `dataset`"):
        find_model(checkpoint, landmark_weights=landmark_weights)
    find_model(checkpoint, landmark_weights=landmark_weights, needs_labels=False)


def test_what_does_not_fit_is_refused(converted, tmp_path):
    assert find_model(converted) == str(converted)
    for options, message in (
        ({"dataset": "DFEW"}, "`dataset` is for a checkpoint"),
        ({"dataset": "DFEW", "labels": ["a"]}, "give one or the other"),
        ({"landmark_weights": "a.pth"}, "`landmark_weights` is for a checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            find_model(converted, **options)
    with pytest.raises(ValueError, match="holds no model"):
        find_model(tmp_path)
    for name in ("nowhere.pth", "./nowhere", "/no/where", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=name):
            find_model(name)


def test_timelines_take_checkpoints(checkpoint, landmark_weights, retinaface_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(checkpoint, tmp_path / "best.pth")
    analyse = S2DTimeline.from_pretrained(
        "~/best.pth", dataset="DFEW", landmark_weights=landmark_weights, num_attention_heads=4,
        face_detector_weights=retinaface_weights, device="cpu",
    )  # fmt: skip
    assert isinstance(analyse.model, S2DForVideoClassification) and analyse.labels[0] == "happy"
    assert analyse.window_stride == 2  # half of its 4 frames
    assert os.path.expanduser("~") == str(tmp_path)
