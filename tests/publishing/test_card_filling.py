"""The card that a training writes: the template's sections, what was measured, and marks where people must write."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification
from s2d_hf.publishing import REQUIRED_SECTIONS, check_card
from s2d_hf.publishing.card_filling import TEMPLATE, write_model_card
from s2d_hf.publishing.cards import find_card_problems
from s2d_hf.trainer import StageArguments, read_recipe
from tests.small_models import TINY

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("calm", "loud", "never seen")
METRICS = {
    "recipe": "faces", "data": "studio", "test_data": "street", "seed": 3, "views": "2 windows",
    "samples": {"train": 1200, "test": 40},
    "parameters": {"total": 2000, "tunable": 150}, "train": {"epoch": 2.0, "train_loss": 1.0, "train_runtime": 4210.0},
    "provenance": {
        "date": "2025-03-04", "s2d_hf": "0.1.0", "python": "3.12.1", "torch": "2.11.0", "transformers": "5.17.0",
        "hardware": "A card", "processes": 2,
    },
    "test": {
        "uar": 0.61234, "war": 0.7, "recall": {"loud": 0.5, "never seen": None, "calm": 0.72468},
        "support": {"calm": 30, "loud": 10, "never seen": 0},
    },
    "chance": {"uar": 0.5, "war": 0.75},
}  # fmt: skip


def stage_of(folder: Path, name: str, *more: str) -> StageArguments:
    arguments = ["--stage", name, "--output_dir", str(folder), "--use_cpu", "--report_to", "none", *more]
    recipe = read_recipe([*arguments, "--train_data", str(folder)], default=ROOT / "training/recipes/synthetic.yaml")
    return recipe.stages[-1]


def write_card(
    folder: Path, name: str, metrics: dict, *more: str, labels: tuple[str, ...] = LABELS
) -> tuple[str, S2DConfig]:
    model_class = S2DForVideoClassification if name == "dynamic" else S2DForImageClassification
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = TINY | names | {"temporal_adapters": name == "dynamic"}
    config.pop("num_labels")
    model = model_class(S2DConfig(**config))
    model.config.architectures = [model_class.__name__]
    write_model_card(folder, stage_of(folder, name, *more), model, metrics)
    return (folder / "README.md").read_text(), model.config


def test_labels_of_any_characters_stand_in_the_tables(tmp_path):
    """As a parser of Markdown reads them, and the check of the card."""
    markdown_it = pytest.importorskip("markdown_it")
    labels = (
        "a|b", "`code`", "two\nlines", "<b>bold</b>", "[x](y)", "back\\slash\\", "\\|", "*star*", "_under_", "a_b_c",
        "~~gone~~", "&amp;", "$x$", "{{ name }}", "![p](q)", "|", "don't", '"quoted"', "# head", "\\*", "快乐", "``",
        "||`|`", "<img src='x.png'>",
    )  # fmt: skip
    recall = {label: i / 100 for i, label in enumerate(labels)}
    metrics = METRICS | {"test": METRICS["test"] | {"recall": recall}}
    text, config = write_card(tmp_path, "static", metrics, labels=labels)
    body = text.split("---\n", 2)[2]
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse(body)
    rows, row = [], []
    for before, token in pairwise(tokens):
        if before.type == "td_open":
            # nothing but text: no code, link, picture, tag or emphasis
            assert all(part.type in ("text", "text_special") for part in token.children) or "`" in token.content
            row.append("".join(part.content for part in token.children))
        if token.type == "tr_close":
            rows.append(row)
            row = []
    names = [" ".join(label.split()) for label in labels]
    assert [[str(i), name] for i, name in enumerate(names)] == [row for row in rows if row and row[0].isdigit()]
    assert [[name, f"{i:.2f}"] for i, name in enumerate(names)] == rows[-len(labels) :]
    (tmp_path / "confusion_matrix.png").touch()
    problems = find_card_problems(text, config, folder=tmp_path)
    assert not [problem for problem in problems if "Labels" in problem.text or not problem.is_missing], problems
    wrong = text.replace("a\\|b", "a\\|c")
    assert any("lists a|c, " in problem.text for problem in find_card_problems(wrong, config, folder=tmp_path))


def test_max_steps_stand_for_the_epochs_that_they_overrule(tmp_path):
    text, _ = write_card(tmp_path, "static", METRICS, "--num_train_epochs", "7")
    assert "| `num_train_epochs` | 7.0 |" in text and "max_steps" not in text
    text, _ = write_card(tmp_path, "static", METRICS, "--num_train_epochs", "7", "--max_steps", "3")
    assert "| `max_steps` | 3 |" in text and "num_train_epochs" not in text


@pytest.mark.parametrize(("name", "medium"), [("static", "picture"), ("dynamic", "video")])
def test_draft_has_the_sections_and_lacks_only_what_people_must_write(tmp_path, name, medium):
    text, config = write_card(tmp_path, name, METRICS)
    assert tuple(re.findall(r"^## (.*)", text, re.MULTILINE)) == REQUIRED_SECTIONS
    (tmp_path / "confusion_matrix.png").touch()
    problems = find_card_problems(text, config, folder=tmp_path)
    assert all(problem.is_missing for problem in problems), problems
    lacking = "\n".join(problem.text for problem in problems)
    for part in ("`license`", "`datasets`", "under which licence", "faces and recordings", "Of the data"):
        assert part in lacking
    assert "(seed 3), 2 windows; in percent" in text
    assert f"1,200 {medium}s of studio." in text and f"Measured on 40 {medium}s of street " in text
    (result,) = ModelCard(text).data.eval_results[:1]
    assert result.dataset_name == "street"
    # the numbers, hardware and settings need nobody
    assert len(problems) == 6
    assert f"Recognises 3 facial expressions in a {medium} of one face" in text
    assert str(tmp_path) not in text


def test_draft_tells_what_was_measured(tmp_path):
    text, _ = write_card(tmp_path, "dynamic", METRICS, "--hub_model_id", "me/faces", "--learning_rate", "0.25")
    results = {result.metric_name: result for result in ModelCard(text).data.eval_results}
    assert results["UAR"].metric_value == 0.6123 and results["UAR"].metric_args == {"average": "macro"}
    assert results["WAR"].metric_value == 0.7 and results["WAR"].dataset_name == "street"
    table = [line for line in text.splitlines() if re.match(r"\| (calm|loud|never seen|this model|chance) \|", line)]
    assert table == [
        "| chance | 50.00 | 75.00 |", "| this model | 61.23 | 70.00 |",
        "| calm | 72.47 |", "| loud | 50.00 |", "| never seen | no samples |",
    ]  # fmt: skip
    for part in (
        "# faces\n", 'model="me/faces"', "| 2 | never seen |", "150 of 2,000 parameters were trained (7.5 %)",
        "seed 3", "| `learning_rate` | 0.25 |", "1,200 videos of studio", "A card, 2 processes",
        "2025-03-04, 1 h 10 min", "torch 2.11.0", "Carbon was not measured", "looks at 4 frames",
        "![Confusion matrix](confusion_matrix.png)",
    ):  # fmt: skip
        assert part in text, part


def test_draft_without_an_evaluation_says_so(tmp_path):
    metrics = {key: value for key, value in METRICS.items() if key not in ("test", "chance")}
    text, _ = write_card(tmp_path, "static", metrics)
    evaluation = " ".join(text.split("## Evaluation")[1].split("## Biases")[0].split())
    assert evaluation == "It has not been evaluated: to be written. ### Per-class recall To be written."
    assert ModelCard(text).data.eval_results is None and any("model-index" in problem for problem in check_card(text))


def test_people_find_the_template_among_the_cards():
    # a link, or where there are none, a copy
    assert (ROOT / "model_cards" / "template.md").read_text() == TEMPLATE.read_text()
