"""Whether a model card is complete and its metadata valid."""

import math
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from ..configuration_s2d import S2DConfig
from ..labels import label_names
from ..texts_s2d import shorten
from .licenses import LICENSES
from .problems import Problem

CARD_NAME = "README.md"
MAX_CARD_SIZE = 10**6  # bytes
REQUIRED_SECTIONS = (
    "How to use",
    "Labels",
    "Intended use",
    "Out-of-scope use",
    "Training data",
    "Training",
    "Evaluation",
    "Biases and limits",
    "Environmental impact",
    "Citation",
)
REQUIRED_TAGS = ("s2d", "facial-expression-recognition")
PIPELINE_TAGS = {
    "S2DForVideoClassification": "video-classification",
    "S2DForImageClassification": "image-classification",
}


class _Markdown(MarkdownIt):
    """Links to one's own machine are links too, and are told as they were typed."""

    def validateLink(self, url: str) -> bool:
        return True

    def normalizeLink(self, url: str) -> str:
        return url


# with tables, as the Hub shows them
_MARKDOWN = _Markdown("commonmark").enable("table")
_LINE_BREAK = re.compile(r"\r\n?|\n")
_TO_BE_WRITTEN = re.compile(r"to be written|\[?more information needed\]?", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{\{[^{}]*\}\}")
# BibTeX has doubled braces of its own
_SPACED_PLACEHOLDER = re.compile(r"\{\{\s[^{}]*\s\}\}")
_HTML_LINK = re.compile(r"<(?:img|source|a|video)\b[^>]*?\b(?:src|href)=[\"']([^\"']+)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?\s*(±\s*\d+(\.\d+)?)?")
_REVISION = re.compile(r"""\brevision["']?\s*[=:]\s*["']([^"']+)["']""")


@dataclass
class _Section:
    level: int
    title: str
    blocks: list[SyntaxTreeNode] = field(default_factory=list)  # paragraphs, tables, code and so on


def check_card(
    card: str | Path,
    config: S2DConfig | None = None,
    *,
    folder: str | Path | None = None,
    repo_id: str | None = None,
) -> list[str]:
    """
    What a model card lacks or has wrong, in plain sentences. An empty list: complete and valid.

    A card has one `#` heading and a `##` heading for each of `REQUIRED_SECTIONS`, in their order, with text below; no
    placeholder (`to be written`, `{{ ... }}`, `[More Information Needed]`); and metadata that huggingface_hub reads:
    `license`, `library_name`, `pipeline_tag`, `tags`, `datasets` and a `model-index` with a result. Under "How to
    use" there is Python code. Under "Labels" the labels stand in the order of the classes, as rows of a table that
    begin with the class's number (`| 0 | happy |`) or in one line between commas.

    Args:
        card (`str` or `Path`): The card's text, or, as a `Path`, its file.
        config ([`S2DConfig`], *optional*): The model's. Labels and `pipeline_tag` must be of it.
        folder (`str` or `Path`, *optional*): The model's folder. Files that the card links to must be there.
        repo_id (`str`, *optional*): Where the card is uploaded to. The code under "How to use" must name it.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    return [problem.text for problem in find_card_problems(card, config, folder=folder, repo_id=repo_id)]


def find_card_problems(
    card: str | Path,
    config: S2DConfig | None = None,
    *,
    folder: str | Path | None = None,
    repo_id: str | None = None,
) -> list[Problem]:
    """[`check_card`] with the problems as [`Problem`]s: `is_missing` says what a draft may still lack."""
    if isinstance(card, Path):
        if not card.is_file():
            raise FileNotFoundError(f"There is no model card {card}.")
        if (too_large := find_size_problem(CARD_NAME, card)) is not None:
            return [too_large]
        try:
            text = card.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            return [Problem(CARD_NAME, f"The card is no UTF-8 text ({error}): save it as such.")]
    else:
        text = card
    tree = _parse(text)
    sections = _read_sections(tree)
    return [
        *_check_metadata(text, config, folder),
        *_check_sections(sections),
        *_check_code(text, tree),
        *_check_placeholders(text, tree),
        *_check_usage(sections, repo_id),
        *_check_labels(sections, config),
        *_check_links(tree, folder),
    ]


def find_size_problem(name: str, path: Path, limit: int = MAX_CARD_SIZE) -> Problem | None:
    """Whether a text has more than `limit` bytes; it is not read."""
    size = path.stat().st_size
    if size <= limit:
        return None
    return Problem(name, f"It has {size:,} bytes, and {limit:,} are allowed: make it shorter, or leave it out.")


def linked_files(card: str) -> list[str]:
    """The relative paths that a card's text links to, pictures among them."""
    paths = (unquote(urlsplit(link).path) for link in _links(_parse(card)) if _is_relative(link))
    return list(dict.fromkeys(posixpath.normpath(path) for path in paths))


def pinned_revisions(card: str) -> list[str]:
    """The revisions that a card's Python code names: `revision="v0.1.0"` or `"revision": "v0.1.0"`."""
    return list(dict.fromkeys(_REVISION.findall("\n".join(_python_code(_parse(card))))))


def _missing(text: str) -> Problem:
    return Problem(CARD_NAME, text, is_missing=True)


def _wrong(text: str) -> Problem:
    return Problem(CARD_NAME, text)


def _body_start(text: str) -> int:
    match = REGEX_YAML_BLOCK.match(text)
    return 0 if match is None else match.end()


def _parse(text: str) -> SyntaxTreeNode:
    """The Markdown below the metadata; its blocks have the lines of the whole text."""
    start = _body_start(text)
    return SyntaxTreeNode(_MARKDOWN.parse("\n" * len(_LINE_BREAK.findall(text[:start])) + text[start:]))


def _read_sections(tree: SyntaxTreeNode) -> list[_Section]:
    """The card at its headings, what is before the first one among them."""
    sections = [_Section(0, "")]
    for block in tree.children:
        if block.type == "heading":
            sections.append(_Section(int(block.tag[1:]), block.children[0].content))
        else:
            sections[-1].blocks.append(block)
    return sections


def _find(blocks: Sequence[SyntaxTreeNode], *types: str) -> list[SyntaxTreeNode]:
    """The parts of some types, in their order, at any depth."""
    return [node for block in blocks for node in block.walk() if node.type in types]


def _lines(block: SyntaxTreeNode) -> tuple[int, int]:
    """A block's first line, and the one behind its last."""
    return block.map or (0, 0)  # all blocks of code have them


def _language(fence: SyntaxTreeNode) -> str:
    return next(iter(fence.info.lower().split()), "")


def _python_code(*blocks: SyntaxTreeNode) -> list[str]:
    return [fence.content for fence in _find(blocks, "fence") if _language(fence) == "python"]


def _belonging_to(sections: list[_Section], title: str) -> list[_Section]:
    """The `##` section of a title and those below it; empty if there is none."""
    found: list[_Section] = []
    for section in sections:
        if found and section.level <= 2:
            break
        if found or (section.level == 2 and section.title == title):
            found.append(section)
    return found


def _check_sections(sections: list[_Section]) -> Iterator[Problem]:
    names = [section.title for section in sections if section.level == 1]
    if len(names) != 1:
        text = f"It has {len(names)} headings with one `#` ({', '.join(names)})" if names else "It has no `#` heading"
        yield _missing(f"{text}: there must be one, the model's name.")
    titles = [section.title for section in sections if section.level == 2]
    for title in REQUIRED_SECTIONS:
        if title not in titles:
            yield _missing(f"The section `## {title}` is missing.")
        elif titles.count(title) > 1:
            yield _wrong(f"The section `## {title}` is there {titles.count(title)} times.")
        elif not any(section.blocks for section in _belonging_to(sections, title)):
            yield _missing(f"The section `## {title}` is empty.")
    present = list(dict.fromkeys(title for title in titles if title in REQUIRED_SECTIONS))
    wanted = [title for title in REQUIRED_SECTIONS if title in present]
    if present != wanted:
        yield _wrong(f"The sections are in another order than this one: {', '.join(wanted)}.")


def _check_code(text: str, tree: SyntaxTreeNode) -> Iterator[Problem]:
    lines = _LINE_BREAK.split(text)
    for fence in _find([tree], "fence"):
        first, end = _lines(fence)
        last = lines[end - 1].strip(" \t>")
        if end - 1 == first or not last.startswith(fence.markup) or last.strip(fence.markup[0]):
            yield _wrong("A block of code is not closed: end it with a line of its own fence.")


def _check_placeholders(text: str, tree: SyntaxTreeNode) -> Iterator[Problem]:
    formulas = [_lines(fence) for fence in _find([tree], "fence") if _language(fence) in ("bibtex", "latex", "tex")]
    for number, line in enumerate(_LINE_BREAK.split(text)):
        is_formula = any(first <= number < end for first, end in formulas)
        pattern = _SPACED_PLACEHOLDER if is_formula else _PLACEHOLDER
        found = _TO_BE_WRITTEN.search(line) or pattern.search(line)
        if found is not None:
            shown = shorten(line.strip(), 100, keep="end")
            yield _missing(f"Line {number + 1} is not written yet, it has `{found.group(0)}`: {shown!r}.")


def _check_metadata(text: str, config: S2DConfig | None, folder: str | Path | None) -> Iterator[Problem]:
    if _body_start(text) == 0:
        yield _missing("It has no metadata: it must begin with a block of YAML between two lines `---`.")
        return
    try:
        data = cast(ModelCardData, ModelCard(text).data)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        yield _wrong(f"huggingface_hub can't read its metadata: {' '.join(str(error).split())}")
        return
    yield from _check_license(data.license, data.license_name, data.license_link, folder)
    if data.library_name is None:
        yield _missing("Its metadata lack `library_name: transformers`.")
    elif data.library_name != "transformers":
        yield _wrong(f"`library_name` must be transformers, got {data.library_name!r}.")
    task = _expected_task(config)
    expected = " or ".join(PIPELINE_TAGS.values()) if task is None else task
    if data.pipeline_tag is None:
        yield _missing(f"Its metadata lack `pipeline_tag: {expected}`.")
    elif data.pipeline_tag not in ((task,) if task is not None else PIPELINE_TAGS.values()):
        yield _wrong(f"`pipeline_tag` is {data.pipeline_tag!r}, and for this model it must be {expected}.")
    yield from _check_names("tags", data.tags)
    absent = [tag for tag in REQUIRED_TAGS if not isinstance(data.tags, list) or tag not in data.tags]
    if absent:
        yield _missing(f"`tags` lack {' and '.join(absent)}.")
    if not data.datasets:
        yield _missing("Its metadata lack `datasets`: name what the model was trained on.")
    else:
        yield from _check_names("datasets", data.datasets)
        for name in data.datasets if isinstance(data.datasets, list) else ():
            if _is_unwritten(name):
                continue
            try:
                validate_repo_id(name)
            except HFValidationError:
                yield _wrong(f"`datasets` has {name!r}, which can be no name of a dataset on the Hub.")
    if not data.eval_results:
        yield _missing("Its metadata have no `model-index` with a result.")
    for result in data.eval_results or ():
        yield from _check_result(result, task or data.pipeline_tag)


def _expected_task(config: S2DConfig | None) -> str | None:
    for name in (config.architectures or ()) if config is not None else ():
        return PIPELINE_TAGS.get(name)
    return None


def _check_license(
    identifier: object, name: str | None, link: str | None, folder: str | Path | None
) -> Iterator[Problem]:
    page = "https://huggingface.co/docs/hub/repositories-licenses lists them"
    if identifier is None:
        yield _missing(f"Its metadata lack `license`: an identifier that the Hub knows ({page}).")
        return
    for one in identifier if isinstance(identifier, list) else [identifier]:
        if _is_unwritten(one):
            continue  # said where placeholders are
        if not isinstance(one, str) or one not in LICENSES:
            yield _wrong(f"`license` is {one!r}, which the Hub doesn't know ({page}; `other` for all else).")
    if identifier == "other" or (isinstance(identifier, list) and "other" in identifier):
        for key, value in (("license_name", name), ("license_link", link)):
            if not isinstance(value, str) or not value.strip():
                yield _missing(f"`license: other` needs `{key}`.")
        if isinstance(link, str) and _is_relative(link) and folder is not None and not Path(folder, link).is_file():
            yield _wrong(f"`license_link` names the file {link}, which is not in the folder.")


def _is_unwritten(value: object) -> bool:
    return isinstance(value, str) and _TO_BE_WRITTEN.fullmatch(value.strip().rstrip(".")) is not None


def _check_names(key: str, values: object) -> Iterator[Problem]:
    if values is not None and (
        not isinstance(values, list) or not all(isinstance(value, str) and value for value in values)
    ):
        yield _wrong(f"`{key}` must be a list of names, got {values!r}.")


def _check_result(result: EvalResult, task: str | None) -> Iterator[Problem]:
    name = f"{result.metric_name or result.metric_type} on {result.dataset_name}"
    if task is not None and result.task_type != task:
        yield _wrong(f"`model-index`: {name} is of the task {result.task_type!r}, and the model's is {task!r}.")
    value = result.metric_value
    if isinstance(value, str):
        is_number = _NUMBER.fullmatch(value.strip()) is not None
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and not _is_unwritten(value):
        yield _wrong(f"`model-index`: the value of {name} is no number but {value!r}.")


def _check_usage(sections: list[_Section], repo_id: str | None) -> Iterator[Problem]:
    usage = [block for section in _belonging_to(sections, "How to use") for block in section.blocks]
    if not usage:
        return  # said already
    code = _python_code(*usage)
    if not code:
        yield _missing("There is no block of Python code under `## How to use`.")
    elif repo_id is not None and not any(re.search(rf"[\"']{re.escape(repo_id)}[\"']", block) for block in code):
        yield _missing(f"The Python code under `## How to use` doesn't name the repository, {repo_id!r}.")


def _check_labels(sections: list[_Section], config: S2DConfig | None) -> Iterator[Problem]:
    blocks = [block for section in _belonging_to(sections, "Labels") for block in section.blocks]
    if not blocks:
        return  # said already
    labels = _read_labels(blocks)
    if labels is None:
        yield _missing(
            "`## Labels` must list the labels in the order of the classes: in a table whose rows begin with the "
            "class's number (`| 0 | happy |`), or in one line between commas."
        )
    elif config is not None:
        expected = list(label_names(config))
        if labels != [_without_marks(label) for label in expected]:
            yield _wrong(f"`## Labels` lists {', '.join(labels)}, and the model has {', '.join(expected)}.")


def _read_labels(blocks: Sequence[SyntaxTreeNode]) -> list[str] | None:
    rows = [[_text(cell) for cell in _find([row], "td")] for row in _find(blocks, "tr")]
    rows = [row for row in rows if len(row) > 1 and re.fullmatch("[0-9]+", row[0])]
    if rows:
        if [int(row[0]) for row in rows] != list(range(len(rows))):
            return None
        return [_without_marks(row[1]) for row in rows]
    for paragraph in _find(blocks, "paragraph"):
        names = [_without_marks(name) for name in _text(paragraph).rsplit(":", 1)[-1].rstrip(".").split(",")]
        # a sentence has commas as well
        if len(names) > 1 and all(0 < len(name.split()) <= 3 for name in names):
            return names
    return None


def _text(block: SyntaxTreeNode) -> str:
    """What a reader sees of a paragraph or a cell."""
    parts = _find([block], "text", "code_inline", "html_inline", "softbreak", "hardbreak")
    return "".join(part.content or " " for part in parts).strip()


def _without_marks(text: str) -> str:
    return " ".join(text.split()).strip("`*_\"'").strip()


def _links(tree: SyntaxTreeNode) -> Iterator[str]:
    for node in _find([tree], "link", "image", "html_inline", "html_block"):
        if node.type == "link":
            yield str(node.attrs["href"])
        elif node.type == "image":
            yield str(node.attrs["src"])
        else:
            yield from _HTML_LINK.findall(node.content)


def _is_relative(link: str) -> bool:
    parts = urlsplit(link)
    return not parts.scheme and not parts.netloc and bool(parts.path) and not parts.path.startswith("/")


def _check_links(tree: SyntaxTreeNode, folder: str | Path | None) -> Iterator[Problem]:
    for link in dict.fromkeys(_links(tree)):
        parts = urlsplit(link)
        if parts.scheme == "file" or (not parts.scheme and not parts.netloc and parts.path.startswith("/")):
            yield _wrong(f"It links to {link}, a place on one machine: link to a file of the folder or a web page.")
        elif _is_relative(link):
            path = unquote(parts.path)
            if ".." in Path(path).parts:
                yield _wrong(f"It links to {link}, which is outside the folder.")
            elif folder is not None and not Path(folder, path).is_file():
                yield _wrong(f"It links to {link}, and the folder has no such file.")


__all__ = [
    "CARD_NAME",
    "MAX_CARD_SIZE",
    "REQUIRED_SECTIONS",
    "REQUIRED_TAGS",
    "check_card",
    "find_card_problems",
    "find_size_problem",
    "linked_files",
    "pinned_revisions",
]
