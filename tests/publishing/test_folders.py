"""Each check of a folder, with folders that violate exactly it. What loads the model is tested in test_probe.py."""

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from s2d_hf import S2DForVideoClassification
from s2d_hf.publishing import check_card, check_folder
from s2d_hf.publishing.code_files import imported_packages
from s2d_hf.publishing.files import find_pickle

from .made_folders import REPO_ID, edit_json, make_card, make_folder, replace_text

WEIGHTS = "model.safetensors"
ENCODER = "landmark_encoder.safetensors"
INDEX = "model.safetensors.index.json"


class Probe:
    """Stands for loading the model: notes what it is given, and says what it was told to."""

    def __init__(self, *problems):
        self.problems = list(problems)
        self.calls: list[tuple[set[str], list[str]]] = []

    def __call__(self, folder, labels):
        self.calls.append(({path.relative_to(folder).as_posix() for path in folder.rglob("*")}, list(labels)))
        return self.problems


@pytest.fixture
def folder(converted, tmp_path) -> Path:
    return make_folder(converted, tmp_path / "model")


@pytest.fixture
def sharded(converted, tmp_path) -> Path:
    """In several files of at most 400 kB."""
    folder = make_folder(converted, tmp_path / "sharded")
    (folder / WEIGHTS).unlink()
    S2DForVideoClassification.from_pretrained(converted).save_pretrained(folder, max_shard_size="400KB")
    assert len(list(folder.glob("model-*.safetensors"))) == 3
    return folder


def problems_of(folder: Path, **options) -> list[str]:
    return [str(problem) for problem in check_folder(folder, repo_id=REPO_ID, probe=Probe(), **options).problems]


