"""Cached clips against the data set and the processor that they come from."""

import copy
import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from s2d_hf import LandmarkEncoder, MobileFaceNetLandmarkEncoder, S2DImageProcessor, S2DVideoProcessor
from s2d_hf.data import (
    CachedClips,
    ClipAugmentation,
    ClipCollator,
    ClipDataset,
    LabelledSamples,
    Sample,
    cache,
    cache_clips,
    from_hub,
)
from s2d_hf.landmark_encoders_s2d import load_landmark_encoder, save_landmark_encoder
from tests.videos import counting_frames, write_video

SIZE = 32


def encoder(seed: int = 0) -> LandmarkEncoder:
    torch.manual_seed(seed)
    return MobileFaceNetLandmarkEncoder(width=1 / 16, input_size=16)


def make_processor(kind: str = "video", landmark_encoder: LandmarkEncoder | None = None, **settings):
    size = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    make = S2DVideoProcessor if kind == "video" else S2DImageProcessor
    return make(landmark_encoder=landmark_encoder or encoder(), **size, **settings)


def write_noise(path: Path, seed: int, size: tuple[int, int] = (40, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def samples(tmp_path) -> LabelledSamples:
    """Videos of 30, 5 and 1 frames and a folder of 7 frames, 2 of which have another size."""
    folder = tmp_path / "data"
    frames = [write_noise(folder / "frames" / f"{i}.png", i, (40, 48) if i < 5 else (32, 50)) for i in range(7)]
    paths = [write_video(folder / f"{n}.mp4", counting_frames(n)) for n in (30, 5, 1)] + [frames[0].parent]
    return LabelledSamples([Sample(path.name, i % 2, path=path) for i, path in enumerate(paths)], ["a", "b"])


@pytest.fixture
def images(tmp_path) -> LabelledSamples:
    paths = [write_noise(tmp_path / "images" / f"{i}.png", i, (40 + i, 60)) for i in range(5)]
    return LabelledSamples([Sample(path.name, i % 3, path=path) for i, path in enumerate(paths)], ["a", "b", "c"])


EVEN = {"num_frames": 4, "size": SIZE}
WINDOWS = {"num_frames": 3, "size": SIZE, "sampling": "windows", "num_windows": 2, "num_crops": 2}
IMAGES = {"kind": "image", "size": SIZE, "sampling": "random_window"}  # which images have none of


def make_dataset(settings: dict, samples: LabelledSamples, images: LabelledSamples, **more) -> ClipDataset:
    return ClipDataset(images if settings.get("kind") == "image" else samples, **settings, **more)


def cached(dataset: ClipDataset, folder: Path, processor=None, **arguments) -> CachedClips:
    return cache_clips(dataset, folder, processor, **({"device": "cpu", "progress": False} | arguments))


def assert_same_item(item: dict, expected: dict) -> None:
    assert item.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert item[name].dtype == value.dtype and torch.equal(item[name], value), name
        else:
            assert item[name] == value and type(item[name]) is type(value)


@pytest.mark.parametrize("settings", [EVEN, WINDOWS, IMAGES], ids=["even", "windows", "images"])
@pytest.mark.parametrize("shard_size", [1, 100_000, 2**28])
def test_items_are_those_of_the_dataset(settings, shard_size, samples, images, tmp_path):
    dataset = make_dataset(settings, samples, images)
    clips = cached(dataset, tmp_path / "cache", shard_size=shard_size)
    assert len(clips) == len(dataset)
    assert clips.labels == dataset.labels and clips.label_indices == dataset.label_indices
    for index in (2, *range(len(dataset)), -1):
        assert_same_item(clips[index], dataset[index])
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match="outside the cache's"):
            clips[index]
    files = sorted(path.name for path in clips.folder.iterdir())
    assert files[-1] == "index.json" and (len(files) - 1 == len(dataset)) == (shard_size == 1)
    assert shard_size == 1 or all(path.stat().st_size < shard_size + 1000 for path in clips.folder.glob("*.safe*"))
    # named by its hash, and nothing else is left
    assert list((tmp_path / "cache").iterdir()) == [clips.folder]


def test_items_are_those_that_datasets_keeps(samples, tmp_path):
    """Frames, features, labels and names, in Arrow by another way than ours."""
    processor, dataset = make_processor(num_frames=4), ClipDataset(samples, **EVEN)

    def generate():
        for index in range(len(dataset)):
            item = ClipCollator(processor)([dataset[index]])
            pixels = processor.normalise_frames(item["frames"].flatten(0, 1))
            features = processor.compute_landmarks(pixels)["landmark_features"]
            yield {**dataset[index], "frames": item["frames"][0].numpy(), "landmark_features": features.numpy()}

    first = next(generate())
    columns = {"labels": datasets.Value("int64"), "name": datasets.Value("string")}
    for name, dtype in (("frames", "uint8"), ("landmark_features", "float32")):
        columns[name] = datasets.Array4D(first[name].shape, dtype)
    kept = datasets.Dataset.from_generator(
        generate, features=datasets.Features(columns), cache_dir=str(tmp_path / "arrow")
    ).with_format("numpy")
    clips = cached(dataset, tmp_path / "cache", processor, shard_size=100_000)
    assert len(clips) == len(kept) == 4
    for item, expected in zip(clips, kept, strict=True):
        assert item.keys() == expected.keys()
        assert np.array_equal(item["frames"].numpy(), expected["frames"])
        assert np.allclose(item["landmark_features"].numpy(), expected["landmark_features"], atol=1e-5)
        assert (item["labels"], item["name"]) == (expected["labels"], expected["name"])


@pytest.mark.parametrize("settings", [EVEN, WINDOWS, IMAGES], ids=["even", "windows", "images"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_are_those_of_the_processor(settings, dtype, samples, images, tmp_path):
    dataset = make_dataset(settings, samples, images, with_clean_view=True)
    frames_of_clip = {"num_frames": dataset.num_frames} if dataset.kind == "video" else {}
    processor = make_processor(dataset.kind, **frames_of_clip)
    clips = cached(dataset, tmp_path / "cache", processor, dtype=dtype, shard_size=100_000)
    frames = torch.stack([item["frames"] for item in dataset])
    flat = frames.flatten(0, 1) if settings is WINDOWS else frames
    expected = processor(list(flat), return_tensors="pt")["landmark_features"]
    assert expected.std() > 1e-4
    expected = expected.to(getattr(torch, dtype)).reshape(*frames.shape[:-3], *expected.shape[-3:])
    for item, features, plain in zip(clips, expected, dataset, strict=True):
        assert_same_item(item, plain | {"landmark_features": features})
        assert item["clean_frames"] is item["frames"]
    batch = ClipCollator(processor)([clips[2], clips[0]])
    assert torch.equal(batch["landmark_features"], expected[[2, 0]])
    assert torch.equal(batch["clean_frames"], frames[[2, 0]])


def test_features_do_not_depend_on_how_they_are_computed(images, tmp_path, monkeypatch):
    images = LabelledSamples(images.samples * 20, images.labels)  # more than go through the encoder at a time
    dataset = ClipDataset(images, **IMAGES, keep_in_memory=True)
    kept: list[int] = []
    read = ClipDataset._read
    monkeypatch.setattr(ClipDataset, "_read", lambda self, *args: (kept.append(len(self._kept)), read(self, *args))[1])
    first = cached(dataset, tmp_path / "a", make_processor("image"))
    assert kept == [0] * 100  # in memory, which may be too small for all
    second = cached(dataset, tmp_path / "b", make_processor("image"), num_workers=2, shard_size=50_000)
    assert first.folder.name == second.folder.name
    for item, other in zip(first, second, strict=True):
        assert_same_item(other, item)


def test_batches_have_features_only_if_all_items_have(samples, tmp_path):
    dataset = ClipDataset(samples, **EVEN)
    clips = cached(dataset, tmp_path, make_processor())
    for items in ([clips[0], dataset[1]], [dataset[1], clips[0]]):
        batch = ClipCollator()(items)
        assert "landmark_features" not in batch and batch["frames"].shape[0] == 2
    other = clips[1] | {"landmark_features": torch.zeros(4, 1, 2, 2)}
    with pytest.raises(ValueError, match=r"5.mp4: `landmark_features` has the shape \(4, 1, 2, 2\)"):
        ClipCollator()([clips[0], other])


def test_what_is_read_can_be_changed_without_changing_the_cache(samples, tmp_path):
    clips = cached(ClipDataset(samples, **EVEN), tmp_path, make_processor())
    expected = copy.deepcopy(clips[0])
    for value in clips[0].values():
        if isinstance(value, torch.Tensor):
            assert value.untyped_storage().nbytes() == value.nbytes  # and not the whole file's
            value.fill_(0)
    assert_same_item(clips[0], expected)


def test_cache_is_used_again(samples, tmp_path, monkeypatch):
    dataset = ClipDataset(samples, **EVEN)
    first = cached(dataset, tmp_path / "cache", make_processor(landmark_encoder=encoder(1)))
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda self, index: pytest.fail("read again"))
    second = cached(dataset, tmp_path / "cache", make_processor(landmark_encoder=encoder(1)))
    assert second.folder == first.folder
    assert_same_item(second[1], first[1])
    with pytest.raises(pytest.fail.Exception, match="read again"):
        cached(dataset, tmp_path / "cache", make_processor(landmark_encoder=encoder(2)))


def test_writing_draws_no_random_numbers(samples, tmp_path):
    state = torch.get_rng_state()
    cached(ClipDataset(samples, **EVEN), tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_read_the_same(samples, tmp_path):
    clips = cached(ClipDataset(samples, **EVEN), tmp_path, make_processor(), shard_size=100_000)
    expected = ClipCollator()(list(clips))  # which opens the shards here
    batches = list(DataLoader(clips, 2, num_workers=2, collate_fn=ClipCollator(), multiprocessing_context="fork"))
    for name in ("frames", "landmark_features", "labels"):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), expected[name])
    sent = pickle.dumps(clips)  # as to a worker that is spawned
    assert len(sent) < 2000
    assert_same_item(pickle.loads(sent)[3], clips[3])


def test_forked_processes_open_files_of_their_own(samples, tmp_path):
    clips = cached(ClipDataset(samples, **EVEN), tmp_path)
    inherited = clips[0] and clips._opened
    queue = multiprocessing.get_context("fork").SimpleQueue()

    def read() -> None:
        clips[1]
        queue.put((clips._opened is inherited, clips._process == os.getpid()))

    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    assert queue.get() == (False, True)
    process.join()


# ---- what the content depends on


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def same_time_other_size(path: Path) -> None:
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(time, time))


