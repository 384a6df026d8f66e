"""Errors of which the command line says more than their text."""

from collections.abc import Mapping


class NotDownloadedError(OSError):
    """
    Files are not on this machine and can't be fetched: without a network, or with `HF_HUB_OFFLINE`.

    Args:
        what (`str`): What is missing.
        reason (`str`): Why it can't be fetched.
        files (`Mapping[str, str]`): Where all that is missing lies, by the arguments that take the paths of copies.
    """

    def __init__(self, what: str, reason: str, files: Mapping[str, str]):
        self.what, self.reason, self.files = what, reason, dict(files)
        super().__init__(
            f"{self.missing}, and pass the path{'s' * (len(files) > 1)} of what you fetched as "
            f"{_listed([f'`{argument}`' for argument in files])}."
        )

    @property
    def missing(self) -> str:
        """What is missing, why, and where it lies."""
        listed = "".join(f"\n  {address}" for address in self.files.values())
        return (
            f"{self.what} is not on this machine, and {self.reason}. Where there is a network, fetch{listed}\nbring "
            f"{'them' if len(self.files) > 1 else 'it'} here"
        )


def _listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


__all__ = ["NotDownloadedError"]
