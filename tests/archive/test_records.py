import csv
import dataclasses
import json
import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from s2d_hf.archive import ArchiveItem, ArchiveRecords, list_videos, read_archive, summarise
from s2d_hf.archive.records import JobRunningError, RecordsError, file_key, locked
from s2d_hf.archive.worker import MAX_ATTEMPTS, analyse_item
from s2d_hf.timeline.results import TABLE_FIELDS, VideoTimeline
from tests.archive.stand_in import LABELS, StandIn, invent_track, read_calls, write_archive

SETTINGS = {"model": "a", "fps": 8.0}


def timeline(*contents: bytes) -> VideoTimeline:
    tracks = [dataclasses.replace(invent_track(content), track=i) for i, content in enumerate(contents, start=1)]
    cuts = [1.5, np.float64(2)]
    damage = "1 packet could not be decoded" if tracks else ""
    return VideoTimeline("/tmp/elsewhere.mp4", LABELS, 4.0, np.int64(64), 48, 8.0, tracks, cuts, damage)


def save(records: ArchiveRecords, name: str, *contents: bytes) -> str:
    return records.save(name, timeline(*contents), path=f"/videos/{name}", attempts=1, seconds=0.5)


def test_windows_come_back_as_they_were(tmp_path):
    records = ArchiveRecords(tmp_path / "out", SETTINGS)
    assert save(records, "b/10.mp4", b"one", b"two") == "done"
    assert save(records, "b/nobody.mp4") == "no_face"
    assert save(records, "b/9.mp4", b"three") == "done"
    expected = []
    for name, contents in (("b/9.mp4", [b"three"]), ("b/10.mp4", [b"one", b"two"])):
        expected.append(dataclasses.replace(timeline(*contents), source=name).to_dataframe())
    read = read_archive(tmp_path / "out")
    pd.testing.assert_frame_equal(read, pd.concat(expected, ignore_index=True))
    assert list(read["video"]) == ["b/9.mp4"] * 3 + ["b/10.mp4"] * 6


