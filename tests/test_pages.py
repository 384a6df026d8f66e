"""
Every page for readers: its code blocks run or are parsed, and its links lead somewhere.

Blocks are found by their language, on all pages there are: one that nothing here can check fails.
"""

import json
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from transformers import ViTConfig, ViTModel, pipeline

from s2d_hf import MobileFaceNetLandmarkEncoder, __version__
from s2d_hf.data import from_table
from s2d_hf.trainer import read_recipe
from s2d_hf.trainer.building import build_model

from .page_commands import UnknownCommandError, check_commands
from .pages import BLOCKS, PAGES, ROOT, Block, anchors, find_blocks, links, texts

# Pages whose Python runs elsewhere, all of it, as those tests assert.
RUN_ELSEWHERE = {"README.md": "test_readme.py", "docs/onnx.md": "test_onnx_page.py", "docs/publishing.md": "below"}
OWN_MODEL = "your-name/s2d-faces"


def of(*languages: str) -> pytest.MarkDecorator:
    """A case for each block in one of these languages."""
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


def test_nothing_is_left_out():
    """Nothing is to be run of a citation."""
    assert {"README.md", "docs/onnx.md", "docs/speed.md", "docs/training.md"} < {block.page for block in BLOCKS}
    unchecked = [str(block) for block in BLOCKS if block.language not in ("bash", "python", "yaml", "csv", "bibtex")]
    assert not unchecked, f"nothing checks {unchecked}"


@pytest.mark.parametrize(
    "text", ["```bash\ns2d-hf\n", "- so:\n  ```bash\n  s2d-hf\n  ```\n", "~~~bash\ns2d-hf\n~~~\n"]
)
def test_blocks_that_would_be_overlooked(text):
    with pytest.raises(ValueError, match="page: a code block is"):
        find_blocks("page", "```csv\na\n```\n" + text)


@of("bash")
def test_commands_are_understood(block: Block):
    check_commands(block.text)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("mystery --now", UnknownCommandError),
        ("s2d-hf predict a.mp4 && mystery", UnknownCommandError),
        ("python training/mystery.py", UnknownCommandError),
        ("torchrun --nproc_per_node 2 training/mystery.py", UnknownCommandError),
        ("s2d-hf predict meeting.mp4 --no-such-option", SystemExit),
        ("accelerate launch -m s2d_hf.cli archive interviews.csv", SystemExit),
        ("accelerate launch --no_such_option training/train.py", SystemExit),
        ("accelerate launch training/train.py --no_such_field 1", ValueError),
        ("accelerate launch training/folds.py DFEW --data_root DFEW --no_such_field 1", ValueError),
        ("python training/publish.py runs/faces", SystemExit),
        ("python training/ablation.py --no-such-option", SystemExit),
        ("python -m benchmarks.speed --parts none", SystemExit),
        ("python -m tests.fuzz_videos --no-such-option", SystemExit),
        ("python -m pytest tests/test_none.py", AssertionError),
        ('pip install -e ".[none]"', AssertionError),
        (".ci/none", AssertionError),
    ],
)
def test_wrong_commands_are_found(command, error, capsys):
    with pytest.raises(error):
        check_commands(command)


@of("yaml")
def test_recipes_are_read(block: Block, tmp_path):
    (tmp_path / "my.yaml").write_text(block.text)
    assert read_recipe([str(tmp_path / "my.yaml"), "--use_cpu"], default="").stages