def describe(
    samples: LabelledSamples,
    settings: dict = EVEN,
    landmark_encoder: LandmarkEncoder | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    **settings_of_processor,
) -> dict:
    processor = make_processor(landmark_encoder=landmark_encoder, **settings_of_processor)
    return cache.describe_content(ClipDataset(samples, **settings), processor, dtype, device)


def reconfigured() -> LandmarkEncoder:
    """With the same weights."""
    changed = encoder()
    changed.options["option"] = 1
    return changed


def perturbed() -> LandmarkEncoder:
    changed = encoder()
    changed.conv_3.model[0].conv.bn.running_var[-1] += 1e-6
    return changed


def replaced(samples: LabelledSamples, **fields) -> LabelledSamples:
    first = Sample(**({"name": samples[0].name, "label": samples[0].label, "path": samples[0].path} | fields))
    return LabelledSamples([first, *samples[1:]], samples.labels)


def renamed(path: Path) -> None:
    path.rename(path.with_name("9.png"))


CHANGES_OF_FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "time of a video": ("30.mp4", touch),
    "size of a video": ("5.mp4", same_time_other_size),
    "time of a frame": ("frames/4.png", touch),
    "size of a frame": ("frames/4.png", same_time_other_size),
    "name of a frame": ("frames/6.png", renamed),
    "another frame": ("frames/4.png", lambda path: shutil.copy2(path, path.with_name("7.png"))),
    "a frame less": ("frames/4.png", Path.unlink),
}
CHANGES_OF_SAMPLES: dict[str, Callable[[LabelledSamples], LabelledSamples]] = {
    "path": lambda samples: replaced(samples, path=shutil.copy2(samples[0].path, f"{samples[0].path}.mp4")),
    "name": lambda samples: replaced(samples, name="other"),
    "label": lambda samples: replaced(samples, label=1),
    "names of labels": lambda samples: LabelledSamples(samples.samples, ["a", "c"]),
    "more labels": lambda samples: LabelledSamples(samples.samples, ["a", "b", "c"]),
    "order": lambda samples: samples.select([1, 0, 2, 3]),
    "fewer": lambda samples: samples[:-1],
}
CHANGES_OF_SETTINGS: dict[str, dict[str, Any]] = {
    "num_frames": {"settings": WINDOWS | {"num_frames": 4}},
    "size": {"settings": WINDOWS | {"size": 33}},
    "num_windows": {"settings": WINDOWS | {"num_windows": 3}},
    "num_crops": {"settings": WINDOWS | {"num_crops": 3}},
    "backend": {"settings": WINDOWS | {"backend": "decord"}},
    "configuration of the encoder": {"landmark_encoder": reconfigured()},
    "weights of the encoder": {"landmark_encoder": perturbed()},
    "dtype of the encoder": {"landmark_encoder": encoder().half()},
    "image_mean": {"image_mean": [0.5, 0.5, 0.5]},
    "image_std": {"image_std": [0.5, 0.5, 0.5]},
    "rescale_factor": {"rescale_factor": 1 / 127},
    "dtype": {"dtype": "float16"},
    "device": {"device": "cuda:1"},
}


