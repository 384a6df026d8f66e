"""Numbers, times, names and lists as messages and tables write them. Nothing heavy is imported here."""

import re
from collections.abc import Iterable


def listed(items: Iterable[object], most: int, between: str = ", ") -> str:
    """`a, b and 3 more`: so many items, and how many there are beyond; with line breaks between, a line for each."""
    texts = [str(item) for item in items]
    beyond = len(texts) - most
    if beyond <= 0:
        return between.join(texts)
    return between.join(texts[:most]) + (between if "\n" in between else " ") + f"and {beyond} more"


def shorten(text: str, length: int, keep: str = "start") -> str:
    """At most `length` characters of a text, beside the dots: of its `"start"`, its `"end"`, or of both (`"ends"`)."""
    if len(text) <= length:
        return text
    if keep == "ends":
        half = length // 2
        return f"{text[: half - 1]}…{text[len(text) - half :]}"
    return f"{text[:length]}…" if keep == "start" else f"…{text[-length:]}"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """`1 video`, `2 videos`; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def clock(seconds: float) -> str:
    """`1:02.5`, or `1:00:02.5` from an hour on: minutes, seconds and tenths."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    ahead = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{ahead}:{rest // 10:02}.{rest % 10}"


def visible(text: str, one_line: bool = False) -> str:
    """A text of others' names, in which nothing can move a cursor or colour it, nor with `one_line` begin a line."""
    controls = r"[\x00-\x1f\x7f-\x9f]" if one_line else r"[\x00-\x09\x0b-\x1f\x7f-\x9f]"
    return re.sub(controls, lambda match: f"\\x{ord(match.group()):02x}", text)


__all__ = ["clock", "count_of", "listed", "shorten", "visible"]
