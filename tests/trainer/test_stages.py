"""One small training of both stages, through the command that users type, and what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from synthetic.clips import SYNTHETIC_LABELS
from synthetic.recipe import draw_data
from transformers import pipeline

from s2d_hf import S2DForImageClassification, S2DForVideoClassification, S2DVideoProcessor
from s2d_hf.data import from_class_folders
from s2d_hf.metrics import classification_report
from s2d_hf.trainer.recipes import Recipe, read_recipe
from s2d_hf.trainer.stages import StageResult, _short_name, chance_scores, format_table, name_data, run_recipe

ROOT = Path(__file__).resolve().parents[2]


def draw_and_run(recipe: Recipe) -> list[StageResult]:
    """As training/train.py does."""
    draw_data(recipe)
    return run_recipe(recipe)


SMALL = [
    "--synthetic_data",
    json.dumps({
        "train_identities": 3, "test_identities": 2, "clips_per_identity_and_class": 1, "stills_per_clip": 1,
        "image_size": 64, "num_frames": 8,
    }),
    "--new_landmark_encoder", '{"width": 0.125, "input_size": 32}', "--num_train_epochs", "2", "--use_cpu",
    "--per_device_train_batch_size", "8", "--seed", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a training, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "accelerate.commands.launch", str(ROOT / "training" / "train.py")]
    done = subprocess.run(
        [*command, "--output_dir", str(folder), *SMALL],
        capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_each_stage_leaves_a_model_that_pipeline_loads(run):
    folder, _ = run
    still = next((folder / "data" / "stills" / "test" / "happy").iterdir())
    scores = pipeline("image-classification", model=str(folder / "static"), top_k=7)(str(still))
    assert {score["label"] for score in scores} == set(SYNTHETIC_LABELS)
    video = next((folder / "data" / "test" / "happy").iterdir())
    scores = pipeline("video-classification", model=str(folder / "dynamic"))(str(video), top_k=7)
    assert {score["label"] for score in scores} == set(SYNTHETIC_LABELS)
    assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-4)


def test_metrics_are_those_of_the_saved_model(run):
    """The test set once more, file by file, through processor and model as a user would."""
    folder, _ = run
    metrics = json.loads((folder / "dynamic" / "metrics.json").read_text())
    samples = from_class_folders(folder / "data" / "test", labels=SYNTHETIC_LABELS)
    for name, source in (("test", "dynamic"), ("image_model_averaged", "static")):
        model = S2DForVideoClassification.from_pretrained(folder / source).eval()
        processor = S2DVideoProcessor.from_pretrained(folder / source)
        logits = []
        for sample in samples:
            with torch.no_grad():
                logits.append(model(**processor(str(sample.path), num_frames=8, return_tensors="pt")).logits[0])
        report = classification_report(torch.stack(logits), [sample.label for sample in samples], SYNTHETIC_LABELS)
        assert metrics[name]["confusion_matrix"] == report.confusion_matrix.tolist(), name
        assert metrics[name]["uar"] == pytest.approx(report.uar)
    assert metrics["chance"] == pytest.approx({"uar": 1 / 7, "war": 1 / 7})
    assert metrics["samples"] == {"train": 21, "test": 14}


def test_what_is_frozen_is_bit_identical_after_the_dynamic_stage(run):
    folder, _ = run
    before, after = (load_file(folder / stage / "model.safetensors") for stage in ("static", "dynamic"))
    tuned = ("prompt", "landmark_embeddings", "temporal", "s2d.layernorm", "classifier")
    frozen = [name for name in before if not any(part in name for part in tuned)]
    assert len(frozen) == 3 + 1 + 3 * 12  # patch embedding, class token, positions; 3 blocks of 12 tensors
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    assert all(not torch.equal(before[name], after[name]) for name in ("classifier.weight", "s2d.layernorm.weight"))
    adapters = [name for name in after if name.endswith("spatial_up.weight")]
    assert len(adapters) == 3 and all(after[name].abs().max() > 0 for name in adapters)  # they started at zero


def test_what_is_printed(run):
    folder, printed = run
    for stage in ("static", "dynamic"):
        model = (S2DForImageClassification if stage == "static" else S2DForVideoClassification).from_pretrained(
            folder / stage
        )
        total = model.num_parameters()
        if stage == "dynamic":
            model.freeze_for_video_tuning()
        tunable = model.num_parameters(only_trainable=True)
        assert f"Trains {tunable:,} of {total:,} parameters ({100 * tunable / total:.1f} %)." in printed
    metrics = json.loads((folder / "dynamic" / "metrics.json").read_text())
    rows = [line.split() for line in printed.splitlines()]
    for name, key in (("video model", "test"), ("image model, averaged over frames", "image_model_averaged")):
        assert [*name.split(), f"{100 * metrics[key]['uar']:.1f}", f"{100 * metrics[key]['war']:.1f}"] in rows
    assert "says nothing about real faces" in printed


def test_card_and_picture(run):
    folder, _ = run
    metrics = json.loads((folder / "dynamic" / "metrics.json").read_text())
    card = (folder / "dynamic" / "README.md").read_text()
    assert "pipeline_tag: video-classification" in card and "drawn, no real faces" in card
    assert f"| this model | {100 * metrics['test']['uar']:.2f} |" in card
    assert str(folder) not in card  # nothing of this machine
    with Image.open(folder / "dynamic" / "confusion_matrix.png") as picture:
        assert min(picture.size) > 400


def test_a_finished_run_is_not_trained_again_when_resumed(run, tmp_path, capsys):
    folder, _ = run
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (again / "dynamic" / "metrics.json").unlink()
    before = (again / "static" / "model.safetensors").stat().st_mtime_ns
    arguments = ["--output_dir", str(again), *SMALL, "--resume_from_checkpoint", "true", "--disable_tqdm", "true"]
    draw_and_run(read_recipe(arguments, default=ROOT / "training" / "recipes" / "synthetic.yaml"))
    printed = capsys.readouterr().out
    assert "The landmark encoder is trained" in printed and "The static stage is finished" in printed
    assert (again / "static" / "model.safetensors").stat().st_mtime_ns == before
    # the dynamic stage, from the same image model and seed, comes out the same
    first, second = (load_file(place / "dynamic" / "model.safetensors") for place in (folder, again))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("broken", ["landmarks", "static"])
def test_a_stage_that_breaks_off_does_not_look_finished(broken, run, tmp_path, monkeypatch):
    folder, _ = run
    again = tmp_path / "again"
    shutil.copytree(folder, again)

    def fail(*args, **kwargs):
        raise RuntimeError("power cut")

    name = "train_landmark_encoder" if broken == "landmarks" else "S2DTrainer.train"
    monkeypatch.setattr(f"s2d_hf.trainer.stages.{name}", fail)
    arguments = ["--output_dir", str(again), *SMALL, "--max_steps", "1", "--disable_tqdm", "true"]
    with pytest.raises(RuntimeError, match="power cut"):
        draw_and_run(read_recipe(arguments, default=ROOT / "training" / "recipes" / "synthetic.yaml"))
    assert not (again / broken / "metrics.json").exists()


def test_a_run_that_does_not_begin_leaves_what_there_was(run, tmp_path):
    """A misspelt path, and an evaluation into the model's own folder."""
    folder, _ = run
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    metrics = {name: (again / name / "metrics.json").read_bytes() for name in ("static", "dynamic")}
    options = ["--output_dir", str(again), *SMALL[4:], "--stage", "static", "--train_data", "./nowhere"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        draw_and_run(read_recipe([*options, "--output_dir", str(again / "static")], default=""))
    model = str(again / "dynamic")
    options = ["--stage", "dynamic", "--evaluate_only", "true", "--model_name_or_path", model, "--output_dir", model]
    with pytest.raises(ValueError, match="`output_dir` is the model's own folder"):
        draw_and_run(read_recipe([*options, "--test_data", str(again / "data" / "test"), "--use_cpu"], default=""))
    assert metrics == {name: (again / name / "metrics.json").read_bytes() for name in ("static", "dynamic")}


@pytest.mark.slow
def test_another_run_does_not_go_on_from_old_checkpoints(run, tmp_path, capsys):
    folder, _ = run
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    recipe = ROOT / "training" / "recipes" / "synthetic.yaml"
    options = ["--stage", "static", "--output_dir", str(again / "new"), *SMALL[4:], "--save_strategy", "steps"]
    options += ["--landmark_encoder", str(again / "landmarks"), "--train_data", str(again / "data/stills/train")]
    options += ["--save_steps", "2", "--max_steps", "2", "--disable_tqdm", "true"]
    draw_and_run(read_recipe(options, default=recipe))
    with pytest.raises(ValueError, match=r"has checkpoints of an earlier run \(checkpoint-2\): go on from them with"):
        draw_and_run(read_recipe([*options, "--learning_rate", "1e-3"], default=recipe))
    (again / "new" / "metrics.json").unlink()
    capsys.readouterr()
    more = ["--learning_rate", "1e-3", "--max_steps", "4", "--resume_from_checkpoint", "true"]
    draw_and_run(read_recipe([*options, *more], default=recipe))
    printed = capsys.readouterr().out
    assert (
        "was written with another `learning_rate`: " in printed
        and ", and now 0.001. Optimizer and schedule" in printed
    )
    assert "another `max_steps`: 2, and now 4" in printed and printed.count("was written with another") == 2


def test_mistakes_in_a_later_stages_data_are_told_first(run, tmp_path):
    folder, _ = run
    options = ["--output_dir", str(tmp_path), *SMALL[4:], "--landmark_encoder", str(folder / "landmarks")]
    options += ["--static.train_data", str(folder / "data/stills/train"), "--dynamic.train_data", "./nowhere"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        draw_and_run(read_recipe([*options, "--stage", "both"], default=""))
    assert not (tmp_path / "static").exists()


def test_stages_after_one_that_is_trained_anew_are_trained_anew(run, tmp_path):
    folder, _ = run
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (again / "static" / "metrics.json").write_bytes(b"")  # as a machine that lost power leaves it
    before = (again / "dynamic" / "model.safetensors").stat().st_mtime_ns
    arguments = ["--output_dir", str(again), *SMALL, "--resume_from_checkpoint", "true", "--max_steps", "1"]
    draw_and_run(read_recipe(arguments, default=ROOT / "training" / "recipes" / "synthetic.yaml"))
    assert (again / "dynamic" / "model.safetensors").stat().st_mtime_ns > before


def test_synthetic_data_are_drawn_by_the_script(tmp_path):
    recipe = read_recipe(
        ["--output_dir", str(tmp_path), *SMALL], default=str(ROOT / "training/recipes/synthetic.yaml")
    )
    with pytest.raises(ValueError, match=r"`synthetic_data` are drawn by training/train\.py"):
        run_recipe(recipe)


def test_other_synthetic_data_are_not_taken_for_these(run):
    folder, _ = run
    arguments = ["--output_dir", str(folder), *SMALL, "--seed", "2"]
    with pytest.raises(ValueError, match=r"data holds synthetic data of other arguments"):
        draw_and_run(read_recipe(arguments, default=ROOT / "training" / "recipes" / "synthetic.yaml"))


def test_chance_and_table():
    report = classification_report([[1, 0, 0]] * 4, [0, 0, 0, 1], ["a", "b", "c"])
    assert chance_scores(report) == {"uar": 0.5, "war": 0.75}  # "c" doesn't occur
    assert format_table([("chance", 0.5, 0.75), ("a model", 1.0, 0.123)]).splitlines() == [
        "         UAR %  WAR %",
        "chance    50.0   75.0",
        "a model  100.0   12.3",
    ]


def test_two_processes_run_all_stages(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    script = [str(ROOT / "training" / "train.py"), "--output_dir", str(tmp_path), *SMALL, "--num_train_epochs", "1"]
    done = subprocess.run([*command, *script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "video model" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("Stage dynamic:") == 1  # one process speaks
    metrics = json.loads((tmp_path / "dynamic" / "metrics.json").read_text())
    assert metrics["provenance"]["processes"] == 2
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 14  # each video once
    assert S2DForVideoClassification.from_pretrained(tmp_path / "dynamic").config.num_labels == 7


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("faces/train", "faces"), ("faces/test.csv", "faces"), ("mine.csv", "mine"), ("faces/mine.jsonl", "mine"),
        ("./faces", "faces"), ("faces/Train/", "faces"), ("train.csv", "WHERE IT LIES"), ("me/faces", "me/faces"),
        ("faces", "faces"),
    ],
)  # fmt: skip
def test_data_are_called_by_their_name_and_not_by_their_path(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source != "me/faces":  # which is on the Hub
        path = tmp_path / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir()
    assert name_data(source) == name.replace("WHERE IT LIES", tmp_path.name)
    if source != "me/faces":
        assert name_data(str(tmp_path / source)) == name.replace("WHERE IT LIES", tmp_path.name)


def test_models_are_called_without_what_is_above_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane")
    for source, name in {
        "someone/model": "someone/model", "/home/jane/model.pth": "model.pth", "~/runs/model": "runs/model",
        "/home/jane/work/runs/model": "runs/model", "/model": "model", "/data/runs/model/": "runs/model",
    }.items():  # fmt: skip
        assert _short_name(source) == name