def assert_other_key(content: dict, other: dict) -> None:
    assert content != other and cache._digest(content) != cache._digest(other)


@pytest.mark.parametrize("change", CHANGES_OF_FILES)
def test_files_are_part_of_the_key(change, samples):
    before = describe(samples)
    assert describe(samples) == before
    name, make = CHANGES_OF_FILES[change]
    make(samples[0].path.parent / name)
    assert_other_key(describe(samples), before)


@pytest.mark.parametrize("change", CHANGES_OF_SAMPLES)
def test_samples_are_part_of_the_key(change, samples):
    assert_other_key(describe(CHANGES_OF_SAMPLES[change](samples)), describe(samples))


@pytest.mark.parametrize("change", CHANGES_OF_SETTINGS)
def test_settings_are_part_of_the_key(change, samples):
    before = describe(samples, WINDOWS)
    assert describe(samples, WINDOWS) == before
    changed = describe(samples, **({"settings": WINDOWS} | CHANGES_OF_SETTINGS[change]))
    assert_other_key(changed, before)
    assert_other_key(cache.describe_content(ClipDataset(samples, **WINDOWS), None, "float32", "cpu"), before)


@pytest.mark.parametrize("package", ["pillow", "torch", "torchvision", "transformers", "av"])
def test_versions_are_part_of_the_key(package, samples, monkeypatch):
    before = describe(samples)
    version = cache.importlib.metadata.version
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "0" if name == package else version(name))
    assert describe(samples) != before
    monkeypatch.undo()
    assert describe(samples) == before
    monkeypatch.setattr(cache, "CACHE_VERSION", 0)
    assert describe(samples) != before


