"""What must not go up with a model. The tokens are made up here, so that none stands in this file."""

import json
import random
import string
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from s2d_hf import S2DConfig, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.publishing import check_folder
from s2d_hf.publishing.traces import find_home_folders, find_tokens

from ..small_models import TINY
from .made_folders import edit_json, make_folder, replace_text

ROOT = Path(__file__).resolve().parents[2]
LETTERS = string.ascii_letters + string.digits


def made(start: str, length: int, characters: str = LETTERS) -> str:
    return start + "".join(random.Random(start).choices(characters, k=length))


HUB = made("hf_", 34)
PRIVATE_KEY = "-----BEGIN {}PRIVATE KEY-----"
TOKENS = {
    HUB: "Hugging Face Hub",
    made("api_org_", 34): "Hugging Face Hub",
    made("ghp_", 36): "GitHub",
    made("github_pat_", 22) + made("_", 59): "GitHub",
    made("AKIA", 16, string.ascii_uppercase + "234567"): "AWS",
    made("sk-", 48): "OpenAI",
    made("sk-proj-", 120, LETTERS + "-_"): "OpenAI",
    made("sk-ant-api03-", 95, LETTERS + "-_"): "Anthropic",
    made("WANDB_API_KEY=", 40, "0123456789abcdef"): "Weights & Biases",
    made("wandb_api_key: ", 40, "0123456789abcdef"): "Weights & Biases",
    made("glpat-", 20, LETTERS + "-_"): "GitLab",
    made("xoxb-", 50, LETTERS): "Slack",
    made("AIza", 35, LETTERS + "-_"): "Google",
    made("npm_", 36): "npm",
    made("pypi-", 150, LETTERS + "-_"): "PyPI",
    PRIVATE_KEY.format("RSA "): "private key",
    PRIVATE_KEY.format(""): "private key",
    PRIVATE_KEY.format("OPENSSH "): "private key",
}


@pytest.fixture
def folder(converted, tmp_path) -> Path:
    return make_folder(converted, tmp_path / "model")


def found(folder: Path) -> list[str]:
    return [str(problem) for problem in check_folder(folder, probe=lambda *_: []).problems]


@pytest.mark.parametrize("around", ["{}", 'token = "{}"', "https://me:{}@example.com", "(`{}`),", "a={};", "\t{}\r"])
@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_known_by_their_forms(token, around, tmp_path):
    path = tmp_path / "LICENSE"
    path.write_text(f"One\n\n{around.format(token)}\n")
    (problem,) = find_tokens("LICENSE", path)
    assert str(problem).startswith("LICENSE: Line 3 holds") and TOKENS[token] in str(problem)
    if "PRIVATE" not in token:
        assert token[:4] in str(problem) and token[-12:] not in str(problem)


def test_what_is_no_token(tmp_path):
    path = tmp_path / "a.py"
    for text in (
        "hf_hub_download(x)", "hf_token_abcdefghijklmnopqrstuvwxyzabcdefgh = 1", "hf_" + 34 * "x", "hf_YOUR_TOKEN",
        "HF_TOKEN=$HF_TOKEN", "sk-learn-contrib-with-a-long-name-of-a-package", "WANDB_API_KEY=...",
        "task-" + 40 * "ab", "s" + HUB, "hf_abc", "AKIA", "-----BEGIN CERTIFICATE-----", "0" * 64,
    ):  # fmt: skip
        path.write_text(text)
        assert list(find_tokens("a.py", path)) == [], text
    sources = [
        path
        for folder in ("s2d_hf", "training", "model_cards", "docs", "tests")
        for path in ROOT.glob(f"{folder}/**/*")
    ]
    texts = [path for path in sources if path.suffix in (".py", ".md", ".json", ".yaml", ".ipynb")]
    assert len(texts) > 100
    assert [problem for path in texts for problem in find_tokens(path.name, path)] == []


def add_to_metadata(path: Path) -> None:
    save_file(load_file(path), path, {"format": "pt", "note": HUB})


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def add_to_picture(folder: Path, name: str, **options) -> None:
    replace_text(folder / "README.md", "Of nothing.", f"![x]({name})")
    Image.new("RGB", (4, 4)).save(folder / name, **options)


def with_text(compressed: bool, international: bool) -> PngInfo:
    info = PngInfo()
    (info.add_itxt if international else info.add_text)("Comment", f"by {HUB}", zip=compressed)
    return info