@of("csv")
def test_tables_are_read(block: Block, tmp_path):
    (tmp_path / "train.csv").write_text(block.text)
    assert len(from_table(tmp_path / "train.csv")) == block.text.count("\n") - 1


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "python" and block.page not in RUN_ELSEWHERE],
    ids=str,
)
def test_python_runs(block: Block, converted, face_video, torch_home, tmp_path, monkeypatch):
    """In a folder with what the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(torch_home))  # in place of the download of the detector's weights
    (tmp_path / "meeting.mp4").symlink_to(face_video)
    (tmp_path / "affectnet7").symlink_to(converted)
    (tmp_path / "s2d_hf").symlink_to(ROOT / "s2d_hf")
    (tmp_path / "path" / "to").mkdir(parents=True)
    ViTModel(ViTConfig(num_hidden_layers=1), add_pooling_layer=False).save_pretrained("path/to/vit")
    before = set(tmp_path.rglob("*"))
    exec(compile(block.text, block.page, "exec"), {})
    written = {path.name for path in set(tmp_path.rglob("*")) - before}
    assert {name for name in ("meeting.png", "annotated.mp4") if f'("{name}")' in block.text} <= written


def test_pinned_hub_model_runs_without_the_package(hub, clean_python, converted, face_video, tmp_path):
    """With the Hub's stand-in, on which the model has the name and the tag that the page gives."""
    (block,) = texts("docs/publishing.md", "python")
    hub.add_model(OWN_MODEL, converted, tags=[f"v{__version__}"])
    (tmp_path / "face.mp4").symlink_to(face_video)
    code = f'{block}\nimport json\nprint("SCORES" + json.dumps(classifier("face.mp4")))\n'
    run = subprocess.run(
        [clean_python, "-c", code],
        cwd=tmp_path,
        env=hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    scores = {row["label"]: row["score"] for row in json.loads(run.stdout.split("SCORES")[1])}
    local = pipeline("video-classification", model=str(converted), trust_remote_code=True)
    expected = {row["label"]: row["score"] for row in local(str(face_video))}
    assert scores == pytest.approx(expected, abs=1e-5)
    # the pin holds for the code, too
    fetched = [request for request in hub.requests if "/resolve/" in request]
    assert any("modeling_s2d.py" in request for request in fetched)
    assert not any("/resolve/main/" in request for request in fetched)


def test_recipes_of_training_build_their_models(tmp_path):
    recipe, overrides = texts("docs/training.md", "yaml")
    (tmp_path / "my.yaml").write_text(recipe)
    read = read_recipe([str(tmp_path / "my.yaml"), "--use_cpu"], default="")
    assert [stage.name for stage in read.stages] == ["static", "dynamic"]

    (tmp_path / "small.yaml").write_text(overrides)
    static, dynamic = read_recipe([str(tmp_path / "small.yaml"), "--use_cpu"], default="").stages
    encoder = MobileFaceNetLandmarkEncoder(width=0.125)
    image_model = build_model(static, ("sad", "happy"), encoder)  # without a start
    assert (image_model.config.hidden_size, image_model.config.image_size) == (192, 112)
    image_model.save_pretrained(tmp_path / "image")
    dynamic.model.model_name_or_path = str(tmp_path / "image")
    assert build_model(dynamic, ("sad", "happy"), encoder).config.num_frames == 8


def test_table_of_training_has_paths_from_its_folder(tmp_path):
    (table,) = texts("docs/training.md", "csv")
    (tmp_path / "train.csv").write_text(table)
    samples = from_table(tmp_path / "train.csv")
    assert samples.labels == ("happy", "sad")
    assert [sample.path for sample in samples] == [tmp_path / "clips" / "anna-01.mp4", tmp_path / "clips" / "ben-07"]


def find_broken_links(page: Path, text: str) -> list[str]:
    """The links to files and places that there aren't; what lies elsewhere is not asked for."""
    broken = []
    for target in links(text):
        if urlsplit(target).scheme:
            continue
        path, _, place = unquote(target).partition("#")
        there = page.parent / path if path else page
        is_page = there.suffix == ".md" and there.exists()
        if not there.exists() or (place and not is_page) or (place and place not in anchors(there.read_text())):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert find_broken_links(ROOT / page, PAGES[page]) == []


def test_broken_links_are_found():
    text = "[a](none.md) [b](docs/speed.md#none) [c](#none) [d](LICENSE#none) [e](docs/speed.md#speed) ![f](x.png)"
    found = find_broken_links(ROOT / "README.md", text)
    assert found == ["none.md", "docs/speed.md#none", "#none", "LICENSE#none", "x.png"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_pages_say_what_they_are_for_and_are_found(page):
    """In their first sentence, with the way back."""
    title, first, *_ = PAGES[page].split("\n\n")
    assert title.startswith("# ") and first.startswith("This page is for ")
    assert "([back to README](../README.md))." in first.split(". ")[0].replace("\n", " ") + "."
    assert page in links(PAGES["README.md"])
