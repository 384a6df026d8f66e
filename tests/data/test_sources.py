"""Collections of real files, read back."""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, Video
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s2d_hf.data import (
    LabelledSamples,
    Sample,
    check_sources,
    from_class_folders,
    from_hub,
    from_table,
    read_sample,
)
from s2d_hf.data.sources import _read_csv
from tests.videos import counting_frames, frame_number, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 12 frames that tell their index."""
    return write_video(tmp_path_factory.mktemp("video") / "counting.mp4", counting_frames(12))


@pytest.fixture
def warnings(monkeypatch):
    """What the module warns of."""
    messages = []
    monkeypatch.setattr("s2d_hf.data.sources.logger.warning", messages.append)
    return messages


# names of files and labels, of all that spreadsheets have to quote, and empty fields of other columns
NAMES = st.text(st.sampled_from("ab \"',;\n\r\té快|#\\"), min_size=1, max_size=8).filter(str.strip)
ROWS = st.lists(st.tuples(NAMES, NAMES.map(str.strip), NAMES | st.just("")), min_size=1, max_size=5)


def write_image(path, value: int = 100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (value, value, value)).save(path)
    return path


def pairs(samples: LabelledSamples) -> list[tuple[str, int]]:
    return [(sample.name, sample.label) for sample in samples]


class TestClassFolders:
    def test_videos_and_folders_of_frames(self, tmp_path, video, warnings):
        for name in ("sad/clip10.mp4", "sad/clip2.MP4", "happy/a.mp4"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(video.read_bytes())
        for i in range(11):
            write_image(tmp_path / "happy" / "frames" / f"{i}.png", 10 * i)
        (tmp_path / "happy" / ".DS_Store").touch()
        (tmp_path / ".cache").mkdir()
        (tmp_path / "sad" / "notes.txt").touch()
        (tmp_path / "README.txt").touch()
        samples = from_class_folders(tmp_path)
        assert samples.labels == ("happy", "sad")
        assert pairs(samples) == [("happy/a.mp4", 0), ("happy/frames", 0), ("sad/clip2.MP4", 1), ("sad/clip10.mp4", 1)]
        assert len(warnings) == 1 and "sad/notes.txt" in warnings[0]
        frames = read_sample(samples[1], choose=lambda metadata: [2, 10])
        assert [int(frame.unique()) for frame in frames] == [20, 100]
        frames = read_sample(samples[3], choose=lambda metadata: [0, metadata.total_num_frames - 1])
        assert [frame_number(frame) for frame in frames] == [0, 11]

    def test_images(self, tmp_path):
        for name in ("b/2.png", "b/10.jpg", "a/x.webp"):
            write_image(tmp_path / name)
        samples = from_class_folders(tmp_path, kind="image", labels=["b", "a"])
        assert samples.labels == ("b", "a")
        assert pairs(samples) == [("b/2.png", 0), ("b/10.jpg", 0), ("a/x.webp", 1)]
        assert read_sample(samples[0], "image")[0].shape == (3, 16, 20)

    def test_labels_without_samples_are_told(self, tmp_path, warnings):
        write_image(tmp_path / "a" / "1.png")
        samples = from_class_folders(tmp_path, "image", labels=["b", "a"])
        assert pairs(samples) == [("a/1.png", 1)] and "no samples of b" in warnings[0]

    def test_nothing_is_lost(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent"):
            from_class_folders(tmp_path / "absent")
        with pytest.raises(ValueError, match="no folders named by class"):
            from_class_folders(tmp_path)
        write_image(tmp_path / "a" / "inner" / "1.png")
        with pytest.raises(ValueError, match="not among `labels`: a"):
            from_class_folders(tmp_path, labels=["b"])
        with pytest.raises(ValueError, match="inner is a folder"):
            from_class_folders(tmp_path, "image")
        write_image(tmp_path / "a" / "inner" / "deeper" / "1.png")
        with pytest.raises(ValueError, match="inner must be a folder of frames, and it holds deeper"):
            from_class_folders(tmp_path)
        write_image(tmp_path / "b" / "1.png")
        (tmp_path / "a").rename(tmp_path / ".a")
        with pytest.raises(ValueError, match=r"1.png is an image.*kind='image'"):
            from_class_folders(tmp_path)
        (tmp_path / "c").mkdir()
        with pytest.raises(ValueError, match="holds no images"):
            from_class_folders(tmp_path, "image")
        with pytest.raises(ValueError, match="`kind`"):
            from_class_folders(tmp_path, "audio")


class TestTable:
    def write(self, folder, text: str, suffix: str = ".csv"):
        path = folder / f"table{suffix}"
        path.write_text(text, encoding="utf-8")
        return path

    def test_csv(self, tmp_path, video):
        absolute = tmp_path / "elsewhere, far.mp4"
        absolute.write_bytes(video.read_bytes())
        text = f'\ufeffpath,fold,label\r\nclips/b.mp4,1,sad\r\n"{absolute}",1,happy\r\nhttps://host/c.mp4,2,sad\r\n'
        samples = from_table(self.write(tmp_path, text))
        assert samples.labels == ("happy", "sad") and [sample.label for sample in samples] == [1, 0, 1]
        assert samples[0].path == tmp_path / "clips" / "b.mp4"
        assert samples[2].path == "https://host/c.mp4"
        assert len(read_sample(samples[1])) == 12
        assert from_table(tmp_path / "table.csv", root="/videos")[0].path.as_posix() == "/videos/clips/b.mp4"

    @pytest.mark.parametrize(
        ("text", "labels", "expected"),
        [
            ("path;label\na.mp4;sad\nb, c.mp4;happy\n", ("happy", "sad"), [("a.mp4", 1), ("b, c.mp4", 0)]),
            ("path, label\na.mp4, sad\nb.mp4,  happy \n", ("happy", "sad"), [("a.mp4", 1), ("b.mp4", 0)]),
            ("\ufeffpath;label\na.mp4;1.0\nb.mp4;0.0\n", ("0", "1"), [("a.mp4", 1), ("b.mp4", 0)]),
        ],
    )
    def test_tables_as_spreadsheets_write_them(self, tmp_path, text, labels, expected):
        samples = from_table(self.write(tmp_path, text))
        assert samples.labels == labels and pairs(samples) == expected

    @given(
        rows=ROWS,
        columns=st.permutations([0, 1, 2]),
        separator=st.sampled_from([",", ";", ", ", ";  "]),
        end=st.sampled_from(["\n", "\r\n"]),
        start=st.sampled_from(["", "\ufeff"]),
        quotes_all=st.booleans(),
    )
    def test_rows_are_those_that_pandas_reads(
        self, tmp_path_factory, rows, columns, separator, end, start, quotes_all
    ):
        """Of whole tables; what is wrong with others, pandas doesn't say or mends in its own way."""

        def write(cell: str) -> str:
            needs_quotes = quotes_all or re.search(r'[,;"\r\n]|^ ', cell)
            return '"' + cell.replace('"', '""') + '"' if needs_quotes else cell

        lines = [separator.join(write(row[i]) for i in columns) for row in [("path", "label", "fold"), *rows]]
        path = tmp_path_factory.mktemp("tables") / "table.csv"
        path.write_bytes((start + "".join(line + end for line in lines)).encode())
        settings = {"dtype": str, "keep_default_na": False, "skipinitialspace": True, "encoding": "utf-8-sig"}
        frame = pd.read_csv(path, sep=separator.strip(), **settings)
        read = [row[1:] for row in _read_csv(path)]
        assert read == list(zip(frame["path"], frame["label"].str.strip(), strict=True))
        assert read == [(name, label) for name, label, _ in rows]

    def test_labels_in_upper_and_lower_case(self, tmp_path):
        path = self.write(tmp_path, "path,label\na.mp4,Happy\nb.mp4,SAD\nc.mp4,happy\n")
        assert [sample.label for sample in from_table(path, labels=["sad", "happy"])] == [1, 0, 1]
        with pytest.raises(ValueError, match="'Happy' and 'happy' differ in upper and lower case alone"):
            from_table(path)
        two = from_table(path, labels=["happy", "Happy", "SAD"])
        assert [sample.label for sample in two] == [1, 2, 0]

    def test_one_file_under_several_names_has_one_label(self, tmp_path):
        (tmp_path / "v").mkdir()
        (tmp_path / "link.mp4").symlink_to(tmp_path / "v" / "a.mp4")
        for name in ("v/../v/a.mp4", "./v/a.mp4", "link.mp4", str(tmp_path / "v" / "a.mp4")):
            path = self.write(tmp_path, f"path,label\nv/a.mp4,happy\n{name},sad\n")
            message = f"line 3: {name} is labelled sad, and v/a.mp4, the same file, happy in .*line 2"
            with pytest.raises(ValueError, match=message):
                from_table(path)
            again = from_table(self.write(tmp_path, f"path,label\nv/a.mp4,happy\n{name},happy\n"))
            assert [sample.label for sample in again] == [0, 0]

    def test_many_labels_take_no_minutes(self, tmp_path):
        rows = "".join(f"{i}.mp4,label{i:06d}\n" for i in range(100_000))
        started = time.monotonic()
        samples = from_table(self.write(tmp_path, f"path,label\n{rows}"))
        assert len(samples.labels) == 100_000 and time.monotonic() - started < 20

    def test_jsonl(self, tmp_path):
        rows = [{"path": "ä.mp4", "label": 1, "extra": None}, {"path": "b.mp4", "label": 0}]
        text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        samples = from_table(self.write(tmp_path, text, ".jsonl"), labels=["happy", "sad", "fear"])
        assert pairs(samples) == [("ä.mp4", 1), ("b.mp4", 0)] and samples.labels == ("happy", "sad", "fear")

    @pytest.mark.parametrize(
        ("column", "labels", "expected", "expected_labels"),
        [
            (["sad", "happy"], ["sad", "happy"], [0, 1], ("sad", "happy")),
            (["1", "0", "2"], None, [1, 0, 2], ("0", "1", "2")),
            (["1", "0"], ["a", "b"], [1, 0], ("a", "b")),
            (["3", "1"], ["1", "3"], [1, 0], ("1", "3")),  # numbers that are names
            (["1", "x"], None, [0, 1], ("1", "x")),
        ],
    )
    def test_names_and_indices(self, tmp_path, column, labels, expected, expected_labels):
        text = "path,label\n" + "\n".join(f"{i}.mp4,{label}" for i, label in enumerate(column))
        samples = from_table(self.write(tmp_path, text), labels=labels)
        assert [sample.label for sample in samples] == expected and samples.labels == expected_labels

    @pytest.mark.parametrize(
        ("text", "labels", "message"),
        [
            ("path,label\n", None, "no rows"),
            ("", None, "header"),
            ("a.mp4,happy\n", None, "header"),
            ("path,label,label\na,b,c\n", None, "header"),
            ("path,label\na.mp4\n", None, "line 2: not as many fields"),
            ("path,label\na.mp4,b,c\n", None, "line 2: not as many fields"),
            ("path,label\na.mp4,b\n,b\n", None, "line 3: path or label is empty"),
            ('path,label\n"a.mp4,b\n', None, "line"),
            ("path,label\na.mp4,happy\nb.mp4,joy\n", ["happy"], "line 3: the label 'joy' is not among happy"),
            ("path,label\na.mp4,1\nb.mp4,2\n", None, "none is 0"),
            ("path,label\na.mp4,1\nb.mp4,2\n", ["x", "y"], r"b.mp4: the label 2 is outside 0\.\.1"),
            ("path,label\na.mp4,1\nb.mp4,8\n", ["1", "2"], "'8' is not among 1, 2"),
            ("path,label\na.mp4,x\na.mp4,y\n", None, "line 3: a.mp4 is labelled y, and x in .*line 2"),
            ("path,label\na.mp4,x\n", ["x", "x"], "more than once"),
            ("path,label\na.mp4,x\n", "x", "sequence of names"),
        ],
    )
    def test_bad_csv(self, tmp_path, text, labels, message):
        with pytest.raises(ValueError, match=message):
            from_table(self.write(tmp_path, text), labels=labels)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"path": "a", "label": 0}\n{', "line 2: not valid JSON"),
            ("[1]", "line 1: not an object"),
            ('{"label": 0}', "line 1: `path`"),
            ('{"path": "a"}', "line 1: the label must be .* None"),
            ('{"path": "a", "label": true}', "line 1: the label must be .* True"),
            ('{"path": "a", "label": -1}', "line 1: the label must be .* -1"),
        ],
    )
    def test_bad_jsonl(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            from_table(self.write(tmp_path, text, ".jsonl"))

    def test_other_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent"):
            from_table(tmp_path / "absent.csv")
        with pytest.raises(ValueError, match=r"\.csv or a \.jsonl"):
            from_table(self.write(tmp_path, "path,label", ".txt"))
        (tmp_path / "latin.csv").write_bytes("path,label\nä,b\n".encode("latin-1"))
        with pytest.raises(ValueError, match=r"latin\.csv is not in UTF-8"):
            from_table(tmp_path / "latin.csv")


class TestHub:
    def test_videos_by_path_and_by_content(self, video):
        content = {"path": "../odd name.mp4", "bytes": video.read_bytes()}
        features = Features({"clip": Video(), "emotion": ClassLabel(names=["sad", "happy"]), "id": Value("int64")})
        dataset = Dataset.from_dict(
            {"clip": [str(video), content], "emotion": [1, 0], "id": [5, 6]}, features=features, split="train"
        ).with_format("torch")
        samples = from_hub(dataset)
        assert samples.labels == ("sad", "happy") and pairs(samples) == [("train[0]", 1), ("train[1]", 0)]
        for sample in samples:
            frames = read_sample(sample, choose=lambda metadata: [3, metadata.total_num_frames - 1])
            assert [frame_number(frame) for frame in frames] == [3, 11]
        assert [sample.label for sample in from_hub(dataset, labels=["fear", "happy", "sad"])] == [1, 2]
        assert [list(samples), []] == [list(part) for part in check_sources(samples, progress=False)]

    def test_images(self, tmp_path):
        path = write_image(tmp_path / "a.png", 90)
        data = {"image": [str(path), {"path": None, "bytes": path.read_bytes()}], "label": ["b", "a"]}
        features = Features({"image": ImageFeature(), "label": Value("string")})
        samples = from_hub(Dataset.from_dict(data, features=features))
        assert samples.labels == ("a", "b") and pairs(samples) == [("dataset[0]", 1), ("dataset[1]", 0)]
        for sample in samples:
            (frame,) = read_sample(sample, "image")
            assert frame.shape == (3, 16, 20) and (frame == 90).all()

    def test_a_dataset_by_name(self, tmp_path, video):
        """A folder in the layout of the Hub, with its own metadata."""
        write_image(tmp_path / "data" / "train" / "happy" / "1.png")
        write_image(tmp_path / "data" / "train" / "sad" / "2.png")
        samples = from_hub(str(tmp_path / "data"), split="train")
        assert samples.labels == ("happy", "sad") and [sample.label for sample in samples] == [0, 1]
        assert len(read_sample(samples[0], "image")) == 1
        with pytest.raises(ValueError, match="`split`"):
            from_hub(str(tmp_path / "data"))

    @pytest.mark.parametrize("output_format", [None, "torch", "numpy"])
    def test_integer_labels_in_any_output_format(self, video, output_format):
        features = Features({"v": Video(), "labels": Value("int32")})
        dataset = Dataset.from_dict({"v": [str(video)] * 2, "labels": [1, 0]}, features=features)
        samples = from_hub(dataset.with_format(output_format), labels=["a", "b"])
        assert [sample.label for sample in samples] == [1, 0] and len(read_sample(samples[0])) == 12

    def test_columns_must_be_clear(self, video):
        features = Features({"a": Video(), "b": Video(), "name": Value("string"), "label": Value("string")})
        dataset = Dataset.from_dict({"a": [str(video)], "b": [None], "name": ["x"], "label": ["y"]}, features=features)
        with pytest.raises(ValueError, match="pass `column`, one of a, b, name, label"):
            from_hub(dataset)
        with pytest.raises(ValueError, match="no column 'c'"):
            from_hub(dataset, column="c")
        with pytest.raises(ValueError, match=r"'name' holds .* no videos or images"):
            from_hub(dataset, column="name")
        assert from_hub(dataset, column="a", label_column="name").labels == ("x",)
        with pytest.raises(ValueError, match="pass `label_column`"):
            from_hub(dataset.remove_columns("label"), column="a")
        with pytest.raises(ValueError, match=r"dataset\[0\]: the column 'b' is empty here"):
            read_sample(from_hub(dataset, column="b")[0])

    def test_rows_without_labels(self, video):
        for feature, value in ((ClassLabel(names=["1", "2"]), -1), (Value("string"), None)):
            dataset = Dataset.from_dict(
                {"v": [str(video)], "label": [value]}, features=Features({"v": Video(), "label": feature})
            )
            with pytest.raises(ValueError, match=r"dataset\[0\]"):
                from_hub(dataset)

    def test_class_labels_match_by_name_alone(self, video):
        features = Features({"v": Video(), "label": ClassLabel(names=["0", "1"])})
        dataset = Dataset.from_dict({"v": [str(video)], "label": [1]}, features=features)
        with pytest.raises(ValueError, match="'1' is not among a, b"):
            from_hub(dataset, labels=["a", "b"])

    def test_what_is_no_dataset(self, video):
        dataset = Dataset.from_dict({"label": ["x"]})
        for other in (DatasetDict(train=dataset), dataset.to_iterable_dataset()):
            with pytest.raises(TypeError, match="choose one split"):
                from_hub(other)

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match="pip install datasets"):
            from_hub("name", split="train")