PLACES = {
    "config.json": lambda f: edit_json(f / "config.json", note=HUB),
    "preprocessor_config.json": lambda f: edit_json(f / "preprocessor_config.json", note={"a": [HUB]}),
    "video_preprocessor_config.json": lambda f: edit_json(f / "video_preprocessor_config.json", note=HUB),
    "README.md": lambda f: replace_text(f / "README.md", "Tests.", HUB),
    "metrics.json": lambda f: (f / "metrics.json").write_text(json.dumps({"a": HUB})),
    "LICENSE": lambda f: (f / "LICENSE").write_text(HUB, encoding="utf-16"),
    ".gitattributes": lambda f: (f / ".gitattributes").write_text(f"# {HUB}\n"),
    "frames_s2d.py": lambda f: append(f / "frames_s2d.py", f"\n# {HUB}\n"),
    "model.safetensors": lambda f: add_to_metadata(f / "model.safetensors"),
    "landmark_encoder.safetensors": lambda f: add_to_metadata(f / "landmark_encoder.safetensors"),
    "tEXt.png": lambda f: add_to_picture(f, "tEXt.png", pnginfo=with_text(False, False)),
    "zTXt.png": lambda f: add_to_picture(f, "zTXt.png", pnginfo=with_text(True, False)),
    "iTXt.png": lambda f: add_to_picture(f, "iTXt.png", pnginfo=with_text(True, True)),
    "comment.jpg": lambda f: add_to_picture(f, "comment.jpg", comment=HUB.encode()),
}


@pytest.mark.parametrize("place", PLACES)
def test_tokens_are_found_wherever_they_stand(place, folder):
    PLACES[place](folder)
    (problem,) = found(folder)
    assert problem.startswith(f"{place}: ") and f"`{HUB[:7]}...`" in problem and HUB[7:] not in problem


def test_tokens_in_drawings_are_found(folder):
    replace_text(folder / "README.md", "Of nothing.", "![x](a.svg)")
    (folder / "a.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg">\n<desc>{HUB}</desc></svg>')
    (problem,) = found(folder)
    assert problem.startswith("a.svg: Line 2 holds")


def test_a_damaged_picture_is_named(folder):
    add_to_picture(folder, "a.png", pnginfo=with_text(True, False))
    content = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content[: content.index(b"zTXt") + 8])
    (problem,) = found(folder)
    assert problem.startswith("a.png: Its texts can't be read")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("from /home/jane/models/x", "/home/jane"), ('"path": "/Users/j.doe/x"', "/Users/j.doe"), ("/root/x", "/root"),
        (r"C:\Users\jane\x", r"C:\Users\jane"), (json.dumps(r"D:\Users\jane"), r"D:\\Users\\jane"),
        ("file:///home/jane", "/home/jane"), ("C:/Users/jane/x", "C:/Users/jane"), ("(/srv/me/x)", "/srv/me"),
        ("https://example.com/home/jane", None), ("data/home/jane", None), ("~/models", None), ("/srv/mean", None),
        ("the /root of all", None), ("/homes/jane", None), ("$HOME/home/x", None), ("/srv/me", "/srv/me"),
    ],
)  # fmt: skip
def test_home_folders_are_known_by_their_forms(line, named, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/me")
    path = tmp_path / "metrics.json"
    path.write_text(f"One\n{line}\n")
    expected = [f"metrics.json: A home folder is named, {named}, in line 2: everybody will read it."]
    assert [str(problem) for problem in find_home_folders("metrics.json", path)] == (expected if named else [])


def test_home_folders_are_warned_of_and_keep_from_nothing(folder):
    (folder / "metrics.json").write_text("\n".join(["/home/jane/a", "", *["/home/joe/b"] * 8]))
    edit_json(folder / "config.json", note="/Users/jane/a")
    replace_text(folder / "README.md", "Tests.", "/home/jane")
    report = check_folder(folder, probe=lambda *_: [])
    report.raise_for_problems()
    assert [warning.where for warning in report.warnings] == ["README.md", "config.json", "metrics.json"]
    assert report.warnings[2].text.startswith(
        "A home folder is named, /home/jane, /home/joe, in line 1, 3, 4, 5, 6 and 4 m"
    )
    assert all(f"warning: {warning}" in str(report) for warning in report.warnings)


@pytest.mark.parametrize("token", [HUB, made("api_org_", 34)])
def test_settings_with_a_token_are_not_saved(tmp_path, token):
    """And so not pushed: `push_to_hub` saves first."""
    model = S2DForVideoClassification(S2DConfig(**TINY))
    model.config.note = f"fetched with {token}"
    processor = S2DVideoProcessor(note=token, do_landmarks=False)
    for saved in (model, processor):
        with pytest.raises(ValueError, match=rf"settings hold an access token \({token[:7]}\.\.\.\)") as error:
            saved.save_pretrained(tmp_path)
        assert token not in str(error.value) and not list(tmp_path.iterdir())
    model.config.note = "hf_" + "x" * 34  # an example, and names of functions
    model.config.id2label[0] = "hf_hub_download"
    model.save_pretrained(tmp_path)
