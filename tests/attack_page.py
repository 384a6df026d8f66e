"""
Attacks the demo page with many made requests and counts wrong answers: `python -m tests.attack_page`.

Wrong is: a success where none is due, an error of the server (5xx), content of a foreign file, or no answer.
"""

import argparse
import itertools
import json
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .page_client import BOUNDARY, ROOT, Page, Visitor, form, raw, served_page, uploaded
from .videos import write_video

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT")
# all of Gradio's, of which the page needs few
OFFERED = {
    "GET": ("/", "/config", "/theme.css", "/robots.txt", "/favicon.ico", "/gradio_api/app_id"),
    "POST": ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel", "/gradio_api/reset"),
}
ENDPOINTS = (
    *OFFERED["GET"], *OFFERED["POST"], "/gradio_api/upload", "/gradio_api/call/show", "/gradio_api/call/v2/show",
    "/gradio_api/api/show", "/gradio_api/run/show", "/gradio_api/component_server", "/gradio_api/process_recording",
    "/gradio_api/vibe-edit", "/gradio_api/undo-vibe-edit", "/gradio_api/vibe-code", "/gradio_api/vibe-starter-queries",
    "/gradio_api/run-history/connect", "/gradio_api/stream/abc", "/gradio_api/stream/abc/close", "/login", "/logout",
    "/gradio_api/profiling/clear", "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/file//etc/passwd",
    "/monitoring",
    "/gradio_api/info", "/gradio_api/openapi.json", "/openapi.json", "/docs", "/redoc", "/gradio_api/dev/reload",
    "/gradio_api/deep_link", "/gradio_api/mcp/", "/gradio_api/queue/status", "/monitoring/summary", "/monitoring/x",
    "/gradio_api/runs", "/gradio_api/token", "/gradio_api/user", "/custom_component/1/client/component/index.js",
    "/gradio_api/custom_component/1/client/component/style.css", "/pwa_icon", "/manifest.json",
    "/gradio_api/login_check",
)  # fmt: skip
HOSTS = ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "x y")
ORIGINS = (
    "https://evil.example",
    "null",
    "http://127.0.0.1:1",
    "https://127.0.0.1.evil.example",
    "file://",
    "chrome:x",
)
NAMES = (
    "a.html", "a.svg", "a.htm", "a.xml", "a.js", "a.mp4.html", "a.mp4\\x.html", "a", "", ".mp4", "a.mp4.", "a.mp4 ",
    "a.py", "a.m3u8", "a.json", "a.csv", "a.png", "../../a.html", "..", "a.mp4%00.html", "a.mp4;.html", "CON",
    "a.MP4.EXE",
)  # fmt: skip


@dataclass
class Case:
    """Bytes to send, and the statuses that are right."""

    sent: bytes
    right: tuple[int, ...]
    secret: bytes = b"root:"
    wait: float = 10.0


@dataclass
class Count:
    cases: int = 0
    wrong: list[str] = field(default_factory=list)


