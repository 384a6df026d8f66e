"""Uploads through huggingface_hub's own client to the tests' Hub, in one process beside this one."""

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from s2d_hf import S2DConfig, S2DForVideoClassification, S2DImageProcessor, S2DVideoProcessor
from s2d_hf.publishing import CheckOptions
from s2d_hf.publishing.uploading import format_size, version_tag

from ..hub_server import HubServer
from ..small_models import TINY, randomise
from .made_folders import edit_json, make_card, make_folder, replace_text

LABELS = {"id2label": dict(enumerate("abcde")), "label2id": {label: i for i, label in enumerate("abcde")}}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="module")
def publish(server, tmp_path_factory) -> Iterator[Callable[..., dict]]:
    """Calls `publish_folder` in the other process."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("publisher.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=server.environment(home),
    )

    def call(folder: Path, repo_id: str, **options) -> dict:
        process.stdin.write(json.dumps({"folder": str(folder), "repo_id": repo_id, **options}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield call
    process.stdin.close()
    assert process.wait(timeout=60) == 0


@pytest.fixture
def repo_id(request) -> str:
    """A repository for this test alone."""
    return "s2d-hf/" + request.node.name.removeprefix("test_").replace("_", "-")[:60]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model without landmarks, which is read fast."""
    folder = tmp_path_factory.mktemp("model")
    model = randomise(S2DForVideoClassification(S2DConfig(**TINY | LABELS, prompt_type="none")))
    model.save_pretrained(folder)
    size = TINY["image_size"]
    options = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}, "do_landmarks": False}
    S2DImageProcessor(**options).save_pretrained(folder)
    S2DVideoProcessor(**options, num_frames=TINY["num_frames"]).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(model, tmp_path, repo_id) -> Path:
    return make_folder(model, tmp_path / "model", repo_id)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def writes(server: HubServer) -> list[str]:
    return [request for request in server.requests if not request.startswith(("GET ", "HEAD "))]


def test_a_new_repository_gets_one_commit_and_a_tag(publish, server, folder, repo_id):
    dry = publish(folder, repo_id, version="0.1.0", dry_run=True)
    assert writes(server) == [] and repo_id not in server.repositories and dry["commit"] is None
    assert set(dry["statuses"].values()) == {"new"} and "Nothing was uploaded" in dry["said"][-1]
    assert repo_id in dry["said"][1] and "Tag: v0.1.0" in dry["said"][1]

    done = publish(folder, repo_id, version="0.1.0", commit_message="First")
    files = server.files(repo_id)
    assert ".gitattributes" in files
    assert {name: data for name, data in files.items() if name != ".gitattributes"} == content(folder)
    assert server.commits(repo_id) == ["First", "initial commit"]
    assert server.tags(repo_id) == {"v0.1.0": done["commit"]}
    # the table was right about what is large
    lines = [line.split() for line in dry["said"][1].splitlines()]
    stored = {line[0]: line[3] for line in lines if len(line) == 5 and line[3] in ("git", "LFS")}
    blobs = server.repository(repo_id).branches["main"].files
    assert stored == {name: "LFS" if blobs[name].lfs else "git" for name in content(folder)}


def test_a_second_version_changes_what_changed(publish, server, folder, repo_id, tmp_path):
    publish(folder, repo_id, version="0.1.0")
    first = server.files(repo_id)
    state = load_file(folder / "model.safetensors")
    state["classifier.bias"] += 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    replace_text(folder / "README.md", "Little.", "Less.")
    (folder / "metrics.json").write_text("{}")
    server.add_model(repo_id, with_file(folder, "old_s2d.py", tmp_path / "old"))  # and somebody left a file there
    server.requests.clear()

    expected = dict.fromkeys(content(folder), "unchanged") | {"old_s2d.py": "removed"}
    dry = publish(folder, repo_id, dry_run=True)
    assert dry["statuses"] == expected and writes(server) == []

    server.add_model(repo_id, with_files(first, tmp_path / "first"))
    expected = dict.fromkeys(content(folder), "unchanged")
    expected |= {"model.safetensors": "changed", "README.md": "changed", "metrics.json": "new"}
    done = publish(folder, repo_id, version="v0.2.0-rc.1")
    assert done["statuses"] == expected
    assert server.tags(repo_id)["v0.2.0-rc.1"] == done["commit"] != server.tags(repo_id)["v0.1.0"]
    assert server.files(repo_id, "v0.1.0") == first and server.commits(repo_id)[0] == "Upload v0.2.0-rc.1"
    assert server.files(repo_id) == {".gitattributes": first[".gitattributes"]} | content(folder)

    # nothing changed: no commit, but a tag
    again = publish(folder, repo_id, version="0.2.0")
    assert again["commit"] == done["commit"] == server.tags(repo_id)["v0.2.0"]


def with_file(folder: Path, name: str, target: Path) -> Path:
    shutil.copytree(folder, target)
    (target / name).write_text("x = 1\n")
    return target


