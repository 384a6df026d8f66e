"""Each limit refuses what is above it, names itself and lets pass what is not."""

from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from s2d_hf.frames_s2d import read_image
from s2d_hf.video_limits_s2d import limit_of
from s2d_hf.video_reading_s2d import read_video

from .videos import counting_frames, write_timed_video

# of a video of 20 frames of 96x64 stored pixels, each of them twice as wide as high, and of a picture of 40x30
LIMITS = {
    "S2D_MAX_FRAME_PIXELS": 192 * 64,
    "S2D_MAX_IMAGE_PIXELS": 40 * 30,
    "S2D_MAX_PIXEL_ASPECT": 2,
    "S2D_MAX_FRAMES": 20,
    "S2D_MAX_KEPT_BYTES": 20 * 3 * 192 * 64,
    "S2D_MAX_DECODED_BYTES": 20 * 3 * 96 * 64,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("limits")
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    video = write_timed_video(folder / "a.mp4", counting_frames(20), aspect=Fraction(2))
    return {"video": video, "picture": folder / "a.png"}


@pytest.mark.parametrize(("name", "value"), LIMITS.items())
def test_limits(files, monkeypatch, name, value):
    reads = [lambda: read_video(files["video"])]
    if name == "S2D_MAX_IMAGE_PIXELS":
        reads = [lambda: read_video(files["picture"]), lambda: read_image(files["picture"])]
    monkeypatch.setenv(name, str(value))
    for read in reads:
        read()
    monkeypatch.setenv(name, str(value - 1))
    for read in reads:
        with pytest.raises(ValueError, match=rf"a\.(mp4|png).*, and {value - 1:,} are allowed.*set {name} higher"):
            read()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "١"])
def test_values_that_are_no_limits_are_named(monkeypatch, value):
    monkeypatch.setenv("S2D_MAX_FRAMES", value)
    with pytest.raises(ValueError, match=f"S2D_MAX_FRAMES must be a positive whole number, got '{value}'"):
        limit_of("S2D_MAX_FRAMES")


def test_an_empty_value_is_none(monkeypatch):
    default = limit_of("S2D_MAX_FRAMES")
    monkeypatch.setenv("S2D_MAX_FRAMES", " ")
    assert limit_of("S2D_MAX_FRAMES") == default
