"""Looks at an upload while it comes in."""

from pathlib import PurePosixPath
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..file_names_s2d import VIDEO_SUFFIXES

_MOST_HEADERS = 8


class Refused(Exception):
    """
    A request that is not answered.

    Args:
        status (`int`): Of HTTP.
        text (`str`): Why, for the visitor.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status
        self.text = text


class UploadCheck:
    """
    Checks a form (`multipart/form-data`) chunk by chunk, by the parser with which Gradio reads it: it must be one file
    whose name is a video's. What is in it is found when it is analysed.

    Args:
        content_type (`str`): The header of this name.

    Raises:
        Refused: if the form is none; later, by `feed` and `finish`, if it is anything else.
    """

    def __init__(self, content_type: str):
        kind, options = parse_options_header(content_type)
        # names are read in this encoding
        is_plain = options.get(b"charset", b"utf-8").lower() == b"utf-8"
        if kind != b"multipart/form-data" or not options.get(b"boundary") or not is_plain:
            raise Refused(400, "A video is sent as a form, multipart/form-data.")
        self._name, self._value = b"", b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._num_parts, self._num_ended = 0, 0
        callbacks: Any = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_part,
            "on_part_end": self._end_part,
        }
        self._parser = MultipartParser(options[b"boundary"], callbacks)

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the form."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Refused(400, "The form could not be read.") from None

    def finish(self) -> None:
        """Nothing comes after this."""
        if self._num_ended != 1:
            raise Refused(400, "There is no video in this.")

    def _begin_part(self) -> None:
        self._num_parts += 1
        self._headers = []
        if self._num_parts > 1:
            raise Refused(400, "Send one video at a time, and nothing else.")

    def _end_part(self) -> None:
        self._num_ended += 1

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers.append((self._name.lower(), self._value))
        self._name, self._value = b"", b""
        if len(self._headers) > _MOST_HEADERS:
            raise Refused(400, "The form could not be read.")

    def _check_part(self) -> None:
        described = [value for name, value in self._headers if name == b"content-disposition"]
        _, options = parse_options_header(described[0]) if len(described) == 1 else (b"", {})
        if options.get(b"name") != b"files" or not options.get(b"filename"):
            raise Refused(400, "There is no video in this.")
        name = options[b"filename"].decode("utf-8", "replace")
        if PurePosixPath(name).suffix.lower() not in VIDEO_SUFFIXES:
            known = ", ".join(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES)
            raise Refused(415, f"The name is not that of a video, which ends in one of {known}.")
