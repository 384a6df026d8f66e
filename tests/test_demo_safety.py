"""The demo page and visitors who mean harm: a real server, and requests that no browser would send."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio", reason="needs the demo extra")

from s2d_hf.cli import build_parser
from s2d_hf.demo.gate import Addresses, Gate
from s2d_hf.demo.leftovers import LOCK, page_folder, remove_dead_folders, sweep
from s2d_hf.demo.limits import PageLimits
from s2d_hf.demo.run import analyse_file
from s2d_hf.demo.turns import MOST_OF_ONE_ADDRESS, AnalysisStopped, Turns
from s2d_hf.demo.uploads import Refused, UploadCheck
from s2d_hf.demo.visits import Visits

from .demo_server import StandInAnalyser
from .page_client import BOUNDARY, ROOT, Page, Visitor, form, raw, served_page, uploaded
from .videos import write_video

FPS = 25
MAX_WAIT = 2
POSTED = (
    "upload",
    "queue/join",
    "run/predict",
    "cancel",
    "reset",
    "component_server",
    "call/show",
    "process_recording",
)
UPLOAD_HEAD = (
    f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}"
)
READ = ("/", "/config", "/gradio_api/queue/data?session_hash=abc", "/gradio_api/heartbeat/abc", "/assets/x.js")


def write_moving(path: Path, num_frames: int) -> Path:
    ramp = np.linspace(40, 220, 64, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[None], ramp[:48, None], np.uint8(128)), axis=2)
    return write_video(path, [np.roll(picture, shift=i, axis=1) for i in range(num_frames)], FPS)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    limits = {"max_upload": 0.2, "max_duration": 4, "max_wait": MAX_WAIT}
    with served_page(tmp_path_factory.mktemp("page"), limits, S2D_STALL_SECONDS="1") as page:
        yield page


@pytest.fixture
def visitor(page) -> Visitor:
    return Visitor(page)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_moving(tmp_path_factory.mktemp("videos") / "holiday.mp4", 25)


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("path", POSTED)
def test_other_websites_and_names_are_refused(visitor, path):
    def send(**headers: str) -> int:
        if path == "upload":
            return visitor.upload(b"no video", **headers).status_code
        body = {"data": [], "fn_index": 5, "session_hash": visitor.session, "event_id": "a"}
        return visitor.request("POST", f"/gradio_api/{path}", body, **headers).status_code

    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{visitor.page.port + 1}", "file://", "http://["):
        assert send(Origin=origin) == 403
    for host in ("evil.example", f"evil.example:{visitor.page.port}", "127.0.0.1.evil.example", "a@127.0.0.1"):
        assert send(Host=host) == 421
    assert send(Sec_Fetch_Site="cross-site") == 403
    offered = ("upload", "queue/join", "run/predict", "cancel", "reset")
    assert send() == send(Origin=visitor.page.address) == (200 if path in offered else 404)


@pytest.mark.parametrize("path", READ)
def test_pages_and_streams_are_not_for_others(visitor, path):
    assert visitor.request("GET", path, Host="evil.example").status_code == 421
    assert visitor.request("GET", path, Origin="null").status_code == 403
    assert visitor.request("GET", path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status_code == 403
    with visitor.http.stream("GET", path) as answer:
        assert answer.status_code == {"/assets/x.js": 404}.get(path, 200)
    if path == "/":  # as by a link
        assert visitor.request("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status_code == 200


def test_there_are_no_web_sockets(page):
    lines = ["GET /gradio_api/queue/join HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
    assert raw(page, "\r\n".join(lines).encode()).split()[1] in (b"403", b"404")


def test_names_under_which_a_page_is_reached():
    own = socket.gethostname()
    for addresses, ours, others in (
        (Addresses("127.0.0.1"), ["127.0.0.1:7860", "localhost", "LOCALHOST.", "[::1]:1"],
         ["10.0.0.1", own, "evil.example", "", "a b", "localhost:x", "x.gradio.live", "localhost, evil.example"]),
        (Addresses("0.0.0.0"), ["10.0.0.1", "[fe80::1]:7860", "localhost", own, f"{own}.local"],
         ["evil.example", "10.0.0.1.evil.example", "x.gradio.live"]),
        (Addresses("127.0.0.1", share=True), ["abc.gradio.live", "localhost"], ["gradio.live", "xgradio.live", "a.b"]),
        (Addresses("127.0.0.1", allowed=["Demo.example.org"]), ["demo.example.org:8443"], ["example.org", "10.0.0.1"]),
    ):  # fmt: skip
        assert [name for name in ours if not addresses.is_ours(name)] == []
        assert [name for name in others if addresses.is_ours(name)] == []
    addresses = Addresses("127.0.0.1", share=True, allowed=["demo.example.org"])
    same = [("http://localhost:7860", "localhost:7860"), ("https://a.gradio.live", "a.gradio.live"),
            ("http://localhost", "localhost:80"), ("https://demo.example.org", "127.0.0.1:7860")]  # fmt: skip
    other = [("http://localhost:8888", "localhost:7860"), ("https://b.gradio.live", "a.gradio.live"),
             ("http://127.0.0.1:7860", "localhost:7860"), ("http://x@localhost", "localhost"),
             ("https://evil.example", "a.gradio.live"), ("null", "localhost"), ("", "localhost")]  # fmt: skip
    assert [pair for pair in same if not addresses.is_same(*pair, "http")] == []
    assert [pair for pair in other if addresses.is_same(*pair, "http")] == []


def test_an_upload_that_is_too_large_ends_while_it_goes_on(page, visitor, video):
    assert visitor.upload(video.read_bytes()).status_code == 200
    stated = raw(page, f"{UPLOAD_HEAD}\r\nContent-Length: 900000000\r\n\r\n".encode())
    assert b" 413 " in stated and b"0.2 MB" in stated
    begun = form(bytes(300_000), "a.mp4")[:290_000]
    chunk = f"{UPLOAD_HEAD}\r\nTransfer-Encoding: chunked\r\n\r\n{len(begun):x}\r\n".encode() + begun + b"\r\n"
    started = time.monotonic()
    answer = raw(page, chunk)  # it isn't finished, and answered
    assert b" 413 " in answer and b"0.2 MB" in answer and time.monotonic() - started < 5
    wait_until(lambda: not [path for path in page.files.iterdir() if path.is_file()])
    html = visitor.request("GET", "/").text
    assert "A video of up to 0.2 MB and 4 seconds." in html


def test_an_upload_that_is_cut_off_is_deleted(page):
    body = form(bytes(150_000), "a.mp4")[:100_000]
    sent = f"{UPLOAD_HEAD}\r\nContent-Length: 150000\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(sent)
        wait_until(lambda: any(path.is_file() for path in page.files.iterdir()))  # it is being written
    wait_until(lambda: not any(path.is_file() for path in page.files.iterdir()))
    assert "Traceback" not in page.output.read_text()


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a", "a.mp4.html", ".mp4", "../a.js", "a.mp4.", "a.m3u8"])
def test_only_names_of_videos(visitor, name):
    assert visitor.upload(b"<script>", name).status_code in (400, 415)


def test_only_one_file_at_a_time(visitor):
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    one = form(b"", "a.mp4")
    field_only = one.replace(b'; filename="a.mp4"', b"")
    for body in (
        one.split(b"\r\n--")[0] + b"\r\n" + one,
        field_only,
        one.replace(b"files", b"other"),
        b"",
        b"--",
        one[:40],
    ):
        answer = visitor.request("POST", "/gradio_api/upload", body, Content_Type=kind)
        assert answer.status_code == 400, body
    for other in (f"{kind}; charset=utf-7", "application/json", "multipart/form-data", "text/plain"):
        assert visitor.request("POST", "/gradio_api/upload", one, Content_Type=other).status_code == 400
    with pytest.raises(Refused):  # whatever the pieces in which it comes
        check = UploadCheck(kind)
        for byte in form(b"", "a.html"):
            check.feed(bytes([byte]))


def test_files_of_this_page_alone(page, visitor, video, tmp_path):
    path = visitor.upload_file(video)
    answer = visitor.request("GET", f"/gradio_api/file={path}")
    assert answer.content == video.read_bytes() and answer.headers["content-type"] == "video/mp4"
    part = visitor.request("GET", f"/gradio_api/file={path}", Range="bytes=4-7", Cookie="a=b", X_Own="1")
    assert part.content == video.read_bytes()[4:8] and not {"cookie", "x-own"} & set(part.headers)

    page.files.parent.joinpath("aside.mp4").write_bytes(b"secret")
    (page.files / "tmp0").mkdir(exist_ok=True)
    (page.files / "tmp0" / "link.mp4").symlink_to(video)
    (page.files / "tmp0" / "note.html").write_text("secret")
    elsewhere = Path(tmp_path / "other.mp4")
    elsewhere.write_bytes(b"secret")
    for refused in (
        "/etc/passwd", "etc/passwd", "pyproject.toml", str(ROOT / "README.md"), str(elsewhere), str(video),
        f"{page.files}/../aside.mp4", f"{page.files}/../lock", f"{page.files}/tmp0/link.mp4", str(page.files),
        f"{page.files}/tmp0/note.html", f"{page.files}/%2e%2e/aside.mp4", f"{page.files}//../aside.mp4",
        f"file://{path}", "http://127.0.0.1:1/", "https://example.com/a.mp4", "//example.com/a.mp4",
        f"{path}%00.mp4", "..%2f..%2fetc%2fpasswd", "%252e%252e/etc/passwd", "", "~/.bashrc", ".gradio/x.mp4",
    ):  # fmt: skip
        answer = raw(
            page, f"GET /gradio_api/file={refused} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.split()[1] in (b"403", b"404") and b"secret" not in answer, refused
    for gone in (
        f"/gradio_api/file/{path}",
        f"/file={path}",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/docs",
        "/openapi.json",
    ):
        assert visitor.request("GET", gone).status_code == 404


def test_no_page_of_a_visitor_runs_here(visitor):
    script = b"<html><script>alert(1)</script></html>"
    for name in ("a.mp4", "a.ts", "a.gif", "a.mjpeg", "a.rm"):
        path = visitor.upload(script, name).json()[0]
        answer = visitor.request("GET", f"/gradio_api/file={path}")
        kind = answer.headers["content-type"]
        assert answer.content == script and "html" not in kind and "xml" not in kind
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]


def test_files_of_elsewhere_and_addresses_are_not_analysed(page, visitor, video):
    path = visitor.upload_file(video)
    linked = Path(path).with_name("linked.mp4")
    linked.symlink_to(video)
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        threading.Thread(target=lambda: asked.append(trap.accept()), daemon=True).start()
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/a.mp4"
        for file in (
            uploaded("/etc/passwd"), uploaded(str(video)), uploaded(url), uploaded(None, url=url), {"url": url},
            uploaded(path, url=url), uploaded(path, url="http://169.254.169.254/"), uploaded(f"{path}/../../x.mp4"),
            uploaded("https://example.com/a.mp4"), uploaded([path]), uploaded(""), {"path": url},
            uploaded(str(linked)),
            [{"video": uploaded(url)}],
        ):  # fmt: skip
            assert visitor.join(file).status_code == 403, file
            body = {"data": [file], "fn_index": 0, "session_hash": visitor.session}
            assert visitor.request("POST", "/gradio_api/run/predict", body).status_code == 403, file
        # and what a player would follow
        for name in ("a.mp4", "a.ts"):
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n".encode()
            message = visitor.analyse(visitor.upload(playlist, name).json()[0])[1]
            assert "could not be opened" in message and str(page.files) not in message
    assert asked == [] and set(page.hosts.read_text().split()) == {"127.0.0.1"}
    for body in (b"[", b"[]", b"{}", b'{"session_hash": "../a"}', b"[" * 100_000):
        assert visitor.request("POST", "/gradio_api/queue/join", body).status_code == 400
    assert visitor.request("POST", "/gradio_api/queue/join", bytes(300_000)).status_code == 413
    assert "2 faces" in visitor.analyse(path)[1]


def test_names_stay_text(visitor, video):
    path = visitor.upload(b"no video", "&lt;b&gt;<img src=x onerror=alert(1)>.mp4").json()[0]
    message = visitor.analyse(path)[1]
    assert "could not be opened" in message and "<img" not in message and "&amp;lt;b" in message
    assert "<u>" not in str(visitor.analyse(visitor.upload_file(video))[3])  # a label's


def test_a_video_that_is_too_long(visitor, tmp_path):
    path = visitor.upload_file(write_moving(tmp_path / "long.mp4", 5 * FPS))
    assert "longer than 4 seconds" in visitor.analyse(path)[1]


def test_a_video_that_turns_out_to_be_too_long(video, tmp_path):
    """Its container says one second."""

    class Endless(StandInAnalyser):
        def __call__(self, source, progress, on_progress):
            for seconds in range(100):
                on_progress(float(seconds))
            raise AssertionError

    def analyse(limit: float, analyser: Callable | None = None) -> str:
        return analyse_file(
            analyser or Endless(), str(video), tmp_path, lambda *_: None, PageLimits(max_duration=limit)
        )

    assert "longer than 1 minute" in analyse(60) and "AssertionError" in analyse(120)
    assert "longer than 0.5 seconds" in analyse(0.5, pytest.fail)  # as it says itself: it is not begun


def test_no_visitor_keeps_the_others_waiting(page, video):
    for name in ("slow.mp4", "hang.mp4"):
        first, second = Visitor(page), Visitor(page)
        path = first.upload_file(video, name)
        messages: list[str] = []
        busy = threading.Thread(target=lambda: messages.append(first.analyse(path)[1]))  # noqa: B023
        started = time.monotonic()
        busy.start()
        time.sleep(0.5)
        assert "2 faces" in second.analyse(second.upload_file(video))[1]
        assert MAX_WAIT - 0.5 < time.monotonic() - started < MAX_WAIT + 6
        busy.join()
        assert "This took too long" in messages[0] and f"{MAX_WAIT} seconds" in messages[0]


def test_an_analysis_whose_visitor_has_left_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("s2d_hf.demo.turns.LEFT_SECONDS", 0.5)
    visits = Visits(tmp_path)
    turns = Turns(PageLimits(), visits)

    def work(report: Callable[[float, str], None]) -> None:
        while True:
            report(0.5, "")
            time.sleep(0.01)

    ended: list[AnalysisStopped] = []

    def run(session: str) -> None:
        try:
            turns.run(session, None, work, lambda *_: None)
        except AnalysisStopped as stop:
            ended.append(stop)

    with visits.connection("a"), visits.connection("b"):
        threads = [threading.Thread(target=run, args=name) for name in "ab"]
        for thread in threads:
            thread.start()
        with pytest.raises(AnalysisStopped, match="One video at a time"):
            turns.run("a", None, work, lambda *_: None)
        time.sleep(0.3)
        assert not ended
        turns.stop("a")
        threads[0].join(2)
        assert len(ended) == 1
    threads[1].join(5)
    assert len(ended) == 2 and not turns._turns
    with pytest.raises(AnalysisStopped):  # who isn't there
        turns.run("c", None, work, lambda *_: None)


def test_what_hangs_is_left_behind_and_counted(monkeypatch):
    monkeypatch.setenv("S2D_STALL_SECONDS", "1")
    monkeypatch.setattr("s2d_hf.demo.turns.MOST_HUNG", 1)
    turns, ended = Turns(PageLimits(max_wait=0.1)), threading.Event()
    with pytest.raises(AnalysisStopped, match="took too long"):
        turns.run("a", None, lambda report: ended.wait(), lambda *_: None)
    with pytest.raises(AnalysisStopped, match="stuck"):
        turns.run("a", None, lambda report: 1, lambda *_: None)
    ended.set()
    wait_until(lambda: not any(thread.is_alive() for thread in turns._hung))
    assert turns.run("a", None, lambda report: 1, lambda *_: None) == 1


def test_one_address_has_few_places():
    turns, ended = Turns(PageLimits()), threading.Event()

    def run(session: str, address: str) -> None:
        turns.run(session, address, lambda report: ended.wait(3), lambda *_: None)

    threads = [threading.Thread(target=run, args=(f"r{i}", "10.0.0.1")) for i in range(MOST_OF_ONE_ADDRESS)]
    threads += [threading.Thread(target=run, args=(f"l{i}", "127.0.0.1")) for i in range(MOST_OF_ONE_ADDRESS + 1)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(turns._turns) == len(threads))
    with pytest.raises(AnalysisStopped, match="Too many"):
        run("more", "10.0.0.1")
    ended.set()
    for thread in threads:
        thread.join(10)
    assert not turns._turns


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path):
    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    async def ask(path: str, chunks: list[bytes]) -> int:
        gate = Gate(app, Addresses("127.0.0.1"), PageLimits(), Visits(tmp_path / "files"), stall_seconds=0.1)
        headers = [(b"host", b"localhost"), (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "scheme": "http",
        }
        sent = []

        async def receive():
            if not chunks:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": chunks.pop(), "more_body": True}

        async def send(message):
            sent.append(message)

        await asyncio.wait_for(gate(scope, receive, send), 10)
        return sent[0]["status"]

    assert asyncio.run(ask("/gradio_api/upload", [b"--"])) == 408
    assert asyncio.run(ask("/gradio_api/queue/join", [b"{"])) == 408


def test_files_of_those_who_have_left_are_deleted(tmp_path):
    visits = Visits(tmp_path)
    for name in ("mine", "ours", "nobody's"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    (tmp_path / "unfinished").touch()

    def left(keep: float) -> set[str]:
        sweep(visits, keep)
        return {path.name for path in tmp_path.iterdir()}

    with visits.connection("b"):
        with visits.connection("a"):
            visits.claim("a", tmp_path / "mine" / "a.mp4")
            visits.claim("a", tmp_path / "ours" / "a.mp4")
            visits.claim("b", tmp_path / "ours" / "a.mp4")
            assert left(keep=60) == {"mine", "ours", "nobody's", "unfinished"}
            assert left(keep=0) == {"mine", "ours"}
        assert left(keep=60) == {"mine", "ours"}  # the page may be loaded anew
        assert left(keep=0) == {"ours"}
    assert left(keep=0) == set()


def test_the_limits_of_the_command_are_those_of_the_page():
    arguments = build_parser().parse_args(["demo"])
    described = arguments.parser.format_help()
    for name, value in vars(PageLimits()).items():
        option = f"--{name.replace('_', '-')}"
        assert f"(default: {value})" in " ".join(described.split(option)[-1].split())[:130]
    with pytest.raises(ValueError, match="`max_wait` must be above zero"):
        PageLimits(max_wait=0)


def test_folders_of_dead_servers_alone_are_deleted(page, visitor, video, monkeypatch):
    """The last one of the page: it kills it."""
    visitor.upload_file(video)
    folder, temporary = page.files.parent, page.temporary
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    kept = [temporary / name for name in ("s2d-hf-demo-unlocked", "s2d-hf-demo-linked", "s2d-hf-demo-file", "other")]
    for path in (kept[0], kept[3], temporary / "target"):
        path.mkdir()
    (kept[3] / LOCK).touch()
    (temporary / "target" / LOCK).touch()
    kept[1].symlink_to(temporary / "target")
    kept[2].touch()
    kept.append(temporary / "s2d-hf-demo-linked-lock")
    kept[4].mkdir()
    (kept[4] / LOCK).symlink_to(temporary / "target" / LOCK)
    with page_folder() as living:
        assert list(folder.rglob("holiday.mp4")) and living.stat().st_mode & 0o077 == 0
        assert remove_dead_folders(temporary) == []
        page.process.kill()
        page.process.wait()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getuid", lambda: 12345)  # another user's
            assert remove_dead_folders(temporary) == []
        with page_folder() as next_one:
            assert not folder.exists() and living.is_dir() and next_one != living
    assert not living.exists()
    assert all(path.exists() for path in kept) and (temporary / "target" / LOCK).exists()