def request(method: str, path: str, body: bytes = b"", host: str = "localhost", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


# narrow, as Gradio refuses some for reasons of its own
NOT_OFFERED, NOT_OURS, NOT_TAKEN, NOT_SERVED = (400, 404, 405), (403, 421), (400, 403, 413, 415), (400, 403, 404, 414)
JSON_BODY = b'{"data": [], "fn_index": 5, "session_hash": "abc", "event_id": "a"}'
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def every_method() -> Iterator[Case]:
    for method, path in itertools.product(METHODS, ENDPOINTS):
        kind = "GET" if method == "HEAD" else method
        is_right = path in OFFERED.get(kind, ())
        right = (200, 405) if is_right and method == "HEAD" else (200,) if is_right else NOT_OFFERED
        yield Case(request(method, path, JSON_BODY, Content_Type="application/json"), right)


def foreign_senders() -> Iterator[Case]:
    offered = (*itertools.product(("GET",), OFFERED["GET"]), *itertools.product(("POST",), OFFERED["POST"]))
    streams = (("GET", "/gradio_api/heartbeat/a"), ("GET", "/gradio_api/queue/data?session_hash=a"))
    for method, path in (*offered, *streams, ("POST", "/gradio_api/upload"), ("OPTIONS", "/gradio_api/upload")):
        for host in HOSTS:
            yield Case(request(method, path, JSON_BODY, host=host, Content_Type="application/json"), NOT_OURS)
        for origin in ORIGINS:
            yield Case(request(method, path, JSON_BODY, Origin=origin, Content_Type="application/json"), NOT_OURS)
        for site in ("cross-site", "same-site"):
            sent = request(method, path, JSON_BODY, Sec_Fetch_Site=site, Content_Type="application/json")
            yield Case(sent, NOT_OURS)


def foreign_files(page: Page, own: str) -> Iterator[Case]:
    up = "/".join([".."] * 12)
    for name in (
        "/etc/passwd", f"{up}/etc/passwd", f"{page.files}/{up}/etc/passwd", f"{own}/{up}/etc/passwd", "//etc/passwd",
        "/%65tc/passwd", "%2fetc%2fpasswd", "%252fetc%252fpasswd", "..%2f" * 12 + "etc/passwd", "/etc/./passwd",
        "/proc/self/environ", "/proc/self/root/etc/passwd", "/dev/stdin", "file:///etc/passwd", "~root/.bashrc",
        str(ROOT / "pyproject.toml"), "pyproject.toml", "./pyproject.toml", str(page.files), f"{page.files}/",
        str(page.files.parent / "lock"), f"{page.files}/../lock", str(page.files.parent / "astronaut.mp4"),
        "http://127.0.0.1:1/a.mp4", "https://169.254.169.254/latest", "HTTP://127.0.0.1/", "ftp://127.0.0.1/a.mp4",
        "http:/127.0.0.1/a.mp4", "//127.0.0.1/a.mp4", "\\\\127.0.0.1\\a.mp4", f"{own}%00", f"{own}%0d%0aX: y",
        "a" * 9000,
        "%", "%c0%ae%c0%ae/etc/passwd", "/etc/passwd%23.mp4", "/etc/passwd?.mp4", "/etc/passwd;.mp4",
        "data:text/html,x",
    ):  # fmt: skip
        for method in ("GET", "HEAD"):
            yield Case(request(method, f"/gradio_api/file={name}"), NOT_SERVED)
            yield Case(request(method, f"/gradio_api/file={name}", Range="bytes=0-9"), NOT_SERVED)


def foreign_uploads() -> Iterator[Case]:
    for name in NAMES:
        for escaped in (name, name.upper()):
            right = (200,) if escaped.strip().lower().endswith(".mp4") and escaped[0] != "." else NOT_TAKEN
            right = NOT_TAKEN if escaped.endswith(" ") else right
            yield Case(
                request("POST", "/gradio_api/upload", form(b"<script>", escaped), Content_Type=FORM_TYPE), right
            )
    one = form(b"x", "a.mp4")
    second = form(b"<script>", "a.html")
    bodies = [
        b"",
        b"--",
        b"\0" * 100,
        one.removesuffix(b"--\r\n") + second[len(BOUNDARY) + 2 :],
        one[:60],
        one[:-20],
        form(b"x", "a.mp4", "other"),
        b"\r\n" * 50_000,
    ]
    bodies += [
        one.replace(b'; filename="a.mp4"', b""),
        one.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 1),
    ]
    bodies.append(form(bytes(500_000), "a.mp4"))
    for body in bodies:
        yield Case(request("POST", "/gradio_api/upload?upload_id=a", body, Content_Type=FORM_TYPE), NOT_TAKEN)
    # two names, or more after the end: it may be taken, by the name of a video
    for body in (one.replace(b"form-data", b"form-data; filename*=utf-8''a.html"), one + second):
        yield Case(request("POST", "/gradio_api/upload", body, Content_Type=FORM_TYPE), (200, *NOT_TAKEN), b".html")
    for kind in (
        "",
        "text/plain",
        "multipart/form-data",
        "multipart/mixed; boundary=a",
        FORM_TYPE + "; charset=utf-16",
    ):
        yield Case(request("POST", "/gradio_api/upload", one, Content_Type=kind), NOT_TAKEN)


