"""What names of files and addresses tell. Nothing heavy is imported here."""

import os
import re

from .texts_s2d import visible

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# of the many containers that FFmpeg reads, those in which videos are found in practice
VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v"),
    *(".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".rm"),
    *(".rmvb", ".ts", ".vob", ".webm", ".wmv"),
)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sort key that reads the numbers in a name as numbers: `clip2` before `clip10`."""
    parts = []
    for part in filter(None, re.split(r"([0-9]+)", name)):
        # of any length: longer numbers are larger ones
        digits = part.lstrip("0") if part.isdecimal() else ""
        parts.append((0, len(digits), digits) if part.isdecimal() else (1, 0, part))
    return parts


def is_url(source: str) -> bool:
    """Whether `source` is an http(s) address."""
    return source.lower().startswith(("http://", "https://"))


def printable(name: str) -> str:
    """A file's name as text that every table and file can hold: bytes that are no UTF-8 are written as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def on_one_line(name: str) -> str:
    """A file's name for a log, in which nothing can begin a line or move a terminal's cursor."""
    return visible(printable(name), one_line=True)


__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "is_url", "natural_order", "on_one_line", "printable"]
