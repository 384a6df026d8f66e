"""The demo page, in a real browser, and around it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest

from s2d_hf.demo import build_demo, launch_demo, serve_demo
from s2d_hf.timeline import VideoTimeline

from .videos import write_video

pytest.importorskip("gradio", reason="needs the demo extra")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser")

from .demo_server import FIRST_SCORES, LABELS, PLOT_SIZE, SECOND_SCORES, StandInAnalyser, read_frames  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FPS = 25
NUM_FRAMES = 50
START_SECONDS = 120
# Playwright's default of half a minute is for pages that hang; a busy machine is slow.
TIMEOUT = 60_000


@dataclass
class Server:
    process: subprocess.Popen
    address: str
    folder: Path  # its temporary files
    hosts: Path  # whom it talked to

    def stop(self) -> None:
        """As Ctrl-C or the end of a session does."""
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "tmp").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.demo_server", str(port), str(folder / "hosts.txt")],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(folder / "tmp"), "GRADIO_ANALYTICS_ENABLED": "True"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + START_SECONDS
    while "Running on" not in (text := (folder / "output.txt").read_text()):
        assert process.poll() is None and time.monotonic() < deadline, text
        time.sleep(0.1)
    server = Server(process, f"http://127.0.0.1:{port}/", folder / "tmp", folder / "hosts.txt")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> "Iterator[sync_api.Browser]":
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    fake_camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *fake_camera])
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser) -> "Iterator[sync_api.Page]":
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(server.address)
    page.wait_for_selector("#s2d-analyse")
    yield page
    context.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Two seconds in which a picture moves to the right."""
    ramp = np.linspace(40, 220, 160, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[None], ramp[:96, None], np.uint8(128)), axis=2)
    frames = [np.roll(picture, shift=i, axis=1) for i in range(NUM_FRAMES)]
    return write_video(tmp_path_factory.mktemp("videos") / "holiday.mp4", frames, FPS)


def analyse(page: "sync_api.Page", path: Path) -> str:
    """Uploads a video, presses the button and waits; returns the message."""
    upload(page, path)
    page.click("#s2d-analyse")
    return wait_for_message(page)


def upload(page: "sync_api.Page", path: Path) -> None:
    page.set_input_files("#s2d-input input[type=file]", path)
    page.wait_for_selector("#s2d-analyse:not([disabled])")


def wait_for_message(page: "sync_api.Page") -> str:
    text = page.inner_text(".s2d-message")
    page.wait_for_selector("#s2d-analyse:not([disabled])")  # everything has arrived
    return text


def check_it_plays(page: "sync_api.Page") -> dict[str, float]:
    """Size and length of the annotated video, after its time has moved on in the browser."""
    page.wait_for_function("document.querySelector('#s2d-annotated video')?.readyState >= 2")
    page.evaluate("document.querySelector('#s2d-annotated video').play()")
    page.wait_for_function("document.querySelector('#s2d-annotated video').currentTime > 0.2")
    names = ("videoWidth", "videoHeight", "duration")
    return {name: page.evaluate(f"document.querySelector('#s2d-annotated video').{name}") for name in names}


def download(page: "sync_api.Page", ending: str, folder: Path) -> Path:
    with page.expect_download() as started:
        page.click(f"#s2d-{ending}")
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_a_video_with_faces(page, video, tmp_path):
    assert "2 faces in 2.0 s" in analyse(page, video)

    playing = check_it_plays(page)
    assert (playing["videoWidth"], playing["videoHeight"]) == (160, 96)
    assert playing["duration"] == pytest.approx(NUM_FRAMES / FPS, abs=0.1)
    page.wait_for_function("document.querySelector('#s2d-plot img').complete")
    size = page.locator("#s2d-plot img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert tuple(size) == PLOT_SIZE

    spans = ("0:00.0 – 0:02.0", "0:01.0 – 0:02.0")
    cards = page.locator(".s2d-face")
    assert cards.count() == 2
    for card, scores, span in zip(cards.all(), (FIRST_SCORES, SECOND_SCORES), spans, strict=True):
        means = {label: sum(column) / len(column) for label, column in zip(LABELS, scores.T.tolist(), strict=True)}
        strongest = sorted(means, key=means.get, reverse=True)[:3]
        # as text: a label is never taken for HTML
        assert card.locator(".s2d-bars .s2d-label").all_inner_texts() == strongest
        shown = [int(text.removesuffix("%")) for text in card.locator(".s2d-score").all_inner_texts()]
        assert shown == pytest.approx([100 * means[label] for label in strongest], abs=0.5)
        assert span in card.inner_text()
        assert card.locator("img").evaluate("image => image.naturalWidth") > 0
    first = cards.first
    first.locator("summary").click()
    assert re.sub(r"\s+", " ", first.locator("ol li").nth(2).inner_text()).strip() == "0:01.0 – 0:01.5 neutral 70%"

    table = pd.read_csv(download(page, "csv", tmp_path))
    assert set(table["video"]) == {"holiday.mp4"} and list(table["track"]) == [1] * 4 + [2] * 2
    np.testing.assert_allclose(table[list(LABELS)], np.concatenate([FIRST_SCORES, SECOND_SCORES]), atol=1e-5)
    stored = VideoTimeline.from_json(download(page, "json", tmp_path))
    assert stored.source == "holiday.mp4" and stored.labels == LABELS and len(stored.tracks) == 2
    frames, fps = read_frames(download(page, "mp4", tmp_path))
    assert (len(frames), fps) == (NUM_FRAMES, FPS)
    np.testing.assert_allclose(frames[10][40:50, 2:5].mean((0, 1)), (0, 255, 0), atol=25)
    names = {"holiday_timeline.csv", "holiday_timeline.json", "holiday_annotated.mp4"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_what_cannot_be_shown_is_said(page, video, tmp_path):
    """One page after the other, so that each message replaces what was there before."""
    analyse(page, video)
    black = write_video(tmp_path / "black.mp4", [np.zeros((96, 160, 3), np.uint8)] * FPS, FPS)
    page.click("#s2d-input [aria-label=Clear]")
    page.wait_for_selector("#s2d-analyse[disabled]")
    message = analyse(page, black)
    assert message.startswith("No face was found") and "1.0 s" in message
    assert not page.is_visible("#s2d-results") and page.locator("#s2d-annotated video").count() == 0

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:3000])
    buggy = Path(shutil.copy(video, tmp_path / "bug.mp4"))
    for path, title, detail in (
        (broken, "This video could not be analysed", "broken.mp4 could not be opened"),
        (buggy, "Something went wrong", "unexpected RuntimeError"),
    ):
        page.click("#s2d-input [aria-label=Clear]")
        page.wait_for_selector("#s2d-analyse[disabled]")
        message = analyse(page, path)
        assert message.startswith(title) and detail in message
        assert tempfile.gettempdir() not in message and "Traceback" not in message
        assert not page.is_visible("#s2d-results")
        assert page.get_by_test_id("toast-body").count() == 0  # Gradio's own alarms, which say "Error"
        assert (path == broken) == page.locator(".s2d-unplayable").is_visible()