def test_only_the_decoder_that_is_used_is_part_of_the_key(samples, monkeypatch):
    by_pyav, by_decord = describe(samples), describe(samples, EVEN | {"backend": "decord"})
    assert by_pyav["decoder"] == {"backend": "pyav", "version": cache.importlib.metadata.version("av")}
    assert by_decord["decoder"]["backend"] == "decord" and by_decord["decoder"]["version"]
    version = cache.importlib.metadata.version
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda name: "0" if name == "decord" else version(name))
    assert describe(samples) == by_pyav and describe(samples, EVEN | {"backend": "decord"}) != by_decord


def test_what_does_not_change_the_content_does_not_change_the_key(samples, images, tmp_path):
    before = describe(samples)
    assert json.loads(json.dumps(before)) == before
    for extra in ({"seed": 3}, {"with_clean_view": True}, {"keep_in_memory": True}):
        assert describe(samples, EVEN | extra) == before
    (samples[3].path / "notes.txt").write_text("no frame")
    counted = encoder()
    counted.conv1.bn.num_batches_tracked += 1
    loaded = load_landmark_encoder(save_landmark_encoder(encoder(), tmp_path), encoder().to_dict())
    for same in (counted, loaded):
        assert describe(samples, landmark_encoder=same) == before
    relative = [Sample(s.name, s.label, path=os.path.relpath(s.path)) for s in samples]
    assert describe(LabelledSamples(relative, samples.labels)) == before
    stills = describe(images, IMAGES)
    for extra in ({"num_frames": 3}, {"sampling": "even"}, {"backend": "decord"}):
        assert describe(images, IMAGES | extra) == stills
    assert cache._digest(dict(reversed(before.items()))) == cache._digest(before)