class TestCheck:
    @pytest.fixture
    def collection(self, tmp_path, video) -> LabelledSamples:
        """Fourteen videos, the even ones broken in four ways."""
        broken = [b"", b"no video", video.read_bytes()[:-100], None]
        samples = []
        for i in range(14):
            path = tmp_path / f"{i}.mp4"
            content = broken[i // 2 % 4] if i % 2 == 0 else video.read_bytes()
            if content is not None:
                path.write_bytes(content)
            samples.append(Sample(f"clip {i}", i % 3, path=path))
        return LabelledSamples(samples, ["a", "b", "c"])

    def test_each_damaged_video_is_told_of_once(self, tmp_path, caplog):
        """Also by several threads, though FFmpeg counts its errors for all of them together."""
        whole = write_video(tmp_path / "whole.mkv", counting_frames(60)).read_bytes()
        samples = []
        for i in range(16):
            path = tmp_path / f"clip{i}.mkv"
            path.write_bytes(whole[: len(whole) // 2] if i % 4 == 0 else whole)
            samples.append(Sample(path.name, 0, path=path))
        good, broken = check_sources(LabelledSamples(samples, ["a"]), num_workers=4, progress=False)
        assert len(good) == 16 and not broken
        told = sorted(Path(line.split(" is damaged: ")[0]).name for line in caplog.messages if " is damaged: " in line)
        assert told == ["clip0.mkv", "clip12.mkv", "clip4.mkv", "clip8.mkv"]

    def test_skips_the_broken_ones_and_says_why(self, collection):
        good, broken = check_sources(collection, on_broken="skip", num_workers=3, progress=False)
        assert pairs(good) == [(f"clip {i}", i % 3) for i in range(1, 14, 2)] and good.labels == collection.labels
        reasons = dict(broken)
        assert list(reasons) == [f"clip {i}" for i in range(0, 14, 2)]
        assert "empty (0 bytes)" in reasons["clip 0"] and "2.mp4 could not be opened" in reasons["clip 2"]
        assert "4.mp4 could not be decoded: it is truncated" in reasons["clip 4"]
        assert "no video file" in reasons["clip 6"]

    def test_names_the_first_ten(self, collection):
        with pytest.raises(ValueError, match="7 of 14 videos can't be read") as error:
            check_sources(collection, progress=False)
        assert all(f"clip {i}: " in str(error.value) for i in range(0, 14, 2)) and "more" not in str(error.value)
        many = LabelledSamples([collection[0]] * 13, ["a"])
        with pytest.raises(ValueError, match="13 of 13") as error:
            check_sources(many, on_broken="skip", progress=False)
        assert str(error.value).count("clip 0: ") == 10 and str(error.value).endswith("and 3 more")

    def test_shows_progress(self, collection, capsys):
        check_sources(collection[1:2], num_workers=1)
        assert "Checking videos" in capsys.readouterr().err

    def test_images(self, tmp_path):
        whole = write_image(tmp_path / "a" / "1.png")
        (tmp_path / "a" / "2.png").write_bytes(whole.read_bytes()[:60])
        (tmp_path / "a" / "3.png").write_text("no image")
        good, broken = check_sources(from_class_folders(tmp_path, "image"), "image", on_broken="skip", progress=False)
        assert pairs(good) == [("a/1.png", 0)] and [name for name, _ in broken] == ["a/2.png", "a/3.png"]
        missing = LabelledSamples([Sample("m", 0, path="aGVsbG8=")], ["a"])
        with pytest.raises(ValueError, match="m: There is no image file"):
            check_sources(missing, "image", progress=False)

    def test_the_last_frame_of_a_folder(self, tmp_path):
        for i in range(3):
            write_image(tmp_path / f"{i}.png")
        samples = LabelledSamples([Sample("folder", 0, path=tmp_path)], ["a"])
        assert check_sources(samples, progress=False)[1] == []
        (tmp_path / "2.png").write_text("no image")
        with pytest.raises(ValueError, match=r"folder: .*2\.png is not a readable image"):
            check_sources(samples, progress=False)

    def test_bad_arguments(self, collection):
        with pytest.raises(ValueError, match="`on_broken`"):
            check_sources(collection, on_broken="ignore")
        with pytest.raises(ValueError, match="`num_workers`"):
            check_sources(collection, num_workers=0)


def test_deep_images_become_uint8(tmp_path):
    """Images of 16 bits, and of floats in [0, 1]."""
    Image.fromarray(np.full((8, 8), 0.4, np.float32)).save(tmp_path / "float.tiff")
    (frame,) = read_sample(Sample("float", 0, path=tmp_path / "float.tiff"), "image")
    assert frame.dtype == torch.uint8 and (frame == 102).all()
    Image.fromarray(np.full((8, 8), 257 * 77, np.uint16)).save(tmp_path / "deep.png")
    (frame,) = read_sample(Sample("deep", 0, path=tmp_path / "deep.png"), "image")
    assert frame.dtype == torch.uint8 and (frame == 77).all()


def test_labelled_samples(tmp_path):
    samples = LabelledSamples([Sample(str(i), i % 2, path="x") for i in range(5)], ["a", "b"])
    assert len(samples) == 5 and samples[-1].name == "4" and samples[1:3].labels == ("a", "b")
    assert pairs(samples.select([3, 0])) == [("3", 1), ("0", 0)]
    with pytest.raises(ValueError, match="no samples"):
        LabelledSamples([], ["a"])
    with pytest.raises(ValueError, match="neither a path nor an item"):
        read_sample(Sample("nothing", 0))
