"""The dynamic stage on a user's own videos: validation, windows, EMA, broken files, pushing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from s2d_hf import MobileFaceNetLandmarkEncoder, S2DForVideoClassification, S2DImageProcessor
from s2d_hf.trainer import S2DTrainingArguments, read_recipe, run_recipe
from s2d_hf.trainer.building import build_model, load_landmark_encoder, load_samples
from tests.videos import counting_frames, write_video

from .frames_dataset import make_trainer
from .small_image_model import write_image_model

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "training" / "recipes" / "synthetic.yaml"


@pytest.fixture(scope="module")
def image_model(tmp_path_factory) -> Path:
    """An S2D image model of other labels, with its processor."""
    return write_image_model(tmp_path_factory.mktemp("image_model"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Dark and light videos of several lengths in train.csv, test.csv and, with a broken one, broken.csv."""
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for i in range(8):
        label, brightness = ("dark", 0) if i % 2 else ("light", 150)
        frames = [frame + np.uint8(brightness) for frame in counting_frames(5 + i)]
        write_video(folder / f"{i}.mp4", frames)
        rows.append(f"{i}.mp4,{label}\n")
    (folder / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:200])
    (folder / "train.csv").write_text("path,label\n" + "".join(rows[:6]))
    (folder / "test.csv").write_text("path,label\n" + "".join(rows[5:]))
    (folder / "broken.csv").write_text("path,label\n" + "".join(rows[:6]) + "cut.mp4,dark\n")
    return folder


def arguments(folder: Path, image_model: Path, videos: Path, *more: str) -> list[str]:
    return [
        "--stage", "dynamic", "--output_dir", str(folder), "--model_name_or_path", str(image_model), "--use_cpu",
        "--train_data", str(videos / "train.csv"), "--test_data", str(videos / "test.csv"),
        "--config_overrides", '{"num_frames": 4, "adapter_num_heads": 2}', "--learning_rate", "1e-2",
        "--per_device_train_batch_size", "3", "--report_to", "none", "--disable_tqdm", "true",
        "--save_strategy", "no", *more,
    ]  # fmt: skip


def test_validation_chooses_the_best_model_and_its_average(image_model, videos, tmp_path):
    more = (
        "--validation_data", str(videos / "test.csv"), "--eval_strategy", "epoch", "--save_strategy", "epoch",
        "--load_best_model_at_end", "--metric_for_best_model", "war", "--num_train_epochs", "6", "--ema_decay", "0.5",
        "--mixup_alpha", "0.8", "--label_smoothing_factor", "0.1", "--balanced_sampling", "--bf16",
        "--gradient_accumulation_steps", "2", "--gradient_checkpointing", "--dataloader_num_workers", "1",
    )  # fmt: skip
    (result,) = run_recipe(read_recipe(arguments(tmp_path / "out", image_model, videos, *more), default=DEFAULT))
    assert result.folder == tmp_path / "out" and result.metrics["samples"] == {"train": 6, "validation": 3, "test": 3}
    states = sorted((tmp_path / "out").glob("checkpoint-*/trainer_state.json"), key=lambda p: p.stat().st_mtime)
    state = json.loads(states[-1].read_text())
    best = Path(state["best_model_checkpoint"])
    wars = {entry["step"]: entry["eval_war"] for entry in state["log_history"] if "eval_war" in entry}
    assert len(wars) == 6 and wars[int(best.name.split("-")[1])] == max(wars.values())
    saved, average = load_file(tmp_path / "out" / "model.safetensors"), load_file(best / "ema.safetensors")
    assert len(average) > 10
    for name, tensor in average.items():
        torch.testing.assert_close(saved[name], tensor, msg=name)


