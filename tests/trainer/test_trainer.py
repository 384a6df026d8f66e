import copy
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

from s2d_hf.data import CachedClips, ClipCollator, ClipDataset, cache_clips, check_sources, from_class_folders
from s2d_hf.metrics import compute_metrics_fn
from s2d_hf.trainer import ClassBalancedSampler, S2DTrainer, S2DTrainingArguments
from tests.videos import counting_frames, write_video

from .frames_dataset import EpochFramesDataset, FramesDataset, make_trainer, small_model, small_processor


def first_batch(trainer: S2DTrainer) -> dict[str, torch.Tensor]:
    samples = [trainer.train_dataset[i] for i in range(4)]
    batch = {name: torch.stack([s[name] for s in samples]) for name in ("frames", "clean_frames")}
    return batch | {"labels": torch.tensor([s["labels"] for s in samples])}


def test_evaluation_loss_is_that_of_processor_and_model(tmp_path):
    trainer = make_trainer(tmp_path)
    batch = first_batch(trainer)
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model.eval(), batch, return_outputs=True)
        inputs = small_processor()(list(batch["frames"]), return_tensors="pt")
        expected = trainer.model(**inputs, labels=batch["labels"])
    torch.testing.assert_close(outputs.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)


def test_training_loss_adds_the_weighted_anchor_loss(tmp_path):
    trainer = make_trainer(
        tmp_path, anchor_distillation=True, anchor_start="random", anchor_weight_times=[0, 30], anchor_weights=[0.3, 1]
    )
    batch = first_batch(trainer)
    with torch.no_grad():
        plain, outputs = trainer.compute_loss(trainer.model.eval(), batch, return_outputs=True)
        distilled = trainer.compute_loss(trainer.model.train(), batch)
    targets = trainer.anchors.soft_targets(outputs.pooler_output)
    p = outputs.logits.sigmoid()
    anchor_loss = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(distilled, plain + 0.3 * anchor_loss, atol=1e-5, rtol=1e-5)


