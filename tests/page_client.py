"""The demo page without a browser: its server in a process of its own, and visitors who send what they like."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120
BOUNDARY = "a-line-between"


@dataclass
class Page:
    process: subprocess.Popen
    port: int
    temporary: Path  # where it makes its folder
    hosts: Path  # whom it talked to
    output: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def files(self) -> Path:
        (folder,) = self.temporary.glob("s2d-hf-demo-*/files")
        return folder


@contextmanager
def served_page(folder: Path, limits: dict[str, float], **environment: str) -> Iterator[Page]:
    """Serves the page of `demo_server.py` until the end; it makes its folder in `folder / "tmp"`."""
    (folder / "tmp").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = Page(None, port, folder / "tmp", folder / "hosts.txt", folder / "output.txt")
    command = [sys.executable, "-m", "tests.demo_server", str(port), str(page.hosts), json.dumps(limits)]
    with open(page.output, "w") as output:
        page.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(page.temporary)} | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "Running on" not in (text := page.output.read_text()):
            assert page.process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.1)
        yield page
    finally:
        page.process.terminate()
        page.process.wait(60)


def form(content: bytes, name: str, field_name: str = "files") -> bytes:
    """One file as a browser sends it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field_name}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass
class Visitor:
    """Someone with the page open, or with a program that acts as if."""

    page: Page
    session: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.page.address, timeout=60, trust_env=False)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """`headers` have `_` for `-`; a body that is no bytes is sent as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None or isinstance(body, bytes):
            return self.http.request(method, path, content=body, headers=named)
        return self.http.request(method, path, json=body, headers=named)

    def upload(self, content: bytes, name: str = "a.mp4", **headers: str) -> httpx.Response:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.request("POST", "/gradio_api/upload", form(content, name), **{"Content_Type": kind, **headers})

    def upload_file(self, path: Path, name: str | None = None) -> str:
        answer = self.upload(path.read_bytes(), name or path.name)
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def show_index(self) -> int:
        """Which of the page's functions analyses."""
        functions = self.request("GET", "/config").json()["dependencies"]
        (index,) = (function["id"] for function in functions if function["queue"] is not False and function["inputs"])
        return index

    def join(self, file: Any, **headers: str) -> httpx.Response:
        """Asks for the analysis of what a browser would send as the file."""
        body = {"data": [file], "fn_index": self.show_index(), "session_hash": self.session, "trigger_id": 9}
        return self.request("POST", "/gradio_api/queue/join", body, **headers)

    def analyse(self, path: str) -> list[Any]:
        """What the page would show: the annotated video, the message, ..."""
        answer = self.join(uploaded(path))
        assert answer.status_code == 200, answer.text
        shown: list[Any] = []
        for event in self.events():
            if event["msg"] == "process_completed":
                assert event["success"], event
            if event["msg"] in ("process_generating", "process_completed") and event["output"].get("data"):
                shown = shown or event["output"]["data"]
        return shown

    def events(self) -> Iterator[dict[str, Any]]:
        url = f"/gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", url) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))


def uploaded(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def raw(page: Page, sent: bytes, wait: float = 10.0) -> bytes:
    """What comes back for these bytes, until the connection is closed or nothing has come for `wait` seconds."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=wait) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return received
