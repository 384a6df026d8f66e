"""Names in Markdown's tables."""

import re

# what begins something in GitHub's Markdown, or a formula or a placeholder on the Hub
_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~!${}#]")


def escape_cell(text: str) -> str:
    """A name as a table's cell shows it, whatever characters it has; line breaks become spaces."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


__all__ = ["escape_cell"]
