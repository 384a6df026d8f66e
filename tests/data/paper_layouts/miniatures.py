"""
Benchmarks in the layouts in which they are distributed, in miniature: a few small images, and none of the data.

Each `write_...` function fills a folder and gives it back. Every expression is in each split; an image has a colour of
its expression, and noise. Counts are those of each fold. Read them with `check_counts=False`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from s2d_hf.labels import LABELS

FIVE_FOLDS = ("1", "2", "3", "4", "5")
SCENES = ("Crime", "DailyLife", "War")
# where AffectNet counts contempt, of its codes 0 to 7
CONTEMPT = 7
FERPLUS_FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
# votes that give no label: unknown, no face, a tie, and none with more than half
DROPPED_VOTES = (
    (2, 0, 0, 0, 0, 0, 0, 0, 8, 0),
    (0, 3, 0, 0, 0, 0, 0, 0, 0, 7),
    (5, 5, 0, 0, 0, 0, 0, 0, 0, 0),
    (4, 3, 3, 0, 0, 0, 0, 0, 0, 0),
)


def write_dfew(
    root: Path,
    num_train: int = 14,
    num_test: int = 7,
    folds: Sequence[str] = FIVE_FOLDS,
    size: int = 24,
    num_frames: int = 3,
    label_base: int = 1,
    prefixed: bool = False,
    zero_padded: bool = False,
    suffix: str = ".jpg",
) -> Path:
    """
    Args:
        label_base (`int`): 1 as in the files that are distributed, 0 as in those of the authors of S2D.
        prefixed (`bool`): Split files are `train_set_1.csv`, as those of the authors of S2D, and not `set_1.csv`.
        zero_padded (`bool`): Clips are named `00012` in the split files, and not `12`.
    """
    labels, splits = _split_folds(num_train, num_test, folds, len(LABELS["DFEW"]))
    for number, label in enumerate(labels, start=1):
        folder = root / "Clip" / "clip_224x224_16f" / f"{number:05d}"
        _write_frames(folder, label, number, num_frames, size, suffix)
    for (fold, split), indices in splits.items():
        name = f"{split}_set_{fold}.csv" if prefixed else f"set_{fold}.csv"
        rows = [f"{i + 1:05d}" if zero_padded else str(i + 1) for i in indices]
        _write_lines(
            root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / name,
            ["video_name,label", *(f"{row},{labels[i] + label_base}" for row, i in zip(rows, indices, strict=True))],
        )
    return root


def write_ferv39k(
    root: Path,
    num_train: int = 14,
    num_test: int = 7,
    size: int = 24,
    num_frames: int = 3,
    released_by: str = "s2d",
    suffix: str = ".jpg",
) -> Path:
    """
    Args:
        released_by (`str`): Split files of the authors of `"s2d"`, with indices, or of `"ferv39k"`, with names.
    """
    names = LABELS["FERV39k"]
    labels, splits = _split_folds(num_train, num_test, ("1",), len(names))
    clips = []
    for number, label in enumerate(labels):
        clips.append(f"{SCENES[number % len(SCENES)]}/{names[label].title()}/{number:04d}")
        _write_frames(root / "2_ClipsforFaceCrop" / clips[-1], label, number, num_frames, size, suffix)
    for (_, split), indices in splits.items():
        if released_by == "s2d":
            lines = ["path,id", *(f"{clips[i]},{labels[i]}" for i in indices)]
            _write_lines(root / "Annotation" / f"{split}.csv", lines)
        else:
            lines = [f"{clips[i]} {names[labels[i]].title()}" for i in indices]
            _write_lines(root / "4_setups" / "All_scenes" / f"{split}_All.csv", lines)
    return root


def write_mafw(
    root: Path,
    num_train: int = 22,
    num_test: int = 11,
    folds: Sequence[str] = FIVE_FOLDS,
    size: int = 24,
    num_frames: int = 3,
    released_by: str = "s2d",
    suffix: str = ".png",
) -> Path:
    """
    Args:
        released_by (`str`): Split files of the authors of `"s2d"`, with indices, or of `"mafw"`, with names.
    """
    names = LABELS["MAFW"]
    labels, splits = _split_folds(num_train, num_test, folds, len(names))
    frames = root / ("data/frames/frames_crop_align_224" if released_by == "s2d" else "frames_crop_align_224")
    for number, label in enumerate(labels, start=1):
        _write_frames(frames / f"{number:05d}", label, number, num_frames, size, suffix)
    for (fold, split), indices in splits.items():
        if released_by == "s2d":
            lines = ["video_name,labels", *(f"{i + 1:05d},{labels[i]}" for i in indices)]
            _write_lines(root / "anno/single/no_caption" / f"set_{fold}" / f"{split}.csv", lines)
        else:
            lines = [f"{i + 1:05d}.mp4 {names[labels[i]]}" for i in indices]
            _write_lines(root / "Train & Test Set/single/no_caption" / f"set_{fold}" / f"{split}.txt", lines)
    return root


def write_raf_db(root: Path, num_train: int = 14, num_test: int = 7, size: int = 24, flat: bool = False) -> Path:
    """
    Args:
        flat (`bool`): The label file and `aligned` lie right in the root, and not in `EmoLabel` and `Image`.
    """
    labels, splits = _split_folds(num_train, num_test, ("1",), len(LABELS["RAF-DB"]))
    lines = []
    for (_, split), indices in splits.items():
        for number, i in enumerate(indices, start=1):
            # of the test images, numbers have four digits
            name = f"{split}_{number:0{5 if split == 'train' else 4}d}"
            image = root / ("aligned" if flat else "Image/aligned") / f"{name}_aligned.jpg"
            _write_image(image, labels[i], i, size)
            lines.append(f"{name}.jpg {labels[i] + 1}")
    _write_lines(root / ("" if flat else "EmoLabel") / "list_patition_label.txt", lines)
    return root


def write_affectnet(root: Path, num_train: int = 16, num_test: int = 8, size: int = 24) -> Path:
    """All eight expressions; read as AffectNet-7, each split has fewer samples."""
    labels, splits = _split_folds(num_train, num_test, ("1",), CONTEMPT + 1)
    for (_, split), indices in splits.items():
        folder = root / ("train_set" if split == "train" else "val_set")
        for number, i in enumerate(indices):
            _write_image(folder / "images" / f"{number}.jpg", labels[i], i, size)
            (folder / "annotations").mkdir(exist_ok=True)
            np.save(folder / "annotations" / f"{number}_exp.npy", np.array(str(labels[i])))
            # these lie there too
            np.save(folder / "annotations" / f"{number}_val.npy", np.array("0.5"))
    return root


def write_ferplus(
    root: Path, num_train: int = 16, num_test: int = 8, num_validation: int = 8, size: int = 24, parent: str = ""
) -> Path:
    """
    Each split also has rows without a majority, and one without an image's name.

    Args:
        parent (`str`): Folder of the folders of images, below the root.
    """
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    number = 0
    for usage, count in (("Training", num_train), ("PublicTest", num_validation), ("PrivateTest", num_test)):
        _check_count(count, len(LABELS["FERPlus"]))
        folder = root / parent / FERPLUS_FOLDERS[usage]
        chosen = [[8 if i == index % 8 else 1 if i == 9 else 0 for i in range(10)] for index in range(count)]
        for votes in (*chosen, *DROPPED_VOTES):
            _write_image(folder / f"fer{number:07d}.png", votes.index(max(votes)), number, size)
            lines.append(",".join([usage, f"fer{number:07d}.png", *map(str, votes)]))
            number += 1
        lines.append(f"{usage},,0,0,0,0,0,0,0,0,0,10")
        number += 1
    _write_lines(root / "fer2013new.csv", lines)
    return root


# each can be called with the root, `num_train`, `num_test` and `size`, and for videos `num_frames`
WRITERS: dict[str, Callable[..., Path]] = {
    "DFEW": write_dfew,
    "FERV39k": write_ferv39k,
    "MAFW": write_mafw,
    "RAF-DB": write_raf_db,
    "AffectNet-7": write_affectnet,
    "AffectNet-8": write_affectnet,
    "FERPlus": write_ferplus,
}


def _split_folds(
    num_train: int, num_test: int, folds: Sequence[str], num_labels: int
) -> tuple[list[int], dict[tuple[str, str], list[int]]]:
    """The label of each sample, and the samples of each fold and split: tests of the folds have none in common."""
    for count in (num_train, num_test):
        _check_count(count, num_labels)
    total = num_test * max(len(folds), -(-(num_train + num_test) // num_test))
    labels = [i % num_test % num_labels for i in range(total)]
    splits = {}
    for position, fold in enumerate(folds):
        test = range(position * num_test, (position + 1) * num_test)
        splits[fold, "train"] = [i for i in range(total) if i not in test][:num_train]
        splits[fold, "test"] = list(test)
    return labels, splits


def _check_count(count: int, num_labels: int) -> None:
    if count < num_labels:
        raise ValueError(f"Splits need at least {num_labels} samples to have each label, not {count}.")


def _write_frames(folder: Path, label: int, seed: int, num_frames: int, size: int, suffix: str) -> None:
    for frame in range(num_frames):
        _write_image(folder / f"{frame + 1}{suffix}", label, 1000 * seed + frame, size)


def _write_image(path: Path, label: int, seed: int, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    colour = np.array([20 * label, 220 - 20 * label, 60 + 100 * (label % 2)])
    pixels = colour + generator.integers(0, 20, (size, size, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
