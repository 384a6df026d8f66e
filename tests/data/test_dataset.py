"""Items and batches against the processors and against known frames."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import DataLoader

from s2d_hf import S2DImageProcessor, S2DVideoProcessor
from s2d_hf.data import ClipAugmentation, ClipCollator, ClipDataset, LabelledSamples, Sample
from tests.videos import counting_frames, frame_number, write_video


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> LabelledSamples:
    """Videos of 30, 5 and 1 frames, 96x64 pixels, whose brightness tells the frame."""
    folder = tmp_path_factory.mktemp("clips")
    videos = [write_video(folder / f"{n}.mp4", counting_frames(n)) for n in (30, 5, 1)]
    return LabelledSamples([Sample(path.name, i, path=path) for i, path in enumerate(videos)], ["a", "b", "c"])


@pytest.fixture(scope="module")
def images(face, tmp_path_factory) -> LabelledSamples:
    path = tmp_path_factory.mktemp("images") / "face.png"
    Image.fromarray(face[:, :150]).save(path)
    return LabelledSamples([Sample("face", 0, path=path)], ["a"])


def numbers(clip: torch.Tensor) -> list[int]:
    return [frame_number(frame) for frame in clip]


def test_items(samples):
    item = ClipDataset(samples, num_frames=4, size=32)[0]
    assert set(item) == {"frames", "labels", "name"}
    assert item["frames"].shape == (4, 3, 32, 32) and item["frames"].dtype == torch.uint8
    assert item["labels"] == 0 and isinstance(item["labels"], int) and item["name"] == "30.mp4"
    assert ClipDataset(samples, num_frames=4, size=32).label_indices == [0, 1, 2]
    assert numbers(item["frames"]) == [0, 10, 19, 29]


def test_short_videos_repeat_their_last_frame(samples):
    for sampling in ("even", "random_window"):
        dataset = ClipDataset(samples, num_frames=6, size=32, sampling=sampling)
        assert numbers(dataset[1]["frames"]) == [0, 1, 2, 3, 4, 4]
        assert numbers(dataset[2]["frames"]) == [0] * 6


def test_frames_are_those_of_the_processor(face_video, images):
    """Without augmentation the processor finds nothing left to resize or crop."""
    raw = {"do_landmarks": False, "do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
    small = {"size": {"shortest_edge": 100}, "crop_size": {"height": 100, "width": 100}}
    samples = LabelledSamples([Sample("face", 0, path=face_video)], ["a"])
    expected = S2DVideoProcessor(**small)(face_video, num_frames=5, **raw)["pixel_values"][0]
    assert torch.equal(ClipDataset(samples, 5, 100)[0]["frames"].float(), expected.float())
    expected = S2DImageProcessor(**small)(images[0].path, **raw)["pixel_values"][0]
    assert torch.equal(ClipDataset(images, size=100, kind="image")[0]["frames"].float(), expected.float())


def test_random_windows_change_with_the_epoch_and_the_seed_alone(samples):
    dataset = ClipDataset(samples, num_frames=4, size=16, sampling="random_window")
    starts = []
    for epoch in range(12):
        dataset.set_epoch(epoch)
        window = numbers(dataset[0]["frames"])
        assert window == list(range(window[0], window[0] + 4))
        starts.append(window[0])
    assert len(set(starts)) > 5
    dataset.set_epoch(3)
    torch.manual_seed(1)
    assert numbers(dataset[0]["frames"])[0] == starts[3]
    others = [ClipDataset(samples, 4, 16, sampling="random_window", seed=seed) for seed in range(8)]
    assert len({numbers(other[0]["frames"])[0] for other in others}) > 3


def test_augmented_items(samples, face_video):
    samples = LabelledSamples([Sample("face", 0, path=face_video)] * 2, ["a"])
    arguments = {"num_frames": 3, "size": 40, "sampling": "random_window", "with_clean_view": True}
    dataset = ClipDataset(samples, augmentation=ClipAugmentation(size=40), **arguments)
    plain = ClipDataset(samples, **arguments)
    item = dataset[0]
    assert item["frames"].shape == item["clean_frames"].shape == (3, 3, 40, 40)
    assert not torch.equal(item["frames"], item["clean_frames"])
    assert torch.equal(item["clean_frames"], plain[0]["frames"])  # of the very same window
    assert torch.equal(plain[0]["frames"], plain[0]["clean_frames"])
    assert torch.equal(item["frames"], dataset[0]["frames"])
    assert not torch.equal(item["frames"], dataset[1]["frames"])  # the same video at another index
    dataset.set_epoch(1)
    assert not torch.equal(item["frames"], dataset[0]["frames"])


def test_images(images):
    arguments = {"size": 32, "kind": "image", "with_clean_view": True}
    item = ClipDataset(images, augmentation=ClipAugmentation(size=32), **arguments)[0]
    assert item["frames"].shape == item["clean_frames"].shape == (3, 32, 32)
    assert not torch.equal(item["frames"], item["clean_frames"])


def test_windows_and_crops_for_evaluation(samples, tmp_path):
    ramp = [np.full((32, 64, 3), 3 * i + 20, np.uint8) for i in range(9)]
    for i, frame in enumerate(ramp):
        frame[:, 32:] += 100  # the right half is brighter
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    folder = LabelledSamples([Sample("ramp", 0, path=tmp_path)], ["a"])
    views = ClipDataset(folder, 4, 32, sampling="windows", num_windows=2, num_crops=2)[0]["frames"]
    assert views.shape == (4, 4, 3, 32, 32)
    assert [numbers(view) for view in views[::2]] == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert [numbers(view - 100) for view in views[1::2]] == [[0, 1, 2, 3], [5, 6, 7, 8]]
    short = ClipDataset(samples, 6, 32, sampling="windows", num_windows=3)[1]["frames"]
    assert [numbers(view) for view in short] == [[0, 1, 2, 3, 4, 4]] * 3


def test_frames_of_several_sizes(tmp_path):
    for i, size in enumerate([(40, 30), (30, 50), (32, 32)]):
        Image.new("RGB", size, (50 * i,) * 3).save(tmp_path / f"{i}.png")
    samples = LabelledSamples([Sample("folder", 0, path=tmp_path)], ["a"])
    for augmentation in (None, ClipAugmentation(size=24, num_ops=0)):
        frames = ClipDataset(samples, 3, 24, augmentation=augmentation)[0]["frames"]
        assert [int(frame.unique()) for frame in frames] == [0, 50, 100] and frames.shape == (3, 3, 24, 24)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_give_the_items_of_the_main_process(samples, persistent):
    dataset = ClipDataset(samples, 4, 16, sampling="random_window", augmentation=ClipAugmentation(size=16), seed=3)
    loader = DataLoader(dataset, batch_size=3, num_workers=2, collate_fn=ClipCollator(), persistent_workers=persistent)
    batches = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        (batch,) = loader
        batches.append(batch["frames"])
        assert torch.equal(batch["frames"], torch.stack([dataset[i]["frames"] for i in range(3)]))
    assert not torch.equal(*batches)


def copied(samples: LabelledSamples, folder: Path) -> LabelledSamples:
    """The same samples from files of their own in `folder`."""
    folder.mkdir()
    copies = [Sample(s.name, s.label, path=shutil.copy(s.path, folder)) for s in samples]
    return LabelledSamples(copies, samples.labels)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "image", "augmentation": ClipAugmentation(size=32), "with_clean_view": True},
        {"kind": "image", "sampling": "random_window"},  # which images have none of
        {"augmentation": ClipAugmentation(size=32), "with_clean_view": True},
        {"sampling": "windows", "num_windows": 2, "num_crops": 2},
    ],
)
def test_frames_kept_in_memory_give_the_same_items(samples, images, tmp_path, arguments):
    arguments = {"num_frames": 4, "size": 32, "seed": 2} | arguments
    samples = images if arguments.get("kind") == "image" else samples
    plain = ClipDataset(samples, **arguments)
    kept = ClipDataset(copied(samples, tmp_path / "copies"), **arguments, keep_in_memory=True)
    epochs = []
    for epoch in range(2):
        for dataset in (plain, kept):
            dataset.set_epoch(epoch)
        epochs.append(list(kept))
        for item, expected in zip(epochs[-1], plain, strict=True):
            assert item.keys() == expected.keys() and item["name"] == expected["name"]
            for name in item.keys() - {"labels", "name"}:
                assert torch.equal(item[name], expected[name])
        # each file has been read, and is not needed again
        shutil.rmtree(tmp_path / "copies", ignore_errors=True)
    if "augmentation" in arguments:
        assert not torch.equal(epochs[0][0]["frames"], epochs[1][0]["frames"])
    with pytest.raises(FileNotFoundError):  # what is sent to a worker holds no frames
        pickle.loads(pickle.dumps(kept))[0]
    assert kept[-1]["name"] == samples[-1].name


@pytest.mark.parametrize("augmentation", [None, lambda clip, generator: clip.fill_(0)])
def test_what_is_kept_can_not_be_changed_from_outside(images, augmentation):
    arguments = {"size": 150, "kind": "image", "with_clean_view": True}  # the size that the image has
    expected = ClipDataset(images, **arguments)[0]["frames"]
    dataset = ClipDataset(images, **arguments, augmentation=augmentation, keep_in_memory=True)
    for _ in range(2):
        item = dataset[0]
        item["frames"].fill_(0)
        item["clean_frames"].fill_(0)
    plain = ClipDataset(images, size=150, kind="image", keep_in_memory=True)
    plain._kept = dataset._kept
    assert torch.equal(plain[0]["frames"], expected)


def test_workers_keep_frames_of_their_own(samples, tmp_path):
    dataset = ClipDataset(copied(samples, tmp_path / "copies"), 4, 16, keep_in_memory=True)
    loader = DataLoader(dataset, 1, num_workers=1, collate_fn=ClipCollator(), persistent_workers=True)
    first = list(loader)
    shutil.rmtree(tmp_path / "copies")
    for batch, again in zip(first, loader, strict=True):
        assert torch.equal(batch["frames"], again["frames"])
    with pytest.raises(FileNotFoundError):
        dataset[0]


def test_data_loaders_of_accelerate_set_the_epoch(samples):
    dataset = ClipDataset(samples, 4, 16)
    loader = Accelerator(cpu=True).prepare(DataLoader(dataset, collate_fn=ClipCollator()))
    loader.set_epoch(5)
    assert dataset.epoch == 5


def test_batches(samples):
    dataset = ClipDataset(samples, 4, 16, with_clean_view=True)
    batch = ClipCollator()([dataset[2], dataset[0]])
    assert set(batch) == {"frames", "clean_frames", "labels", "name"}
    assert batch["frames"].shape == (2, 4, 3, 16, 16) and batch["frames"].dtype == torch.uint8
    assert torch.equal(batch["clean_frames"][1], dataset[0]["clean_frames"])
    assert batch["labels"].tolist() == [2, 0] and batch["labels"].dtype == torch.int64
    assert batch["name"] == ["1.mp4", "30.mp4"]


def test_batches_that_do_not_fit(samples):
    small, large, long = (ClipDataset(samples, *shape)[0] for shape in ((4, 16), (4, 24), (5, 16)))
    with pytest.raises(ValueError, match=r"30.mp4: `frames` has the shape \(5, 3, 16, 16\)"):
        ClipCollator()([small, long])
    processor = S2DVideoProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    assert ClipCollator(processor)([small])["frames"].shape == (1, 4, 3, 16, 16)
    with pytest.raises(ValueError, match=r"24x24 pixels, and the processor makes 16x16"):
        ClipCollator(processor)([large])


def test_broken_files_are_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    dataset = ClipDataset(LabelledSamples([Sample("my clip", 0, path=tmp_path / "broken.mp4")], ["a"]))
    with pytest.raises(ValueError, match=r"my clip: .*could not be opened: it is truncated, damaged or no video"):
        dataset[0]
    missing = ClipDataset(LabelledSamples([Sample("my clip", 0, path=tmp_path / "none.mp4")], ["a"]))
    with pytest.raises(FileNotFoundError, match="my clip: "):
        missing[0]


def test_indices(samples):
    dataset = ClipDataset(samples, 2, 16, sampling="random_window")
    assert len(dataset) == 3 and len(list(dataset)) == 3 and dataset.labels == ("a", "b", "c")
    assert torch.equal(dataset[-3]["frames"], dataset[0]["frames"])
    with pytest.raises(IndexError, match="outside the dataset's 3 samples"):
        dataset[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "audio"}, "`kind`"),
        ({"sampling": "dense"}, "`sampling` must be one of even, random_window, windows"),
        ({"num_frames": 0}, "`num_frames`"),
        ({"seed": -1}, "`seed`"),
        ({"sampling": "random_window", "keep_in_memory": True}, "`keep_in_memory`"),
        ({"num_crops": 2}, "need `sampling='windows'`"),
        ({"sampling": "windows", "augmentation": ClipAugmentation()}, "without `augmentation`"),
        ({"augmentation": ClipAugmentation(size=112)}, "`size` is 224, and the augmentation's `size` is 112"),
    ],
)
def test_arguments_that_do_not_fit(samples, arguments, message):
    with pytest.raises(ValueError, match=message):
        ClipDataset(samples, **arguments)
