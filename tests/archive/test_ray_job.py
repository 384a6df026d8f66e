import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
import torch

from s2d_hf.archive import ArchiveRecords, ArchiveSummary, list_videos, ray_job, read_archive, run_ray
from s2d_hf.archive.ray_job import VideoActor, _share_resources
from tests.archive.stand_in import read_calls, refuse, stand_in, write_archive
from tests.archive.test_process_job import MIXED, ROOT, SETTINGS, expected_table

ray = pytest.importorskip("ray", reason="needs the extra `ray`")


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"object_store_memory": 80 * 2**20, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, include_dashboard=False, **options)
    yield
    ray.shutdown()


def analyse(folder: Path, delay: float = 0.0, **options) -> ArchiveSummary:
    options = {"factory": stand_in(folder / "calls", delay), "progress": False} | options
    return run_ray(list_videos(folder / "videos"), folder / "out", settings=SETTINGS, **options)


def read_lines(calls: Path) -> list[tuple[str, int]]:
    """Content and process of each call."""
    if not calls.exists():
        return []
    return [(line.rsplit(" ", 2)[0], int(line.split()[-2])) for line in calls.read_text().splitlines()]


@pytest.mark.slow
def test_dying_actors_lose_nothing(tmp_path, capsys):
    contents = MIXED | {"2.mp4": "poison"}
    write_archive(tmp_path / "videos", contents)
    ArchiveRecords(tmp_path / "out", SETTINGS).begin("2.mp4")  # in an earlier run, which died as well
    killed = []

    def kill_one() -> None:
        deadline = time.monotonic() + 180  # a machine at work takes long to start Ray
        while time.monotonic() < deadline:
            at_it = [process for content, process in read_lines(tmp_path / "calls") if content == "video 5"]
            if at_it:
                killed.append(at_it[0])
                os.kill(killed[0], signal.SIGKILL)  # while it is at this video
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = analyse(tmp_path, delay=0.5, progress=True)
    killer.join()
    assert len(killed) == 1
    # the actor that was killed was replaced and its video begun again; the one that kills was begun twice more
    assert len({process for _, process in read_lines(tmp_path / "calls")}) > 2
    counts = Counter(read_calls(tmp_path / "calls"))
    assert counts == Counter(contents.values()) + Counter({"video 5": 1, "poison": 1})
    assert (summary.num_videos, summary.num_done, summary.num_without_face, summary.num_failed) == (11, 9, 1, 2)
    assert list(summary.failures) == ["2.mp4", "bad.mp4"]
    assert "died 3 times" in summary.failures["2.mp4"] and "its header is missing" in summary.failures["bad.mp4"]
    shown = capsys.readouterr().err
    assert "11/11" in shown and "failed=2" in shown
    # what is done stays done
    (tmp_path / "calls").unlink()
    assert analyse(tmp_path, retry_failed=False) == summary
    assert read_calls(tmp_path / "calls") == []
    (tmp_path / "videos" / "2.mp4").unlink()
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))


def test_an_actor_that_loses_its_gpu_ends(tmp_path, monkeypatch):
    items = list_videos(write_archive(tmp_path / "videos", {"a.mp4": "lost gpu", "b.mp4": "fine"}))
    ArchiveRecords(tmp_path / "out", SETTINGS)
    num_threads = torch.get_num_threads()
    actor = VideoActor([ray.put(items)], str(tmp_path / "out"), stand_in(tmp_path / "calls"), num_threads, 100.0)
    codes = []

    def leave(code: int) -> NoReturn:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit):
        actor({"index": np.array([0])})
    assert codes == [1]
    assert actor({"index": np.array([1])}) == {"index": [1], "status": ["done"]}
    # Ray hands the task to another actor
    assert actor({"index": np.array([0])}) == {"index": [0], "status": ["done"]}
    assert read_calls(tmp_path / "calls") == ["lost gpu", "fine", "lost gpu"]
    # and may do so although it is done
    assert actor({"index": np.array([1])}) == {"index": [1], "status": ["done"]}
    assert len(read_calls(tmp_path / "calls")) == 3


