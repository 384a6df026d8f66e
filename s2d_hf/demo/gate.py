"""What requests reach the page: those of the page itself, from its own address, with bodies of a sane size."""

import asyncio
import ipaddress
import json
import re
import shutil
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from transformers.utils import logging

from ..file_names_s2d import VIDEO_SUFFIXES
from .leftovers import remove_unfinished
from .limits import PageLimits
from .uploads import Refused, UploadCheck
from .visits import Visits

logger = logging.get_logger(__name__)

API = "/gradio_api"
# All that the page in the browser asks for. Gradio answers to more: other APIs, proxies, its own tools.
_READ = ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", f"{API}/startup-events", f"{API}/app_id")
_READ_BELOW = ("/assets/", "/static/", "/svelte/")
_FILE = f"{API}/file="
_HEARTBEAT = f"{API}/heartbeat/"
_MESSAGES = f"{API}/queue/data"
_UPLOAD_PROGRESS = f"{API}/upload_progress"
_UPLOAD = f"{API}/upload"
_POSTED_JSON = (f"{API}/run/predict", f"{API}/queue/join", f"{API}/cancel", f"{API}/reset")
_SERVED_SUFFIXES = (*VIDEO_SUFFIXES, ".csv", ".json", ".png")

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOST_JSON_BYTES = 256 * 1024
MOST_QUERY_BYTES = 4096
MOST_UPLOADS = 8  # at a time
MOST_CONNECTIONS = 500  # that stay open
FREE_BYTES = 1_000_000_000  # that uploads leave on the disk
UPLOAD_SECONDS = 1800.0
STALL_SECONDS = 30.0  # without a byte
ENVELOPE_BYTES = 64 * 1024  # of a form around its file

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
SHARED_DOMAIN = ".gradio.live"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'self'",
}
_FILE_POLICY = "script-src 'none'; sandbox"  # nothing in it runs, whatever it is taken for
# Gradio sends a request's headers back with a part of a file
_FILE_HEADERS = (b"host", b"range", b"if-range", b"if-none-match", b"if-modified-since", b"accept", b"origin")


