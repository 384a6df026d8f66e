"""Names in Markdown's tables."""

import re

# what begins something in GitHub's Markdown, or a formula or a placeholder on the Hub
_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~!${}#]")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def escape_cell(text: str) -> str:
    """A name as a table's cell shows it, whatever characters it has; line breaks become spaces."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def unescape_cell(cell: str) -> str:
    """What stands in a cell: the other way round, also of what people escaped (any ASCII punctuation)."""
    return _ESCAPED.sub(r"\1", cell.strip())


__all__ = ["escape_cell", "unescape_cell"]
