"""What property tests hold against any call: it is right, or it is refused in one line that says what was wrong."""

import re
from collections.abc import Callable
from typing import Any


def result_or_none(named: str, call: Callable, *arguments: Any, **options: Any) -> Any:
    """What a call returns; None where it is refused, in one line that matches `named`. All else is a failure."""
    try:
        return call(*arguments, **options)
    except (ValueError, TypeError, OSError) as error:
        assert "\n" not in str(error) and re.search(named, str(error)), repr(error)
        return None