class Addresses:
    """
    Under which names the page is reached. A website that points its own name at this machine (DNS rebinding) has
    another one, and so does one that sends requests from elsewhere.

    Args:
        host (`str`): The address that the page listens at. Of this machine alone, names of this machine are accepted;
            else, also addresses in numbers, which cannot be rebound, and the machine's own name.
        share (`bool`): Whether Gradio's public address leads here.
        allowed (`Iterable[str]`): More names, as of a proxy in front.
    """

    def __init__(self, host: str, share: bool = False, allowed: Iterable[str] = ()):
        self.allowed = {name.lower() for name in allowed}
        self.share = share
        self._names = {*_LOOPBACK_NAMES, host.lower(), *self.allowed}
        self._any_number = not (_is_loopback(host) or host.lower() == "localhost")
        if self._any_number:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local", socket.getfqdn().lower()}

    def allow(self, url: str) -> None:
        """Accepts one more address under which the page is reached."""
        name = urlsplit(url).hostname
        if name:
            self.allowed.add(name.lower())
            self._names.add(name.lower())

    def is_ours(self, authority: str) -> bool:
        """Whether a `Host` header names this page."""
        name = _name_in(authority)
        if name is None:
            return False
        if name in self._names or (self.share and name.endswith(SHARED_DOMAIN)):
            return True
        return self._any_number and _is_address(name)

    def is_same(self, origin: str, authority: str, scheme: str) -> bool:
        """Whether an `Origin` header is the page's own. A proxy may send another `Host` than the browser did."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            return False
        name, port = _name_in(parts.netloc), _port_in(parts.netloc, parts.scheme)
        if name is None:
            return False
        if name in self.allowed:
            return True
        # https may end in front of this server
        ports = {_port_in(authority, scheme), _port_in(authority, parts.scheme)}
        return name == _name_in(authority) and port in ports


class Gate:
    """
    ASGI middleware in front of Gradio.

    Args:
        app (`ASGIApp`): Gradio.
        addresses ([`Addresses`]): Under which the page is reached.
        limits ([`PageLimits`]): Of one visitor.
        visits ([`Visits`]): Is told who is there and what is theirs.
        stall_seconds (`float`): How long a body may send nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        addresses: Addresses,
        limits: PageLimits,
        visits: Visits,
        stall_seconds: float = STALL_SECONDS,
    ):
        self.app = app
        self.addresses = addresses
        self.limits = limits
        self.visits = visits
        self.stall_seconds = stall_seconds
        self._uploads = 0
        self._connections = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # the page has no web sockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_safely(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if scope["path"].startswith(_FILE):
                    headers["Content-Security-Policy"] = _FILE_POLICY
            await send(message)

        try:
            self._check_address(scope)
            await self._let_through(scope, receive, send_safely)
        except ClientDisconnect:
            return
        except Refused as refusal:
            if has_begun:
                raise
            # what is still being sent is not waited for
            answer = PlainTextResponse(refusal.text, refusal.status, {"Connection": "close"})
            await answer(scope, receive, send_safely)

    def _check_address(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self.addresses.is_ours(hosts[0]):
            name = hosts[0] if len(hosts) == 1 else "no or several names"
            raise Refused(421, f"This page is not known as {name!r}: name it with --allowed-host if it is right.")
        if len(origins) > 1 or (origins and not self.addresses.is_same(origins[0], hosts[0], scope["scheme"])):
            raise Refused(403, "This was asked for by another website.")
        is_visit = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not is_visit:
            raise Refused(403, "This was asked for by another website.")

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if len(scope["query_string"]) > MOST_QUERY_BYTES or len(path) > MOST_QUERY_BYTES:
            raise Refused(414, "The address is too long.")
        if method == "POST" and path == _UPLOAD:
            await self._upload(scope, receive, send)
        elif method == "POST" and path in _POSTED_JSON:
            await self.app(scope, await self._checked_json(scope, receive), send)
        elif method not in ("GET", "HEAD"):
            raise Refused(405 if path in _READ else 404, "There is nothing of this kind here.")
        elif path.startswith(_FILE):
            self._check_file(path.removeprefix(_FILE))
            kept = [(name, value) for name, value in scope["headers"] if name in _FILE_HEADERS]
            await self.app({**scope, "headers": kept}, receive, send)
        elif path.startswith(_HEARTBEAT) or path in (_MESSAGES, _UPLOAD_PROGRESS):
            await self._stay(scope, receive, send)
        elif path in _READ or path.startswith(_READ_BELOW):
            await self.app(scope, receive, send)
        else:
            raise Refused(404, "There is nothing of this kind here.")

    async def _stay(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A connection that stays open."""
        if self._connections >= MOST_CONNECTIONS:
            raise Refused(503, "Too many visitors are here. Try again in a few minutes.")
        path = scope["path"]
        query = parse_qs(scope["query_string"].decode("latin-1"))
        named = path.removeprefix(_HEARTBEAT) if path.startswith(_HEARTBEAT) else query.get("session_hash", [""])[-1]
        with ExitStack() as stack:
            if path != _UPLOAD_PROGRESS:
                stack.enter_context(self.visits.connection(_session(named)))
            self._connections += 1
            try:
                await self.app(scope, receive, send)
            except RuntimeError as error:
                if path != _MESSAGES:
                    raise
                # Gradio knows no such session and has said so, but would fill the log with it
                logger.debug(f"No messages for {named}: {error}")
            finally:
                self._connections -= 1

    def _check_file(self, name: str) -> None:
        path = _inside(self.visits.folder, name)
        if path is None or path.suffix.lower() not in _SERVED_SUFFIXES or not path.is_file():
            raise Refused(403, "This file is not of this page.")

    async def _checked_json(self, scope: Scope, receive: Receive) -> Receive:
        """A JSON body that is whole, small, and names no files but this page's."""
        body, more = bytearray(), True
        deadline = time.monotonic() + self.stall_seconds
        while more:
            message = await self._next(receive, deadline - time.monotonic())
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_JSON_BYTES:
                raise Refused(413, "This is too long.")
        try:
            data = json.loads(bytes(body))
        except (ValueError, RecursionError):
            raise Refused(400, "This is no JSON.") from None
        if not isinstance(data, dict):
            raise Refused(400, "This is no JSON object.")
        session = _session(data.get("session_hash"))
        for path in self._files_in(data, Headers(scope=scope)["host"]):
            self.visits.claim(session, path)
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay

    def _files_in(self, data: dict[str, Any], host: str) -> list[Path]:
        """
        Raises:
            Refused: if there are files of elsewhere, or addresses.
        """
        paths: list[Path] = []
        left: list[Any] = [data]
        while left:
            item = left.pop()
            if isinstance(item, dict):
                left += item.values()
                if item.get("url") is not None and not self._is_own_url(item["url"], host):
                    raise Refused(403, "Only videos that were sent to this page are analysed.")
                if "path" in item or item.get("url") is not None:
                    path = _inside(self.visits.folder, item.get("path"))
                    if path is None or path.suffix.lower() not in _SERVED_SUFFIXES:
                        raise Refused(403, "Only videos that were sent to this page are analysed.")
                    paths.append(path)
            elif isinstance(item, list):
                left += item
        return paths

    def _is_own_url(self, url: Any, host: str) -> bool:
        """Gradio's browser sends with a file where it is shown. It is not fetched, and no other would be."""
        if not isinstance(url, str):
            return False
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        return parts.path.startswith(_FILE) and (
            not parts.netloc or parts.netloc == host or self.addresses.is_ours(parts.netloc)
        )

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A video, which is refused as soon as it is too large."""
        headers = Headers(scope=scope)
        too_large = Refused(
            413, f"The video is larger than {self.limits.max_upload:g} MB, the most that this page takes."
        )
        most = self.limits.max_bytes + ENVELOPE_BYTES
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        if self._uploads >= MOST_UPLOADS:
            raise Refused(503, "Too many videos are being sent. Try again in a few minutes.")
        if _free_bytes(self.visits.folder) < FREE_BYTES + most:
            raise Refused(507, "There is no room for more videos. Try again in a few minutes.")
        check = UploadCheck(headers.get("content-type", ""))
        deadline = time.monotonic() + UPLOAD_SECONDS
        size, is_whole = 0, False

        async def receive_checked() -> Message:
            nonlocal size, is_whole
            if is_whole:
                return await receive()
            message = await self._next(receive, min(self.stall_seconds, deadline - time.monotonic()))
            size += len(message.get("body", b""))
            if size > most:
                raise too_large
            check.feed(message.get("body", b""))
            if not message.get("more_body", False):
                check.finish()
                is_whole = True
            return message

        self._uploads += 1
        try:
            await self.app(scope, receive_checked, send)
        finally:
            self._uploads -= 1
            if not is_whole and self._uploads == 0:  # else, whose a file is can't be told; it is swept away later
                remove_unfinished(self.visits.folder)

    async def _next(self, receive: Receive, seconds: float) -> Message:
        try:
            message = await asyncio.wait_for(receive(), max(0.0, seconds))
        except asyncio.TimeoutError:
            raise Refused(408, "The rest of this did not come.") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message


def _session(name: Any) -> str:
    if not isinstance(name, str) or not _SESSION.fullmatch(name):
        raise Refused(400, "This is no name of a session.")
    return name


def _inside(folder: Path, name: Any) -> Path | None:
    """The path of this name if it leads to something below `folder`, without links or steps back."""
    if not isinstance(name, str) or "\0" in name:
        return None
    path = Path(name)
    try:
        is_inside = path.is_absolute() and path.is_relative_to(folder) and ".." not in path.parts
        return path if is_inside and path != folder and path.resolve() == path else None
    except (OSError, RuntimeError, ValueError):
        return None


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder if folder.is_dir() else folder.parent).free


def _name_in(authority: str) -> str | None:
    """The name in `NAME[:PORT]`, in lower case and without a last dot; `None` if it is not of this form."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?", authority)
    return match[1].lower().strip("[]").removesuffix(".") if match else None


def _port_in(authority: str, scheme: str) -> int:
    match = re.search(r":([0-9]{1,5})$", authority)
    return int(match[1]) if match else 443 if scheme == "https" else 80


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_loopback
