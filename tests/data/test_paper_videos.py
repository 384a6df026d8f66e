"""The layouts of DFEW, FERV39k and MAFW, in miniature."""

import pytest

from s2d_hf.data.paper_datasets import DFEW, FERV39K, MAFW

from .paper_layouts import miniatures
from .paper_layouts.split_files import pairs, read, replace, write_rows

DFEW_TRAIN = "EmoLabel_DataSplit/train(single-labeled)/set_2.csv"
DFEW_TEST = "EmoLabel_DataSplit/test(single-labeled)/set_2.csv"
MAFW_TRAIN = "anno/single/no_caption/set_1/train.csv"


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