def test_a_whole_folder_has_no_problems(folder, converted):
    probe = Probe()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = check_folder(folder, repo_id=REPO_ID, probe=probe)
    assert report.problems == [] and report.was_run
    report.raise_for_problems()
    names = {path.name for path in converted.iterdir()} | {"README.md"}
    assert report.files == {name: folder / name for name in names}
    assert probe.calls == [(names, ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"])]
    model = S2DForVideoClassification.from_pretrained(converted)
    assert report.weights.num_parameters == model.num_parameters()
    assert report.weights.num_bytes == 4 * model.num_parameters() and set(report.weights.dtypes) == {"F32"}
    assert f"{model.num_parameters():,} parameters" in str(report) and "nothing is wrong" in str(report)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_image_model_has_no_problems_either(image_folder, tmp_path):
    folder = make_folder(image_folder, tmp_path / "image")
    assert problems_of(folder) == []
    replace_text(folder / "README.md", "pipeline_tag: image", "pipeline_tag: video")
    (problem,) = problems_of(folder)
    assert "`pipeline_tag` is 'video-classification', and for this model it must be image" in problem


def change_weights(folder: Path, change: Callable[[dict], None], name: str = WEIGHTS) -> None:
    state = load_file(folder / name)
    change(state)
    save_file(state, folder / name, {"format": "pt"})


def with_nan(state: dict) -> None:
    state["classifier.bias"][0] = torch.nan


def with_infinity(state: dict) -> None:
    next(tensor for tensor in state.values() if tensor.is_floating_point()).view(-1)[0] = torch.inf


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def link_out(path: Path) -> None:
    outside = path.parent.parent / f"outside {path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def lengthen(path: Path, megabytes: int) -> None:
    """To one byte more than some megabytes."""
    with open(path, "ab") as file:
        file.write(b" " * (megabytes * 10**6 + 1 - file.tell()))


FAULTS = {
    "a stray file": (
        lambda f: (f / "notes.txt").write_text("x"), r"notes\.txt: It is no part of the model: remove it"
    ),
    "a picture that nobody sees": (
        lambda f: Image.new("RGB", (2, 2)).save(f / "a.png"), r"a\.png: .* and the card doesn't show it"
    ),
    "code that is not needed": (
        lambda f: (f / "more_s2d.py").write_text("x = 1"), r"more_s2d\.py: .* no class of it in `auto_map` needs it"
    ),
    "a hidden file": (lambda f: (f / ".secret").write_text("x"), r"\.secret: It is a hidden file"),
    "a cache": (
        lambda f: [(f / "__pycache__").mkdir(), (f / "__pycache__" / "a.pyc").write_bytes(b"x")],
        r"__pycache__/: It is a folder of 1 file: remove it",
    ),
    "a pickle": (lambda f: (f / "training_args.bin").write_bytes(b"x"), r"training_args\.bin: It is a pickle"),
    "a pickle by another name": (
        lambda f: (f / "metrics.json").write_bytes(pickle.dumps({"a": 1})), r"metrics\.json: It is a pickle"
    ),
    "a link that leads out": (
        lambda f: (f / "LICENSE").symlink_to("/etc/hosts"), "LICENSE: It is a symbolic link to what is not in"
    ),
    "a link to nothing": (lambda f: (f / "LICENSE").symlink_to(f / "no"), "LICENSE: It is a symbolic link"),
    "no code": (lambda f: (f / "frames_s2d.py").unlink(), r"frames_s2d\.py: It is not there, and \w+_s2d\.py needs"),
    "code that is none": (
        lambda f: replace_text(f / "modeling_s2d.py", "class S2DModel(", "class S2DModel(("), "is no Python code"
    ),
    "code of another encoding": (
        lambda f: (f / "modeling_s2d.py").write_bytes(b"# \xe9\n" + (f / "modeling_s2d.py").read_bytes()),
        r"modeling_s2d\.py: It is no Python code \('utf-8'",
    ),
    "a pickle for code": (
        lambda f: (f / "modeling_s2d.py").write_bytes(pickle.dumps(1)), r"modeling_s2d\.py: It is a pickle"
    ),
    "a pickle for a card": (lambda f: (f / "README.md").write_bytes(pickle.dumps(1)), r"README\.md: It is a pickle"),
    "a link for weights": (lambda f: link_out(f / WEIGHTS), r"model\.safetensors: It is a symbolic link"),
    "a link for settings": (lambda f: link_out(f / "config.json"), r"config\.json: It is a symbolic link"),
    "a folder for an encoder": (
        lambda f: [(f / ENCODER).unlink(), (f / ENCODER).mkdir()], r"landmark_encoder\.safetensors/: It is a folder"
    ),
    "a licence to be written": (
        lambda f: replace_text(f / "README.md", "license: cc-by-nc-4.0", "license: to be written"), "Line 2 is not wr"
    ),
    "a result to be written": (
        lambda f: replace_text(f / "README.md", "value: 0.5", "value: to be written"), "Line 21 is not written"
    ),
    "two marks in a line": (
        lambda f: replace_text(f / "README.md", "Tests.", "{{ to be written }}, to be written"), "Line 51 is not wr"
    ),
    "a long card": (lambda f: lengthen(f / "README.md", 1), r"^README\.md: It has 1,000,001 bytes, and 1,000,000 are"),
    **{
        f"a long {name}": (
            lambda f, name=name: lengthen(f / name, 5), rf"^{name}: It has 5,000,001 bytes, and 5,000,000 are allowed"
        )
        for name in (
            "config.json", "preprocessor_config.json", "modeling_s2d.py", "frames_s2d.py", "metrics.json", "LICENSE",
            ".gitattributes",
        )
    },
    "code from elsewhere": (
        lambda f: replace_text(f / "config.json", '"configuration_s2d.S', '"who/ever--configuration_s2d.S'),
        r"config\.json: `auto_map` takes AutoConfig from another repository",
    ),
    "no auto_map": (
        lambda f: edit_json(f / "video_preprocessor_config.json", auto_map=None),
        r"video_preprocessor_config\.json: Its `auto_map` lacks AutoVideoProcessor",
    ),
    "no processor": (
        lambda f: (f / "preprocessor_config.json").unlink(), r"^preprocessor_config\.json: It is not there"
    ),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json: It can't be read"),
    "another model": (lambda f: edit_json(f / "config.json", model_type="vit"), "this is no S2D model"),
    "no architecture": (lambda f: edit_json(f / "config.json", architectures=None), "`architectures` must be one of"),
    "an impossible configuration": (
        lambda f: edit_json(f / "config.json", hidden_size=65), r"config\.json: .*`hidden_size` \(65\)"
    ),
    "labels that contradict": (
        lambda f: replace_text(f / "config.json", '"fear": 6', '"terror": 6'), "`label2id` is not `id2label`"
    ),
    "frames of another size": (
        lambda f: edit_json(f / "preprocessor_config.json", crop_size={"height": 112, "width": 112}),
        r"preprocessor_config\.json: It makes frames of .*112.* the model takes 224",
    ),
    "another number of frames": (
        lambda f: edit_json(f / "video_preprocessor_config.json", num_frames=16), "`num_frames` is 16, .* model's is 4"
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "There are no weights"),
    "half of the weights": (lambda f: cut(f / WEIGHTS), r"model\.safetensors: It can't be read as a safetensors file"),
    "not a number": (lambda f: change_weights(f, with_nan), r"\(NaN\) in classifier\.bias\."),
    "infinity": (lambda f: change_weights(f, with_infinity), "infinite numbers"),
    "a tensor too few": (
        lambda f: change_weights(f, lambda s: s.pop("classifier.bias")), r"config\.json describes are missing: cla"
    ),
    "a tensor too many": (
        lambda f: change_weights(f, lambda s: s.update(more=torch.zeros(1))), "that the model in .* doesn't have: more"
    ),
    "another shape": (
        lambda f: change_weights(f, lambda s: s.update({"classifier.bias": torch.zeros(3)})),
        r"classifier\.bias \(3,\) instead of \(7,\)",
    ),
    "no landmark encoder": (
        lambda f: (f / "landmark_encoder.safetensors").unlink(), r"landmark_encoder\.safetensors: It is not there"
    ),
    "half a landmark encoder": (
        lambda f: cut(f / "landmark_encoder.safetensors"), r"landmark_encoder\.safetensors: It can't be loaded"
    ),
    "a landmark encoder with infinity": (
        lambda f: change_weights(f, with_infinity, "landmark_encoder.safetensors"), r"encoder\.safetensors: .*infinite"
    ),
    "a processor without landmarks": (
        lambda f: edit_json(f / "preprocessor_config.json", landmark_encoder=None), "the model needs one"
    ),
    "no card": (lambda f: (f / "README.md").unlink(), "There is no model card"),
    "a card of other labels": (
        lambda f: (f / "README.md").write_text(make_card(("a", "b"))), "lists a, b, and the model has happy"
    ),
    "a card without its picture": (
        lambda f: replace_text(f / "README.md", "Of nothing.", "![x](x.png)"), r"x\.png, and the folder has no such"
    ),
    "a card of another repository": (
        lambda f: replace_text(f / "README.md", REPO_ID, "path/to/model"), "doesn't name the repository"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_alone(fault, folder):
    make, expected = FAULTS[fault]
    make(folder)
    (problem,) = problems_of(folder)
    assert re.search(expected, problem), problem


def test_long_texts_are_not_read(folder):
    """A terabyte would fill the memory; these files take no room on the disk."""
    for name in ("README.md", "config.json", "modeling_s2d.py", "stray.py"):
        with open(folder / name, "ab") as file:
            file.truncate(1 << 40)
    problems = problems_of(folder)
    assert {problem.split(":")[0] for problem in problems} == {
        "README.md",
        "config.json",
        "modeling_s2d.py",
        "stray.py",
    }
    assert len(problems) == 4 and all("It has 1,099,511,627,776 bytes" in problem for problem in problems)
    assert len(problems_of(folder, leave_out=["stray.py"])) == 3
    assert len(problems_of(folder, card=folder / "README.md")) == 4
    (problem,) = check_card(folder / "README.md")
    assert "1,000,000 are allowed" in problem


def test_all_faults_are_reported_at_once(folder):
    for fault in ("a stray file", "no landmark encoder", "not a number", "a card of other labels", "no code"):
        FAULTS[fault][0](folder)
    probe = Probe()
    report = check_folder(folder, probe=probe)
    assert len(report.problems) == 5
    # what can't be loaded isn't tried, and that is said
    assert probe.calls == [] and not report.was_run and "not run with its own code" in str(report)
    with pytest.raises(ValueError, match=r"can't be published:\n(- .*\n?){5}$"):
        report.raise_for_problems()


def test_what_the_probe_finds_is_reported(folder):
    from s2d_hf.publishing import Problem

    report = check_folder(folder, probe=Probe(Problem("pipeline", "It burns.")))
    assert [str(problem) for problem in report.errors] == ["pipeline: It burns."]


def test_what_is_only_missing_is_told_apart(folder):
    replace_text(folder / "README.md", "Of nothing.", "To be written.")
    report = check_folder(folder, repo_id="other/name", probe=Probe())
    assert len(report.missing) == 2 and report.errors == []
    report.raise_for_problems(allow_missing=True)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"can't be published:\n- notes\.txt: .*$"):
        check_folder(folder, probe=Probe()).raise_for_problems(allow_missing=True)


def test_unnamed_labels_are_missing(folder):
    labels = [f"LABEL_{i}" for i in range(7)]
    id2label = {str(i): label for i, label in enumerate(labels)}
    edit_json(folder / "config.json", id2label=id2label, label2id={label: i for i, label in enumerate(labels)})
    (folder / "README.md").write_text(make_card(labels))
    report = check_folder(folder, probe=Probe())
    assert len(report.missing) == 1 and report.errors == [] and "have no names" in str(report)


def test_files_are_left_out_if_asked(folder):
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "optimizer.pt").write_bytes(b"x")
    (folder / "train.log").write_text("x")
    (folder / ".cache").mkdir()
    assert len(problems_of(folder)) == 3
    probe = Probe()
    report = check_folder(folder, leave_out=["*.log", "checkpoint-*", ".*"], probe=probe)
    assert report.problems == [] and set(report.left_out) == {"checkpoint-3/", "train.log", ".cache/"}
    assert check_folder(folder, leave_out_strays=True, probe=probe).files == report.files
    assert not {"train.log", "checkpoint-3", ".cache"} & probe.calls[0][0]
    assert check_folder(folder, leave_out=["*.log", "checkpoint-3/", ".cache/*"], probe=probe).files == report.files
    # what the model needs is missed where it is left out
    (problem,) = problems_of(folder, leave_out=["*.log", "checkpoint-*", ".*", "landmark_encoder.*"])
    assert problem.startswith("landmark_encoder.safetensors: It is not there")


def test_pictures_of_the_card_belong_to_it(folder):
    (folder / "pictures").mkdir()
    for name in ("shown.png", "other.png"):
        Image.new("RGB", (2, 2)).save(folder / "pictures" / name)
    replace_text(folder / "README.md", "Of nothing.", "![Shown](./pictures/shown.png)")
    report = check_folder(folder, probe=Probe())
    assert "pictures/shown.png" in report.files and "pictures/other.png" not in report.files
    assert [problem.where for problem in report.problems] == ["pictures/other.png"]


def test_a_card_from_elsewhere_takes_the_place_of_the_folders(folder, tmp_path):
    card = tmp_path / "other.md"
    card.write_text((folder / "README.md").read_text())
    (folder / "README.md").write_text("To be written.")
    assert problems_of(folder) != [] and problems_of(folder, card=card) == []
    assert check_folder(folder, card=card, probe=Probe()).files["README.md"] == card


def test_shards_are_checked_with_their_index(sharded):
    assert problems_of(sharded) == []
    shards = sorted(sharded.glob("model-*.safetensors"))
    index = json.loads((sharded / INDEX).read_text())

    def check(expected: str) -> None:
        (problem,) = problems_of(sharded)
        assert re.search(expected, problem), problem

    edit_json(sharded / INDEX, metadata=index["metadata"] | {"total_size": 5})
    check(rf"{INDEX}: It says that the tensors have 5 bytes, and they have")
    (sharded / INDEX).write_text("{}")
    check(f"{INDEX}: It is no index")
    (sharded / INDEX).write_text(json.dumps(index))
    shutil.copy(shards[0], sharded / "model-00009-of-00009.safetensors")
    check(r"model-00009-of-00009\.safetensors: model\.safetensors\.index\.json doesn't name it")
    (sharded / "model-00009-of-00009.safetensors").unlink()
    content = shards[1].read_bytes()
    shards[1].unlink()
    assert any(re.search(rf"{shards[1].name}: It is not there", problem) for problem in problems_of(sharded))
    shards[1].write_bytes(content)
    state = load_file(shards[1])
    name = next(iter(state))
    save_file({key: value for key, value in state.items() if key != name}, shards[1])
    assert any(f"{shards[1].name}: It lacks tensors that the index" in problem for problem in problems_of(sharded))
    shards[1].write_bytes(content)
    shutil.copy(shards[0], sharded / WEIGHTS)
    assert any("beside model.safetensors" in problem for problem in problems_of(sharded))


def test_shards_have_a_size_limit(folder, sharded):
    (problem,) = problems_of(folder, max_shard_size=900_000)
    assert re.search(r"Its tensors have [\d,]+ bytes, and 900,000 are allowed", problem)
    assert problems_of(sharded, max_shard_size=400_000) == []


def test_half_precision_is_fine(converted, tmp_path):
    folder = make_folder(converted, tmp_path / "half")
    S2DForVideoClassification.from_pretrained(converted).bfloat16().save_pretrained(folder)
    report = check_folder(folder, probe=Probe())
    assert report.problems == [] and set(report.weights.dtypes) == {"BF16"}


def test_pickles_are_known_by_their_content(tmp_path):
    path = tmp_path / "file"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"a": [1, "b"]}, protocol=protocol))
        assert find_pickle(path) is not None, protocol
    torch.save({"a": torch.zeros(2)}, path)
    assert "archive" in find_pickle(path)
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    assert "objects" in find_pickle(tmp_path / "objects.npy")
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    path.write_text("A text that ends with a full stop.")
    for harmless in ("numbers.npy", "texts.zip", "file"):
        assert find_pickle(tmp_path / harmless) is None, harmless


def test_the_code_says_what_it_needs(converted):
    code = [path.name for path in converted.glob("*.py")]
    packages = imported_packages(converted, code)
    assert {"torch", "transformers", "numpy", "PIL", "safetensors"} <= set(packages)
    assert not {"os", "re", "s2d_hf"} & set(packages)


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(NotADirectoryError, match=r"no folder .*nowhere"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no model card .*no\.md"):
        check_folder(folder, card=tmp_path / "no.md")
    with pytest.raises(ValueError, match="`python` and `fresh_environment`"):
        check_folder(folder, python=os.devnull, fresh_environment=True)


@pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
@pytest.mark.parametrize("name", ["config.json", "video_preprocessor_config.json", "README.md", "modeling_s2d.py"])
def test_pipes_and_devices_are_not_read(folder, name):
    """Which have no end, and fill the memory or wait for ever."""
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir):
        path = folder / name
        path.unlink() if path.is_file() or path.is_symlink() or path.is_fifo() else path.rmdir()
        make(path)
        report = check_folder(folder, probe=lambda *_: [])
        assert [str(problem) for problem in report.problems] == [f"{name}: It is no file: remove it."]
