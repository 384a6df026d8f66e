import json
import os
import random
from pathlib import Path

import datasets
import pandas as pd
import pytest

from s2d_hf.archive import list_videos
from tests.archive.stand_in import write_archive


def names(items):
    return [item.name for item in items]


def test_a_folder_is_searched_in_the_order_of_numbers(tmp_path):
    shuffled = ["clip10.mp4", "a/b/clip2.MKV", "clip2.mp4", "a/clip1.webm", "clip1.avi"]
    random.Random(0).shuffle(shuffled)
    write_archive(tmp_path, dict.fromkeys(shuffled, "x"))
    write_archive(tmp_path, dict.fromkeys(["notes.txt", ".hidden.mp4", ".cache/x.mp4", "mp4", "a/cover.jpg"], "x"))
    items = list_videos(tmp_path)
    assert names(items) == ["a/b/clip2.MKV", "a/clip1.webm", "clip1.avi", "clip2.mp4", "clip10.mp4"]
    for item in items:
        with item.open() as path:
            assert Path(path).samefile(tmp_path / item.name)


def test_paths_of_a_folder_hold_from_elsewhere(tmp_path, monkeypatch):
    write_archive(tmp_path / "videos", {"a.mp4": "x"})
    monkeypatch.chdir(tmp_path)
    (item,) = list_videos("videos")
    monkeypatch.chdir("/")
    with item.open() as path:
        assert Path(path).read_text() == "x"


def test_names_that_are_no_text_can_be_written_down(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    try:
        Path(os.fsdecode(path)).write_text("x")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    (item,) = list_videos(tmp_path)
    assert item.name.encode("utf-8") == rb"\xff\xfe.mp4"
    with item.open() as opened:
        assert Path(opened).read_text() == "x"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_keeps_its_order_and_names(tmp_path, suffix):
    write_archive(tmp_path / "sub", {"b.mp4": "one", 'a "quoted", name.mp4': "two"})
    elsewhere = write_archive(tmp_path / "elsewhere", {"c.mp4": "three"}) / "c.mp4"
    paths = ["b.mp4", 'a "quoted", name.mp4', str(elsewhere), "https://example.org/d.mp4", "NA"]
    table = pd.DataFrame({"person": range(5), "path": paths, "when": ["2020-01-01"] * 5})
    path = tmp_path / "sub" / f"archive{suffix}"
    writers = {
        ".csv": lambda: table.to_csv(path, index=False),
        ".jsonl": lambda: path.write_text("\n".join(json.dumps(row) for row in table.to_dict("records"))),
        ".parquet": lambda: table.to_parquet(path),
    }
    writers[suffix]()
    items = list_videos(path)
    assert names(items) == paths
    contents = []
    for item in items[:3]:
        with item.open() as opened:
            contents.append(Path(opened).read_text())
    assert contents == ["one", "two", "three"]
    with items[3].open() as opened:
        assert opened == "https://example.org/d.mp4"
    # a file that isn't there is found out when its turn comes
    with pytest.raises(FileNotFoundError, match="NA"), items[4].open():
        pass


def test_the_column_of_a_table_can_be_named(tmp_path):
    (tmp_path / "t.csv").write_text("video,clip\na.mp4,b.mp4\n")
    assert names(list_videos(tmp_path / "t.csv")) == ["a.mp4"]
    assert names(list_videos(tmp_path / "t.csv", path_column="clip")) == ["b.mp4"]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.csv", "clip,label\na.mp4,1\n", "no column path or video in .*t.csv.* one of clip, label"),
        ("t.csv", "path\na.mp4\nb.mp4\na.mp4\n", "more than once: a.mp4"),
        ("t.csv", "path\nv/a.mp4\nb.mp4\n./v/a.mp4\nv/../v/a.mp4", r"more than once: v/a.mp4, \./v/a.mp4, v/\.\./v"),
        ("t.csv", "person,path\n1,a.mp4\n2,\n", "row 2.*path"),
        ("t.csv", "path\n", "holds no videos"),
        ("t.csv", "", "can't be read"),
        ("t.csv", 'path\n"a.mp4\n', "can't be read"),
        ("t.jsonl", '{"path": "a.mp4"}\n{"path": \n', "can't be read"),
        ("t.jsonl", '{"path": "a.mp4"}\n{"path": 3}\n', "row 2.*3"),
        ("t.parquet", "path", "can't be read"),
    ],
)
def test_bad_tables_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        list_videos(tmp_path / name)
    assert name in str(error.value)