def test_sources_of_other_kinds(samples, tmp_path):
    url = LabelledSamples([Sample("far", 0, path="https://example.org/a.mp4")], ["a"])
    assert describe(url)["samples"][0]["source"] == {"url": "https://example.org/a.mp4"}
    paths = [str(sample.path) for sample in samples[:3]]
    columns = {"video": paths, "label": [0, 1, 0]}

    def load(columns: dict) -> LabelledSamples:
        return from_hub(datasets.Dataset.from_dict(columns).cast_column("video", datasets.Video()))

    by_path = load(columns)
    before = describe(by_path)
    assert describe(load(columns)) == before
    assert describe(load(columns | {"video": paths[::-1]})) != before
    touch(samples[1].path)
    assert describe(by_path) != before
    stored = [{"path": "a.mp4", "bytes": Path(path).read_bytes()} for path in paths]
    by_bytes = load(columns | {"video": stored})
    before = describe(by_bytes)
    touch(samples[1].path)
    assert describe(by_bytes) == describe(load(columns | {"video": stored})) == before
    assert describe(load(columns | {"video": stored[::-1]}))["samples"] != before["samples"]
    first, second, _ = (sample["source"] for sample in before["samples"])
    assert first != second
    for hub in (by_path, by_bytes):
        dataset = ClipDataset(hub, **EVEN)
        for item, expected in zip(cached(dataset, tmp_path / "cache"), dataset, strict=True):
            assert_same_item(item, expected)


def test_caches_lie_side_by_side(samples, tmp_path):
    one, other = (ClipDataset(samples, 3, SIZE, sampling=sampling) for sampling in ("even", "windows"))
    caches = [cached(dataset, tmp_path / "cache") for dataset in (one, other, one)]
    assert caches[0].folder == caches[2].folder != caches[1].folder
    assert_same_item(caches[1][0], other[0])
    assert_same_item(caches[2][0], one[0])


# ---- what goes wrong


def test_interrupted_write_is_not_used(samples, tmp_path, monkeypatch):
    dataset = ClipDataset(samples, **EVEN)
    folder = tmp_path / "cache"
    calls = []

    def interrupted_save(*args) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        save_file(*args)

    monkeypatch.setattr(cache, "save_file", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        cached(dataset, folder, shard_size=1)
    assert list(folder.iterdir()) == []
    # as if the process had been killed
    calls.clear()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache.shutil, "rmtree", lambda *args, **kwargs: None)
        cached(dataset, folder, shard_size=1)
    (left,) = folder.iterdir()
    assert left.name.endswith(".incomplete") and len(list(left.iterdir())) == 2
    with pytest.raises(ValueError, match=r"index\.json can't be used: it is missing"):
        CachedClips(left)
    clips = cached(dataset, folder, shard_size=1)
    assert clips.folder != left and left.is_dir()
    for item, expected in zip(clips, dataset, strict=True):
        assert_same_item(item, expected)


