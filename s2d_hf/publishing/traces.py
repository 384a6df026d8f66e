"""What was not meant to go up: access tokens in texts, metadata of weights and pictures; home folders in texts."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..access_tokens_s2d import HUB_TOKEN
from ..texts_s2d import listed
from .problems import Problem

# The forms are those of GitHub's secret scanning and of the services' own documentation.
_TOKENS = {
    "GitHub": r"(?:gh[pousr]_(?P<secret>[A-Za-z0-9]{36,})|github_pat_(?P<secret2>\w{40,}))(?!\w)",
    "AWS": r"(?:AKIA|ASIA)(?P<secret>[A-Z2-7]{16})(?![A-Za-z0-9])",
    "OpenAI, Anthropic or the like": (
        r"sk-(?:(?:proj|svcacct|admin|ant|or)-(?P<secret>(?=[\w-]*\d)[\w-]{20,})|(?P<secret2>[A-Za-z0-9]{32,}))"
    ),
    "Weights & Biases": r"(?i:WANDB_API_KEY)\W{1,6}(?P<secret>\w{40,})",
    "GitLab": r"glpat-(?P<secret>[\w-]{20,})",
    "Slack": r"xox[abeprs]-(?P<secret>[A-Za-z0-9-]{20,})",
    "Google": r"AIza(?P<secret>[\w-]{35})(?![\w-])",
    "npm or PyPI": r"(?:npm_(?P<secret>[A-Za-z0-9]{36})(?!\w)|pypi-(?P<secret2>[\w-]{60,}))",
}
_PATTERNS = {"the Hugging Face Hub": HUB_TOKEN} | {
    service: re.compile(rf"(?<![A-Za-z0-9]){pattern}", re.ASCII) for service, pattern in _TOKENS.items()
}
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
# not the end of a URL or of another path
_BEFORE_PATH = r"(?<![\w.~$}-])"
# JSON doubles backslashes
_HOME_FOLDER = re.compile(
    _BEFORE_PATH + r"(?:/(?:home|Users)/[\w.-]+|/root(?=/)|[A-Za-z]:(?:\\\\?|/)Users(?:\\\\?|/)[\w.-]+)"
)
# `hf_xxxx...` in an example is none
_FEWEST_CHARACTERS = 5
_SHOWN = 4
_LISTED = 5


def find_tokens(name: str, path: Path) -> Iterator[Problem]:
    """
    The access tokens and private keys in a file; messages show their first characters alone.

    Args:
        name (`str`): The file's name in the repository.
        path (`Path`): The file.
    """
    try:
        texts = list(_read_texts(path))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        yield Problem(name, f"Its texts can't be read ({error}): save the picture again.")
        return
    for place, text in texts:
        for number, line in enumerate(text.split("\n"), start=1):
            for start, what in dict.fromkeys(_find_in_line(line)):
                yield Problem(
                    name,
                    f"{place or f'Line {number}'} holds what looks like {what} (`{start}...`): take it out, and "
                    "revoke it if anybody has seen it.",
                )


def find_home_folders(name: str, path: Path) -> Iterator[Problem]:
    """
    Whether somebody's home folder stands in a text: this user's, or one by its form (`/home/NAME`).

    Args:
        name (`str`): The file's name in the repository.
        path (`Path`): The file. Nothing is looked for in weights, pictures and videos.
    """
    text = None if path.suffix.lower() == ".safetensors" else _as_text(path.read_bytes())
    found: dict[int, str] = {}
    for number, line in enumerate((text or "").split("\n"), start=1):
        match = _own_home().search(line) or _HOME_FOLDER.search(line)
        if match is not None:
            found[number] = match[0]
    if found:
        lines = [str(number) for number in found]
        named = ", ".join(dict.fromkeys(found.values()))
        text = f"A home folder is named, {named}, in line {listed(lines, _LISTED)}: everybody will read it."
        yield Problem(name, text)


def _own_home() -> re.Pattern[str]:
    home = str(Path.home())
    return re.compile(rf"{_BEFORE_PATH}{re.escape(home)}(?![\w.-])" if len(home) > 1 else r"(?!)")


def _find_in_line(line: str) -> Iterator[tuple[str, str]]:
    """The first characters of each token, and what it is."""
    for service, pattern in _PATTERNS.items():
        for match in pattern.finditer(line):
            group = next(name for name in ("secret", "secret2") if match.groupdict().get(name))
            if len(set(match[group])) >= _FEWEST_CHARACTERS:
                before = match[0][: match.start(group) - match.start()]
                yield before + match[group][:_SHOWN], f"an access token of {service}"
    for match in _PRIVATE_KEY.finditer(line):
        yield match[0], "a private key"


def _read_texts(path: Path) -> Iterator[tuple[str | None, str]]:
    """A file's texts, and what to call their place; `None` where lines are counted."""
    if path.suffix.lower() == ".safetensors":
        with open(path, "rb") as file:
            # as the format has it: eight bytes with the length of the JSON header
            length = int.from_bytes(file.read(8), "little")
            yield "Its metadata", file.read(min(length, 100 << 20)).decode("utf-8", "replace")
        return
    content = path.read_bytes()
    text = _as_text(content)
    if text is not None:
        yield None, text
    else:
        # comments of pictures and videos stand in them as they are; PNG may compress its own
        yield "Its content", content.decode("latin-1")
        for text in _compressed_texts(content):
            yield "A text in it", text


def _as_text(content: bytes) -> str | None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    return None if b"\0" in content else content.decode("utf-8", "replace")


def _compressed_texts(content: bytes) -> list[str]:
    if not content.startswith(b"\x89PNG") or (b"zTXt" not in content and b"iTXt" not in content):
        return []
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        texts: dict[str, str] = getattr(image, "text", {})  # PNG images have it
        return [str(text) for text in texts.values() if text.encode() not in content]


__all__ = ["find_home_folders", "find_tokens"]