def test_landmarks_are_those_of_the_mixed_pixels(tmp_path):
    trainer = make_trainer(tmp_path, mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing_factor=0.1)
    seen = {}
    trainer.model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    batch = first_batch(trainer)
    with torch.no_grad():
        trainer.compute_loss(trainer.model.train(), batch)
    assert (seen["pixel_values"] - trainer.prepare_pixels(batch["frames"])).abs().max() > 0.1
    expected = small_processor().compute_landmarks(seen["pixel_values"])["landmark_features"]
    torch.testing.assert_close(seen["landmark_features"], expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        trainer.compute_loss(trainer.model.eval(), batch)
    torch.testing.assert_close(seen["pixel_values"], trainer.prepare_pixels(batch["frames"]))  # never in evaluation


def test_the_landmark_encoder_computes_in_bfloat16_in_training_alone(tmp_path):
    trainer = make_trainer(tmp_path, landmark_encoder_dtype="bfloat16")
    seen = {}
    trainer.model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    batch = first_batch(trainer)
    pixels = trainer.prepare_pixels(batch["frames"]).flatten(0, 1)
    conv = small_processor().landmark_encoder.conv
    exact = conv(pixels).tanh().unflatten(0, (4, 4))
    low = torch.nn.functional.conv2d(pixels.bfloat16(), conv.weight.bfloat16(), conv.bias.bfloat16(), stride=6).tanh()
    with torch.no_grad():
        trainer.compute_loss(trainer.model.train(), batch)
    assert seen["landmark_features"].dtype == torch.float32
    torch.testing.assert_close(seen["landmark_features"].flatten(0, 1), low.float(), atol=1e-6, rtol=0)
    assert 1e-4 < (seen["landmark_features"] - exact).abs().max() < 0.02
    with torch.no_grad():
        trainer.compute_loss(trainer.model.eval(), batch)
    torch.testing.assert_close(seen["landmark_features"], exact, atol=1e-6, rtol=1e-6)
    trainer.train()
    saved = trainer.processing_class.landmark_encoder.state_dict()  # what `save_pretrained` writes
    assert all(torch.equal(weight, saved[f"conv.{name}"]) for name, weight in conv.state_dict().items())
    assert {weight.dtype for weight in saved.values()} == {torch.float32}


def test_erasing_changes_training_clips_only(tmp_path):
    trainer = make_trainer(tmp_path, random_erasing_prob=1.0)
    seen = {}
    trainer.model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    batch = first_batch(trainer)
    plain = trainer.prepare_pixels(batch["frames"])
    with torch.no_grad():
        trainer.compute_loss(trainer.model.train(), batch)
        changed = (seen["pixel_values"] != plain).any(dim=(1, 2)).float().mean(dim=(1, 2))
        assert (changed > 0.01).all() and (changed < 0.4).all()  # a box in each clip
        trainer.compute_loss(trainer.model.eval(), batch)
        assert torch.equal(seen["pixel_values"], plain)


def test_scores_of_several_views_are_averaged(tmp_path):
    trainer = make_trainer(tmp_path)
    batch = first_batch(trainer)
    views = torch.stack([batch["frames"], batch["frames"].flip(1), batch["clean_frames"]], dim=1)
    with torch.no_grad():
        model = trainer.model.eval()
        loss, outputs = trainer.compute_loss(model, batch | {"frames": views}, return_outputs=True)
        alone = [
            model(**small_processor()(list(views[:, view]), return_tensors="pt")).logits.softmax(-1)
            for view in range(3)
        ]
    expected = sum(alone) / 3
    torch.testing.assert_close(outputs.logits.softmax(-1), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, -expected[range(4), batch["labels"]].log().mean(), atol=1e-5, rtol=1e-5)


def test_clean_clips_enter_the_queue_of_their_label(tmp_path):
    labels = [0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 0]
    dataset = FramesDataset(labels)
    trainer = make_trainer(
        tmp_path, dataset=dataset, learning_rate=0.0, weight_decay=0.0, num_train_epochs=3, anchor_distillation=True,
        anchor_queue_size=4, anchor_first_update=1, anchor_update_every=5,
    )  # fmt: skip
    trainer.train()  # updates in its second epoch only
    assert trainer.anchors.counts.tolist() == [4, 2, 2, 1, 1]
    with torch.no_grad():
        inputs = small_processor()(list(dataset.frames + 50), return_tensors="pt")
        features = trainer.model.eval()(**inputs).pooler_output
    for label, count in enumerate(trainer.anchors.counts.tolist()):
        own = features[torch.tensor(labels) == label]
        for anchor in trainer.anchors.features[label, 4 - count :]:
            assert (own - anchor).abs().amax(dim=1).min() < 1e-4


def test_updates_after_the_step_equal_a_plain_loop(tmp_path):
    """In the second of three epochs, of which each has three steps of two batches."""
    labels = [0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 0, 1]
    dataset = FramesDataset(labels)
    trainer = make_trainer(
        tmp_path, dataset=dataset, per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=3,
        learning_rate=1e-2, lr_scheduler_type="constant", max_grad_norm=0, anchor_distillation=True,
        anchor_update="after", anchor_queue_size=4, anchor_first_update=1, anchor_update_every=5,
        anchor_weight_times=[0], anchor_weights=[0.0],
    )  # fmt: skip
    model = copy.deepcopy(trainer.model).train()
    trainer.train()
    assert len(dataset.order) == 36 and trainer.state.global_step == 9

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    queues = [[] for _ in range(5)]
    for step in range(9):
        batches = [dataset.order[4 * step : 4 * step + 2], dataset.order[4 * step + 2 : 4 * step + 4]]
        inputs = [small_processor()([dataset.frames[i] for i in batch], return_tensors="pt") for batch in batches]
        for batch, of_batch in zip(batches, inputs, strict=True):
            (model(**of_batch, labels=torch.tensor([labels[i] for i in batch])).loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step // 3 == 1:
            for batch, of_batch in zip(batches, inputs, strict=True):
                with torch.no_grad():
                    outputs = model(**of_batch)
                for i, feature, logits in zip(batch, outputs.pooler_output, outputs.logits, strict=True):
                    queues[labels[i]].append((feature, logits.softmax(dim=-1)))
    assert [len(queue) for queue in queues] == [5, 3, 2, 1, 1]
    assert trainer.anchors.counts.tolist() == [4, 3, 2, 1, 1]
    for label, queue in enumerate(queues):
        for place, (feature, probabilities) in enumerate(reversed(queue[-4:])):
            anchor = trainer.anchors.features[label, 3 - place], trainer.anchors.probabilities[label, 3 - place]
            torch.testing.assert_close(anchor[0], feature, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(anchor[1], probabilities, atol=1e-4, rtol=1e-3)
    moved = (trainer.model.classifier.weight - model.classifier.weight).abs().max()
    assert moved < 1e-4  # both learned the same


def test_updates_after_the_step_see_the_erased_clips_unmixed_and_in_training_mode(tmp_path):
    model = small_model(classifier_dropout_prob=0.5)
    trainer = make_trainer(
        tmp_path, model, anchor_distillation=True, anchor_update="after", anchor_first_update=0,
        gradient_accumulation_steps=2, mixup_alpha=0.8, random_erasing_prob=1.0, per_device_train_batch_size=4,
    )  # fmt: skip
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((torch.is_grad_enabled(), module.training, kwargs["pixel_values"])),
        with_kwargs=True,
    )
    trainer.train()
    assert [(grad, training) for grad, training, _ in seen] == [(True, True)] * 2 + [(False, True)] * 2
    for (_, _, mixed), (_, _, pixels) in zip(seen[:2], seen[2:], strict=True):
        assert float((mixed - pixels).abs().max()) > 0.1
        other = pixels.flip(0)
        share = float(((mixed - other) * (pixels - other)).sum() / (pixels - other).square().sum())
        assert 0 <= share <= 1
        torch.testing.assert_close(mixed, share * pixels + (1 - share) * other, atol=1e-4, rtol=1e-4)
        # the noise of erased boxes; the clips' own values end before
        assert (pixels.abs() > 2.5).flatten(1).any(dim=1).all()


def test_updates_after_the_step_need_no_clean_clips(folders, tmp_path):
    """With cached features, which belong to the frames, as well."""
    folders.with_clean_view = False
    for trainer in cached_and_plain(
        folders, tmp_path, anchor_distillation=True, anchor_update="after", anchor_first_update=0, anchor_queue_size=2
    ):
        trainer.train()
        assert trainer.anchors.counts.tolist() == [2] * 5


@pytest.mark.parametrize(("balanced", "update"), [(False, "before"), (True, "before"), (False, "after")])
def test_resumed_training_equals_one_that_never_stopped(balanced, update, tmp_path):
    arguments = {
        "num_train_epochs": 4, "save_steps": 1, "save_strategy": "steps", "anchor_distillation": True,
        "anchor_queue_size": 2, "anchor_neighbours": 1, "anchor_weight_times": [0, 1.5], "anchor_weights": [0.2, 0.5],
        "anchor_first_update": 0, "anchor_update_every": 2, "balanced_sampling": balanced, "learning_rate": 1e-3,
        "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "random_erasing_prob": 0.5, "gradient_accumulation_steps": 2,
        "anchor_update": update,
    }  # fmt: skip
    labels = [0, 1, 2, 3, 4] * 4  # five batches, three steps in an epoch

    def train(name: str, checkpoint: Path | None = None) -> S2DTrainer:
        model = small_model(classifier_dropout_prob=0.3, hidden_dropout_prob=0.1)
        trainer = make_trainer(tmp_path / name, model, EpochFramesDataset(labels), **arguments)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return trainer

    whole = train("whole")
    for step in (3, 7):  # after the first epoch; in the middle of the third, in which the anchors are updated
        checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
        files = {path.name for path in checkpoint.iterdir()}
        assert {"emotion_anchors.safetensors", "landmark_encoder.safetensors"} <= files
        resumed = train(f"from_{step}", checkpoint)
        for (name, a), (_, b) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
            torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-5, msg=name)
        for name, tensor in whole.anchors.state_dict().items():
            torch.testing.assert_close(resumed.anchors.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    (checkpoint / "emotion_anchors.safetensors").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-7 can't be resumed: emotion_anchors\.safetensors is missing"):
        train("again", checkpoint)


def epochs_of_batches(trainer: S2DTrainer, checkpoint: Path | None = None) -> list[int]:
    """Trains, and gives the epoch of which the items of each batch are."""
    seen = []
    step = trainer.training_step
    trainer.training_step = lambda model, batch, *args: (seen.append(batch["epoch"]), step(model, batch, *args))[1]
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    assert all((batch == batch[0]).all() for batch in seen)
    return [int(batch[0]) for batch in seen]


@pytest.mark.parametrize("balanced", [False, True])
def test_train_dataset_is_told_the_epoch(balanced, tmp_path):
    def make(name: str) -> S2DTrainer:
        return make_trainer(
            tmp_path / name, dataset=EpochFramesDataset([0, 1, 2, 3] * 3), num_train_epochs=3, save_steps=1,
            save_strategy="steps", balanced_sampling=balanced,
        )  # fmt: skip

    assert epochs_of_batches(make("whole")) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert epochs_of_batches(make("from_4"), tmp_path / "whole" / "checkpoint-4") == [1, 1, 2, 2, 2]
    assert epochs_of_batches(make("from_6"), tmp_path / "whole" / "checkpoint-6") == [2, 2, 2]


def test_workers_that_live_on_are_told_the_epoch(tmp_path):
    trainer = make_trainer(
        tmp_path, dataset=EpochFramesDataset([0, 1, 2, 3] * 3), num_train_epochs=3, balanced_sampling=True,
        dataloader_num_workers=1, dataloader_persistent_workers=True,
    )  # fmt: skip
    assert epochs_of_batches(trainer) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # the garbage collector would wait for seconds
    trainer.callback_handler.train_dataloader.base_dataloader._iterator._shutdown_workers()


def test_every_batch_is_mixed_in_its_own_way_that_depends_on_its_place_alone(tmp_path):
    def draws(trainer: S2DTrainer, global_step: int, micro_step: int) -> float:
        trainer.state.global_step, trainer._micro_step = global_step, micro_step
        return torch.rand((), generator=trainer._batch_generator()).item()

    trainer, other_seed = make_trainer(tmp_path), make_trainer(tmp_path, seed=1)
    places = [(step, micro) for step in range(3) for micro in range(2)]
    drawn = [draws(trainer, *place) for place in places]
    assert drawn == [draws(make_trainer(tmp_path), *place) for place in places]
    assert len({*drawn, *(draws(other_seed, *place) for place in places)}) == 12
    seen = []
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2, random_erasing_prob=0.5, num_train_epochs=2)
    draw = trainer._batch_generator
    trainer._batch_generator = lambda: (seen.append((trainer.state.global_step, trainer._micro_step)), draw())[1]
    trainer.train()
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_weight_decay_and_learning_rate_of_the_paper(tmp_path):
    trainer = make_trainer(
        tmp_path, learning_rate=1e-3, learning_rate_batch=8, gradient_accumulation_steps=6, weight_decay=0.05
    )
    optimizer = trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    for name, parameter in trainer.model.named_parameters():
        embeddings = ("cls_token", "position_embeddings", "temporal_embeddings")
        spared = parameter.ndim == 1 or name.split(".")[-1] in embeddings
        assert decay[name] == (0.0 if spared else 0.05), name
    for _ in range(2):  # not scaled twice
        assert [group["lr"] for group in trainer.create_optimizer().param_groups] == pytest.approx([3e-3, 3e-3])


def test_training_learns(tmp_path):
    """Clips whose colour is their class are told apart after a few epochs, and only tunable weights move."""
    dataset = FramesDataset([0, 1, 2, 3, 4] * 6)
    model = small_model().freeze_for_video_tuning()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer = make_trainer(tmp_path, model=model, dataset=dataset, num_train_epochs=15, learning_rate=3e-3)
    trainer.train()
    predictions = trainer.predict(dataset).predictions.argmax(-1)
    assert (torch.as_tensor(predictions) == torch.tensor(dataset.label_indices)).float().mean() > 0.6  # chance is 0.2
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(("start", "is_named"), [("/home/jane/vit", False), ("", False), ("someone/vit", True)])
def test_a_card_names_no_place_on_this_machine(start, is_named, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.model.config.name_or_path = start
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "/home" not in card and str(tmp_path) not in card and "[](" not in card
    assert ("base_model: someone/vit" in card) == is_named and trainer.model.config.name_or_path == start


def test_real_videos_from_folders_to_metrics(tmp_path):
    """Two classes of MP4 files through dataset, collator and trainer, with two windows of each video in evaluation."""
    for label, brightness in (("dark", 0), ("light", 150)):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for i in range(3):
            frames = [frame + brightness for frame in counting_frames(9 + i)]
            write_video(tmp_path / "videos" / label / f"{i}.mp4", frames)
    samples, broken = check_sources(from_class_folders(tmp_path / "videos"), progress=False)
    assert len(samples) == 6 and not broken
    train = ClipDataset(samples, num_frames=4, size=32, sampling="random_window", with_clean_view=True)
    views = ClipDataset(samples, num_frames=4, size=32, sampling="windows", num_windows=2)
    arguments = S2DTrainingArguments(
        output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=3, per_device_eval_batch_size=4, num_train_epochs=12, learning_rate=3e-3,
        balanced_sampling=True, anchor_distillation=True, anchor_queue_size=3, anchor_unit="fraction",
        anchor_weight_times=[0, 0.5], anchor_weights=[0.0, 0.1], anchor_first_update=0.4, anchor_update_every=0.2,
    )  # fmt: skip
    processor = small_processor()
    trainer = S2DTrainer(
        model=small_model(num_labels=2), args=arguments, train_dataset=train, eval_dataset=views,
        processing_class=processor, data_collator=ClipCollator(processor),
        compute_metrics=compute_metrics_fn(samples.labels),
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_uar"] == metrics["eval_war"] == 1.0
    prediction = trainer.predict(views)  # one row for each video
    assert prediction.predictions.shape == (6, 2) and prediction.label_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert trainer.anchors.counts.tolist() == [3, 3]


@pytest.fixture
def folders(tmp_path) -> ClipDataset:
    """Clips of noise, as folders of frames."""
    source = FramesDataset([0, 1, 2, 3, 4, 0, 1, 2, 3, 4], num_frames=6)
    for i in range(len(source)):
        folder = tmp_path / "frames" / str(source.label_indices[i]) / str(i)
        folder.mkdir(parents=True)
        for j, frame in enumerate(source.frames[i]):
            write_png(frame, str(folder / f"{j}.png"))
    return ClipDataset(from_class_folders(tmp_path / "frames"), num_frames=4, size=32, with_clean_view=True)


def cached_and_plain(folders: ClipDataset, folder: Path, **arguments) -> list[S2DTrainer]:
    """A trainer with the cached clips and their features, and one without; both have two views in evaluation."""
    views = ClipDataset(folders.samples, 4, 32, sampling="windows", num_windows=2)
    options = {"device": "cpu", "progress": False}
    cached = [cache_clips(data, folder / "cache", small_processor(), **options) for data in (folders, views)]
    arguments = {"logging_steps": 1, "num_train_epochs": 3, "learning_rate": 1e-3} | arguments
    trainers = []
    for name, data in (("cached", cached), ("plain", [folders, views])):
        trainers.append(make_trainer(folder / name, None, *data, **arguments))
        trainers[-1].data_collator = ClipCollator(trainers[-1].processing_class)
    return trainers


def test_training_with_cached_clips_is_that_without(folders, tmp_path):
    results = []
    for trainer in cached_and_plain(
        folders, tmp_path, anchor_distillation=True, anchor_queue_size=2, anchor_first_update=0, anchor_update_every=2,
        anchor_weight_times=[0], anchor_weights=[0.5], label_smoothing_factor=0.1,
    ):  # fmt: skip
        frames_encoded = []
        trainer.processing_class.landmark_encoder.register_forward_pre_hook(
            lambda module, inputs, seen=frames_encoded: seen.append(len(inputs[0]))
        )
        trainer.train()
        metrics = trainer.evaluate()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results.append((losses, metrics["eval_loss"], trainer.anchors.features, sum(frames_encoded)))
    (losses, loss, anchors, encoded), (expected_losses, expected_loss, expected_anchors, encoded_without) = results
    assert len(losses) == 9 and len(set(losses)) > 5
    assert losses == pytest.approx(expected_losses, abs=1e-6)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    torch.testing.assert_close(anchors, expected_anchors, atol=1e-6, rtol=1e-5)
    assert anchors.abs().max() > 0.1
    # three epochs, two updates of the anchors, two views
    assert encoded == 0 and encoded_without == 10 * 4 * (3 + 2 + 2)


def test_features_in_the_batch_are_those_that_the_model_gets(folders, tmp_path):
    """In half precision too; and a model that isn't guided by landmarks gets none."""
    trainer = cached_and_plain(folders, tmp_path)[0]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    marked = batch | {"landmark_features": torch.full_like(batch["landmark_features"], 0.5).half()}
    seen = {}
    trainer.model.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        trainer.compute_loss(trainer.model.train(), marked)
    assert (seen["landmark_features"] == 0.5).all() and seen["landmark_features"].dtype == torch.float32
    trainer.model.config.prompt_type = "none"
    trainer.args.mixup_alpha = 0.8
    assert set(trainer.model_inputs(batch["frames"], batch["landmark_features"])) == {"pixel_values"}
    trainer._refuse_changes_of_pixels()


@pytest.mark.parametrize("argument", ["mixup_alpha", "cutmix_alpha", "random_erasing_prob"])
def test_cached_features_are_refused_where_pixels_are_changed(argument, folders, tmp_path):
    trainer, plain = cached_and_plain(folders, tmp_path, **{argument: 0.5})
    assert isinstance(trainer.train_dataset, CachedClips)
    with pytest.raises(ValueError, match=f"landmark features.* set `{argument}` to 0"):
        trainer.train()
    assert trainer.state.global_step == 0
    plain.model.load_state_dict(trainer.model.state_dict())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], abs=1e-6)


def test_clean_frames_must_be_those_of_the_features(folders, tmp_path):
    trainer = cached_and_plain(folders, tmp_path, anchor_distillation=True, anchor_first_update=0)[0]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    trainer._update_anchors(trainer.model, batch)
    with pytest.raises(ValueError, match="`clean_frames` are not the `frames`"):
        trainer._update_anchors(trainer.model, batch | {"frames": batch["frames"].flip(-1)})


def test_balanced_sampler():
    labels = [0] * 900 + [1] * 90 + [2] * 10
    sampler = ClassBalancedSampler(labels, seed=3)
    drawn = torch.tensor(labels)[torch.tensor(list(sampler))].bincount()
    assert len(sampler) == 1000 and drawn.min() > 270 and drawn.max() < 400
    assert list(sampler) == list(ClassBalancedSampler(labels, seed=3))
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    with pytest.raises(ValueError, match="empty"):
        ClassBalancedSampler([])


def test_every_epoch_draws_another_balanced_order(tmp_path):
    dataset = FramesDataset([0] * 12 + [1] * 4)
    make_trainer(tmp_path, dataset=dataset, balanced_sampling=True, num_train_epochs=2).train()
    first, second = dataset.order[:16], dataset.order[16:]
    assert len(second) == 16 and first != second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate_batch": 0}, "`learning_rate_batch`"),
        ({"mixup_alpha": -1.0}, "`mixup_alpha`"),
        ({"mixup_switch_prob": 2.0}, "`mixup_switch_prob`"),
        ({"random_erasing_prob": -0.1}, "`random_erasing_prob`"),
        ({"ema_decay": 1.0}, "`ema_decay`"),
        ({"ema_decay": 0.0}, "`ema_decay`"),
        ({"ema_decay": 0.9, "push_to_hub": True, "hub_strategy": "every_save"}, "`hub_strategy` must be 'end'"),
        ({"landmark_encoder_dtype": "float16"}, "`landmark_encoder_dtype` must be .*, got 'float16'"),
        ({"anchor_weights": [1.0]}, "belong together"),
        ({"anchor_update": "later"}, "`anchor_update` must be 'before' or 'after', got 'later'"),
        ({"anchor_distillation": True, "anchor_unit": "fraction"}, "0 to 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        S2DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **arguments)


def test_the_last_batch_is_left_out_in_training_alone(tmp_path):
    dataset, videos = FramesDataset([0, 1, 2, 3, 4, 0, 1]), FramesDataset([0, 1, 2, 3, 4])
    trainer = make_trainer(
        tmp_path, dataset=dataset, eval_dataset=videos, dataloader_drop_last=True, per_device_train_batch_size=3,
        per_device_eval_batch_size=2,
    )  # fmt: skip
    trainer.train()
    assert len(dataset.order) >= 6 and trainer.state.global_step == 2
    assert len(trainer.predict(videos).predictions) == 5
    assert sum(len(batch["labels"]) for batch in trainer.get_eval_dataloader()) == 5
    assert sum(len(batch["labels"]) for batch in trainer.get_train_dataloader()) == 6
    assert trainer.args.dataloader_drop_last
    trainer.train_dataset = FramesDataset([0, 1])
    with pytest.raises(ValueError, match=r"`dataloader_drop_last` leaves out batches of less than 3, and there are 2"):
        trainer.train()


def test_missing_pieces_are_named(tmp_path):
    arguments = S2DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="`processing_class` is missing"):
        S2DTrainer(model=small_model(), args=arguments)
    bare = small_processor()
    bare.landmark_encoder = None
    with pytest.raises(ValueError, match="no landmark encoder"):
        S2DTrainer(model=small_model(), args=arguments, processing_class=bare)
    trainer = make_trainer(tmp_path, anchor_distillation=True, anchor_first_update=0)
    batch = first_batch(trainer)
    del batch["clean_frames"]
    trainer.create_optimizer()
    with pytest.raises(ValueError, match="`clean_frames`"):
        trainer.training_step(trainer.model, batch)
    trainer.train_dataset = [trainer.train_dataset[0]]
    trainer.args.balanced_sampling = True
    with pytest.raises(ValueError, match="attribute `label_indices`"):
        trainer.get_train_dataloader()


@pytest.mark.parametrize("balanced", [False, True])
def test_idle_anchors_are_warned_of_before_the_training(tmp_path, monkeypatch, balanced):
    warnings: list[str] = []
    monkeypatch.setattr("s2d_hf.trainer.trainer.logger.warning", warnings.append)
    arguments = {
        "anchor_distillation": True, "anchor_queue_size": 2, "anchor_neighbours": 1, "anchor_first_update": 0,
        "anchor_weight_times": [0], "anchor_weights": [1.0], "balanced_sampling": balanced,
    }  # fmt: skip
    make_trainer(tmp_path, dataset=FramesDataset([0, 0, 0, 1, 1, 2, 2, 3]), **arguments).train()
    # with balanced sampling, each class that there is comes twice in the epoch
    idle = "LABEL_4" if balanced else "LABEL_3, LABEL_4"
    assert len(warnings) == 1 and warnings[0].startswith(f"Emotion anchors: {idle} will never take part")
    warnings.clear()
    make_trainer(tmp_path, dataset=FramesDataset([0, 1, 2, 3, 4] * 2), **arguments).train()
    assert not warnings
    # `max_steps` counts, and not the epochs that it overrules
    late = arguments | {"anchor_weight_times": [0, 2], "anchor_weights": [0.0, 1.0], "num_train_epochs": 100}
    make_trainer(tmp_path, dataset=FramesDataset([0, 1, 2, 3, 4] * 2), **late, max_steps=6).train()
    assert len(warnings) == 1 and "first weight at 2, beyond the training's end at 2" in warnings[0]


def test_times_of_the_anchors_as_fractions_go_by_max_steps(tmp_path, monkeypatch):
    trainer = make_trainer(
        tmp_path, dataset=FramesDataset([0, 1, 2, 3] * 3), max_steps=6, num_train_epochs=100, anchor_distillation=True,
        anchor_unit="fraction", anchor_weight_times=[0, 0.5], anchor_weights=[0.0, 1.0], anchor_first_update=0,
        anchor_update_every=1, anchor_queue_size=1, anchor_neighbours=1,
    )  # fmt: skip
    steps: list[int] = []
    forward = trainer.anchors.forward
    monkeypatch.setattr(
        trainer.anchors, "forward", lambda *args: (steps.append(trainer.state.global_step), forward(*args))[1]
    )
    trainer.train()
    assert steps == [3, 4, 5]  # the second half of six steps in two epochs


def test_a_training_of_which_no_step_is_left_stays_as_it_is(tmp_path):
    """As where it was killed in the evaluation at its end; `max_steps` is in the middle of an epoch."""
    arguments = {"max_steps": 3, "save_strategy": "steps", "save_steps": 3, "ema_decay": 0.5, "learning_rate": 1e-2}
    arguments |= {"anchor_distillation": True, "anchor_first_update": 0, "anchor_queue_size": 2}
    labels = [0, 1, 2, 3, 4] * 4
    trainer = make_trainer(tmp_path, dataset=FramesDataset(labels), **arguments)
    trainer.train()
    again = make_trainer(tmp_path, dataset=FramesDataset(labels), **arguments)
    result = again.train(resume_from_checkpoint=True)
    assert result.global_step == again.state.global_step == 3 and not (tmp_path / "checkpoint-4").exists()
    for kept in ("model", "weight_average", "anchors"):
        expected = getattr(trainer, kept).state_dict()
        for name, tensor in getattr(again, kept).state_dict().items():
            assert torch.equal(tensor, expected[name]), name


def test_a_checkpoint_of_more_processes_is_told_of(tmp_path, monkeypatch):
    warnings: list[str] = []
    make_trainer(tmp_path, save_strategy="steps", save_steps=1).train()
    checkpoint = tmp_path / "checkpoint-1"
    (checkpoint / "checksums.json").unlink()
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    (checkpoint / "rng_state_1.pth").write_bytes((checkpoint / "rng_state_0.pth").read_bytes())
    monkeypatch.setattr("s2d_hf.trainer.trainer.logger.warning", warnings.append)
    make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))
    assert len(warnings) == 1 and "written by 2 processes, and is resumed by 1" in warnings[0]


@pytest.mark.parametrize("name", ["recall_never", "eval_recall_never"])
def test_a_score_that_is_no_number_finds_no_best_checkpoint(tmp_path, name):
    trainer = make_trainer(
        tmp_path, eval_dataset=FramesDataset([0, 1]), eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model=name,
    )  # fmt: skip
    trainer.compute_metrics = lambda prediction: {"recall_never": float("nan")}
    with pytest.raises(ValueError, match="`metric_for_best_model`: eval_recall_never is nan"):
        trainer.train()
