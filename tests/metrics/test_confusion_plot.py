import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2d_hf.labels import LABELS
from s2d_hf.metrics import ClassificationReport, classification_report, plot_confusion_matrix


def report_of(matrix: np.ndarray, names: tuple[str, ...]) -> ClassificationReport:
    """The report of samples that give this confusion matrix."""
    true, predicted = (np.repeat(axis, matrix.ravel()) for axis in np.indices(matrix.shape).reshape(2, -1))
    return classification_report(np.eye(len(names))[predicted], true, names)


def draw(path: Path, matrix: np.ndarray, names: tuple[str, ...], title: str | None = None) -> np.ndarray:
    """The picture's pixels, (height, width, 3)."""
    plot_confusion_matrix(report_of(matrix, names), path, title=title)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def count_pixels(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - colour).max(axis=-1) <= 3).sum())


MATRIX = np.full((7, 7), 2) + 20 * np.eye(7, dtype=int)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> np.ndarray:
    return draw(tmp_path_factory.mktemp("plot") / "seven.png", MATRIX, LABELS["DFEW"])


def test_picture_is_large_enough_to_read_and_grows_with_the_classes(pixels, tmp_path):
    names = LABELS["MAFW"]
    # in a folder that isn't there yet
    large = draw(tmp_path / "new" / "eleven.png", np.eye(11, dtype=int), names, title="MAFW, fold 1")
    for picture, classes in ((pixels, 7), (large, 11)):
        assert min(picture.shape[:2]) > 120 * classes
        assert max(picture.shape[:2]) < 200 * classes + 400
    assert large.shape[0] > pixels.shape[0] and large.shape[1] > pixels.shape[1]


def test_same_data_give_the_same_picture_and_other_data_another(pixels, tmp_path):
    assert np.array_equal(draw(tmp_path / "again.png", MATRIX, LABELS["DFEW"]), pixels)

    # row 0 changes, and with it the title; the lower part of the picture, rows 1 to 6 without the labels, stays
    other = MATRIX.copy()
    other[0, :2] = other[0, 1::-1]
    changed = draw(tmp_path / "other.png", other, LABELS["DFEW"])
    assert changed.shape == pixels.shape
    differs = np.flatnonzero((changed != pixels).any(axis=(1, 2)))
    assert differs.size and differs.max() < pixels.shape[0] / 4


def test_cells_are_coloured_by_the_percentage_within_their_row(tmp_path):
    """100 times as many samples of one class, with the same percentages, change no colour."""
    few, many = np.array([[3, 1], [1, 3]]), np.array([[300, 100], [1, 3]])
    names = ("a", "b")
    first, second = draw(tmp_path / "few.png", few, names), draw(tmp_path / "many.png", many, names)
    colours = [np.unique(picture.reshape(-1, 3), axis=0, return_counts=True) for picture in (first, second)]
    # the largest fields: white around, and the two colours of the cells
    (top_few, top_many) = ({tuple(c) for c in values[np.argsort(counts)[-3:]]} for values, counts in colours)
    assert top_few == top_many and len(top_few) == 3


def test_rows_without_samples_are_hatched(pixels, tmp_path):
    grey = (237, 237, 237)
    matrix = MATRIX.copy()
    matrix[2] = 0
    assert count_pixels(pixels, grey) < 1000
    assert count_pixels(draw(tmp_path / "absent.png", matrix, LABELS["DFEW"]), grey) > 50_000


def test_title_stands_above_the_scores_and_is_no_formula(pixels, tmp_path):
    titled = draw(tmp_path / "title.png", MATRIX, LABELS["DFEW"], title="fold_1 $\\nothing$")
    assert titled.shape[0] > pixels.shape[0] + 20
    wrapped = draw(tmp_path / "long.png", MATRIX, LABELS["DFEW"], title="a long title " * 12)
    assert wrapped.shape[0] > titled.shape[0] + 20
    assert wrapped.shape[1] < pixels.shape[1] + 20


def test_labels_are_no_formulas(tmp_path):
    assert draw(tmp_path / "labels.png", np.eye(2, dtype=int), ("$\\nothing$", "b_1")).size


def test_drawing_needs_no_pyplot(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert draw(tmp_path / "plot.png", np.eye(2, dtype=int), ("a", "b")).size


def test_other_formats_are_refused(tmp_path):
    report = report_of(MATRIX, LABELS["DFEW"])
    for name in ("plot.pdf", "plot"):
        with pytest.raises(ValueError, match=r"`path` must end in \.png"):
            plot_confusion_matrix(report, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_plot_without_matplotlib_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib.*s2d-hf\[train\]"):
        plot_confusion_matrix(report_of(MATRIX, LABELS["DFEW"]), tmp_path / "plot.png")
