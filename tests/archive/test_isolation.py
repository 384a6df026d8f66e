import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

from s2d_hf.archive import ArchiveRecords, list_videos, read_archive, run_processes
from s2d_hf.archive.isolation import IsolatedAnalyser
from s2d_hf.archive.worker import MAX_ATTEMPTS, AnalyserLostError, ProcessDiedError, analyse_item
from tests.archive.stand_in import StandIn, read_calls, refuse, stand_in, write_archive
from tests.archive.test_process_job import MIXED, ROOT, SETTINGS, expected_table, is_alive

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def refuse_again(folder: Path) -> StandIn:
    """A factory that works once: somebody else has taken the GPU's memory since."""
    (folder / "loaded").mkdir()
    return StandIn(folder / "calls")


def test_a_job_survives_what_its_videos_do(tmp_path):
    """Crashes, a lost GPU, a video that stands still, and one that is only slow: each video has one outcome."""
    contents = MIXED | {"2.mp4": "poison", "4.mp4": "lost gpu", "5.mp4": "stands still"}
    contents |= {"6.mp4": "slow", "7.mp4": "cut off", "8.mp4": "untold", "9.mp4": "no server"}
    write_archive(tmp_path / "videos", contents)
    items = list_videos(tmp_path / "videos")
    records = ArchiveRecords(tmp_path / "out", SETTINGS)
    for _ in range(MAX_ATTEMPTS - 1):  # earlier jobs died at it as well
        records.begin("2.mp4")
    summary = run_processes(
        items, tmp_path / "out", stand_in(tmp_path / "calls"), SETTINGS, progress=False, stall_limit=2.5
    )
    assert (summary.num_videos, summary.num_done, summary.num_without_face, summary.num_failed) == (12, 6, 1, 6)
    assert "died 3 times" in summary.failures["2.mp4"]
    stood_still = "TimeoutError: it was ended after 2.5 s in which nothing happened, at 2.5 s of the video"
    assert summary.failures["5.mp4"] == stood_still
    assert summary.failures["bad.mp4"].startswith("ValueError: ")
    assert [summary.failures[f"{i}.mp4"] for i in (7, 8, 9)] == [
        "EOFError: the file ends", "RuntimeError: UntoldError", "ConnectionRefusedError: nobody answers",
    ]  # fmt: skip
    calls = (tmp_path / "calls").read_text().splitlines()
    assert Counter(read_calls(tmp_path / "calls")) == Counter([*contents.values(), "lost gpu"])
    processes = {int(line.split()[-2]) for line in calls}
    assert len(processes) == 3 and os.getpid() not in processes
    assert not any(is_alive(process) for process in processes)
    for name in summary.failures:  # the table of the others, by the analyser in this process
        (tmp_path / "videos" / name).unlink()
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_errors_are_those_of_the_analyser(tmp_path, monkeypatch):
    write_archive(tmp_path, {"bad.mp4": "broken", "a.mp4": "one"})
    analyser = IsolatedAnalyser(stand_in(tmp_path / "calls"))
    with pytest.raises(ValueError, match="its header is missing") as error:
        analyser(str(tmp_path / "bad.mp4"))
    assert "in __call__" in str(error.value.__cause__)  # where it happened
    with pytest.raises(FileNotFoundError, match=r"nowhere.mp4"):
        analyser(str(tmp_path / "nowhere.mp4"))
    in_this_process = StandIn(tmp_path / "calls")(str(tmp_path / "a.mp4"))
    pd.testing.assert_frame_equal(analyser(str(tmp_path / "a.mp4")).to_dataframe(), in_this_process.to_dataframe())
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith(f" {torch.get_num_threads()}")
    # whatever ends the waiting: the answer that was on its way is not taken for that of the next video
    wait = analyser._wait
    monkeypatch.setattr(analyser, "_wait", lambda limit: (_ for _ in ()).throw(OverflowError))
    with pytest.raises(OverflowError):
        analyser(str(tmp_path / "bad.mp4"))
    monkeypatch.setattr(analyser, "_wait", wait)
    pd.testing.assert_frame_equal(analyser(str(tmp_path / "a.mp4")).to_dataframe(), in_this_process.to_dataframe())
    analyser.close()


def test_a_job_that_was_stopped_has_not_stood_still():
    """Ctrl-Z, for longer than the limit: the clock is the number of looks."""

    class Connection:
        looks = 0

        def poll(self, seconds: float) -> bool:
            self.looks += 1
            time.sleep(0.6 if self.looks == 1 else 0)  # stopped here
            return self.looks == 3

        def recv(self) -> tuple[str, str]:
            return "result", "answer"

    analyser = object.__new__(IsolatedAnalyser)
    analyser._connection = Connection()
    assert analyser._wait(3.0) == ("result", "answer")
    analyser._connection = Connection()
    with pytest.raises(TimeoutError, match="after 2 s"):
        analyser._wait(2.0)


def test_a_model_that_cannot_be_loaded_says_why():
    with pytest.raises(OSError, match=r"^There is no model here.$"):
        IsolatedAnalyser(refuse)
    with pytest.raises(RuntimeError, match=r"Where the model is loaded, the process died \(exit code 7\)"):
        IsolatedAnalyser(functools.partial(os._exit, 7))
    for limit in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="`stall_limit` must be positive"):
            IsolatedAnalyser(refuse, limit)


def test_a_model_that_cannot_be_loaded_again_is_no_fault_of_videos(tmp_path):
    write_archive(tmp_path / "videos", {"1.mp4": "poison", "2.mp4": "two"})
    analyser = IsolatedAnalyser(functools.partial(refuse_again, tmp_path))
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        analyser(str(tmp_path / "videos" / "1.mp4"))
    records = ArchiveRecords(tmp_path / "out", SETTINGS)
    with pytest.raises(AnalyserLostError, match=r"could not be loaded again: .*loaded"):
        analyse_item(list_videos(tmp_path / "videos")[1], analyser, records)
    assert records.summarise().num_videos == 0


def test_ctrl_c_ends_both_processes_and_is_not_the_videos_fault(tmp_path):
    """Also in a script without `if __name__ == "__main__"`, which must not be run again by the other process."""
    write_archive(tmp_path / "videos", {"1.mp4": "one", "2.mp4": "stands still"})
    (tmp_path / "script.py").write_text(
        textwrap.dedent(f"""
        import signal
        from pathlib import Path
        from s2d_hf.archive import list_videos, run_processes
        from tests.archive.stand_in import stand_in
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever runs these tests may have ignored
        folder = Path({str(tmp_path)!r})
        with open(folder / "runs", "a") as file:
            file.write("x")
        run_processes(
            list_videos(folder / "videos"), folder / "out", stand_in(folder / "calls"), {SETTINGS}, progress=False,
            stall_limit=1000,
        )
        """)
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(read_calls(tmp_path / "calls")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    other = int((tmp_path / "calls").read_text().splitlines()[-1].split()[-2])
    assert is_alive(other)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does
    _, text = script.communicate(timeout=60)
    assert b"KeyboardInterrupt" in text and not is_alive(other)
    assert list((tmp_path / "out" / "attempts").iterdir()) == []
    assert (tmp_path / "runs").read_text() == "x"
