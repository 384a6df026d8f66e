"""The benchmarks' evaluation, 2 windows of 16 frames times 2 crops, against a plain reference on readable frames."""

from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

from s2d_hf.data import ClipCollator, ClipDataset, from_class_folders

from .frames_dataset import make_trainer, small_model, small_processor

WINDOW, SIZE = 16, 32


def write_frames(folder: Path, total: int, height: int, width: int) -> None:
    """Red tells the number of the frame, green the row and blue the column."""
    folder.mkdir(parents=True)
    for number in range(total):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        frame = torch.stack((torch.full_like(rows, 4 * number), 5 * rows, 5 * columns))
        write_png(frame.to(torch.uint8), str(folder / f"{number + 1}.png"))


def plain_views(total: int, height: int, width: int) -> torch.Tensor:
    """`(4, 16, 3, 32, 32)`: the first window's left (or upper) and right (or lower) crop, then those of the last."""
    views = []
    for first_frame in (0, max(0, total - WINDOW)):
        for end in (0, 1):
            top = (height - SIZE) * end if height > width else 0
            left = (width - SIZE) * end if width > height else 0
            view = torch.empty(WINDOW, 3, SIZE, SIZE, dtype=torch.uint8)
            for place in range(WINDOW):
                number = min(first_frame + place, total - 1)  # the last one is repeated
                for row in range(SIZE):
                    for column in range(SIZE):
                        pixel = (4 * number, 5 * (top + row), 5 * (left + column))
                        view[place, :, row, column] = torch.tensor(pixel, dtype=torch.uint8)
            views.append(view)
    return torch.stack(views)


SHAPES = [(5, 32, 48), (1, 48, 32), (16, 32, 32), (17, 32, 41), (40, 45, 32)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number, shape in enumerate(SHAPES):
        write_frames(folder / str(number), *shape)
    root = tmp_path_factory.mktemp("classes")
    for number in range(len(SHAPES)):
        (root / f"class{number}").mkdir()
        (root / f"class{number}" / "clip").symlink_to(folder / str(number))
    return root


def test_views_and_their_averaged_scores(folder, tmp_path):
    dataset = ClipDataset(
        from_class_folders(folder), num_frames=WINDOW, size=SIZE, sampling="windows", num_windows=2, num_crops=2
    )
    expected = [plain_views(*shape) for shape in SHAPES]
    for number, views in enumerate(expected):
        assert torch.equal(dataset[number]["frames"], views), SHAPES[number]
    assert torch.equal(expected[0][0], expected[0][2]) and not torch.equal(expected[4][0], expected[4][2])

    model = small_model(num_frames=WINDOW).eval()
    trainer = make_trainer(tmp_path, model, per_device_eval_batch_size=2)
    trainer.data_collator = ClipCollator(small_processor())
    clips = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: clips.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    prediction = trainer.predict(dataset)
    hook.remove()
    assert clips == [2 + 2, 1 + 4, 4]  # the views that differ, of two videos at a time
    assert prediction.label_ids.tolist() == [0, 1, 2, 3, 4]
    scores = torch.tensor(prediction.predictions).softmax(dim=-1)
    for number, views in enumerate(expected):
        own = []
        for view in views:  # one after the other, as a user would
            with torch.no_grad():
                logits = model(**small_processor()([list(view)], return_tensors="pt", do_sample_frames=False)).logits
            own.append(logits[0].softmax(dim=-1))
        torch.testing.assert_close(scores[number], sum(own) / 4, atol=1e-5, rtol=1e-4)
    assert scores.std(dim=0).max() > 1e-3  # the clips do differ


PATTERNS = ["AAAA", "ABAB", "ABCD", "AABB", "ABBA", "ABBC", "ABAA"]


@pytest.mark.parametrize("cached", [False, True])
def test_views_that_are_the_same_picture_are_computed_once(cached, tmp_path):
    """Equal letters are equal views of a video; views of other videos don't count."""
    model = small_model().eval()
    trainer = make_trainer(tmp_path, model)
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(0, 256, (len(PATTERNS), 4, 4, 3, 32, 32), generator=generator).to(torch.uint8)
    letters[1] = letters[0]
    letters[2, 3] = letters[2, 2]
    letters[2, 3, 3, 2, 31, 31] += 1  # one value tells them apart
    frames = torch.stack(
        [torch.stack([letters[i]["ABCD".index(letter)] for letter in video]) for i, video in enumerate(PATTERNS)]
    )
    features = small_processor().compute_landmarks(trainer.prepare_pixels(frames.flatten(0, 1)))["landmark_features"]
    features = 2 * features.unflatten(0, frames.shape[:2])  # not those that the trainer would compute
    labels = torch.arange(len(PATTERNS)) % 5
    batch = {"frames": frames, "labels": labels} | ({"landmark_features": features} if cached else {})
    clips = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: clips.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    hook.remove()
    assert clips == [sum(len(set(video)) for video in PATTERNS)] == [16]

    for i, views in enumerate(frames):
        scores, pooled = [], []
        for j, view in enumerate(views):
            inputs = trainer.model_inputs(trainer.prepare_pixels(view[None]), features[i, j][None] if cached else None)
            with torch.no_grad():
                alone = model(**inputs)
            scores.append(alone.logits[0].softmax(dim=-1))
            pooled.append(alone.pooler_output[0])
        torch.testing.assert_close(outputs.logits[i].exp(), sum(scores) / 4, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(outputs.pooler_output[i], sum(pooled) / 4, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss, -outputs.logits[range(len(PATTERNS)), labels].mean(), atol=1e-5, rtol=1e-5)
    # the videos with other multiplicities of the same views have other scores
    assert (outputs.logits[0] - outputs.logits[1]).abs().max() > 1e-3
