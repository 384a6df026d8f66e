"""The cards of the released models and the template: complete, true to the registry, and with code that runs."""

import ast
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image
from transformers import pipeline

from s2d_hf import S2DConfig, __version__
from s2d_hf.cli import build_parser
from s2d_hf.data.paper_datasets import find_paper_dataset
from s2d_hf.publishing import REQUIRED_SECTIONS, check_card
from s2d_hf.publishing.cards import find_card_problems
from s2d_hf.trainer import read_recipe

from .conftest import GOLDEN_LABELS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "model_cards"
REVISION = f"v{__version__}"
# the released models, with the dataset that each is of; a second data set is what the ViT was trained on
VIDEO_CARDS = {"s2d-dfew": "DFEW", "s2d-ferv39k": "FERV39k", "s2d-mafw": "MAFW"}
IMAGE_CARDS = {"s2d-affectnet7": "AffectNet-7", "s2d-rafdb": "RAF-DB"}
CARDS = VIDEO_CARDS | IMAGE_CARDS

# runs pieces of code one by one, each by itself, and prints what each of them printed
RUN_BLOCKS = """
import contextlib, importlib.util, io, json
assert importlib.util.find_spec("s2d_hf") is None
printed = []
for code in json.load(open("blocks.json")):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "card", "exec"), {})
    printed.append(output.getvalue())
print(json.dumps(printed))
"""