def test_index_is_written_last(samples, tmp_path, monkeypatch):
    def no_index(self: Path, *args, **kwargs) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", no_index)
    with pytest.raises(OSError, match="disk full"):
        cached(ClipDataset(samples, **EVEN), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_run_may_be_faster(samples, tmp_path, monkeypatch):
    dataset = ClipDataset(samples, **EVEN)
    compute = cache._compute_rows

    def slow_rows(*args):
        yield from compute(*args)
        monkeypatch.setattr(cache, "_compute_rows", compute)
        cached(dataset, tmp_path / "cache")

    monkeypatch.setattr(cache, "_compute_rows", slow_rows)
    clips = cached(dataset, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [clips.folder]
    assert_same_item(clips[0], dataset[0])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def retype(path: Path) -> None:
    """The same number of bytes, in another shape."""
    size, tensors = path.stat().st_size, load_file(path)
    for shape in ((2, 4, 3, 16, 64), (2, 4, 3, 32, 32)):
        save_file({"frames": tensors["frames"].reshape(shape)}, path)
        if path.stat().st_size == size and shape[-1] == 64:
            return


BREAKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated shard": ("00001.safetensors", lambda path: os.truncate(path, path.stat().st_size - 1)),
    "missing shard": ("00001.safetensors", Path.unlink),
    "shard of noise": ("00001.safetensors", garbage),
    "shard of another shape": ("00001.safetensors", retype),
    "truncated index": ("index.json", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "missing index": ("index.json", Path.unlink),
    "index of another kind": ("index.json", lambda path: path.write_text("[]")),
    "index of too few rows": (
        "index.json", lambda path: path.write_text(path.read_text().replace('"rows": 2', '"rows": 1'))
    ),
    "index without shards": ("index.json", lambda path: path.write_text(path.read_text().replace('"shards"', '"_"'))),
}  # fmt: skip


@pytest.mark.parametrize("kind", BREAKS)
def test_broken_files_are_named(kind, samples, tmp_path):
    dataset = ClipDataset(samples, **EVEN)
    shard_size = 2 * dataset[0]["frames"].nbytes
    folder = cached(dataset, tmp_path / "cache", shard_size=shard_size).folder
    assert {path.name for path in folder.iterdir()} == {"00000.safetensors", "00001.safetensors", "index.json"}
    name, damage = BREAKS[kind]
    damage(folder / name)
    # what is seen without reading the shards is seen at once
    opens = kind in ("shard of noise", "shard of another shape")
    with nullcontext() if opens else pytest.raises(ValueError):
        cached(dataset, tmp_path / "cache", shard_size=shard_size)
    with pytest.raises(ValueError, match=rf"{name} can't be used: .*\. Delete the folder {folder};"):
        list(CachedClips(folder))


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        CachedClips(tmp_path / "none")


def test_broken_samples_are_named(samples, tmp_path):
    shutil.copy(samples[2].path, tmp_path / "broken.mp4")
    os.truncate(tmp_path / "broken.mp4", 500)
    bad = [Sample("my clip", 0, path=tmp_path / "broken.mp4"), Sample("gone", 0, path=tmp_path / "gone.mp4")]
    for sample, kind in zip(bad, (ValueError, FileNotFoundError), strict=True):
        dataset = ClipDataset(LabelledSamples([*samples, sample], samples.labels), **EVEN)
        with pytest.raises(kind, match=f"{sample.name}: "):
            cached(dataset, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_features_that_can_not_be_stored_are_refused(samples, tmp_path):
    dataset, wide = ClipDataset(samples, **EVEN), encoder()
    wide.conv_4.model[-1].project.bn.weight.mul_(1e30)
    wide.conv_4.model[-1].project.bn.running_var.fill_(1e-3)
    cached(dataset, tmp_path, make_processor(landmark_encoder=wide))
    with pytest.raises(ValueError, match=r"30\.mp4: its landmark features are not finite, or too large for .*float16"):
        cached(dataset, tmp_path, make_processor(landmark_encoder=wide), dtype="float16")


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"augmentation": ClipAugmentation(size=SIZE)}, {}, "`augmentation=None`"),
        ({"sampling": "random_window"}, {}, "`sampling='even'` or 'windows'"),
        ({}, {"dtype": "bfloat16"}, "`dtype` must be one of float32, float16"),
        ({}, {"shard_size": 0}, "`shard_size`"),
        ({"size": 24}, {"processor": make_processor()}, "24x24 pixels, and the processor makes 32x32"),
    ],
)
def test_impossible_arguments_are_refused(settings, arguments, message, samples, tmp_path):
    with pytest.raises(ValueError, match=message):
        cached(ClipDataset(samples, **(EVEN | settings)), tmp_path / "cache", **arguments)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())