def test_progress_queue_and_stop(page, server, video, tmp_path):
    upload(page, Path(shutil.copy(video, tmp_path / "slow.mp4")))
    assert not page.is_visible("#s2d-stop")
    page.click("#s2d-analyse")
    page.get_by_text(re.compile(r"Seen \d of 2 s")).wait_for()
    assert page.is_disabled("#s2d-analyse")

    other = page.context.new_page()
    other.goto(server.address)
    upload(other, video)
    other.click("#s2d-analyse")
    other.wait_for_timeout(1500)
    assert other.locator(".s2d-message").count() == 0  # waits its turn

    started = time.monotonic()
    page.click("#s2d-stop")
    assert wait_for_message(page) == "Stopped"
    assert "2 faces" in wait_for_message(other)
    assert time.monotonic() - started < 20  # the rest of the slow one would have taken longer
    assert not page.is_visible("#s2d-stop") and not page.is_visible("#s2d-results")


def test_the_camera_records_without_sound(page):
    page.evaluate(
        "() => { const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        " navigator.mediaDevices.getUserMedia = (wanted) => { window.wanted = wanted; return open(wanted); } }"
    )
    page.click("#s2d-input [aria-label='Capture from camera']")
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#s2d-input video')?.currentTime > 0.2")
    page.get_by_text("Record", exact=True).click()
    page.wait_for_timeout(2000)
    page.get_by_text("Stop", exact=True).first.click()
    page.wait_for_selector("#s2d-analyse:not([disabled])")
    page.click("#s2d-analyse")
    assert "2 faces" in wait_for_message(page)
    assert check_it_plays(page)["duration"] > 0.3
    assert page.evaluate("window.wanted.audio") is False and page.evaluate("window.wanted.video.width.ideal") == 1280


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_reaches_over_the_edge(page, video, width):
    page.set_viewport_size({"width": width, "height": 844})
    analyse(page, video)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#s2d-annotated", ".s2d-face >> nth=1", "#s2d-plot", "#s2d-mp4", ".s2d-footer"):
        page.locator(selector).wait_for()
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_page_says_what_the_labels_are_not(page):
    footer = page.inner_text(".s2d-footer")
    assert "not what a person feels" in footer and "decisions about people" in footer and "sent nowhere else" in footer


def test_no_other_host_is_asked(page, server, video):
    analyse(page, video)
    check_it_plays(page)
    hosts = {urlparse(url).netloc for url in page.requested if urlparse(url).scheme in ("http", "https", "ws", "wss")}
    assert hosts == {urlparse(server.address).netloc} and len(page.requested) > 10
    # it asks itself whether it runs, so that the log is known to work
    assert set(server.hosts.read_text().split()) == {"127.0.0.1"}


def test_files_lie_in_a_private_folder_that_is_deleted_at_the_end(page, server, video):
    """The last one of the page: it stops it."""
    analyse(page, video)
    (folder,) = server.folder.glob("s2d-hf-demo-*")
    assert folder.stat().st_mode & 0o077 == 0
    kept = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"holiday.mp4", "holiday_annotated.mp4", "holiday_timeline.json"} <= kept
    others = [
        path for path in server.folder.rglob("*.*") if folder not in path.parents and path.suffix in (".mp4", ".csv")
    ]
    assert not others
    page.close()
    server.stop()
    assert not list(server.folder.rglob("*holiday*")) and not folder.exists()


def test_a_shared_page_does_not_promise_that_videos_stay():
    texts = [
        str(block.value)
        for block in build_demo(StandInAnalyser(), shared=True).blocks.values()
        if "value" in vars(block)
    ]
    assert any("passes through Gradio's servers" in re.sub(r"\s+", " ", text) for text in texts)
    assert not any("sent nowhere else" in text for text in texts)


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: .*in use"):
            serve_demo(StandInAnalyser(), port=port)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r'pip install "s2d-hf\[demo\]"'):
        launch_demo("no/model")
