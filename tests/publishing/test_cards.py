from pathlib import Path

import pytest

from s2d_hf import S2DConfig
from s2d_hf.publishing import REQUIRED_SECTIONS, check_card
from s2d_hf.publishing.cards import find_card_problems, linked_files, pinned_revisions

from .made_folders import REPO_ID, make_card

LABELS = ("happy", "sad", "no face")


@pytest.fixture
def config() -> S2DConfig:
    return S2DConfig(
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        architectures=["S2DForVideoClassification"],
    )


def test_a_complete_card_has_no_problems(config, tmp_path):
    card = make_card(LABELS)
    assert check_card(card) == check_card(card, config, repo_id=REPO_ID, folder=tmp_path) == []
    path = tmp_path / "card.md"
    path.write_bytes(card.replace("\n", "\r\n").encode())
    assert check_card(path, config, repo_id=REPO_ID) == []
    with pytest.raises(FileNotFoundError, match="no model card"):
        check_card(tmp_path / "other.md")


@pytest.mark.parametrize("title", REQUIRED_SECTIONS)
def test_every_section_must_be_there_and_filled(title):
    card = make_card(LABELS)
    start = card.index(f"## {title}\n")
    end = card.find("\n## ", start)
    body = card[start : end if end > 0 else None]
    assert check_card(card.replace(body, f"## {title}\n")) == [f"The section `## {title}` is empty."]
    assert f"The section `## {title}` is missing." in check_card(card.replace(f"## {title}\n", f"### {title}\n"))


@pytest.mark.parametrize(
    ("old", "new", "problem", "is_missing"),
    [
        ("license: cc-by-nc-4.0\n", "", "lack `license`", True),
        ("cc-by-nc-4.0", "to be written", "not written yet", True),
        ("cc-by-nc-4.0", "CC BY-NC 4.0", "'CC BY-NC 4.0', which the Hub doesn't know", False),
        ("cc-by-nc-4.0", "other\nlicense_name: mine", "needs `license_link`", True),
        ("cc-by-nc-4.0", "other\nlicense_link: https://example.com", "needs `license_name`", True),
        ("cc-by-nc-4.0", "other\nlicense_name: mine\nlicense_link: LICENSE", "the file LICENSE, which is not", False),
        ("library_name: transformers\n", "", "lack `library_name", True),
        ("library_name: transformers", "library_name: timm", "must be transformers, got 'timm'", False),
        ("pipeline_tag: video-classification\n", "", "lack `pipeline_tag: video-classification`", True),
        ("pipeline_tag: video-classification", "pipeline_tag: image-classification", "must be video-cl", False),
        ("- s2d\n", "", "`tags` lack s2d.", True),
        ("tags:\n- s2d\n- facial-expression-recognition", "tags: [a]", "`tags` lack s2d and facial", True),
        ("datasets:\n- made/up\n", "", "lack `datasets`", True),
        ("- made/up", "- made up by us", "'made up by us', which can be no name", False),
        ("value: 0.5", "value: .nan", "value of UAR on Made up is no number", False),
        ("value: 0.5", "value: good", "is no number but 'good'", False),
        ("    metrics:", "    figures:", "huggingface_hub can't read its metadata", False),
        ("tags:\n", "tags: [\n", "huggingface_hub can't read its metadata", False),
        ("      type: video-classification", "      type: image-classification", "of the task 'image-class", False),
        ("# made-up\n", "made-up\n", "no `#` heading", True),
        ("# made-up\n", "# made-up\n\n# again\n", "2 headings with one `#` (made-up, again)", True),
        (
            "## Intended use\n\nTests.\n",
            "## Intended use\n\nTests.\n\n## Labels\n\n| 0 | a |\n",
            "there 2 times",
            False,
        ),
        ("Tests.\n", "[More Information Needed]\n", "Line 47 is not written yet", True),
        ("Tests.\n", "For {{ whom }}.\n", "`{{ whom }}`", True),
        ("title={{Made up}}", "title={{ title }}", "`{{ title }}`", True),
        ("```python\n", "```\n", "no block of Python code", True),
        (f'"{REPO_ID}"', '"path/to/model"', f"doesn't name the repository, '{REPO_ID}'", True),
        ("| 0 | happy |\n| 1 | sad |", "| 0 | sad |\n| 1 | happy |", "sad, happy, no face, and the model has", False),
        ("| 2 | no face |", "", "lists happy, sad, and the model has happy, sad, no face", False),
        ("| 1 | sad |", "| 7 | sad |", "must list the labels", True),
        ("Tests.\n", "![A picture](pictures/face.png)\n", "pictures/face.png, and the folder has no such", False),
        ("Tests.\n", '<img src="face.png" width="3">\n', "face.png, and the folder has no such", False),
        ("Tests.\n", "[Here](/home/me/face.png)\n", "a place on one machine", False),
        ("Tests.\n", "[Here](../face.png)\n", "outside the folder", False),
        ("}}\n```\n", "}}\n", "is not closed", False),
    ],
)
def test_each_fault_is_found_alone(old, new, problem, is_missing, config, tmp_path):
    card = make_card(LABELS)
    assert card.count(old) >= 1
    # the last one: under "Labels" is after the table's head, a task in the metadata's results after its own
    at = card.rindex(old) if old.startswith("      ") else card.index(old)
    faulty = card[:at] + new + card[at + len(old) :]
    found = find_card_problems(faulty, config, folder=tmp_path, repo_id=REPO_ID)
    matching = [one for one in found if problem in one.text]
    assert len(matching) == 1 and matching[0].is_missing == is_missing, [str(one) for one in found]
    others = [one for one in found if one not in matching]
    # a licence or a list of results that is not there has consequences; nothing else has
    assert len(others) <= (1 if "written yet" in problem or "times" in problem else 0), [str(one) for one in found]