def test_sources_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*t.csv"):
        list_videos(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        list_videos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no videos"):
        list_videos(tmp_path)
    (tmp_path / "one.mp4").write_text("x")
    with pytest.raises(ValueError, match="must be a folder"):
        list_videos(tmp_path / "one.mp4")
    with pytest.raises(ValueError, match="`path_column` is for tables"):
        list_videos(tmp_path, path_column="path")
    with pytest.raises(ValueError, match="`split` is for datasets"):
        list_videos(tmp_path, split="train")


@pytest.fixture
def stored(tmp_path) -> datasets.Dataset:
    """Three videos: bytes, a path, and nothing."""
    kept = write_archive(tmp_path, {"kept.mp4": "from a file"}) / "kept.mp4"
    rows = [{"bytes": b"from bytes", "path": "../../etc/clip.webm"}, {"bytes": None, "path": str(kept)}, None]
    features = datasets.Features({"clip": datasets.Video(decode=False), "url": datasets.Value("string")})
    urls = ["https://example.org/1.mp4", "https://example.org/2.mp4", "https://example.org/3.mp4"]
    dataset = datasets.Dataset.from_dict({"clip": rows, "url": urls}, features=features)
    return dataset.cast_column("clip", datasets.Video())


def test_a_dataset_gives_files_for_as_long_as_they_are_needed(stored):
    items = list_videos(stored)
    assert names(items) == ["dataset[0]", "dataset[1]", "dataset[2]"]
    with items[0].open() as path:
        assert Path(path).read_bytes() == b"from bytes"
        assert Path(path).name == "video.webm"
    assert not Path(path).exists()
    with items[1].open() as path:
        assert Path(path).read_bytes() == b"from a file"
    assert Path(path).exists()
    with pytest.raises(ValueError, match="'clip' is empty"), items[2].open():
        pass


def test_a_dataset_of_addresses(stored):
    items = list_videos(stored, path_column="url")
    with items[1].open() as path:
        assert path == "https://example.org/2.mp4"


def test_a_dataset_by_name(stored, monkeypatch):
    loaded = []

    def load_dataset(name, split):
        loaded.append((name, split))
        return stored

    splits = ["train"]
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: splits)
    assert names(list_videos("someone/films", split="test"))[2] == "test[2]"
    assert names(list_videos("films"))[2] == "train[2]"
    assert loaded == [("someone/films", "test"), ("films", "train")]
    splits.append("test")
    with pytest.raises(ValueError, match="which split of films to take, one of train, test"):
        list_videos("films")


@pytest.mark.parametrize(
    "error", [datasets.exceptions.DatasetNotFoundError("no such dataset"), ConnectionError("offline")]
)
def test_a_folder_whose_name_is_mistyped_is_said_to_be_missing(error, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(datasets, "get_dataset_split_names", fail)
    with pytest.raises(FileNotFoundError, match=f"no folder or table intervews here, and no dataset .*: {error}"):
        list_videos("intervews")


def test_datasets_without_videos_are_refused(stored):
    with pytest.raises(ValueError, match=r"no column path or video in the dataset.* one of url"):
        list_videos(stored.remove_columns("clip"))
    with pytest.raises(ValueError, match=r"dataset\[0\].*'number' must hold videos or paths, got 5"):
        list_videos(datasets.Dataset.from_dict({"number": [5]}), path_column="number")
    with pytest.raises(ValueError, match="one split"):
        list_videos(datasets.DatasetDict({"train": stored}))