def test_classifier_is_new_where_labels_differ(image_model, videos, tmp_path):
    recipe = read_recipe(arguments(tmp_path, image_model, videos), default=DEFAULT)
    model = build_model(recipe.stages[0], ("dark", "light"), load_landmark_encoder(recipe.stages[0].model))
    old = load_file(image_model / "model.safetensors")
    assert model.config.id2label == {0: "dark", 1: "light"}
    assert not torch.equal(model.classifier.weight, old["classifier.weight"])
    for name, tensor in old.items():
        assert name.startswith("classifier") or torch.equal(model.state_dict()[name], tensor), name
    same = build_model(recipe.stages[0], ("LABEL_0", "LABEL_1"), load_landmark_encoder(recipe.stages[0].model))
    assert torch.equal(same.classifier.weight, old["classifier.weight"])


def test_a_broken_video_stops_with_its_name_or_is_listed(image_model, videos, tmp_path, caplog):
    broken = arguments(tmp_path, image_model, videos, "--train_data", str(videos / "broken.csv"), "--max_steps", "1")
    with pytest.raises(ValueError, match=r"1 of 7 videos can't be read:\ncut\.mp4"):
        run_recipe(read_recipe(broken, default=DEFAULT))
    assert not (tmp_path / "model.safetensors").exists()
    (result,) = run_recipe(read_recipe([*broken, "--skip_broken"], default=DEFAULT))
    assert result.metrics["samples"]["train"] == 6
    assert result.metrics["left_out"] == {"train": ["cut.mp4"]}
    assert any("cut.mp4" in message and "truncated" in message for message in caplog.messages)
    # metrics are uploaded: where the file lies is said here only
    table = (videos / "broken.csv").read_text().replace("cut.mp4", str(videos / "cut.mp4"))
    (videos / "absolute.csv").write_text(table)
    given = ("--train_data", str(videos / "absolute.csv"), "--skip_broken")
    (result,) = run_recipe(read_recipe([*broken, *given, "--output_dir", str(tmp_path / "other")], default=DEFAULT))
    assert result.metrics["left_out"] == {"train": [f"{videos.name}/cut.mp4"]}


def test_push_uploads_the_finished_folder(image_model, videos, warm_python, tmp_path, hub):
    """As a user trains, to the tests' Hub."""
    out = tmp_path / "out"
    push = ("--push_to_hub", "--hub_model_id", "s2d-hf/faces", "--max_steps", "1", "--save_strategy", "steps")
    command = [ROOT / "training" / "train.py", *arguments(out, image_model, videos, *push)]
    environment = hub.environment(tmp_path) | {"OMP_NUM_THREADS": "1"}
    run = warm_python.run(*command, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert hub.commits("s2d-hf/faces") == ["End of training", "initial commit"]
    files = hub.files("s2d-hf/faces")
    # also those of a processor for the pictures that a video has
    assert {"model.safetensors", "config.json", "landmark_encoder.safetensors", "metrics.json"} <= set(files)
    assert {"modeling_s2d.py", "video_preprocessor_config.json", "preprocessor_config.json"} <= set(files)
    assert "confusion_matrix.png" in files
    # nothing else goes up, though it is there
    assert (out / "training_args.bin").is_file() and (out / "checkpoint-1").is_dir()
    assert {Path(name).suffix for name in files if name != ".gitattributes"} == {
        ".json", ".md", ".png", ".py", ".safetensors"
    }  # fmt: skip
    assert not any("/" in name for name in files)
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    # the card is a draft, and what it lacks is said
    assert "s2d-hf/faces is uploaded as a draft; this is still missing:" in run.stderr
    assert "Its metadata lack `license`" in run.stderr
    card = files["README.md"].decode()
    assert card.count("# faces\n") == 1 and "| this model |" in card
    for text in (card, files["metrics.json"].decode()):  # what is published doesn't tell of this machine
        assert str(tmp_path) not in text and str(videos) not in text and str(image_model) not in text


def test_a_folder_with_problems_is_not_pushed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "token")
    trainer = make_trainer(tmp_path)
    trainer.hub_model_id = "me/faces"
    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", lambda *args, **kwargs: pytest.fail("was uploaded"))
    # the landmark encoder of this trainer is the tests' own, which no folder brings along
    monkeypatch.setattr("s2d_hf.publishing.folders.probe_folder", lambda *args: [])
    with pytest.raises(ValueError, match=r"landmark_encoder\.safetensors: It can't be loaded: Unknown landmark"):
        trainer.push_to_hub()
    assert {"preprocessor_config.json", "video_preprocessor_config.json"} <= {p.name for p in tmp_path.iterdir()}


