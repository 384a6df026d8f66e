"""The layouts of RAF-DB, AffectNet and FERPlus, in miniature."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from s2d_hf.data.paper_datasets import AFFECTNET_7, AFFECTNET_8, FERPLUS, RAF_DB
from s2d_hf.data.paper_datasets.ferplus import find_majority

from .paper_layouts import miniatures
from .paper_layouts.split_files import HUGE, pairs, read, replace, write_rows


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
        for dataset in (AFFECTNET_7, AFFECTNET_8):
            with pytest.raises(ValueError, match=message):
                read(dataset, tmp_path)

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