def test_a_model_that_cannot_be_loaded_stops_the_job(tmp_path):
    write_archive(tmp_path / "videos", MIXED)
    with pytest.raises(RuntimeError, match="There is no model here"):
        analyse(tmp_path, factory=refuse)
    assert ArchiveRecords(tmp_path / "out").summarise().num_videos == 0


def test_actors_share_what_there_is(monkeypatch):
    assert _share_resources(None, True) == ({"num_cpus": 1.0}, 2, 1)
    assert _share_resources(1, True) == ({"num_cpus": 1.0}, 1, 2)
    assert _share_resources(3, True) == ({"num_cpus": 0.5}, 3, 1)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 4.0})
    assert _share_resources(None, True) == ({"num_cpus": 1.0, "num_gpus": 1.0}, 4, 4)
    assert _share_resources(None, False) == ({"num_cpus": 1.0}, 16, 1)
    # three to a card on two of four: 0.5 would leave room for eight only, and more than 1/3 doesn't fit
    resources, num_actors, _ = _share_resources(10, True)
    assert num_actors == 10 and 0.33 < resources["num_gpus"] <= 1 / 3


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "ray://[::1]:9", "10.255.255.1:99999"])
def test_an_address_where_nothing_listens_is_refused_at_once(tmp_path, monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_job, "CONNECT_SECONDS", 0.5)
    write_archive(tmp_path / "videos", MIXED)
    started = time.monotonic()
    with pytest.raises(ValueError, match=rf"`ray_address`: no cluster can be reached at {re.escape(address)} \("):
        analyse(tmp_path, address=address)
    assert time.monotonic() - started < 5
    assert ArchiveRecords(tmp_path / "out").summarise().num_videos == 0


def test_an_actor_ends_where_a_video_stands_still(warm_python):
    """Also where the interpreter itself does, as in a decoder that never comes back and holds its lock."""
    program = """
import re, time
from s2d_hf.archive import ray_job
from s2d_hf.archive.ray_job import _ends_where_it_stands_still
def analyse(source, progress, on_progress):
    for _ in range(4):  # longer than the limit, with signs of life
        time.sleep(0.4)
        on_progress(1.0)
    print("alive", flush=True)
    if source == "hangs":
        re.match("(a+)+b", "a" * 60)  # holds the interpreter's lock for hours
    return source
analyse = _ends_where_it_stands_still(analyse, 1.0)
assert analyse("fine") == "fine"
time.sleep(1.5)  # between two videos
analyse("hangs")
"""
    done = warm_python.run("-c", program)
    assert done.returncode == 1 and done.stdout == "alive\nalive\n" and "in analyse" in done.stderr, done


@pytest.mark.slow
def test_a_job_has_a_ray_of_its_own_beside_one_that_runs(tmp_path):
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # paths of sockets must be short
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "RAY_TMPDIR": folder}
    environment.pop("RAY_ADDRESS", None)
    write_archive(tmp_path / "videos", MIXED)
    program = f"""
from pathlib import Path
from s2d_hf.archive import list_videos, run_ray
from tests.archive.stand_in import stand_in
folder = Path({str(tmp_path)!r})
items = list_videos(folder / "videos")
print(run_ray(items, folder / "out", stand_in(folder / "calls"), {SETTINGS}, num_actors=1, progress=False).num_done)
"""
    start = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=1", "--port=0"]
    start.append("--include-dashboard=false")
    with subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + 100
            while not Path(folder, "ray", "ray_current_cluster").exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            done = subprocess.run(
                [sys.executable, "-c", program],
                env=environment,
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert done.stdout == "10\n", done.stderr
            assert running.poll() is None
        finally:
            running.terminate()
    shutil.rmtree(folder)


def test_bad_arguments_are_refused(tmp_path):
    write_archive(tmp_path / "videos", MIXED)
    with pytest.raises(ValueError, match="`num_actors` must be at least 1, got 0"):
        analyse(tmp_path, num_actors=0)
    ArchiveRecords(tmp_path / "out", {"model": "b"}).begin("0.mp4")
    with pytest.raises(ValueError, match="model was 'b' and is 'a' now"):
        analyse(tmp_path)
