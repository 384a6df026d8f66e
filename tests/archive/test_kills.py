import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from s2d_hf.archive import read_archive, summarise
from tests.archive.stand_in import write_archive
from tests.archive.test_process_job import MIXED, ROOT, expected_table, is_alive

NUM_VIDEOS, NUM_KILLS = 60, 20


@pytest.mark.slow
def test_kills_at_random_moments_and_two_jobs_at_once_lose_nothing(tmp_path):
    """`kill -9` of the job (its second process has to end by itself), and a second job in every other round."""
    contents = MIXED | {f"more/{i}.mp4": f"more {i}" for i in range(NUM_VIDEOS - len(MIXED))}
    write_archive(tmp_path / "videos", contents)
    command = [sys.executable, "-m", "tests.archive.run_job", "videos", "out", "calls", "0.4", "100"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    draw = random.Random(0)
    done, refused = [], 0
    for round_ in range(NUM_KILLS):
        jobs = [start() for _ in range(1 + round_ % 2)]
        time.sleep(draw.uniform(0.5, 14))
        for job in jobs:
            job.send_signal(signal.SIGKILL)
        for job in jobs:
            refused += "is at work in out" in job.communicate()[1]
        done.append(summarise(tmp_path / "out").num_done if (tmp_path / "out" / "settings.json").exists() else 0)
    assert done == sorted(done)  # nothing that was done is lost
    while True:  # a video that was hit three times is said to have failed, and tried again
        job = start()
        assert "Traceback" not in job.communicate()[1]
        if list(summarise(tmp_path / "out").failures) == ["bad.mp4"]:
            break
    print(f"done after each kill: {done}; second jobs refused: {refused}")
    lines = (tmp_path / "calls").read_text().splitlines()
    pd.testing.assert_frame_equal(read_archive(tmp_path / "out"), expected_table(tmp_path / "videos"))
    videos = pd.read_parquet(tmp_path / "out" / "videos.parquet")
    assert sorted(videos["name"]) == sorted(contents)
    # what was done was never begun again: more than once only what a kill cut off
    assert len(lines) <= NUM_VIDEOS + 2 * NUM_KILLS and refused > 0
    assert not any(is_alive(process) for process in {int(line.split()[-2]) for line in lines} - {os.getpid()})