def with_files(files: dict[str, bytes], target: Path) -> Path:
    target.mkdir()
    for name, data in files.items():
        if name != ".gitattributes":
            (target / name).write_bytes(data)
    return target


def test_files_that_do_not_belong_any_more_go_and_kept_ones_stay(publish, server, folder, repo_id, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "old_s2d.py").write_text("x = 1\n")
    for name in ("last-checkpoint", "runs"):
        (old / name).mkdir()
        (old / name / "state.json").write_text("{}")
    server.add_model(repo_id, old)
    done = publish(folder, repo_id, keep=["last-checkpoint/*", "runs/"], blocking=False)
    assert done["statuses"]["old_s2d.py"] == "removed"
    files = server.files(repo_id)
    kept = {".gitattributes", "last-checkpoint/state.json", "runs/state.json"}
    assert set(files) == set(content(folder)) | kept
    assert len(server.commits(repo_id)) == 2


def test_the_repositorys_gitattributes_stay(publish, server, folder, repo_id):
    """Without them, weights would be stored in git."""
    (folder / ".gitattributes").write_text("*.png filter=lfs diff=lfs merge=lfs -text\n")
    first = publish(folder, repo_id)
    hubs = server.files(repo_id)[".gitattributes"]
    assert b"*.safetensors filter=lfs" in hubs and first["statuses"][".gitattributes"] == "the Hub's is kept"
    sent = len(content(folder)) - 1
    assert f"  {sent} of {sent + 1} files to upload" in first["said"][1]
    (folder / "metrics.json").write_text("{}")
    again = publish(folder, repo_id)
    assert again["statuses"][".gitattributes"] == "the Hub's is kept" and "1 of " in again["said"][1]
    (folder / ".gitattributes").unlink()
    (folder / "metrics.json").unlink()
    assert ".gitattributes" not in publish(folder, repo_id)["statuses"]
    assert server.files(repo_id)[".gitattributes"] == hubs and "metrics.json" not in server.files(repo_id)


def test_other_repositories_are_not_written_over(publish, server, folder, repo_id, tmp_path):
    def refused(change: Callable[[Path], object], expected: str, **options) -> None:
        other = tmp_path / "other"
        shutil.copytree(folder, other)
        change(other)
        server.add_model(repo_id, other)
        shutil.rmtree(other)
        server.requests.clear()
        error = publish(folder, repo_id, **options)["error"]
        assert error.startswith("PublishingError") and expected in error, error
        assert writes(server) == []

    config = "config.json"
    refused(lambda f: edit_json(f / config, model_type="vit"), "another architecture, vit ['S2DForVideo")
    refused(lambda f: edit_json(f / config, model_type="vit"), "another architecture, vit", dry_run=True)
    image = ["S2DForImageClassification"]
    refused(lambda f: edit_json(f / config, architectures=image), "another architecture, s2d ['S2DForImage")
    refused(lambda f: (f / config).write_text("[]"), "config.json that can't be read")
    refused(lambda f: (f / config).unlink(), "holds files and no model")
    labels = {str(i): label for i, label in enumerate("edcba")}
    refused(lambda f: edit_json(f / config, id2label=labels), "other labels, e, d, c, b, a")
    refused(lambda f: None, "is public already", private=True)
    edit_json(folder / config, id2label=labels, label2id={label: int(i) for i, label in labels.items()})
    (folder / "README.md").write_text(make_card(list(labels.values()), repo_id))
    assert "error" in publish(folder, repo_id)
    assert publish(folder, repo_id, allow_other_labels=True)["commit"] is not None


def test_versions_are_given_once(publish, server, folder, repo_id):
    publish(folder, repo_id, version="1.0.0")
    commits = server.commits(repo_id)
    (folder / "metrics.json").write_text("{}")
    server.requests.clear()
    error = publish(folder, repo_id, version="v1.0.0")["error"]
    assert "has the tag v1.0.0 already" in error
    assert server.commits(repo_id) == commits and writes(server) == []
    assert "must be a semantic version" in publish(folder, repo_id, version="1.0")["error"]


def test_a_card_names_revisions_that_are_there(publish, server, folder, repo_id):
    replace_text(folder / "README.md", f'"{repo_id}", ', f'"{repo_id}", revision="v1.0.0", ')
    for options in ({}, {"version": "1.1.0"}, {"dry_run": True}):
        assert "names revision 'v1.0.0', and the repository won't" in publish(folder, repo_id, **options)["error"]
    assert repo_id not in server.repositories
    assert publish(folder, repo_id, version="1.0.0")["commit"] is not None
    (folder / "metrics.json").write_text("{}")
    assert publish(folder, repo_id)["commit"] is not None


def test_what_was_changed_meanwhile_is_not_written_over(publish, server, folder, repo_id):
    server.add_model(repo_id, folder)
    (folder / "metrics.json").write_text("{}")
    error = publish(folder, repo_id, meanwhile="new.txt")["error"]
    assert "PublishingError" in error and "was changed meanwhile" in error, error
    assert "new.txt" in server.files(repo_id) and "metrics.json" not in server.files(repo_id)


