"""Damaged videos, two hundred of them; `python -m tests.fuzz_videos` reads more, and says more of them."""

import pytest

from .damaged_videos import KINDS, mutate, write_sources
from .fuzz_videos import fuzz


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    return fuzz(200, seed=20, keep=tmp_path_factory.mktemp("damaged"))


def test_no_crash_hang_or_hunger_for_memory_and_only_documented_errors(report):
    assert report["files"] == 200 and set(report["kinds"]) == set(KINDS)
    failures = [it for it in report["failures"] if "not said" not in it[3]]
    assert not failures


def test_what_ffmpeg_reports_is_said(report):
    assert not [it for it in report["failures"] if "not said" in it[3]]


def test_the_damage_is_felt(report):
    outcomes = {name for count in report["kinds"].values() for name in count}
    assert {"whole, nothing to say", "in part or wrong, with a warning", "refused with an error"} <= outcomes
    silent = sum(count.get("whole, nothing to say", 0) for count in report["kinds"].values())
    assert silent < 100


def test_the_same_seed_gives_the_same_files(tmp_path):
    source = next(iter(write_sources(tmp_path).values())).read_bytes()
    assert mutate(source, 3, 4) == mutate(source, 3, 4)
    assert mutate(source, 3, 4) != mutate(source, 3, 5)
