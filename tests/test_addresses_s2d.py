"""Videos and images at addresses, from a server of the test's own."""

import base64
import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from s2d_hf import addresses_s2d
from s2d_hf.addresses_s2d import fetch_bytes, fetched_file
from s2d_hf.frames_s2d import read_image
from s2d_hf.timeline.streaming import open_stream, sample_evenly
from s2d_hf.video_reading_s2d import read_video

from .videos import counting_frames, frame_number, write_video

CONTENT = bytes(range(256)) * 40


class Answers(BaseHTTPRequestHandler):
    """What is served at each path: bytes, a status, a place to redirect to, or a function of this handler."""

    places: dict = {}

    def do_GET(self) -> None:
        answer = self.places.get(self.path, 404)
        if callable(answer):
            answer(self)
        elif isinstance(answer, int):
            self.send_error(answer)
        elif isinstance(answer, str):
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(**places: object) -> Iterator[str]:
    handler = type("Served", (Answers,), {"places": {f"/{name}": answer for name, answer in places.items()}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_content_and_names_that_need_quoting():
    with serving(**{"a": CONTENT, "%C3%A4%20b?x=1&y=%2F": CONTENT[:7]}) as address:
        assert fetch_bytes(f"{address}/a") == CONTENT
        assert fetch_bytes(f"{address}/ä b?x=1&y=%2F") == CONTENT[:7]
        with fetched_file(f"{address}/a") as path:
            assert path.read_bytes() == CONTENT
        assert not path.exists()


def test_videos_and_images(tmp_path):
    video = write_video(tmp_path / "a.mp4", counting_frames(50)).read_bytes()
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(buffer, "png")
    with serving(video=video, picture=buffer.getvalue(), moved="/video") as address:
        for name in ("video", "moved"):
            frames, _ = read_video(f"{address}/{name}", lambda metadata: [3, 40])
            assert [frame_number(frame) for frame in frames] == [3, 40]
        with open_stream(f"{address}/video") as stream:
            assert len(list(sample_evenly(stream, 25))) == 50
        assert np.asarray(read_image(f"{address}/picture"))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there(status):
    with serving(gone=status) as address:
        for read in (fetch_bytes, read_video, read_image, open_stream):
            with pytest.raises(FileNotFoundError, match=f"nothing at {address}/gone: the server answers {status}"):
                read(f"{address}/gone")


def test_refusals_and_ends():
    def break_off(handler: Answers) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 400)

    with serving(secret=403, broken=500, cut=break_off, empty=b"") as address:
        for name, message in {
            "secret": r"secret can't be fetched: the server answers 403 \(Forbidden\)",
            "broken": "broken can't be fetched: the server answers 500",
            "cut": "cut (broke off after 400 of 1,000 bytes|can't be fetched)",
            "empty": r"empty is empty \(0 bytes\)",
        }.items():
            with pytest.raises(ValueError, match=message):
                fetch_bytes(f"{address}/{name}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/a"
        with pytest.raises(ValueError, match=r"can't be reached: .*refused"):
            fetch_bytes(nowhere)


def test_a_server_that_says_nothing_is_left(monkeypatch):
    monkeypatch.setenv("S2D_STALL_SECONDS", "1")
    ends = threading.Event()

    def stop_midway(handler: Answers) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.wfile.flush()
        ends.wait(20)

    with serving(silent=lambda handler: ends.wait(20), slow=stop_midway) as address:
        started = time.monotonic()
        for name in ("silent", "slow"):
            with pytest.raises(ValueError, match=rf"{name} can't be (fetched: no answer for 1 s|reached)"):
                fetch_bytes(f"{address}/{name}")
        assert time.monotonic() - started < 8
        ends.set()


def test_a_server_that_drips_is_left(monkeypatch):
    monkeypatch.setenv("S2D_STALL_SECONDS", "1")

    def drip(handler: Answers) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.2)

    with (
        serving(slow=drip) as address,
        pytest.raises(ValueError, match=r"slow can't be fetched: \d+ bytes came in 1 s"),
    ):
        fetch_bytes(f"{address}/slow")


def test_names_and_passwords_are_sent_and_not_shown():
    def guard(handler: Answers) -> None:
        is_known = handler.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:a/b").decode()
        handler.send_response(200 if is_known else 401)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    with serving(guarded=guard, elsewhere="/guarded") as address:
        host = address.removeprefix("http://")
        assert fetch_bytes(f"http://me:a%2Fb@{host}/guarded") == CONTENT
        for name, password in (("guarded", "secret"), ("elsewhere", "a%2Fb")):  # nor sent on
            with pytest.raises(ValueError, match=f"^http://{host}/{name} can't be fetched: the server answers 401"):
                fetch_bytes(f"http://me:{password}@{host}/{name}")


@pytest.mark.parametrize("address", ["http://[::1/x", "http://127.0.0.1:port/x", "http:///x", "http://"])
def test_what_is_no_address_is_named(address):
    with pytest.raises(ValueError, match=f"^{re.escape(address)} can't be"):
        fetch_bytes(address)


def test_sizes_are_limited_with_and_without_a_stated_length(monkeypatch):
    def without_length(handler: Answers) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(CONTENT)

    with serving(stated=CONTENT * 100, unstated=without_length) as address:
        monkeypatch.setenv("S2D_MAX_DOWNLOAD_BYTES", "1000000")
        for name in ("stated", "unstated"):
            with pytest.raises(ValueError, match=f"{name} has .* bytes, and 1,000,000 .* set S2D_MAX_DOWNLOAD_BYTES"):
                fetch_bytes(f"{address}/{name}")
        monkeypatch.setenv("S2D_MAX_DOWNLOAD_BYTES", "2000000")
        for name in ("stated", "unstated"):
            assert fetch_bytes(f"{address}/{name}") == CONTENT * 100
        monkeypatch.setenv("S2D_MAX_DOWNLOAD_BYTES", "many")
        with pytest.raises(ValueError, match="S2D_MAX_DOWNLOAD_BYTES must be a positive whole number, got 'many'"):
            fetch_bytes(f"{address}/stated")


def test_redirections_stay_with_their_host_or_go_to_public_ones(tmp_path, monkeypatch):
    (tmp_path / "secret.txt").write_text("secret")
    with serving(content=CONTENT) as inside:
        port = inside.rpartition(":")[2]
        targets = {
            "file": f"file://{tmp_path}/secret.txt",
            "ftp": "ftp://127.0.0.1/a",
            "localhost": f"http://localhost:{port}/content",  # another name is another host
            "private": "http://10.0.0.1/a",
            "link": "http://169.254.169.254/latest/meta-data",
            "nat64": "http://[64:ff9b::7f00:1]/a",
            "mapped": f"http://[::ffff:127.0.0.1]:{port}/content",
            "decimal": f"http://2130706433:{port}/content",
            "loop": "/loop",
            "nonsense": "http://[::bad/x",
        }
        with serving(**targets, same=f"http://127.0.0.1:{port}/content") as outside:
            assert fetch_bytes(f"{outside}/same") == CONTENT
            for name in targets:
                with pytest.raises(ValueError, match=f"{outside}/{name} can't be"):
                    fetch_bytes(f"{outside}/{name}")
            # a host that is public, as far as this machine can tell
            monkeypatch.setattr(addresses_s2d, "_is_public", lambda host: host == "localhost")
            assert fetch_bytes(f"{outside}/localhost") == CONTENT
