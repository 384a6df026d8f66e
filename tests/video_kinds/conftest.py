"""What the tests here share: a processor that leaves frames as they are, and made videos."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from s2d_hf import S2DVideoProcessor

from ..made_videos import make_video, numbered


@pytest.fixture(scope="module")
def plain() -> S2DVideoProcessor:
    """16 frames as they are, in 0..255."""
    return S2DVideoProcessor(
        do_landmarks=False, do_rescale=False, do_normalize=False, do_resize=False, do_center_crop=False
    )


# tests whose files are damaged, or may be
MAY_WARN = (
    "test_cases", "test_cases_in_a_pipeline", "test_hostile_cases", "test_hostile_kinds",
    "test_cuts_in_the_middle_of_a_group", "test_recordings_one_behind_the_other",
    "test_times_that_start_again_with_sound", "test_open_groups_whose_first_one_is_cut_off", "test_lost_packets",
    "test_movies_that_refer_to_other_files", "test_files_that_break_off",
    "test_names_in_warnings",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_false_warnings(request, caplog) -> Iterator[None]:
    """Nothing is said of files that are whole."""
    yield
    if request.function.__name__ not in MAY_WARN:
        records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
        assert [record.getMessage() for record in records if record.name.startswith("s2d_hf")] == []


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return make_video(tmp_path_factory.mktemp("small") / "small.mp4", map(numbered, range(40)))
