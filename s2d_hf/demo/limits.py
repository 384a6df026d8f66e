"""What one visitor of the page may take of it."""

from dataclasses import dataclass, fields

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class PageLimits:
    """
    What one visitor may take of a page that others wait for.

    Args:
        max_upload (`float`): Of a video, in MB.
        max_duration (`float`): Of a video, in seconds.
        max_wait (`float`): How long one analysis may keep the others waiting, in seconds of the clock.

    Raises:
        ValueError: if a limit is not above zero.
    """

    max_upload: float = 200
    max_duration: float = 600
    max_wait: float = 600

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"`{limit.name}` must be above zero, got {getattr(self, limit.name)!r}.")

    @property
    def max_bytes(self) -> int:
        """`max_upload` in bytes."""
        return int(self.max_upload * MEGABYTE)

    def check_duration(self, seconds: float | None) -> None:
        """
        Raises:
            ValueError: if a video of so many seconds, or of which so many have been seen, is too long.
        """
        if seconds is not None and seconds > self.max_duration:
            raise ValueError(
                f"It is longer than {span(self.max_duration)}, the most that this page takes. Cut it, and drop a part."
            )


def span(seconds: float) -> str:
    """
    Example:
    ```python
    >>> span(90), span(600), span(60)
    ('90 seconds', '10 minutes', '1 minute')
    ```
    """
    number, unit = (seconds / 60, "minute") if seconds >= 60 and seconds % 60 == 0 else (seconds, "second")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