def test_problems_of_access_are_explained(publish, server, folder, repo_id):
    server.requests.clear()
    assert "There is no token" in publish(folder, repo_id, without_token=True)["error"]
    error = publish(folder, repo_id, environment_token="hf_wrong")["error"]
    assert "The token is missing or not valid: run `hf auth login`" in error
    nobody = "nobody/" + repo_id.split("/")[1]
    replace_text(folder / "README.md", repo_id, nobody)
    assert f"no right to write to {nobody}" in publish(folder, nobody)["error"]
    replace_text(folder / "README.md", nobody, repo_id)
    nowhere = {"endpoint": "http://127.0.0.1:9", "without_token": True}
    unreachable = publish(folder, repo_id, dry_run=True, **nowhere)
    assert set(unreachable["statuses"].values()) == {"not compared"}
    assert "was not compared: the Hub can't be reached" in unreachable["said"][1]
    nowhere["without_token"] = False
    assert "PublishingError: the Hub can't be reached" in publish(folder, repo_id, **nowhere)["error"]
    assert repo_id not in server.repositories and nobody not in server.repositories
    assert "has no branch 'side'" in publish(folder, repo_id, revision="side")["error"]


def test_nothing_goes_up_that_has_problems(publish, server, folder, repo_id):
    (folder / "training_args.bin").write_bytes(b"x")
    replace_text(folder / "README.md", "Little.", "To be written.")
    error = publish(folder, repo_id)["error"]
    assert "training_args.bin: It is a pickle" in error and "is not written yet" in error
    error = publish(folder, repo_id, allow_missing=True)["error"]
    assert "training_args.bin" in error and "written yet" not in error
    assert repo_id not in server.repositories
    assert publish(folder, repo_id, allow_missing=True, leave_out_strays=True)["commit"] is not None
    assert "training_args.bin" not in server.files(repo_id)


def test_the_script_says_what_is_wrong(folder, repo_id, capsys, monkeypatch, tmp_path):
    """This process is offline, and has no token."""
    spec = importlib.util.spec_from_file_location("publish", ROOT / "training" / "publish.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(*arguments: str) -> int:
        """As the interpreter ends."""
        try:
            script.main(arguments)
        except SystemExit as stopped:
            print(stopped.code, file=sys.stderr)
            return 1
        return 0

    assert run(str(tmp_path / "nowhere"), repo_id) == 1
    assert "publish.py: error: There is no folder" in capsys.readouterr().err
    monkeypatch.setattr(script, "CheckOptions", functools.partial(CheckOptions, probe=lambda *_: []))
    assert run(str(folder), repo_id, "--dry-run", "--version", "2.0.0") == 0
    shown = capsys.readouterr().out
    assert "not compared: the client is offline" in shown and "Tag: v2.0.0" in shown and "LFS" in shown
    assert "left out" not in shown and "warning" not in shown
    (folder / "metrics.json").write_text('{"data": "/home/jane/faces"}')
    assert run(str(folder), repo_id, "--dry-run") == 0
    assert "warning: metrics.json: A home folder is named, /home/jane, in line 1" in capsys.readouterr().out
    (folder / "training_args.bin").write_bytes(b"x")  # what every training leaves
    assert run(str(folder), repo_id, "--dry-run") == 0
    assert "left out: training_args.bin" in capsys.readouterr().out
    (folder / "train.log").write_text("x")
    card = tmp_path / "card.md"
    shutil.move(folder / "README.md", card)
    assert run(str(folder), repo_id, "--dry-run", "--leave-out", "*.log") == 1
    assert run(str(folder), repo_id, "--dry-run", "--card", str(card)) == 1
    assert "train.log: It is no part of the model" in capsys.readouterr().err
    assert run(str(folder), repo_id, "--dry-run", "--card", str(card), "--leave-out", "*.log") == 0
    monkeypatch.setattr("s2d_hf.publishing.uploading.get_token", lambda: None)
    assert run(str(folder), repo_id, "--card", str(card), "--leave-out", "*.log") == 1
    assert "no token to write with: run `hf auth login`" in capsys.readouterr().err
    assert run(str(folder), "name") == 1
    assert "must be namespace/name, got 'name'" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["1", "1.0", "01.0.0", "1.0.0.0", "v1.0.0-", "1.0.0-01", "latest", "1.0.0 "])
def test_versions_are_semantic(version):
    assert version_tag("1.2.3") == version_tag("v1.2.3") == "v1.2.3"
    assert version_tag("1.0.0-rc.1+build.5") == "v1.0.0-rc.1+build.5"
    with pytest.raises(ValueError, match="semantic version"):
        version_tag(version)


def test_sizes_are_readable():
    assert [format_size(size) for size in (0, 999, 1000, 981_800, 5 * 10**9, 10**13)] == [
        "0 B", "999 B", "1.0 kB", "981.8 kB", "5.0 GB", "10000.0 GB"
    ]  # fmt: skip