def test_an_archive_without_faces_has_an_empty_table(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    assert list(read_archive(tmp_path).columns) == list(TABLE_FIELDS)
    save(records, "nobody.mp4")
    read = read_archive(tmp_path)
    assert len(read) == 0 and list(read.columns) == [*TABLE_FIELDS, *LABELS]
    assert read["happy"].dtype == float and read["track"].dtype == int


def test_each_file_says_where_it_comes_from(tmp_path):
    save(ArchiveRecords(tmp_path, SETTINGS), "b/9.mp4", b"one")
    (path,) = (tmp_path / "windows").iterdir()
    metadata = json.loads(pq.read_schema(path).metadata[b"s2d_hf"])
    assert metadata == {
        "name": "b/9.mp4",
        "duration": 4.0,
        "fps": 8.0,
        "width": 64,
        "height": 48,
        "cuts": [1.5, 2.0],
        "damage": "1 packet could not be decoded",
        "labels": list(LABELS),
        "settings": SETTINGS,
    }


def test_the_summary_counts_and_lists(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "10.mp4", b"one", b"two")
    save(records, "nobody.mp4")
    records.save_failure("9.mp4", 'ValueError: "9.mp4",\nis no video', "/videos/9.mp4", attempts=1)
    for _ in range(2):
        records.begin("killed.mp4")
    summary = summarise(tmp_path)
    assert (summary.num_videos, summary.num_done, summary.num_without_face, summary.num_failed) == (4, 2, 1, 2)
    with open(tmp_path / "failures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["status"]) for row in rows] == [("9.mp4", "failed"), ("killed.mp4", "unfinished")]
    assert rows[0]["reason"] == 'ValueError: "9.mp4",\nis no video'
    assert "2 times" in rows[1]["reason"]
    assert summary.failures == {row["name"]: row["reason"] for row in rows}
    videos = pd.read_parquet(tmp_path / "videos.parquet").set_index("name")
    assert list(videos.index) == ["9.mp4", "10.mp4", "killed.mp4", "nobody.mp4"]
    assert videos.loc["10.mp4", ["status", "num_tracks", "num_windows", "duration"]].tolist() == ["done", 2, 6, 4.0]
    assert videos.loc["nobody.mp4", ["status", "num_tracks", "num_windows"]].tolist() == ["no_face", 0, 0]
    assert videos.loc[["10.mp4", "nobody.mp4"], "damage"].tolist() == ["1 packet could not be decoded", ""]
    assert videos.loc[["9.mp4", "killed.mp4"], "damage"].isna().all()


def test_what_succeeds_at_last_has_not_failed(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    records.save_failure("a.mp4", "OSError", "a.mp4", attempts=1)
    # a kill between two steps of `save` leaves both outcomes
    failure = next((tmp_path / "videos" / "failed").iterdir())
    content = failure.read_bytes()
    save(records, "a.mp4", b"one")
    assert not failure.exists()
    failure.write_bytes(content)
    assert list(records.statuses().values()) == ["done"]
    summary = records.summarise()
    assert (summary.num_videos, summary.num_failed) == (1, 0)


def test_a_table_without_an_outcome_does_not_count(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "a.mp4", b"one")
    save(records, "b.mp4", b"two")
    (tmp_path / "videos" / "done" / f"{file_key('b.mp4')}.json").unlink()  # as if killed before it was written
    assert set(read_archive(tmp_path)["video"]) == {"a.mp4"}
    assert records.pending([ArchiveItem("a.mp4"), ArchiveItem("b.mp4")]) == [1]


def test_what_killed_processes_comes_last(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    items = [ArchiveItem(name) for name in ("begun", "failed", "done", "nobody", "new", "newer")]
    records.begin("begun")
    records.save_failure("failed", "OSError", "failed", attempts=1)
    save(records, "done", b"one")
    save(records, "nobody")
    assert [items[i].name for i in records.pending(items)] == ["new", "newer", "failed", "begun"]
    assert [items[i].name for i in records.pending(items, retry_failed=False)] == ["new", "newer", "begun"]


def test_file_names_are_safe_and_differ(tmp_path):
    names = ["a/b.mp4", "a_b.mp4", "A_B.mp4", "a//b.mp4", "é.mp4", "e\u0301.mp4", "..", ".", "", "/", "x" * 5000 + "1"]
    names += ["x" * 5000 + "2", "a\\b.mp4", "a:b*?.mp4", "-rf", "映画.mp4", "映像.mp4", "https://example.org/a?b=c"]
    keys = [file_key(name) for name in names]
    assert len({key.lower() for key in keys}) == len(names)
    for key in keys:
        assert len(key) < 130 and key.isascii() and not set(key) & set('/\\:*?"<>| \n') and key[0] not in ".-"
    records = ArchiveRecords(tmp_path, SETTINGS)
    for name in names:
        save(records, name, name.encode())
    assert set(read_archive(tmp_path)["video"]) == set(names)
    assert records.pending([ArchiveItem(name) for name in names]) == []


def test_other_settings_are_refused(tmp_path):
    ArchiveRecords(tmp_path, {"model": "misspelt"})  # with which nothing was done
    save(ArchiveRecords(tmp_path, SETTINGS | {"sizes": (1, 2), "dtype": torch.float16}), "a.mp4", b"one")
    ArchiveRecords(tmp_path, {"dtype": torch.float16, "fps": 8.0, "sizes": [1, 2], "model": "a"})
    with pytest.raises(ValueError, match=r"fps was 8.0 and is 4.0 now; stride was not set and is 8 now") as error:
        ArchiveRecords(tmp_path, SETTINGS | {"fps": 4.0, "stride": 8, "sizes": [1, 2], "dtype": torch.float16})
    assert "another output folder" in str(error.value) and "dtype" not in str(error.value)
    for content in ("[]", "[" * 100_000, "{"):
        (tmp_path / "settings.json").write_text(content)
        with pytest.raises(ValueError, match=r"settings.json can't be read"):
            ArchiveRecords(tmp_path, SETTINGS)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"holds results, and its settings.json.* is gone"):
        ArchiveRecords(tmp_path, SETTINGS)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no folder of an archive"):
        read_archive(tmp_path / "windows")


def test_a_replaced_model_is_noticed(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "a.mp4", b"one")
    records.save("b.mp4", dataclasses.replace(timeline(b"two"), labels=("x", "y", "z")), "b.mp4", 1, 0.5)
    with pytest.raises(ValueError, match="other columns"):
        read_archive(tmp_path)


def test_leftovers_of_kills_are_removed_when_old(tmp_path):
    ArchiveRecords(tmp_path, SETTINGS)
    old, new = tmp_path / "partial" / "old", tmp_path / "partial" / "new"
    for path in (old, new):
        path.write_bytes(b"half a fi")
    os.utime(old, (time.time() - 4000,) * 2)
    ArchiveRecords(tmp_path, SETTINGS)
    assert not old.exists() and new.exists()
    save(ArchiveRecords(tmp_path), "a.mp4", b"one")
    assert list((tmp_path / "partial").iterdir()) == [new]


def test_files_are_whole_whenever_they_are_read(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "a.mp4", b"one")
    stop = threading.Event()

    def read() -> list[int]:
        rows = []
        while not stop.is_set():
            rows.append(len(read_archive(tmp_path)))
        return rows

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for round_ in range(100):
            save(records, "a.mp4", *[b"%d" % (round_ + i) for i in range(1 + round_ % 2)])
        stop.set()
    assert len(reading.result()) > 5 and set(reading.result()) <= {3, 6}


def test_thousands_of_videos_are_listed_in_no_time(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    items = [ArchiveItem(f"folder/{i}.mp4") for i in range(20_000)]
    for item in items[:-3]:
        # only the names count: the files can't even be read
        (tmp_path / "videos" / "done" / f"{file_key(item.name)}.json").touch()
    start = time.monotonic()
    assert records.pending(items) == [19_997, 19_998, 19_999]
    assert time.monotonic() - start < 5


def damage_in_every_way(content: bytes) -> list[bytes | None]:
    """What kills, full disks and worn ones leave; `None`: the file is gone."""
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return [b"", content[:middle], content[:-1], flipped, bytes(len(content)), None]


def damage(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("contents", [[b"two"], []], ids=["done", "no_face"])
def test_damaged_windows_are_named_and_made_anew(tmp_path, contents):
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "a.mp4", b"one")
    save(records, "b.mp4", *contents)
    expected = read_archive(tmp_path)
    path = tmp_path / "windows" / f"{file_key('b.mp4')}.parquet"
    for number, content in enumerate(damage_in_every_way(path.read_bytes())):
        damage(path, content)
        if number != 3:  # a bit within the table is known by its hash only
            with pytest.raises(ValueError, match=rf"{path} .*Run the job again"):
                read_archive(tmp_path)
        (fault,) = records.repair()
        assert str(path) in fault
        assert records.pending([ArchiveItem("a.mp4"), ArchiveItem("b.mp4")]) == [1]
        save(records, "b.mp4", *contents)
        assert records.repair() == []
        pd.testing.assert_frame_equal(read_archive(tmp_path), expected)


@pytest.mark.parametrize("status", ["done", "no_face", "failed"])
def test_damaged_outcomes_are_named_and_made_anew(tmp_path, status):
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "whole.mp4", b"one")

    def write() -> None:
        if status == "failed":
            records.save_failure("a.mp4", "OSError", "a.mp4", attempts=1)
        else:
            save(records, "a.mp4", *[b"two"] * (status == "done"))

    write()
    (path,) = (path for path in (tmp_path / "videos" / status).iterdir() if path.name.startswith("a.mp4"))
    whole = path.read_bytes()
    others = [b"{}", b"[1]", b"null", whole.replace(b"a.mp4", b"c.mp4"), whole.replace(status.encode(), b"else")]
    wrong = [{"attempts": "many"}, {"duration": "x"}, {"path": ["a"]}, {"width": 10**30}, {"cuts": 5}, {"reason": 3}]
    others += [json.dumps(json.loads(whole) | fields).encode() for fields in wrong]
    for content in [whole[: len(whole) // 2], b"", b"\xff" * 20, b"[" * 100_000, *others]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{path} is damaged.*Run the job again"):
            summarise(tmp_path)
        (fault,) = records.repair()
        assert str(path) in fault
        items = [ArchiveItem("whole.mp4"), ArchiveItem("a.mp4")]
        assert records.pending(items) == [1]
        write()
        assert records.repair() == [] and summarise(tmp_path).num_videos == 2


def test_records_of_the_first_version_are_read(tmp_path):
    """Which have no hashes: a table that can be read is whole."""
    records = ArchiveRecords(tmp_path, SETTINGS)
    save(records, "a.mp4", b"one")
    (outcome,) = (tmp_path / "videos" / "done").iterdir()
    content = json.loads(outcome.read_text())
    del content["windows_sha256"]
    outcome.write_text(json.dumps(content))
    assert records.repair() == []
    (path,) = (tmp_path / "windows").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    assert len(records.repair()) == 1


def test_an_attempt_that_was_cut_off_is_listed(tmp_path):
    records = ArchiveRecords(tmp_path, SETTINGS)
    for content in (b'{"name": "a.m', b"\xff\xfe", b'{"name": 5}', b'{"name": "\\ud800"}', b"[" * 100_000, b"[]\n"):
        (tmp_path / "attempts" / f"{file_key('a.mp4')}.jsonl").write_bytes(content)
        assert list(records.summarise().failures) == [file_key("a.mp4")]
        assert records.pending([ArchiveItem("a.mp4")]) == [0]
    assert records.begin("a.mp4") == 2


def test_two_jobs_do_not_share_a_folder(tmp_path):
    with locked(tmp_path):
        message = rf"Another job \(process {os.getpid()} on .*\) is at work in {tmp_path}"
        with pytest.raises(JobRunningError, match=message), locked(tmp_path):
            pass
        (tmp_path / "running.json").write_text("{")  # as if it were just being written
        with pytest.raises(JobRunningError, match="Another job is at work"), locked(tmp_path):
            pass
    with locked(tmp_path):  # after it has ended
        pass
    assert not (tmp_path / "running.json").exists()


def test_a_limit_of_the_system_stops_the_job(tmp_path):
    """A real error of the system, and not one that was put in its place."""
    records = ArchiveRecords(tmp_path / "out", SETTINGS)
    save(records, "a.mp4", b"one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RecordsError, match=r"can't be written.*File too large"):
            save(records, "b.mp4", b"two")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert records.repair() == [] and list((tmp_path / "out" / "partial").iterdir()) == []
    assert set(read_archive(tmp_path / "out")["video"]) == {"a.mp4"}


@pytest.fixture
def worker(tmp_path):
    """A function that analyses one video of the given content."""
    records = ArchiveRecords(tmp_path / "out", SETTINGS)

    def analyse(content: str, analyser=None) -> str:
        (item,) = list_videos(write_archive(tmp_path / "videos", {"a.mp4": content}))
        return analyse_item(item, analyser or StandIn(tmp_path / "calls"), records)

    analyse.records = records
    analyse.calls = tmp_path / "calls"
    return analyse


def test_reasons_are_recorded(worker, tmp_path):
    assert worker("broken") == "failed"
    reason = worker.records.summarise().failures["a.mp4"]
    assert reason == f"ValueError: {tmp_path / 'videos' / 'a.mp4'} is no video:\nits header is missing"
    (outcome,) = (tmp_path / "out" / "videos" / "failed").iterdir()
    assert "in __call__" in json.loads(outcome.read_text())["traceback"]
    # results that can't be stored are a failure of the video as well
    assert worker("fine", lambda path, progress: None) == "failed"
    assert "TypeError" in worker.records.summarise().failures["a.mp4"]
    assert worker("fine") == "done"
    assert worker.records.summarise().failures == {}


def test_temporary_files_are_not_named_in_reasons(tmp_path):
    import datasets

    features = datasets.Features({"video": datasets.Video(decode=False)})
    dataset = datasets.Dataset.from_dict({"video": [{"bytes": b"broken", "path": "x.mp4"}]}, features=features)
    (item,) = list_videos(dataset.cast_column("video", datasets.Video()))
    records = ArchiveRecords(tmp_path / "out", SETTINGS)
    assert analyse_item(item, StandIn(tmp_path / "calls"), records) == "failed"
    assert records.summarise().failures["dataset[0]"].startswith("ValueError: dataset[0] is no video")


def test_three_deaths_are_a_failure(worker):
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert worker.records.begin("a.mp4") == attempt  # and the process dies
    assert worker("fine") == "failed"
    assert read_calls(worker.calls) == []
    assert "died 3 times" in worker.records.summarise().failures["a.mp4"]
    # the next run may try again
    assert worker("fine") == "done"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RecordsError])
def test_what_is_not_the_videos_fault_does_not_count(worker, error):
    def stop(*args, **kwargs):
        raise error

    for _ in range(2 * MAX_ATTEMPTS):
        with pytest.raises(error):
            worker("fine", stop)
    assert worker("fine") == "done"


def test_a_full_disk_stops_the_job(worker, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RecordsError, match=r"can't be written.*No space left"):
        worker("fine")
    monkeypatch.undo()
    assert worker("fine") == "done"


def test_a_lost_gpu_stops_the_process_and_counts(worker):
    with pytest.raises(torch.AcceleratorError):
        worker("lost gpu")
    assert worker("lost gpu") == "done"
    worker.records.summarise()
    assert pd.read_parquet(worker.records.folder / "videos.parquet")["attempts"].tolist() == [2]
