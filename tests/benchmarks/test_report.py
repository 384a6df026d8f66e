"""The tables of whole videos and archives, of numbers that a reader can check."""

from typing import Any

import pytest

from benchmarks.measuring import summarise
from benchmarks.report import render

PROVENANCE = {"torch": "2.14"}
SETTINGS = {"rounds": 3, "clock_name": "wall", "device": "cpu"}


def _rows(text: str, heading: str) -> list[dict[str, str]]:
    """The first table under a heading."""
    lines = iter(text.split(f"{heading}\n")[1].splitlines())
    table = []
    for line in lines:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            break
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


@pytest.fixture
def timeline() -> dict[str, Any]:
    ours = {
        "seconds": summarise([4.0, 5.0, 6.0]),
        "real_time_factor": summarise([2.5, 2.0, 1.0]),
        "stages": {"decoding": summarise([2.0]), "model": summarise([4.5])},
        "shares": {"decoding": summarise([0.3, 0.4, 0.5]), "model": summarise([0.9])},
        "tracks": 2,
        "windows": 18,
        "compared_with": "commit 1234abc",
        "largest_difference": 2.5e-7,
        "times_as_fast": summarise([1.5, 2.0, 2.5]),
    }
    commit = {
        **{name: ours[name] for name in ("seconds", "real_time_factor", "tracks", "windows")},
        "stages": {"reading": summarise([2.0])},
        "shares": {"reading": summarise([0.25])},
    }
    return {
        "seconds": 10.0,
        "detector": "yunet",
        "stand_in": None,
        "unavailable": {"float32, fast path": "it is off"},
        "videos": [
            {"height": 1080, "width": 1920, "faces": 2, "candidates": {"float32": ours, "commit 1234abc": commit}}
        ],
    }


def test_whole_videos(timeline):
    text = render({"provenance": PROVENANCE, "settings": SETTINGS, "timeline": timeline})
    ours, commit = _rows(text, "### 1920x1080, faces: 2")
    assert ours == {
        "": "float32",
        "seconds of video a second": "2.00 (1.50 to 2.25)",
        "seconds": "5.00 (4.50 to 5.50)",
        "decoding": "40 %",
        "model": "90 %",
        "reading": "",
        "windows": "18",
        "times as fast": "2.00 (1.75 to 2.25)",
        "as": "commit 1234abc",
        "largest difference of scores": "2.5e-07",
    }
    # stages of an older version stand beside
    assert (commit["reading"], commit["model"], commit["as"]) == ("25 %", "", "")
    assert "10 s of made video each. Faces are found by yunet." in text and "**" not in text
    assert "| float32, fast path | it is off |" in text


def test_whole_videos_that_say_less(timeline):
    timeline |= {"detector": None, "stand_in": "there is none"}
    facts = timeline["videos"][0]["candidates"]["float32"]
    facts |= {"tracks": 3, "largest_difference": None}
    text = render({"provenance": PROVENANCE, "settings": SETTINGS, "timeline": timeline})
    assert "**No face detector ran**, and its time is missing: the boxes are known. (there is none.)" in text
    assert "**Not as many faces were followed as there are**: float32: 3." in text
    assert _rows(text, "### 1920x1080, faces: 2")[0]["largest difference of scores"] == "other windows"


def test_an_archive():
    times = {"job": 40.0, "start-up": 10.0, "analysis": 24.0, "analysis, model": 20.0, "writing": 6.0}
    archive = {
        "videos": 8, "seconds": 10.0, "height": 1080, "width": 1920, "faces": 1, "detector": "yunet",
        "stand_in": None, "without_face": 2, "times": {part: summarise([value]) for part, value in times.items()},
    }  # fmt: skip
    text = render({"provenance": PROVENANCE, "settings": SETTINGS, "archive": archive})
    rows = {row[""]: row for row in _rows(text, "## An archive")}
    assert [*rows] == [*times]
    assert (rows["analysis"]["of the job"], rows["analysis"]["seconds a video"]) == ("60.0 %", "3.000")
    assert (rows["start-up"]["of the job"], rows["start-up"]["seconds a video"]) == ("25.0 %", "")
    # 80 s of video in 40 s, and in the 30 s after the start; 6 s more than the analysis, over 8 videos
    assert "Hours of video an hour: 2.00, and 2.67 once the model is loaded." in text
    assert "Each video takes 0.750 s over its analysis." in text
    assert "**No face was found** in 2 of 8 videos." in text


def test_parts_that_were_not_measured():
    text = render({"provenance": PROVENANCE, "settings": SETTINGS, "not_measured": {"timeline": "no OpenCV"}})
    assert "| timeline | no OpenCV |" in text
    assert "not measured" not in render({"provenance": PROVENANCE, "settings": SETTINGS, "not_measured": {}})