def foreign_json(own: str, trap: str) -> Iterator[Case]:
    files = [
        uploaded(path) for path in ("/etc/passwd", trap, f"{own}/../../../lock", "", 5, None, [own], {"path": own})
    ]
    files += [
        uploaded(own, url=trap),
        uploaded(own, url="//evil.example/gradio_api/file=a"),
        {"url": trap},
        {"path": trap},
    ]
    files += [uploaded("/proc/self/environ"), uploaded("file:///etc/passwd"), uploaded(own + "\0"), uploaded("a.mp4")]
    for path, file, index in itertools.product(OFFERED["POST"][:2], files, (0, 3, -1, 99)):
        for data in ([file], [[file]], [{"video": file}]):
            body = {"data": data, "fn_index": index, "session_hash": "abc", "trigger_id": 9}
            yield Case(request("POST", path, json.dumps(body).encode(), Content_Type="application/json"), NOT_TAKEN)
            yield Case(request("POST", path, json.dumps(body).encode("utf-16"), Content_Type="text/plain"), NOT_TAKEN)
    for path in OFFERED["POST"]:
        for body in (
            b"",
            b"[",
            b"null",
            b"[]",
            b"{}",
            b"[" * 200_000,
            b"\xff\xfe",
            b'{"session_hash": "../a"}',
            bytes(300_000),
        ):
            yield Case(request("POST", path, body, Content_Type="application/json"), NOT_TAKEN)


def broken_http() -> Iterator[Case]:
    for sent in (
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n", b"\x16\x03\x01\0\0",
        b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"POST /gradio_api/reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /gradio_api/reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
        b"\r\nz\r\n",
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
        b"GET /gradio_api/heartbeat/../../etc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ):  # fmt: skip
        yield Case(sent, (400, 403, 404, 405, 413, 421, 431))


def attack(page: Page, own: str, trap: str) -> dict[str, Count]:
    """Sends everything; returns what was wrong by kind."""
    kinds = {
        "methods": every_method(), "senders": foreign_senders(), "files": foreign_files(page, own),
        "uploads": foreign_uploads(), "JSON": foreign_json(own, trap), "HTTP": broken_http(),
    }  # fmt: skip
    counts = {}
    for kind, cases in kinds.items():
        count = counts[kind] = Count()
        for case in cases:
            count.cases += 1
            answer = raw(page, case.sent, case.wait)
            status = int(answer.split()[1]) if answer.startswith(b"HTTP/") else None
            if status not in case.right or case.secret in answer:
                count.wrong.append(f"{status} for {case.sent[:300]!r}")
    return counts


def main() -> int:
    """Prints the counts; returns how many answers were wrong."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as trap:
        frames = [np.full((48, 64, 3), 8 * i, np.uint8) for i in range(25)]
        video = write_video(Path(folder) / "a.mp4", frames)
        with served_page(Path(folder), {"max_upload": 0.2, "max_wait": 5}) as page:
            own = Visitor(page).upload_file(video)
            counts = attack(page, own, f"http://127.0.0.1:{trap.getsockname()[1]}/a.mp4")
            trap.settimeout(0.5)
            try:
                trap.accept()
                counts["JSON"].wrong.append("An address was fetched.")
            except TimeoutError:
                pass
            visitor = Visitor(page)
            message = visitor.analyse(visitor.upload_file(video))[1]
            if "2 faces" not in message:
                counts["HTTP"].wrong.append(f"The page is broken after this: {message}")
            unfinished = [path.name for path in page.files.iterdir() if path.is_file()]
            if unfinished:
                counts["uploads"].wrong.append(f"Left: {unfinished}")
            tracebacks = page.output.read_text().count("Traceback")
    for kind, count in counts.items():
        print(f"{kind}: {count.cases} cases, {len(count.wrong)} wrong")
        for text in count.wrong:
            print(f"  {text}")
    wrong = sum(len(count.wrong) for count in counts.values())
    print(f"{sum(count.cases for count in counts.values())} cases, {wrong} wrong; {tracebacks} tracebacks in the log")
    return wrong


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(min(1, main()))
