"""Fonts for names in any script: which installed font has their characters, and what is drawn where none has."""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

# it has a box for every character
_LAST_RESORT = "Last Resort"
_WITH_NAMES = "#0123456789%. "


def find_fonts(text: str) -> list[tuple[str, Path]]:
    """
    Families and files of fonts for a text: matplotlib's own, and of the installed ones those that are needed for
    what the ones before lack.
    """
    found: list[tuple[str, Path]] = []
    missing = {character for character in text if not _is_invisible(character)}
    for number, (family, file) in enumerate(_candidates()):
        has = {character for character in missing if ord(character) in characters_of(file)}
        if has or number == 0:
            found.append((family, file))
            missing -= has
        if not missing:
            break
    return found


def find_font(text: str) -> Path | None:
    """The file of one font that has all characters of a text, and digits."""
    wanted = {ord(character) for character in text + _WITH_NAMES if not _is_invisible(character)}
    return next((file for _, file in _candidates() if wanted <= characters_of(file)), None)


@lru_cache(maxsize=1024)
def characters_of(file: Path) -> frozenset[int]:
    """The code points that a font has; none of a font that can't be read or scaled."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def escape_missing(text: str, known: Iterable[int]) -> str:
    """With `U+5FEB` for a character that is not among the `known` ones; white space becomes spaces."""
    known = set(known)
    parts: list[str] = []
    was_escaped = False
    for character in text:
        if ord(character) not in known and _is_invisible(character) and not character.isspace():
            continue
        is_escaped = not character.isspace() and ord(character) not in known
        if (is_escaped or was_escaped) and parts and not (parts[-1].isspace() or character.isspace()):
            parts.append(" ")
        parts.append(f"U+{ord(character):04X}" if is_escaped else " " if character.isspace() else character)
        was_escaped = is_escaped
    return "".join(parts)


def warn_of_escapes(names: dict[str, str]) -> None:
    """Says once which names are drawn as something else, and what to do."""
    escaped = [f"{name!r} as {drawn}" for name, drawn in names.items() if "U+" in drawn and "U+" not in name]
    if escaped:
        logger.warning_once(
            f"No installed font has all characters of some labels, which are drawn otherwise: {', '.join(escaped)}. "
            "Install a font that has them, such as one of Noto's."
        )


def _is_invisible(character: str) -> bool:
    """Joiners and the like, and variation selectors."""
    return unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F or character.isspace()


def _candidates() -> Iterator[tuple[str, Path]]:
    """The fonts that matplotlib is set to, then all upright ones of a normal weight, by their names."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    own = FontProperties().get_family()
    yield own[0], Path(findfont(FontProperties()))
    for family in own[1:]:
        try:
            yield family, Path(findfont(FontProperties(family=[family]), fallback_to_default=False))
        except ValueError:  # not installed
            continue
    for font in sorted(fontManager.ttflist, key=lambda font: (font.name, font.fname)):
        is_plain = font.style == "normal" and font.weight in (400, "normal", "regular", "book")
        if is_plain and not font.name.startswith(_LAST_RESORT):
            yield font.name, Path(font.fname)


__all__ = ["characters_of", "escape_missing", "find_font", "find_fonts", "warn_of_escapes"]
