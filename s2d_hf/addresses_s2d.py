"""Videos and images at http(s) addresses, fetched into memory or temporary files."""

import base64
import http.client
import ipaddress
import os
import socket
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from transformers.utils import logging

from .file_names_s2d import is_url, on_one_line
from .video_limits_s2d import check_limit, limit_of

_PIECE = 2**20
# bytes a second
_LEAST_RATE = 1000
# bytes; a smaller download shows no progress bar
_LARGE = 20 * 2**20


@contextmanager
def fetched_file(address: str) -> Iterator[Path]:
    """
    A temporary file of what lies at an http(s) address, which is there as long as the context lasts.

    Redirections are followed to the same host and to public addresses of http(s), and nowhere else: whoever owns an
    address can't reach into the network of whoever opens it.

    Raises:
        FileNotFoundError: if the server says that there is nothing (404, 410).
        ValueError: if the server can't be reached, refuses, stops before the end or sends more than
            `S2D_MAX_DOWNLOAD_BYTES`, or a redirection leads elsewhere.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fetched"
        with open(path, "wb") as file:
            _fetch(address, file)
        yield path


def fetch_bytes(address: str) -> bytes:
    """What lies at an http(s) address; see [`fetched_file`]."""
    with fetched_file(address) as path:
        return path.read_bytes()


def _fetch(address: str, file: IO[bytes]) -> None:
    shown, seconds = address, limit_of("S2D_STALL_SECONDS")
    try:
        request, shown = _ask_for(address)
        opener = urllib.request.build_opener(_CarefulRedirections(address))
        with opener.open(request, timeout=seconds) as answer:
            _copy(answer, file, shown)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(f"There is nothing at {shown}: the server answers {error.code}.") from None
        reason = on_one_line(str(error.reason))
        raise ValueError(f"{shown} can't be fetched: the server answers {error.code} ({reason}).") from None
    except TimeoutError:
        raise ValueError(f"{shown} can't be fetched: no answer for {seconds} s.") from None
    except urllib.error.URLError as error:
        raise ValueError(f"{shown} can't be reached: {on_one_line(str(error.reason))}.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if str(error).startswith(shown):
            raise
        raise ValueError(f"{shown} can't be fetched: {error or type(error).__name__}.") from None


def _ask_for(address: str) -> tuple[urllib.request.Request, str]:
    """The request, and the address as messages show it: a name and password in it are sent apart, and not shown."""
    try:
        parts = urllib.parse.urlsplit(address)
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        _ = parts.port
    except ValueError as error:
        raise urllib.error.URLError(f"it is no address ({error})") from None
    request = urllib.request.Request(_quoted(plain.geturl()), headers={"User-Agent": "s2d-hf"})
    if parts.username is not None:
        given = ":".join(urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        secret = base64.b64encode(given.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request, plain.geturl()


def _copy(answer: Any, file: IO[bytes], address: str) -> None:
    stated = answer.headers.get("Content-Length", "")
    total = int(stated) if stated.isdecimal() else None
    check_limit("S2D_MAX_DOWNLOAD_BYTES", total or 0, f"{address} has {total or 0:,} bytes")
    name = os.path.basename(urllib.parse.urlsplit(address).path) or address
    size, started = 0, time.monotonic()
    with logging.tqdm(
        total=total, unit="B", unit_scale=True, desc=name, leave=False, disable=(total or 0) < _LARGE
    ) as bar:
        while piece := answer.read1(_PIECE):
            size += len(piece)
            check_limit("S2D_MAX_DOWNLOAD_BYTES", size, f"{address} has more than {size - 1:,} bytes")
            file.write(piece)
            bar.update(len(piece))
            seconds = time.monotonic() - started
            if seconds > limit_of("S2D_STALL_SECONDS") and size < _LEAST_RATE * seconds:
                raise ValueError(f"{address} can't be fetched: {size:,} bytes came in {seconds:.0f} s.")
    if total is not None and size < total:
        raise ValueError(f"{address} broke off after {size:,} of {total:,} bytes.")
    if size == 0:
        raise ValueError(f"{address} is empty (0 bytes).")


class _CarefulRedirections(urllib.request.HTTPRedirectHandler):
    def __init__(self, address: str):
        self.host = urllib.parse.urlsplit(address).hostname

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, target: str) -> Any:
        host = urllib.parse.urlsplit(target).hostname
        if not is_url(target) or (host != self.host and not _is_public(host)):
            raise urllib.error.URLError(f"it redirects to {target}, which is no public address")
        return super().redirect_request(request, file, code, message, headers, target)


def _is_public(host: str | None) -> bool:
    try:
        found = socket.getaddrinfo(host, None) if host else []
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_global for entry in found)


def _quoted(address: str) -> str:
    """An address as browsers send it: what is no plain character becomes `%XX`."""
    return urllib.parse.quote(address, safe="%/:?#[]@!$&'()*+,;=~-._")


__all__ = ["fetch_bytes", "fetched_file"]
