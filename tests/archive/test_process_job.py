import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch.distributed
from accelerate import PartialState

from s2d_hf.archive import ArchiveSummary, list_videos, read_archive, run_processes, summarise
from s2d_hf.archive.process_job import _fingerprint, _wait_for_work, find_processes
from s2d_hf.timeline.results import VideoTimeline
from tests.archive.stand_in import StandIn, read_calls, refuse, stand_in, write_archive

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"model": "a"}
MIXED = {f"{i}.mp4": f"video {i}" for i in range(9)} | {"bad.mp4": "broken", "nobody.mp4": "no face"}


def run_two(folder: Path, delay: float) -> tuple[int, str]:
    """Runs `run_job` on `folder/videos` into `folder/out` in two processes; their exit code and what they printed."""
    # on CPUs, `accelerate launch --num_processes` starts several processes only through MPI
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.archive.run_job"]
    command += [str(folder / "videos"), str(folder / "out"), str(folder / "calls"), str(delay)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


def is_alive(process: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for."""
    try:
        return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def analyse(folder: Path, **options) -> ArchiveSummary:
    """An undisturbed run in this process, of `folder/videos`."""
    options = {"factory": stand_in(folder / "calls"), "progress": False} | options
    return run_processes(list_videos(folder / "videos"), folder / "out", settings=SETTINGS, **options)


def expected_table(source: Path) -> pd.DataFrame:
    """One video after the other, without the job."""
    analyser = StandIn(source.parent / "calls")
    tables = []
    for item in list_videos(source):
        if not Path(item.path).read_text().startswith("broken"):
            table = analyser(item.path).to_dataframe()
            tables.append(table.assign(video=item.name))
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True)


def test_everything_is_done_and_failures_are_named(tmp_path):
    write_archive(tmp_path / "videos", MIXED)
    summary = analyse(tmp_path)
    assert (summary.num_videos, summary.num_done, summary.num_without_face, summary.num_failed) == (11, 10, 1, 1)
    assert list(summary.failures) == ["bad.mp4"]
    assert "its header is missing" in summary.failures["bad.mp4"]
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_only_what_is_new_or_failed_is_done_again(tmp_path):
    write_archive(tmp_path / "videos", MIXED)
    analyse(tmp_path)
    (tmp_path / "calls").unlink()
    analyse(tmp_path, retry_failed=False)
    assert read_calls(tmp_path / "calls") == []
    write_archive(tmp_path / "videos", {"new.mp4": "new"})
    assert analyse(tmp_path).num_failed == 1
    assert read_calls(tmp_path / "calls") == ["new", "broken"]
    write_archive(tmp_path / "videos", {"bad.mp4": "mended"})
    summary = analyse(tmp_path)
    assert (summary.num_videos, summary.num_failed) == (12, 0)
    assert pd.read_csv(tmp_path / "out" / "failures.csv").empty
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_the_model_is_loaded_only_for_work_and_once(tmp_path):
    write_archive(tmp_path / "videos", MIXED)
    made = []

    def factory() -> StandIn:
        made.append(1)
        return StandIn(tmp_path / "calls")

    analyse(tmp_path, factory=factory)
    assert len(made) == 1
    analyse(tmp_path, factory=refuse, retry_failed=False)
    with pytest.raises(OSError, match="no model here"):
        analyse(tmp_path, factory=refuse)


def test_the_bar_counts_videos_and_failures(tmp_path, capsys):
    write_archive(tmp_path / "videos", MIXED)
    analyse(tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "11/11" in shown and "failed=1" in shown


def test_a_killed_job_goes_on(warm_python, tmp_path):
    write_archive(tmp_path / "videos", MIXED | {"4.mp4": "deadly once"})
    places = [tmp_path / name for name in ("videos", "out", "calls")]
    job = warm_python.run("-m", "tests.archive.run_job", *places, 0.0)
    assert job.returncode == -signal.SIGKILL, job.stderr
    assert read_calls(tmp_path / "calls") == ["video 0", "video 1", "video 2", "video 3", "deadly once"]
    assert set(read_archive(tmp_path / "out")["video"]) == {"0.mp4", "1.mp4", "2.mp4", "3.mp4"}
    unfinished = summarise(tmp_path / "out").failures
    assert list(unfinished) == ["4.mp4"] and "begun once and not finished" in unfinished["4.mp4"]
    summary = analyse(tmp_path)
    assert read_calls(tmp_path / "calls")[5:] == [f"video {i}" for i in range(5, 9)] + [
        "broken",
        "no face",
        "deadly once",
    ]
    assert list(summary.failures) == ["bad.mp4"]
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_an_interrupted_job_goes_on(tmp_path):
    class Interrupted(StandIn):
        def __call__(self, source: str, **options) -> VideoTimeline:
            if source.endswith("3.mp4"):
                raise KeyboardInterrupt
            return super().__call__(source, **options)

    write_archive(tmp_path / "videos", MIXED)
    for _ in range(5):  # one that is interrupted often is not to blame
        with pytest.raises(KeyboardInterrupt):
            analyse(tmp_path, factory=lambda: Interrupted(tmp_path / "calls"))
    assert set(read_archive(tmp_path / "out")["video"]) == {"0.mp4", "1.mp4", "2.mp4"}
    assert summarise(tmp_path / "out").num_videos == 3
    analyse(tmp_path)
    assert Counter(read_calls(tmp_path / "calls")) == Counter(MIXED.values())
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_two_processes_share_the_videos(tmp_path):
    write_archive(tmp_path / "videos", MIXED)
    code, text = run_two(tmp_path, delay=0.1)
    assert code == 0, text
    lines = [line.rsplit(" ", 2) for line in (tmp_path / "calls").read_text().splitlines()]
    assert sorted(content for content, *_ in lines) == sorted(MIXED.values())  # each of them once
    shares = Counter(process for _, process, _ in lines)
    assert len(shares) == 2 and min(shares.values()) >= 3
    assert (tmp_path / "out" / "process0.txt").read_text().startswith("ArchiveSummary(num_videos=11, num_done=10")
    assert (tmp_path / "out" / "process1.txt").read_text() == "None"
    assert "11/11" in text and text.count(" 0/11") == 1  # one bar, for all
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_a_job_goes_on_of_which_one_process_was_killed(tmp_path):
    write_archive(tmp_path / "videos", MIXED | {"4.mp4": "deadly once"})
    code, text = run_two(tmp_path, delay=0.2)
    assert code != 0 and "SIGKILL" in text
    begun = read_calls(tmp_path / "calls")
    assert len(begun) < len(MIXED)
    assert analyse(tmp_path).num_done == 10
    repeated = {content for content, count in Counter(read_calls(tmp_path / "calls")).items() if count > 1}
    assert "deadly once" in repeated and len(repeated) <= 2  # and what the other process was at
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_processes_end_if_the_main_one_has_refused_to_start(tmp_path):
    main = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    other = torch.distributed.TCPStore("localhost", main.port, wait_for_workers=False)
    del main
    with pytest.raises(SystemExit):
        _wait_for_work(other, [])


def test_processes_must_list_the_same_videos(tmp_path):
    store = torch.distributed.HashStore()
    items = list_videos(write_archive(tmp_path, {"a.mp4": "", "b.mp4": ""}))
    store.set("work", json.dumps({"archive": _fingerprint(items), "order": [1]}))
    assert _wait_for_work(store, items) == [1]
    with pytest.raises(RuntimeError, match="lists other videos"):
        _wait_for_work(store, items[:1])


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(PartialState, "num_processes", 1, raising=False)
    with pytest.raises(RuntimeError, match="2 processes were started"):
        find_processes()
