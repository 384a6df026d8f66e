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
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import skimage.data

from s2d_hf.colors import label_colours
from s2d_hf.demo import build_demo, launch_demo, serve_demo
from s2d_hf.demo.example import write_example
from s2d_hf.demo.launch import public_name
from s2d_hf.face_tracking_s2d import is_cut_between
from s2d_hf.timeline import S2DTimeline, VideoTimeline

from .face_videos import FACE_CENTER, FACE_SIDE
from .videos import write_video

pytest.importorskip("gradio", reason="needs the demo extra")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser")

from .demo_server import (  # noqa: E402
    FIRST_SCORES,
    LABELS,
    MODEL_NAME,
    PLOT_SIZE,
    SECOND_SCORES,
    StandInAnalyser,
    read_frames,
)

ROOT = Path(__file__).resolve().parents[1]
FPS = 25
NUM_FRAMES = 50
START_SECONDS = 120
PHONE_WIDTH = 390
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
    yield from open_page(server, browser, viewport={"width": 1280, "height": 900})


@pytest.fixture
def phone(server, browser) -> "Iterator[sync_api.Page]":
    yield from open_page(
        server, browser, viewport={"width": PHONE_WIDTH, "height": 844}, has_touch=True, is_mobile=True
    )


def open_page(server: Server, browser: "sync_api.Browser", **options: Any) -> "Iterator[sync_api.Page]":
    context = browser.new_context(**options)
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


def swipe(page: "sync_api.Page", start: tuple[float, float], by: tuple[float, float]) -> None:
    """Moves a finger over the screen as a touch screen reports it, and waits until nothing moves any more."""
    browser = page.context.new_cdp_session(page)
    steps = 10
    for step in range(steps + 1):
        point = {"x": start[0] + by[0] * step / steps, "y": start[1] + by[1] * step / steps}
        kind = "touchMove" if step else "touchStart"
        browser.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        page.wait_for_timeout(20)
    browser.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(800)


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

    for swatch, row in zip(first.locator(".s2d-swatch").all(), FIRST_SCORES, strict=True):
        colour = label_colours(LABELS)[LABELS[row.argmax()]]
        paler = [255 - row.max() * (255 - value) for value in bytes.fromhex(colour[1:])]
        shown = swatch.evaluate("swatch => getComputedStyle(swatch).backgroundColor")
        assert [int(value) for value in re.findall(r"\d+", shown)] == pytest.approx(paler, abs=1)

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
        if path == broken:
            page.wait_for_selector(".s2d-unplayable")  # the browser says so in its own time
        else:
            assert page.locator(".s2d-unplayable").count() == 0


def test_progress_queue_and_stop(page, server, video, tmp_path):
    upload(page, Path(shutil.copy(video, tmp_path / "slow.mp4")))
    assert not page.is_visible("#s2d-stop")
    page.click("#s2d-analyse")
    page.get_by_text(re.compile(r"Seen \d of 2 s")).wait_for()
    assert page.is_disabled("#s2d-analyse") and page.is_disabled("#s2d-example")

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


def test_on_a_phone_the_timeline_is_pushed_sideways(phone, video):
    analyse(phone, video)
    phone.wait_for_function("document.querySelector('#s2d-plot img').complete")
    plot = phone.locator("#s2d-plot")
    assert phone.locator("#s2d-plot img").bounding_box()["width"] > 2 * PHONE_WIDTH
    assert phone.is_visible("#s2d-push")
    plot.evaluate("plot => plot.scrollIntoView({block: 'center'})")
    phone.wait_for_timeout(300)
    box = plot.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    offset = "() => [document.querySelector('#s2d-plot').scrollLeft, scrollX, scrollY]"
    _, _, height = phone.evaluate(offset)

    swipe(phone, middle, (-150, 0))
    pushed, sideways, down = phone.evaluate(offset)
    assert pushed > 100 and (sideways, down) == (0, height)
    left = phone.locator("#s2d-plot img").bounding_box()["x"]
    assert left == pytest.approx(box["x"] - pushed, abs=5)
    for _ in range(4):
        swipe(phone, middle, (-150, 0))
    end = phone.locator("#s2d-plot img").bounding_box()
    assert end["x"] + end["width"] <= PHONE_WIDTH  # its right edge can be seen
    for _ in range(5):
        swipe(phone, middle, (150, 0))
    assert phone.evaluate(offset) == [0, 0, height]
    swipe(phone, middle, (0, 150))  # a finger on the plot can still move the page
    assert phone.evaluate(offset)[2] < height - 100
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH


