"""What a check finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """
    Something that keeps a folder from being published.

    Args:
        where (`str`): The file, or the part of it.
        text (`str`): What is wrong and what to do, in plain sentences.
        is_missing (`bool`, *optional*, defaults to `False`): Whether something is only still missing: a draft of a
            card may go up with such problems, if the user says so.
    """

    where: str
    text: str
    is_missing: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


__all__ = ["Problem"]
