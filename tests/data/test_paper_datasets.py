"""Benchmarks in miniature, in the layouts in which they are distributed."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from s2d_hf.data import ClipDataset, LabelledSamples, check_sources
from s2d_hf.data.paper_datasets import (
    AFFECTNET_7,
    AFFECTNET_8,
    DFEW,
    FERPLUS,
    FERV39K,
    MAFW,
    PAPER_DATASETS,
    RAF_DB,
    ExpectedCounts,
    PaperDataset,
    find_paper_dataset,
    layout,
    register,
)
from s2d_hf.data.paper_datasets.ferplus import find_majority
from s2d_hf.labels import LABELS

from .paper_layouts import miniatures
from .paper_layouts.miniatures import WRITERS

VIDEOS = ("DFEW", "FERV39k", "MAFW")
DFEW_TRAIN = "EmoLabel_DataSplit/train(single-labeled)/set_2.csv"
DFEW_TEST = "EmoLabel_DataSplit/test(single-labeled)/set_2.csv"
# an array of numpy whose header claims 36 TB
HUGE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<U1', 'fortran_order': False, 'shape': (9999999999999,), }".ljust(118)
MAFW_TRAIN = "anno/single/no_caption/set_1/train.csv"


def pairs(samples: LabelledSamples) -> list[tuple[str, int]]:
    return [(sample.name, sample.label) for sample in samples]


def read(benchmark: PaperDataset, root: Path, split: str = "train", fold: str | None = None, **arguments):
    fold = fold or benchmark.folds[0]
    return benchmark.read(root, split, fold, **({"check_counts": False} | arguments))


def replace(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def write_rows(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", WRITERS)
class TestEach:
    def test_every_fold_and_split_is_read(self, tmp_path, name):
        benchmark = find_paper_dataset(name)
        num_labels = len(benchmark.labels)
        WRITERS[name](tmp_path, num_train=24, num_test=12)
        num_train, num_test = (22, 11) if name == "AffectNet-7" else (24, 12)
        tests = []
        for fold in benchmark.folds:
            splits = {split: read(benchmark, tmp_path, split, fold) for split in benchmark.splits}
            names = {split: {sample.name for sample in samples} for split, samples in splits.items()}
            assert (len(names["train"]), len(names["test"])) == (num_train, num_test)
            assert not names["train"] & names["test"]
            tests += names["test"]
            for samples in splits.values():
                assert samples.labels == benchmark.labels == LABELS[name]
                assert {sample.label for sample in samples} == set(range(num_labels))
        assert len(tests) == len(set(tests)) == len(benchmark.folds) * num_test
        assert len(benchmark.folds) == (5 if name in ("DFEW", "MAFW") else 1)

    def test_its_images_are_those_of_the_labels(self, tmp_path, name):
        benchmark = find_paper_dataset(name)
        WRITERS[name](tmp_path, size=24)
        for split in benchmark.splits:
            samples = read(benchmark, tmp_path, split)
            good, broken = check_sources(samples, benchmark.kind, progress=False)
            assert pairs(good) == pairs(samples) and broken == []
            dataset = ClipDataset(samples, num_frames=4, size=24, kind=benchmark.kind)
            for item in dataset:
                assert item["frames"].shape == ((4, 3, 24, 24) if benchmark.kind == "video" else (3, 24, 24))
                red = item["frames"].float().mean((-1, -2))[..., 0].mean()
                assert abs(float(red) - 20 * item["labels"] - 9.5) < 5

    def test_missing_ones_are_listed(self, tmp_path, name):
        benchmark = find_paper_dataset(name)
        WRITERS[name](tmp_path, num_train=26, num_test=26)
        samples = read(benchmark, tmp_path, "train")
        gone = list(samples)[::2]
        for sample in gone:
            if benchmark.kind == "video":
                shutil.rmtree(sample.path)
                sample.path.touch()  # a file is no folder of frames
            else:
                sample.path.unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}, train split.*: {len(gone)} of {len(samples)} ") as error:
            read(benchmark, tmp_path, "train")
        lines = str(error.value).splitlines()
        assert lines[1:11] == [f"{sample.name}: {sample.path}" for sample in gone[:10]]
        assert lines[11:] == [f"and {len(gone) - 10} more"]
        assert pairs(read(benchmark, tmp_path, "train", check=False)) == pairs(samples)
        read(benchmark, tmp_path, "test")

    def test_parent_folders_are_listed_once(self, tmp_path, name, monkeypatch):
        benchmark = find_paper_dataset(name)
        WRITERS[name](tmp_path)
        scanned = []
        scandir = os.scandir
        monkeypatch.setattr(layout.os, "scandir", lambda path: scanned.append(path) or scandir(path))
        samples = read(benchmark, tmp_path)
        parents = {sample.path.parent for sample in samples}
        assert parents <= set(scanned) and [scanned.count(path) for path in parents] == [1] * len(parents)

    def test_counts_are_checked(self, tmp_path, name):
        benchmark = find_paper_dataset(name)
        WRITERS[name](tmp_path)
        expected = benchmark.expected[benchmark.folds[0], "test"]
        count = f"{expected.samples or expected.rows:,}"
        with pytest.raises(ValueError, match=rf"{name}, test split.*expected {count}.* found .*check_counts=False"):
            read(benchmark, tmp_path, "test", check_counts=True)

    def test_other_splits_folds_and_roots(self, tmp_path, name):
        benchmark = find_paper_dataset(name)
        with pytest.raises(ValueError, match=f"{name} has the splits train, .*test, and not 'dev'"):
            read(benchmark, tmp_path, "dev")
        with pytest.raises(ValueError, match=f"{name} has the folds 1.*: and not '6'"):
            read(benchmark, tmp_path, fold="6")
        with pytest.raises(FileNotFoundError, match=f"{name}: there is no folder .*absent"):
            read(benchmark, tmp_path / "absent")
        with pytest.raises(FileNotFoundError, match=r"There is no (folder|file) of .*: looked for \S+"):
            read(benchmark, tmp_path)
        WRITERS[name](tmp_path)
        if len(benchmark.folds) == 1:
            samples = benchmark.read(tmp_path, "test", check_counts=False)
            assert pairs(samples) == pairs(read(benchmark, tmp_path, "test"))
        else:
            with pytest.raises(ValueError, match="the folds 1, 2, 3, 4, 5: pass `fold`"):
                benchmark.read(tmp_path, "test")
            assert pairs(read(benchmark, tmp_path, fold=3)) == pairs(read(benchmark, tmp_path, fold="3"))


class TestDFEW:
    def test_names_and_labels(self, tmp_path):
        miniatures.write_dfew(tmp_path, num_train=7, num_test=7)
        assert pairs(read(DFEW, tmp_path, "train", "1")) == [(f"{8 + i:05d}", i) for i in range(7)]
        assert pairs(read(DFEW, tmp_path, "test", "2")) == [(f"{8 + i:05d}", i) for i in range(7)]
        assert DFEW.labels[0] == "happy" and DFEW.labels[6] == "fear"

    @pytest.mark.parametrize("label_base", [0, 1])
    @pytest.mark.parametrize("prefixed", [False, True])
    @pytest.mark.parametrize("zero_padded", [False, True])
    def test_releases_agree(self, tmp_path, label_base, prefixed, zero_padded):
        miniatures.write_dfew(tmp_path / "a", folds=("1",))
        miniatures.write_dfew(
            tmp_path / "b",
            folds=("1",),
            label_base=label_base,
            prefixed=prefixed,
            zero_padded=zero_padded,
            suffix=".png",
        )
        for split in DFEW.splits:
            assert pairs(read(DFEW, tmp_path / "a", split)) == pairs(read(DFEW, tmp_path / "b", split))

    def test_the_base_is_found_from_both_files(self, tmp_path):
        """In the train file alone, labels from 1 to 6 could count from 0 too."""
        miniatures.write_dfew(tmp_path)
        lines = (tmp_path / DFEW_TRAIN).read_text().splitlines()
        write_rows(tmp_path / DFEW_TRAIN, [line for line in lines if not line.endswith(",7")])
        samples = read(DFEW, tmp_path, "train", "2")
        assert {sample.label for sample in samples} == set(range(6))
        assert pairs(samples)[0] == ("00001", 0)

    @pytest.mark.parametrize(
        ("train", "test", "message"),
        [
            ("12345670", "1", "both 0 and 7 are among them"),
            ("1234567", "0123456", "both 0 and 7 are among them"),
            ("123456", "123456", "can't be told: neither 0 nor 7"),
            ("1234568", "1", r"line 8: the label 8 is out of range; .* from 0 to 6 or from 1 to 7"),
            ("12a", "7", r"line 4: the label must be a whole number, got 'a'"),
            ("1-", "7", r"line 3: the label must be a whole number, got '-'"),
        ],
    )
    def test_other_labels_are_refused(self, tmp_path, train, test, message):
        (tmp_path / "Clip/clip_224x224_16f").mkdir(parents=True)
        for file, labels in ((DFEW_TRAIN, train), (DFEW_TEST, test)):
            write_rows(tmp_path / file, ["video_name,label", *(f"{i},{label}" for i, label in enumerate(labels))])
        for split in DFEW.splits:
            with pytest.raises(ValueError, match=message) as error:
                read(DFEW, tmp_path, split, "2", check=False)
            assert "set_2.csv" in str(error.value)

    def test_negative_labels_are_refused(self, tmp_path):
        miniatures.write_dfew(tmp_path)
        replace(tmp_path / DFEW_TEST, ",3", ",-3")
        with pytest.raises(ValueError, match="whole number, got '-3'"):
            read(DFEW, tmp_path, "train", "2")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("video_name,label", "name,label", "the header video_name,label, and begins with 'name,label'"),
            ("video_name,label\n", "", "must begin with the header"),
            ("\n1,1\n", "\n1,1,1\n", "line 2: expected 2 fields, found 3"),
            ("\n1,1\n", "\n1.mp4,1\n", "line 2: the video_name must be a whole number, got '1.mp4'"),
            ("\n1,1\n", "\n../1,1\n", "line 2: the video_name must be a whole number"),
            ("\n1,1\n", "\n" + "1" * 5000 + ",1\n", "line 2: the video_name must be a whole number"),
            ("\n1,1\n", '\n"1,1\n', "line [0-9]+: unexpected end of data"),
            ("\n1,1\n", "\n1,1\n1,2\n", "00001 is labelled happy and sad"),
        ],
    )
    def test_malformed_files(self, tmp_path, old, new, message):
        miniatures.write_dfew(tmp_path)
        replace(tmp_path / DFEW_TRAIN, old, new)
        with pytest.raises(ValueError, match=message) as error:
            read(DFEW, tmp_path, "train", "2")
        assert "set_2.csv" in str(error.value)

    def test_missing_parts(self, tmp_path):
        miniatures.write_dfew(tmp_path, folds=("1",))
        with pytest.raises(FileNotFoundError) as error:
            read(DFEW, tmp_path, "test", "2")
        assert str(error.value) == (
            f"There is no file of the train split of fold 2 in {tmp_path}: looked for {DFEW_TRAIN}, "
            "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv."
        )
        (tmp_path / "Clip/clip_224x224_16f").rename(tmp_path / "Clip/other")
        with pytest.raises(FileNotFoundError, match=r"no folder of clips in .*: looked for Clip/clip_224x224_16f"):
            read(DFEW, tmp_path)

    def test_published_counts(self, tmp_path):
        """Split files as long as the published ones, and of the train labels as many of each."""
        (tmp_path / "Clip/clip_224x224_16f").mkdir(parents=True)
        counts = (1956, 1515, 2135, 1738, 1175, 116, 721)
        labels = {
            "train": [label for label, count in enumerate(counts) for _ in range(count)],
            "test": [i % 7 for i in range(2341)],
        }
        files = {split: tmp_path / f"EmoLabel_DataSplit/{split}(single-labeled)/{split}_set_1.csv" for split in labels}
        for split, file in files.items():
            rows = [f"{i:05d},{label}" for i, label in enumerate(labels[split])]
            write_rows(file, ["video_name,label", *rows])
        for split in labels:
            assert len(DFEW.read(tmp_path, split, 1, check=False)) == len(labels[split])
        replace(files["train"], "00000,0", "00000,1")
        message = (
            "fold 1: expected 1,956 samples of happy, found 1,955; expected 1,515 samples of sad, found 1,516, in "
        )
        with pytest.raises(ValueError, match=f"{message}.*train_set_1"):
            DFEW.read(tmp_path, "train", 1, check=False)
        replace(files["test"], "00000,0\n", "")
        message = "DFEW, test split of fold 1: expected 2,341 samples, found 2,340, in "
        with pytest.raises(ValueError, match=f"{message}.*test_set_1"):
            DFEW.read(tmp_path, "test", 1, check=False)
        assert len(DFEW.read(tmp_path, "test", 1, check=False, check_counts=False)) == 2340


class TestFERV39k:
    def test_releases_agree(self, tmp_path):
        miniatures.write_ferv39k(tmp_path / "a", num_test=8, released_by="s2d")
        miniatures.write_ferv39k(tmp_path / "b", num_test=8, released_by="ferv39k", suffix=".png")
        for split in FERV39K.splits:
            assert pairs(read(FERV39K, tmp_path / "a", split)) == pairs(read(FERV39K, tmp_path / "b", split))
        samples = read(FERV39K, tmp_path / "b", "test")
        assert pairs(samples)[:4] == [
            ("Crime/Angry/0000", 0),
            ("DailyLife/Disgust/0001", 1),
            ("War/Fear/0002", 2),
            ("Crime/Happy/0003", 3),
        ]

    @pytest.mark.parametrize("folder", ["", "Annotation", "4_setups/All_scenes"])
    @pytest.mark.parametrize("released_by", ["s2d", "ferv39k"])
    def test_places_of_the_split_files(self, tmp_path, folder, released_by):
        """The format is told by the content, wherever the file lies."""
        miniatures.write_ferv39k(tmp_path, released_by=released_by)
        wanted = pairs(read(FERV39K, tmp_path))
        (found,) = tmp_path.rglob("train*.csv")
        target = tmp_path / folder / ("train_All.csv" if "4_" in folder else "train.csv")
        target.parent.mkdir(parents=True, exist_ok=True)
        found.rename(target)
        assert pairs(read(FERV39K, tmp_path)) == wanted

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("path,id", "path,label", "must begin with the header path,id, and begins with 'path,label'"),
            ("path,id", "path;id", "line 1: expected a name .*, or a file with the header path,id, got 'path;id'"),
            ("Disgust/0001,1", "Disgust/0001,0", "labelled 0, which stands for angry; .* angry, disgust, fear, happy"),
            ("Disgust/0001,1", "Disgust/0001,7", r"line 3: the label 7 is outside 0\.\.6, which stand for angry"),
            ("Disgust/0001,1", "Disgust/0001,joy", "line 3: the label 'joy' is not among angry, disgust"),
            ("DailyLife/Disgust/0001,1", "Disgust/0001,1", "line 3: expected a path like Crime/Angry/0063"),
            ("DailyLife/Disgust/0001,1", "../Disgust/0001,1", "line 3: expected a path like Crime/Angry/0063"),
            ("DailyLife/Disgust/0001,1", "/DailyLife/Disgust/0001,1", "line 3: expected a path"),
        ],
    )
    def test_malformed_files(self, tmp_path, old, new, message):
        miniatures.write_ferv39k(tmp_path)
        replace(tmp_path / "Annotation/test.csv", old, new)
        with pytest.raises(ValueError, match=message):
            read(FERV39K, tmp_path, "test")

    def test_malformed_originals(self, tmp_path):
        miniatures.write_ferv39k(tmp_path, released_by="ferv39k")
        file = tmp_path / "4_setups/All_scenes/test_All.csv"
        replace(file, "0001 Disgust", "0001 Disgust 1")
        with pytest.raises(ValueError, match=r"test_All\.csv, line 2: expected a name and a label"):
            read(FERV39K, tmp_path, "test")
        file.write_bytes("Crime/Angry/0000 Ängry\n".encode("latin-1"))
        with pytest.raises(ValueError, match=r"test_All\.csv is not in UTF-8"):
            read(FERV39K, tmp_path, "test")
        file.write_text("\n")
        with pytest.raises(ValueError, match=r"FERV39k, test split: .*test_All\.csv holds no samples"):
            read(FERV39K, tmp_path, "test")

    def test_where_the_split_files_are_looked_for(self, tmp_path):
        (tmp_path / "2_ClipsforFaceCrop").mkdir()
        with pytest.raises(FileNotFoundError) as error:
            read(FERV39K, tmp_path, "test")
        assert str(error.value).endswith(
            "looked for Annotation/test.csv, test.csv, 4_setups/All_scenes/test_All.csv, test_All.csv."
        )


class TestMAFW:
    def test_releases_agree(self, tmp_path):
        miniatures.write_mafw(tmp_path / "a", num_test=12, released_by="s2d")
        miniatures.write_mafw(tmp_path / "b", num_test=12, released_by="mafw", suffix=".jpg")
        for split in MAFW.splits:
            for fold in MAFW.folds:
                assert pairs(read(MAFW, tmp_path / "a", split, fold)) == pairs(read(MAFW, tmp_path / "b", split, fold))
        samples = read(MAFW, tmp_path / "b", "test", "1")
        assert pairs(samples) == [(f"{1 + i:05d}", i % 11) for i in range(12)]
        assert "00003.mp4 contempt" in next((tmp_path / "b").rglob("set_1/test.txt")).read_text()
        assert MAFW.labels[2] == "contempt" and MAFW.labels[10] == "surprise"

    @pytest.mark.parametrize(
        "folder", ["", "single/no_caption", "split/single/no_caption", "Train & Test Set/single/no_caption"]
    )
    def test_places_of_the_split_files(self, tmp_path, folder):
        miniatures.write_mafw(tmp_path, folds=("1",))
        wanted = pairs(read(MAFW, tmp_path))
        (tmp_path / "anno/single/no_caption").rename(tmp_path / "moved")
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "moved/set_1").rename(tmp_path / folder / "set_1")
        assert pairs(read(MAFW, tmp_path)) == wanted

    def test_names_without_leading_zeros(self, tmp_path):
        miniatures.write_mafw(tmp_path, num_test=11)
        wanted = pairs(read(MAFW, tmp_path))
        replace(tmp_path / MAFW_TRAIN, "\n00012,0", "\n12,Anger")
        assert pairs(read(MAFW, tmp_path)) == wanted

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("video_name,labels", "video_name,label", "must begin with the header video_name,labels"),
            ("00012,0", "00012,11", r"line 2: the label 11 is outside 0\.\.10"),
            ("00012,0", "00012,anger_disgust", "line 2: the label 'anger_disgust' is not among anger, anxiety"),
            ("00012,0", "../12,0", "line 2: the video_name must be a whole number"),
        ],
    )
    def test_malformed_files(self, tmp_path, old, new, message):
        miniatures.write_mafw(tmp_path)
        replace(tmp_path / MAFW_TRAIN, old, new)
        with pytest.raises(ValueError, match=message):
            read(MAFW, tmp_path)

    def test_captions_are_refused(self, tmp_path):
        miniatures.write_mafw(tmp_path, released_by="mafw")
        replace(next(tmp_path.rglob("set_1/train.txt")), "anger", "anger A man speaks.")
        with pytest.raises(ValueError, match=r"train\.txt, line 1: expected a name and a label"):
            read(MAFW, tmp_path)

    def test_another_order_of_the_labels_is_found(self, tmp_path):
        """Indices into another order of the expressions leave the number of samples as it is."""
        (tmp_path / "frames_crop_align_224").mkdir()
        labels = [10] * 215 + [i % 10 for i in range(1839 - 215)]
        file = tmp_path / "set_1/test.csv"
        write_rows(file, ["video_name,labels", *(f"{i:05d},{label}" for i, label in enumerate(labels))])
        assert len(MAFW.read(tmp_path, "test", "1", check=False)) == 1839
        write_rows(file, ["video_name,labels", *(f"{i:05d},{(label + 1) % 11}" for i, label in enumerate(labels))])
        with pytest.raises(ValueError, match="fold 1: expected 215 samples of surprise, found 162, in"):
            MAFW.read(tmp_path, "test", "1", check=False)


class TestRAFDB:
    def test_names_and_labels(self, tmp_path):
        miniatures.write_raf_db(tmp_path, num_train=7, num_test=7)
        assert pairs(read(RAF_DB, tmp_path)) == [(f"train_{1 + i:05d}_aligned.jpg", i) for i in range(7)]
        assert pairs(read(RAF_DB, tmp_path, "test")) == [(f"test_{1 + i:04d}_aligned.jpg", i) for i in range(7)]
        assert RAF_DB.labels == ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
        assert "test_0004.jpg 4" in (tmp_path / "EmoLabel/list_patition_label.txt").read_text()  # happiness

    def test_other_places(self, tmp_path):
        miniatures.write_raf_db(tmp_path / "a" / "basic")
        miniatures.write_raf_db(tmp_path / "b", flat=True)
        assert pairs(read(RAF_DB, tmp_path / "a")) == pairs(read(RAF_DB, tmp_path / "b"))
        assert pairs(read(RAF_DB, tmp_path / "a")) == pairs(read(RAF_DB, tmp_path / "a" / "basic"))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("train_00001.jpg 1", "train_00001.jpg 0", r"line 1: the label 0 is outside 1\.\.7, .* for surprise"),
            ("train_00001.jpg 1", "train_00001.jpg 8", r"line 1: the label 8 is outside 1\.\.7"),
            ("train_00001.jpg 1", "train_00001.jpg joy", "line 1: the label 'joy' is not among"),
            ("train_00001.jpg 1", "train_00001.jpg", "line 1: expected a name and a label"),
            ("train_00001.jpg 1", "dev_00001.jpg 1", "line 1: expected a name like train_00001.jpg"),
            ("train_00001.jpg 1", "../train_00001.jpg 1", "line 1: expected a name like train_00001.jpg"),
        ],
    )
    def test_malformed_files(self, tmp_path, old, new, message):
        miniatures.write_raf_db(tmp_path)
        replace(tmp_path / "EmoLabel/list_patition_label.txt", old, new)
        for split in RAF_DB.splits:
            with pytest.raises(ValueError, match=message):
                read(RAF_DB, tmp_path, split)

    def test_missing_parts(self, tmp_path):
        miniatures.write_raf_db(tmp_path)
        (tmp_path / "EmoLabel/list_patition_label.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"looked for EmoLabel/list_patition_label\.txt, basic/EmoLabel"):
            read(RAF_DB, tmp_path)


class TestAffectNet:
    def test_names_and_labels(self, tmp_path):
        miniatures.write_affectnet(tmp_path, num_train=8, num_test=12)
        assert pairs(read(AFFECTNET_8, tmp_path)) == [(f"train_set/{i}.jpg", i) for i in range(8)]
        # number 10 comes after 9, and 7 is contempt
        assert pairs(read(AFFECTNET_7, tmp_path, "test")) == [(f"val_set/{i}.jpg", i % 8) for i in range(12) if i != 7]
        assert AFFECTNET_8.labels == (*AFFECTNET_7.labels, "contempt")

    def test_integers_are_codes_too(self, tmp_path):
        miniatures.write_affectnet(tmp_path)
        wanted = pairs(read(AFFECTNET_8, tmp_path))
        for value in (np.int64(3), np.array(["3"]), np.array(3, np.uint8)):
            np.save(tmp_path / "train_set/annotations/3_exp.npy", value)
            assert pairs(read(AFFECTNET_8, tmp_path)) == wanted

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (np.array("8"), r"3_exp\.npy: the label 8 is outside 0\.\.7"),
            (np.array("x"), r"3_exp\.npy: the label 'x' is not among neutral"),
            (np.array(-1), r"3_exp\.npy: the label '-1' is not among"),
            (np.array(["1", "2"]), r"3_exp\.npy: must hold one string or integer"),
            (np.array(1.0), r"3_exp\.npy: must hold one string or integer"),
            (np.array({"a": 1}), r"3_exp\.npy: no array of numpy without pickled objects"),
            (b"", r"3_exp\.npy: no array of numpy"),
            (b"no array", r"3_exp\.npy: no array of numpy"),
            (b"PK\x03\x04", r"3_exp\.npy: no array of numpy"),
            (HUGE, r"3_exp\.npy: no array of numpy"),
        ],
    )
    def test_malformed_annotations(self, tmp_path, content, message):
        miniatures.write_affectnet(tmp_path)
        path = tmp_path / "train_set/annotations/3_exp.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content)
        for benchmark in (AFFECTNET_7, AFFECTNET_8):
            with pytest.raises(ValueError, match=message):
                read(benchmark, tmp_path)

    def test_nothing_is_unpickled(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "unpickled",)

        miniatures.write_affectnet(tmp_path)
        path = tmp_path / "val_set/annotations/0_exp.npy"
        np.save(path, np.array(Trap(), dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="without pickled objects"):
            read(AFFECTNET_8, tmp_path, "test")
        assert not (tmp_path / "unpickled").exists()
        np.load(path, allow_pickle=True)
        assert (tmp_path / "unpickled").exists()

    def test_missing_parts(self, tmp_path):
        miniatures.write_affectnet(tmp_path)
        for path in (tmp_path / "val_set/annotations").glob("*_exp.npy"):
            path.unlink()
        with pytest.raises(ValueError, match=r"val_set/annotations holds no files that end in _exp\.npy"):
            read(AFFECTNET_7, tmp_path, "test")
        shutil.rmtree(tmp_path / "train_set/annotations")
        with pytest.raises(FileNotFoundError, match=r"of the train split in .*: looked for train_set/annotations"):
            read(AFFECTNET_7, tmp_path)

    @pytest.mark.parametrize(("num_contempt", "is_accepted"), [(500, True), (499, True), (498, False)])
    def test_one_image_of_contempt_may_be_missing(self, tmp_path, monkeypatch, num_contempt, is_accepted):
        codes = [code for code in range(7) for _ in range(500)] + [7] * num_contempt
        (tmp_path / "val_set/images").mkdir(parents=True)
        (tmp_path / "val_set/annotations").mkdir()
        for number in range(len(codes)):
            (tmp_path / f"val_set/annotations/{number}_exp.npy").touch()
        monkeypatch.setattr(
            "s2d_hf.data.paper_datasets.affectnet._read_code", lambda path: codes[int(path.name.split("_")[0])]
        )
        assert len(AFFECTNET_7.read(tmp_path, "test", check=False)) == 3500
        if is_accepted:
            assert len(AFFECTNET_8.read(tmp_path, "test", check=False)) == 3500 + num_contempt
        else:
            with pytest.raises(ValueError, match="expected 4,000 or 3,999 samples, found 3,998"):
                AFFECTNET_8.read(tmp_path, "test", check=False)


class TestFERPlus:
    def test_names_and_labels(self, tmp_path):
        miniatures.write_ferplus(tmp_path, num_train=8, num_validation=9, num_test=10)
        # four images of each split have no majority, and of one row there is no image
        assert pairs(read(FERPLUS, tmp_path)) == [(f"fer{i:07d}.png", i) for i in range(8)]
        assert pairs(read(FERPLUS, tmp_path, "validation")) == [(f"fer{13 + i:07d}.png", i % 8) for i in range(9)]
        assert pairs(read(FERPLUS, tmp_path, "test")) == [(f"fer{27 + i:07d}.png", i % 8) for i in range(10)]
        assert FERPLUS.labels[:3] == ("neutral", "happiness", "surprise") and FERPLUS.labels[7] == "contempt"

    @pytest.mark.parametrize("parent", ["data", "images"])
    def test_places_of_the_images(self, tmp_path, parent):
        miniatures.write_ferplus(tmp_path, parent=parent)
        if parent == "data":
            (tmp_path / "fer2013new.csv").rename(tmp_path / "data/fer2013new.csv")
        assert len(read(FERPLUS, tmp_path)) == 16

    @pytest.mark.parametrize(
        ("votes", "label"),
        [
            ((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0),
            ((4, 0, 0, 0, 6, 0, 0, 0, 0, 0), 4),
            ((0, 0, 0, 0, 0, 0, 0, 6, 4, 0), 7),
            # a single vote doesn't count: 4 of 7 are more than half
            ((4, 3, 1, 1, 1, 0, 0, 0, 0, 0), 0),
            ((5, 5, 0, 0, 0, 0, 0, 0, 0, 0), None),
            ((5, 3, 2, 0, 0, 0, 0, 0, 0, 0), None),
            ((4, 0, 0, 0, 0, 0, 0, 0, 6, 0), None),
            ((4, 0, 0, 0, 0, 0, 0, 0, 0, 6), None),
            ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None),
            ((0,) * 10, None),
        ],
    )
    def test_majority(self, votes, label):
        assert find_majority(votes) == label

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("Usage,Image name,neutral,happiness", "Usage,Image name,happiness,neutral", "must begin with the header"),
            (
                "Training,fer0000000.png",
                "Train,fer0000000.png",
                "line 2: the usage must be one of Training",
            ),
            ("fer0000000.png", "../fer0000000.png", "line 2: expected an image's name like"),
            (
                "fer0000000.png,8",
                "fer0000000.png,-8",
                "line 2: the number of votes for neutral must be",
            ),
            ("fer0000000.png,8", "fer0000000.png", "line 2: expected 12 fields, found 11"),
        ],
    )
    def test_malformed_files(self, tmp_path, old, new, message):
        miniatures.write_ferplus(tmp_path)
        replace(tmp_path / "fer2013new.csv", old, new)
        with pytest.raises(ValueError, match=message):
            read(FERPLUS, tmp_path)

    def test_rows_without_an_image_are_left_out(self, tmp_path):
        miniatures.write_ferplus(tmp_path)
        names = pairs(read(FERPLUS, tmp_path))
        replace(tmp_path / "fer2013new.csv", "fer0000000.png", "")
        assert pairs(read(FERPLUS, tmp_path)) == names[1:]

    def test_missing_parts(self, tmp_path):
        miniatures.write_ferplus(tmp_path)
        shutil.rmtree(tmp_path / "FER2013Test")
        with pytest.raises(FileNotFoundError, match=r"test images in .*: looked for FER2013Test, data/FER"):
            read(FERPLUS, tmp_path, "test")

    def test_rows_are_counted(self, tmp_path):
        """How many images have a majority is not published, so the rows are compared."""
        (tmp_path / "FER2013Test").mkdir()
        header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
        rows = [f"PrivateTest,fer{i:07d}.png,{10 * (i % 2)},0,0,0,0,0,0,0,0,{10 - 10 * (i % 2)}" for i in range(3589)]
        rows[0] = rows[0].replace("fer0000000.png", "")
        write_rows(tmp_path / "fer2013new.csv", [header, *rows])
        assert len(FERPLUS.read(tmp_path, "test", check=False)) == 1794
        write_rows(tmp_path / "fer2013new.csv", [header, *rows[1:]])
        with pytest.raises(ValueError, match="FERPlus, test split: expected 3,589 rows, found 3,588"):
            FERPLUS.read(tmp_path, "test", check=False)


class TestRegistry:
    def test_by_name(self):
        assert sorted(PAPER_DATASETS) == sorted(LABELS)
        assert find_paper_dataset("dfew") is DFEW and find_paper_dataset("rafdb") is RAF_DB
        assert find_paper_dataset("FERV39K") is FERV39K and find_paper_dataset("affectnet7") is AFFECTNET_7
        with pytest.raises(ValueError, match=r"Unknown data set 'AFEW'; .*DFEW"):
            find_paper_dataset("AFEW")
        assert {benchmark.name for benchmark in PAPER_DATASETS.values() if benchmark.kind == "video"} == set(VIDEOS)

    @pytest.mark.parametrize(
        ("name", "labels"),
        [
            ("DFEW", "happy sad neutral angry surprise disgust fear"),
            ("FERV39k", "angry disgust fear happy neutral sad surprise"),
            (
                "MAFW",
                "anger anxiety contempt disappointment disgust fear happiness helplessness neutral sadness surprise",
            ),
            ("AffectNet-7", "neutral happy sad surprise fear disgust anger"),
            ("AffectNet-8", "neutral happy sad surprise fear disgust anger contempt"),
            ("RAF-DB", "surprise fear disgust happiness sadness anger neutral"),
            ("FERPlus", "neutral happiness surprise sadness anger disgust fear contempt"),
        ],
    )
    def test_order_of_the_labels(self, name, labels):
        assert find_paper_dataset(name).labels == tuple(labels.split())

    def test_register(self, monkeypatch):
        with pytest.raises(ValueError, match="already is a data set 'DFEW'"):
            register(DFEW)
        other = PaperDataset("AFEW", "video", DFEW.reader, "Dhall et al., 2012")
        with pytest.raises(ValueError, match="'AFEW' needs `own_labels`"):
            register(other)
        monkeypatch.setitem(LABELS, "AFEW", ("angry", "happy"))
        monkeypatch.setattr("s2d_hf.data.paper_datasets.registry.PAPER_DATASETS", {})
        assert register(other) is other and find_paper_dataset("afew").labels == ("angry", "happy")
        own = PaperDataset("CK+", "image", DFEW.reader, "Lucey et al., 2010", own_labels=("angry", "sad"))
        assert find_paper_dataset(register(own).name).labels == ("angry", "sad")
        with pytest.raises(ValueError, match=r"Unknown data set 'DFEW'; AFEW, CK. are known"):
            find_paper_dataset("DFEW")

    @pytest.mark.parametrize("name", WRITERS)
    def test_expected_counts_are_of_the_folds(self, name):
        benchmark = find_paper_dataset(name)
        assert set(benchmark.expected) == {(fold, split) for fold in benchmark.folds for split in benchmark.splits}
        for counts in benchmark.expected.values():
            assert isinstance(counts, ExpectedCounts) and (counts.samples or counts.rows)
            assert set(counts.per_class) <= set(benchmark.labels)
            if len(counts.per_class) == len(benchmark.labels):
                assert sum(counts.per_class.values()) == counts.samples

    def test_folds_share_all_samples(self):
        for benchmark, total in ((DFEW, 11_697), (MAFW, 9_172)):
            for fold in benchmark.folds:
                assert sum(benchmark.expected[fold, split].samples for split in benchmark.splits) == total
            assert sum(benchmark.expected[fold, "test"].samples for fold in benchmark.folds) == total
        surprised = Counter()
        for (_, split), counts in MAFW.expected.items():
            surprised[split] += counts.per_class["surprise"]
        assert surprised["train"] == 4 * surprised["test"] == 4 * 1072
        assert [FERV39K.expected["1", split].samples for split in FERV39K.splits] == [31_088, 7_847]

    @pytest.mark.parametrize("name", WRITERS)
    def test_the_authors_means_follow_from_their_folds(self, name):
        benchmark = find_paper_dataset(name)
        assert set(benchmark.reported) == ({"plain", "oversampling"} if name in VIDEOS else set())
        for way, scores in benchmark.reported.items():
            assert tuple(scores.folds) == benchmark.folds
            for measure in ("uar", "war"):
                mean = np.mean([getattr(score, measure) for score in scores.folds.values()])
                if (name, way, measure) == ("DFEW", "oversampling", "war"):
                    mean -= 0.2  # their table has 74.81, where the mean of its folds is 75.01
                assert abs(mean - getattr(scores.mean, measure)) < 0.011

    def test_some_scores(self):
        assert DFEW.reported["oversampling"].folds["3"] == (66.47, 75.87)
        assert MAFW.reported["plain"].mean.war == 57.37 and MAFW.reported["plain"].folds["2"].uar == 40.43
        assert FERV39K.reported["plain"].folds["1"] == FERV39K.reported["plain"].mean == (41.28, 52.56)


def test_miniatures_need_every_label(tmp_path):
    for write in WRITERS.values():
        with pytest.raises(ValueError, match="at least"):
            write(tmp_path, num_test=6)