def test_an_example_is_one_tap_away(phone, server, tmp_path):
    assert phone.is_disabled("#s2d-analyse")
    offer = phone.inner_text("#s2d-offer")
    assert "NASA, public domain" in offer and "scikit-image" in offer
    phone.tap("#s2d-example")
    phone.wait_for_selector("#s2d-analyse:not([disabled])")
    phone.wait_for_function("document.querySelector('#s2d-input video')?.readyState >= 2")
    (made,) = server.folder.glob("s2d-hf-demo-*/astronaut.mp4")
    # Gradio deletes what it serves after a day
    assert str(made) not in phone.get_attribute("#s2d-input video", "src")
    row, field = (phone.locator(name).bounding_box() for name in ("#s2d-input .source-selection", "#s2d-input"))
    assert row["y"] + row["height"] <= field["y"] + field["height"]

    phone.tap("#s2d-analyse")
    assert "2 faces in 4.0 s" in wait_for_message(phone)
    playing = check_it_plays(phone)
    assert (playing["videoWidth"], playing["videoHeight"]) == (640, 480)
    assert set(pd.read_csv(download(phone, "csv", tmp_path))["video"]) == {"astronaut.mp4"}


def test_the_example_shows_a_face_all_the_time(tmp_path):
    path = write_example(tmp_path / "example.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, container.duration) == ("h264", "yuv420p", 4_000_000)
    frames, fps = read_frames(path)
    assert (len(frames), fps) == (96, 24)
    corner = [round(value - FACE_SIDE / 2) for value in FACE_CENTER]
    face = skimage.data.astronaut()[corner[1] :, corner[0] :][: round(FACE_SIDE), : round(FACE_SIDE)]
    found = []
    for frame in frames[::12]:
        best = (0.0, 0, (0, 0))
        for side in range(150, 320, 6):  # all of the face must be in the picture to be found
            template = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
            _, score, _, place = cv2.minMaxLoc(cv2.matchTemplate(frame, template, cv2.TM_CCOEFF_NORMED))
            best = max(best, (score, side, place))
        found.append(best)
    assert min(score for score, _, _ in found) > 0.95
    sides = [side for _, side, _ in found]
    assert max(sides) > 1.3 * min(sides)
    assert not any(is_cut_between(first, second) for first, second in pairwise(frames[::3]))


def test_without_scikit_image_there_is_no_example(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert write_example(tmp_path / "example.mp4") is None and not list(tmp_path.iterdir())

    def is_offered(example: Path | None) -> bool:
        blocks = build_demo(StandInAnalyser(), example=example).blocks.values()
        return next(block.visible for block in blocks if block.elem_id == "s2d-offer")

    assert not is_offered(None) and is_offered(tmp_path / "example.mp4")


def test_the_model_is_named(page):
    # as text: neither HTML nor a template
    assert page.inner_text(".s2d-model") == f"Model: {MODEL_NAME} ({', '.join(LABELS)})"
    nameless = build_demo(StandInAnalyser()).blocks.values()
    assert not any("s2d-model" in str(block.value) for block in nameless if "value" in vars(block))


def test_of_a_local_path_the_page_shows_the_last_part(tmp_path, monkeypatch):
    folder = tmp_path / "someone" / "dfew-set1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for local in (folder, f"{folder}{os.sep}", os.path.join("someone", "dfew-set1"), "./someone/dfew-set1/."):
        assert public_name(local) == "dfew-set1"
    (tmp_path / "someone" / "set1.pth").touch()
    assert public_name("someone/set1.pth") == "set1.pth"
    monkeypatch.chdir(folder)
    assert public_name(".") == public_name("../dfew-set1") == "dfew-set1"
    for elsewhere in ("someone/dfew-set1", "dfew-set1", "hf://someone/dfew-set1", "hf://someone/S2D/set1.pth"):
        assert public_name(elsewhere) == elsewhere
    assert public_name("/home/me/not-there/model") == "model"

    served = []
    monkeypatch.setattr(S2DTimeline, "from_pretrained", lambda model, **settings: (model, settings))
    monkeypatch.setattr("s2d_hf.demo.launch.serve_demo", lambda *arguments: served.append(arguments))
    launch_demo(folder, port=0, fps=4)
    assert served == [((folder, {"fps": 4}), "127.0.0.1", 0, False, "dfew-set1", None, ())]


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