def test_sections_have_an_order():
    card = make_card(LABELS).replace("## Training\n", "## X\n").replace("## Labels\n", "## Training\n")
    assert check_card(card.replace("## X\n", "## Labels\n\n0, 1\n")) == [
        f"The sections are in another order than this one: {', '.join(REQUIRED_SECTIONS)}."
    ]


def test_labels_may_stand_in_a_line(config):
    card = make_card(LABELS)
    table = card[card.index("| |") : card.index("## Intended")]
    assert check_card(card.replace(table, "In this order: `happy`, `sad`, `no face`.\n\n"), config) == []
    assert "lists happy, no face, sad" in check_card(card.replace(table, "happy, no face, sad\n\n"), config)[0]
    assert (
        "must list"
        in check_card(
            card.replace(table, "There are many of them, and everybody knows what each of them means.\n\n"), config
        )[0]
    )


def test_a_text_without_metadata_is_told_so_once(config):
    body = make_card(LABELS).split("---\n", 2)[2]
    assert check_card(body, config) == [
        "It has no metadata: it must begin with a block of YAML between two lines `---`."
    ]
    assert check_card("---\n\n---\n" + body, config)[0].startswith("Its metadata lack `license`")
    # with a blank behind the first line, neither the Hub nor huggingface_hub take it for metadata
    assert check_card(make_card(LABELS).replace("---\n", "--- \n", 1), config) == check_card(body, config)


def test_links_and_revisions_are_those_of_text_and_code():
    card = (
        "![a](a.png) [b](https://example.com/b.png) [c](#part) <img src='d/e.jpg'>\n```python\n# [x](x.png)\n"
        'f(revision="v0.1.0", **{"revision": "main"})\n```\nrevision="v9"\n'
    )
    assert linked_files(card) == ["a.png", "d/e.jpg"]
    assert pinned_revisions(card) == ["v0.1.0", "main"]


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("[![badge](a.png)](b.md)", ["b.md", "a.png"]),
        ("![face][one]\n\n[one]: a.png 'A face'", ["a.png"]),
        ("![face](<my face.png>) ![face](my%20face.png)", ["my face.png"]),
        ("[face](face_(1).png)", ["face_(1).png"]),
        ("![a [small] face](a.png)", ["a.png"]),
        ("### [A title](a.png)\n\nText.", ["a.png"]),
        ("> | face |\n> | --- |\n> | ![face](a.png) |", ["a.png"]),
        ("<p align='center'>\n  <img width='3' src='a.png'>\n</p>", ["a.png"]),
        ("`[code](a.png)` and \\[this](a.png)", []),
        ("    ![code](a.png)\n\n- ```\n  ![code](a.png)\n  ```", []),
        ("<!-- ![face](a.png) -->", []),
        ("[x](https://example.com/a.png) <https://example.com/b.png> [y](#part) [z](mailto:a@example.com)", []),
    ],
)
def test_links_are_those_that_readers_see(text, files, tmp_path):
    assert linked_files(text) == files
    problems = check_card(make_card(LABELS).replace("Tests.", text), folder=tmp_path)
    assert all("the folder has no such file" in problem for problem in problems) and bool(problems) == bool(files)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("## Citation\n", "<!--\n## Citation\n-->\n", "`## Citation` is missing"),
        ("# made-up\n", "made-up\n=======\n\n# again\n", "2 headings with one `#` (made-up, again)"),
        ("## Training data\n\nNone.", "Training data\n---\n\nNone.", None),
        ("Tests.\n", "- ```\n  # code\n  ```\n", None),
        ("Tests.\n", "~~~~ text\n# code\n~~~\n```\n~~~~\n", None),
        ("Tests.\n", "- ```\n  # code\n", "is not closed"),
        ("| 2 | no face |", "| 2 | <b>no</b>&nbsp;face |", "<b>no</b> face, and the model has"),
        ("| 2 | no face |", "| 2 | **no face** | really |", None),
        ("| --- | --- |\n", "", "must list the labels"),  # no table without it
    ],
)
def test_parts_are_those_that_readers_see(old, new, problem, config):
    card = make_card(LABELS)
    assert card.count(old) == 1
    found = check_card(card.replace(old, new), config)
    assert (len(found) == 1 and problem in found[0]) if problem else found == []


def test_a_card_that_is_no_text(tmp_path):
    path = Path(tmp_path, "README.md")
    path.write_bytes(b"---\n\xff\n---\n")
    assert len(check_card(path)) == 1 and "UTF-8" in check_card(path)[0]