def read(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The text below a `##` heading."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, without marks of bold type."""
    found = (re.findall(r"[^|]+", line) for line in text.splitlines() if line.startswith("| "))
    return [[cell.replace("*", "").strip() for cell in cells] for cells in found]


def config_of(name: str) -> S2DConfig:
    labels = find_paper_dataset(CARDS[name]).labels
    architecture = "S2DForVideoClassification" if name in VIDEO_CARDS else "S2DForImageClassification"
    return S2DConfig(architectures=[architecture], id2label=dict(enumerate(labels)))


def test_no_card_is_missing():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.md" for name in CARDS} | {"template.md"}


@pytest.mark.parametrize("name", VIDEO_CARDS)
def test_video_cards_are_complete(name):
    assert check_card(FOLDER / f"{name}.md", config_of(name), repo_id=f"s2d-hf/{name}") == []


@pytest.mark.parametrize("name", IMAGE_CARDS)
def test_image_cards_wait_for_a_measurement_and_nothing_else(name):
    text = read(name)
    problems = find_card_problems(text, config_of(name), repo_id=f"s2d-hf/{name}")
    assert any("`model-index`" in problem.text for problem in problems)
    assert "To be written" in section(text, "Evaluation")
    assert all(problem.is_missing for problem in problems)
    # what stands where when it has been measured
    result = EvalResult("image-classification", "x", "x", "accuracy", 0.5)
    data = ModelCardData(**(ModelCard(text).data.to_dict() | {"model_name": name, "eval_results": [result]}))
    measured = f"---\n{data.to_yaml()}\n---\n{text.split('---', 2)[2]}".replace("To be written", "Measured")
    assert check_card(measured, config_of(name), repo_id=f"s2d-hf/{name}") == []


@pytest.mark.parametrize("name", CARDS)
def test_metadata_survive_the_client(name):
    card = ModelCard(read(name), ignore_metadata_errors=False)
    raw = yaml.safe_load(card.content.split("---")[1])
    assert ModelCardData(**card.data.to_dict()).to_dict() == card.data.to_dict() == raw
    assert raw["pipeline_tag"] == ("video" if name in VIDEO_CARDS else "image") + "-classification"
    assert raw["license"] == "other" and raw["license_link"].startswith("http")


@pytest.mark.parametrize("name", VIDEO_CARDS)
def test_figures_are_the_registered_ones_and_marked_as_the_authors(name):
    text, dataset = read(name), find_paper_dataset(CARDS[name])
    plain, oversampling = dataset.reported["plain"], dataset.reported["oversampling"]
    results = ModelCard(text).data.eval_results
    assert {result.metric_name: round(100 * result.metric_value, 4) for result in results} == {
        "UAR": plain.folds["1"].uar,
        "WAR": plain.folds["1"].war,
    }
    for result in results:
        assert result.dataset_name == dataset.name and result.dataset_split == "test" and not result.verified
        assert result.dataset_config == ("set_1" if len(dataset.folds) > 1 else None)
        assert "not reproduced" in result.source_name and result.source_url == "https://arxiv.org/abs/2312.05447"
    evaluation = section(text, "Evaluation")
    assert "Reported by the authors; not reproduced by us" in evaluation
    expected = {
        "plain": plain.mean, "with oversampling": oversampling.mean
    } if len(dataset.folds) == 1 else {
        **{fold: (*plain.folds[fold], *oversampling.folds[fold]) for fold in dataset.folds},
        "mean": (*plain.mean, *oversampling.mean),
    }  # fmt: skip
    shown = {row[0]: tuple(map(float, row[1:])) for row in rows(evaluation) if re.fullmatch(r"[\d.]+", row[1])}
    assert shown == expected
    # the introduction repeats those of the weights that are here
    introduction = text.split("## How to use")[0]
    assert f"{plain.folds['1'].uar:.2f} %" in introduction and f"{plain.folds['1'].war:.2f} %" in introduction


@pytest.mark.parametrize("name", CARDS)
def test_labels_and_counts_are_the_registered_ones(name):
    text, dataset = read(name), find_paper_dataset(CARDS[name])
    assert rows(section(text, "Labels"))[2:] == [[str(i), label] for i, label in enumerate(dataset.labels)]
    assert f"Recognises {len(dataset.labels)} facial expressions" in text
    data = section(text, "Training data")
    expected = dataset.expected[("1", "train")]
    assert f"{expected.samples:,}" in data
    if len(expected.per_class) == len(dataset.labels):
        counts = {row[0]: int(row[1].replace(",", "")) for row in rows(data)[2:]}
        assert counts == expected.per_class
        for label, _, share in rows(data)[2:]:
            assert float(share.removesuffix(" %")) == pytest.approx(100 * counts[label] / expected.samples, abs=0.0501)


@pytest.mark.parametrize("name", CARDS)
def test_how_to_use_and_out_of_scope_are_those_of_the_template(name):
    data = ModelCardData(pipeline_tag="video-classification" if name in VIDEO_CARDS else "image-classification")
    template = ModelCard.from_template(
        data, template_path=str(FOLDER / "template.md"), repository=f"s2d-hf/{name}", revision=REVISION
    ).content
    for title in ("How to use", "Intended use", "Out-of-scope use"):
        assert section(read(name), title).split() == section(template, title).split(), title
    for said in ("perceived", "not inner states", "decisions about people", "2024/1689", "Article 5(1)(f)"):
        assert said in section(template, "Out-of-scope use")


@pytest.mark.parametrize("name", CARDS)
def test_five_lines_are_enough(name):
    first = blocks(section(read(name), "How to use"), "python")[0]
    assert len(first.splitlines()) == 5 and f'revision="{REVISION}"' in first


def load_folds_script():
    spec = importlib.util.spec_from_file_location("folds_script", ROOT / "training" / "folds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CARDS)
def test_commands_are_understood(name):
    script, commands = load_folds_script(), []
    for line in "".join(blocks(read(name), "bash")).splitlines():
        program, *arguments = shlex.split(line)
        if program == "s2d-hf":
            parsed = build_parser().parse_args(arguments)
            commands.append(parsed.command)
            assert parsed.command == "convert" or parsed.model == f"s2d-hf/{name}"
            assert parsed.command == "predict" or parsed.dataset == CARDS[name]
        else:
            assert [program, *arguments[:2]] == ["accelerate", "launch", "training/folds.py"]
            parsed, more = script.parse_arguments(arguments[2:])
            dataset = find_paper_dataset(parsed.dataset)
            assert dataset.name == CARDS[name] and set(parsed.folds or ()) <= set(dataset.folds)
            recipe = str(script.RECIPES / f"{name.removeprefix('s2d-').rstrip('78')}.yaml")
            read_recipe([recipe, "--data_root", parsed.data_root, "--use_cpu", *more], default=recipe)
            commands.append("train" if parsed.evaluate_only is None else f"evaluate {parsed.evaluate_only}")
    assert f"evaluate s2d-hf/{name}" in commands
    assert ("predict" in commands) == (name in VIDEO_CARDS)


def test_python_runs_with_remote_code_of_the_pinned_version(
    hub, clean_python, converted, image_folder, face, face_video, retinaface_weights, tmp_path
):
    """Every block of every card. What `main` holds by then is of no use: only the pinned version can answer."""
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "README.md").write_text("Nothing is left.\n")
    work, home = tmp_path / "work", tmp_path / "home"
    checkpoints = home / "torch" / "hub" / "checkpoints"
    for folder in (work, checkpoints):
        folder.mkdir(parents=True)
    # in place of the download of the detector's weights
    (checkpoints / "retinaface_mobilenet0.25.pth").symlink_to(retinaface_weights)
    for video in ("face.mp4", "meeting.mp4"):
        (work / video).symlink_to(face_video)
    for picture in ("face.jpg", "photograph.jpg"):
        Image.fromarray(face).save(work / picture)
    code, origin = [], []
    for name in CARDS:
        hub.add_model(f"s2d-hf/{name}", converted if name in VIDEO_CARDS else image_folder, tags=[REVISION])
        hub.add_model(f"s2d-hf/{name}", tmp_path / "later")
        for block in blocks(read(name), "python"):
            code.append(block)
            origin.append(name)
    assert len(code) == 2 * len(CARDS)
    (work / "blocks.json").write_text(json.dumps(code))
    run = subprocess.run(
        [clean_python, "-I", "-c", RUN_BLOCKS],
        cwd=work, env=hub.environment(home) | {"TORCH_HOME": str(home / "torch"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    printed = json.loads(run.stdout.splitlines()[-1])

    expected = {}
    for kind, names, folder, file in (
        ("video", VIDEO_CARDS, converted, "face.mp4"), ("image", IMAGE_CARDS, image_folder, "face.jpg"),
    ):  # fmt: skip
        scores = pipeline(f"{kind}-classification", model=str(folder))(str(work / file))
        expected |= {name: {score["label"]: score["score"] for score in scores} for name in names}
    for name, first, cropped in zip(origin[::2], printed[::2], printed[1::2], strict=True):
        shown = dict(line.rsplit(" ", 1) for line in first.splitlines())
        assert {label: float(score) for label, score in shown.items()} == pytest.approx(expected[name], abs=1e-5)
        found = ast.literal_eval(cropped)
        assert len(found) == 5 and {score["label"] for score in found} <= set(GOLDEN_LABELS)
        # of a part of the frame, not of all of it
        assert found[0]["score"] != pytest.approx(max(expected[name].values()), abs=1e-5)


def render_template(**values) -> str:
    data = ModelCardData(
        license="mit", library_name="transformers", pipeline_tag="video-classification", datasets=["me/faces"],
        tags=["s2d", "facial-expression-recognition"], model_name="faces",
        eval_results=[EvalResult("video-classification", "me/faces", "Faces", "recall", 0.5, metric_name="UAR")],
    )  # fmt: skip
    return str(ModelCard.from_template(data, template_path=str(FOLDER / "template.md"), **values))


def test_template_with_values_is_a_complete_card():
    text = render_template(
        model_name="faces", summary="Recognises whether a face is happy.", license_note="MIT, as the data.",
        repository="me/faces", revision="v1.0.0", num_frames=8, labels=["happy", "not happy"],
        training_data="Two videos of ourselves, labelled by us.", training="One epoch.", evaluation="Half is right.",
        recalls=[37.125, None], recalls_note="On our videos.", limits="It was seen to fail in the dark.",
        impact="A laptop, a minute; carbon was not measured.", data_citation="@misc{us, title={Us}}",
    )  # fmt: skip
    config = S2DConfig(architectures=["S2DForVideoClassification"], id2label={0: "happy", 1: "not happy"})
    assert check_card(text, config, repo_id="me/faces") == []
    assert rows(section(text, "Evaluation"))[2:] == [["happy", "37.12"], ["not happy", "no samples"]]
    for given in ("8 frames", "labelled by us", "- It was seen to fail", "A laptop", "@misc{us", "MIT, as", "v1.0.0"):
        assert given in text


def test_template_without_values_is_refused_in_every_section_that_only_people_can_fill():
    text = render_template()
    assert all(problem.is_missing for problem in find_card_problems(text))
    unwritten = {title for title in REQUIRED_SECTIONS if "to be written" in section(text, title).lower()}
    assert unwritten == set(REQUIRED_SECTIONS) - {"How to use", "Intended use", "Out-of-scope use"}
    assert check_card(text)
