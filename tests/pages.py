"""The project's pages for readers, with their code blocks and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# by their path from the root, as `docs/speed.md`
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
_BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """
    A code block of a page.

    Args:
        page (`str`): One of `PAGES`.
        number (`int`): Of its page's blocks, from 0.
        language (`str`): What the page calls it; empty if it doesn't.
        text (`str`): What stands in it.
    """

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}, {self.language} {self.number}"


def find_blocks(page: str, text: str) -> list[Block]:
    """
    Raises:
        ValueError: if a fence is left over, so that something on the page would be taken for no code.
    """
    found = [Block(page, i, *match.groups()) for i, match in enumerate(_BLOCK.finditer(text))]
    if len(re.findall(r"^\s*(?:```|~~~)", text, flags=re.MULTILINE)) != 2 * len(found):
        raise ValueError(f"{page}: a code block is indented, not closed or fenced by ~~~.")
    return found


BLOCKS = [block for page, text in PAGES.items() for block in find_blocks(page, text)]


def texts(page: str, language: str) -> list[str]:
    """What stands in a page's blocks of a language."""
    return [block.text for block in BLOCKS if (block.page, block.language) == (page, language)]


def links(text: str) -> list[str]:
    """Where the links and pictures of a page lead."""
    return re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """The places of a page that a link may name, as GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