def test_pushes_come_at_the_end_unless_asked_otherwise(tmp_path):
    assert S2DTrainingArguments(output_dir=str(tmp_path)).hub_strategy == "end"
    assert S2DTrainingArguments(output_dir=str(tmp_path), hub_strategy="every_save").hub_strategy == "every_save"


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (("--config_overrides", '{"hiden_size": 8}'), ValueError, "hiden_size"),
        (("--train_data", "./nothing"), FileNotFoundError, "nothing"),
        (("--eval_strategy", "epoch"), ValueError, "no `validation_data`"),
        (("--resume_from_checkpoint", "nowhere"), FileNotFoundError, "nowhere"),
        (("--landmark_encoder", "LANDMARKS"), ValueError, "gives 32 channels, and the model takes 16"),
    ],
)
def test_what_does_not_fit_is_named(more, error, message, image_model, videos, tmp_path):
    if "LANDMARKS" in more:
        S2DImageProcessor(landmark_encoder=MobileFaceNetLandmarkEncoder(width=0.25)).save_pretrained(tmp_path / "lm")
        more = ("--landmark_encoder", str(tmp_path / "lm"))
    with pytest.raises(error, match=message):
        run_recipe(read_recipe(arguments(tmp_path / "out", image_model, videos, *more), default=DEFAULT))


def test_missing_start_and_data_are_named(image_model, videos, tmp_path):
    start = ["--model_name_or_path", str(image_model)]
    given = arguments(tmp_path, image_model, videos)
    at = given.index(start[0])
    with pytest.raises(ValueError, match="`model_name_or_path` is missing"):
        run_recipe(read_recipe(given[:at] + given[at + 2 :], default=DEFAULT))
    recipe = read_recipe(given, default=DEFAULT)
    recipe.stages[0].data.train_data = None
    with pytest.raises(ValueError, match="`train_data` is missing: the dynamic stage needs videos"):
        run_recipe(recipe)
    with pytest.raises(FileNotFoundError, match=r"a/b/c is no folder of class folders"):
        load_samples("a/b/c", "train", "video", recipe.stages[0].data, None)


def test_all_parameters_train_without_freeze_backbone(image_model, videos, tmp_path):
    (result,) = run_recipe(
        read_recipe(
            arguments(tmp_path, image_model, videos, "--freeze_backbone", "false", "--max_steps", "1"), default=DEFAULT
        )
    )
    assert result.metrics["parameters"]["tunable"] == result.metrics["parameters"]["total"]
    assert S2DForVideoClassification.from_pretrained(tmp_path).config.num_frames == 4


def test_cached_clips_train_the_same_model(image_model, videos, tmp_path):
    """Without augmentation everything is cached; with it, the test clips are."""
    still = ("--sampling", "even", "--rand_augment_ops", "0", "--crop_scale", "1", "1", "--flip_probability", "0")
    cache = ("--cache_dir", str(tmp_path / "cache"))
    results = []
    for name, more in (("plain", still), ("cached", (*still, *cache)), ("reused", (*still, *cache))):
        (result,) = run_recipe(
            read_recipe(arguments(tmp_path / name, image_model, videos, "--max_steps", "4", *more), default=DEFAULT)
        )
        results.append((load_file(result.folder / "model.safetensors"), result.metrics["test"]))
        assert len(list((tmp_path / "cache").glob("*"))) == (0 if name == "plain" else 2)
    for weights, test in results[1:]:
        assert test == results[0][1]
        for name, tensor in results[0][0].items():
            torch.testing.assert_close(weights[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
    other = ("--cache_dir", str(tmp_path / "other"), "--max_steps", "1")
    run_recipe(read_recipe(arguments(tmp_path / "augmented", image_model, videos, *other), default=DEFAULT))
    assert len(list((tmp_path / "other").glob("*"))) == 1
