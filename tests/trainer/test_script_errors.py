"""The scripts in `training/` end in one line where it is the user who can mend it, and `--help` stays readable."""

import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
import torch

from s2d_hf.trainer import S2DTrainingArguments, script_errors
from s2d_hf.trainer.recipes import DataArguments, ModelArguments, RunArguments
from s2d_hf.trainer.script_errors import ends_in_one_line, take_debug
from tests.data.paper_layouts import miniatures
from tests.videos import counting_frames, write_video

from .small_image_model import write_image_model

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "training" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a model, videos of two classes, and things that are broken in several ways."""
    folder = tmp_path_factory.mktemp("workplace")
    write_image_model(folder / "model")
    for part in ("train", "test"):
        for label in ("dark", "light"):
            (folder / "videos" / part / label).mkdir(parents=True)
            write_video(folder / "videos" / part / label / "0.mp4", counting_frames(6))
    for name, broken in (("cut", "model.safetensors"), ("no-json", "config.json")):
        shutil.copytree(folder / "model", folder / name)
        (folder / name / broken).write_text("{" * 100)
    shutil.copytree(folder / "model", folder / "no-landmarks")
    (folder / "no-landmarks" / "landmark_encoder.safetensors").unlink()
    (folder / "empty").mkdir()
    (folder / "no-videos" / "dark").mkdir(parents=True)
    (folder / "file").write_text("text")
    (folder / "garbage.pth").write_bytes(b"garbage")
    video = "videos/train/dark/0.mp4"
    (folder / "two-labels.csv").write_text(f"path,label\n{video},dark\n{video},light\n")
    (folder / "other-label.csv").write_text(f"path,label\n{video},angry\n")
    (folder / "no-label.csv").write_text(f"path,emotion\n{video},angry\n")
    (folder / "missing.csv").write_text(f"path,label\n{video},dark\nnowhere.mp4,light\n")
    (folder / "broken.jsonl").write_text("{a\n")
    miniatures.write_dfew(folder / "DFEW", folds=("1",))
    return folder


def train(*more: str, without: str = "") -> list[str]:
    """A command line of a small training; `more` has the last word."""
    given = {
        "--stage": "dynamic", "--output_dir": "out", "--model_name_or_path": "model", "--train_data": "videos/train",
        "--test_data": "videos/test", "--config_overrides": '{"num_frames": 4, "adapter_num_heads": 2}',
        "--max_steps": "1", "--report_to": "none", "--disable_tqdm": "true", "--save_strategy": "no",
    }  # fmt: skip
    given.pop(without, None)
    return ["--use_cpu", *(item for pair in given.items() for item in pair), *more]


def last_words(name: str, argv: list[str], workplace: Path, monkeypatch) -> str:
    """What the script says at its end, after its name."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        load_script(name).main()
    start = f"{name}.py: error: "
    assert isinstance(stopped.value.code, str) and stopped.value.code.startswith(start)
    return stopped.value.code.removeprefix(start)


OVERRIDES = "--config_overrides"
MISTAKES = {
    # where data lie, and what they are
    "folder misspelt": (train("--train_data", "videos/trian"), r"videos/trian is no folder of class folders"),
    "deep folder misspelt": (train("--train_data", "a/b/c"), r"a/b/c is no folder of class folders"),
    "folder at home": (train("--train_data", "~/nothing-there"), r"~/nothing-there is no folder"),
    "no folder and no data set": (train("--test_data", "vidoes"), r"There is no folder vidoes, and no dataset"),
    "no table": (train("--train_data", "nowhere.csv"), r"There is no table nowhere\.csv"),
    "text file": (train("--train_data", "file"), r"file is no folder of class folders and no \.csv or \.jsonl file"),
    "two labels": (train("--train_data", "two-labels.csv"), r"two-labels\.csv, line 3: .* is labelled light"),
    "no label column": (train("--train_data", "no-label.csv"), r"no-label\.csv .*path and label"),
    "broken JSON": (train("--train_data", "broken.jsonl"), r"broken\.jsonl, line 1: not valid JSON"),
    "file of a table missing": (train("--train_data", "missing.csv"), r"1 of 2 videos can't be read:\nnowhere\.mp4"),
    "test label unknown": (train("--test_data", "other-label.csv"), r"line 2: the label 'angry' is not among dark, l"),
    "labels of others": (train("--labels", "happy", "sad"), r"videos/train holds folders .* not among `labels`"),
    "labels twice": (train("--labels", "dark", "dark"), r"`labels` holds dark more than once"),
    "no class folders": (train("--train_data", "empty"), r"empty holds no folders named by class"),
    "no videos": (train("--train_data", "no-videos"), r"no-videos/dark holds no videos"),
    "no training data": (train(without="--train_data"), r"`train_data` is missing"),
    "test data alone": (["--use_cpu", "--stage", "static", "--test_data", "videos/test"], r"`train_data` is missing"),
    "drawn and own data": (
        ["--use_cpu", "--synthetic_data", "{}", "--test_data", "videos/test", "--output_dir", "b"],
        r"`synthetic_data` draws `train_data` and `test_data`: name both",
    ),
    # models
    "model misspelt": (train("--model_name_or_path", "./modle"), r"no model folder and no checkpoint ./modle"),
    "model not on the Hub": (train("--model_name_or_path", "me/model"), r"There is no model folder me/model.*OFFLINE"),
    "empty model folder": (train("--model_name_or_path", "empty"), r"The folder empty holds no model"),
    "no checkpoint": (train("--model_name_or_path", "garbage.pth"), r"garbage\.pth is not a readable"),
    "cut weights": (train("--model_name_or_path", "cut"), r"The weights of cut can't be read"),
    "config no JSON": (train("--model_name_or_path", "no-json"), r"no-json/config\.json"),
    "landmark weights missing": (train("--model_name_or_path", "no-landmarks"), r"no-landmarks holds no landmark_enc"),
    "no model": (train(without="--model_name_or_path"), r"`model_name_or_path` is missing"),
    "landmark encoder misspelt": (train("--landmark_encoder", "modle"), r"`landmark_encoder`: .* no folder modle"),
    "encoder not on the Hub": (train("--landmark_encoder", "me/model"), r"no folder me/model, and the Hub is out of"),
    "landmark file misspelt": (train("--landmark_encoder", "/a/b.pth"), r"`landmark_encoder`: .* no folder /a/b\.pth"),
    "folder of no encoder": (train("--landmark_encoder", "empty"), r"The folder empty holds no landmark encoder"),
    "landmark file no checkpoint": (train("--landmark_encoder", "garbage.pth"), r"garbage\.pth is not a readable"),
    "override misspelt": (train(OVERRIDES, '{"num_frame": 4}'), r"`config_overrides` has fields .* num_frame\."),
    "override no number": (train(OVERRIDES, '{"num_frames": "x"}'), r"'num_frames' expected int, got str"),
    "override impossible": (train(OVERRIDES, '{"adapter_num_heads": 5}'), r"multiple of `adapter_num_heads` \(5\)"),
    "override no JSON": (train(OVERRIDES, "{num_frames: 4}"), r"`config_overrides` must be JSON"),
    "attention unknown": (train("--attn_implementation", "flash"), r'`attn_implementation="flash"` is not supported'),
    "evaluated on other labels": (train("--evaluate_only"), r"model has the labels LABEL_0, LABEL_1"),
    "nothing to evaluate on": (train("--evaluate_only", without="--test_data"), r"`test_data` is missing"),
    # options
    "option misspelt": (train("--learning_rat", "1"), r"no option --learning_rat; did you mean --learning_rate\?"),
    "with hyphens": (train("--learning-rat=1"), r"no option --learning-rat; did you mean --learning-rate\?"),
    "of a stage": (train("--dynamic.sed", "1"), r"no option --dynamic\.sed; did you mean --dynamic\.seed\?"),
    "of a stage misspelt": (train("--dynamc.seed", "1"), r"no option --dynamc\.seed; did you mean --dynamic\.seed\?"),
    "one hyphen": (train("-seed", "1"), r"no option -seed; did you mean --seed\?"),
    "like nothing": (train("--qqqqqq", "1"), r"no option --qqqqqq; --help lists them"),
    "value too many": (train("--seed", "1", "2"), r"there is a value too many, '2'"),
    "recipe behind": (train("--max_steps", "1", "my.yaml"), r"'my\.yaml'; a recipe is the first argument"),
    "no number": (train("--seed", "one"), r"--seed: invalid int value: 'one'"),
    "no choice": (train("--sampling", "evn"), r"--sampling: invalid choice: 'evn'"),
    "out of range": (train("--crop_scale", "-1", "2"), r"`crop_scale` must be two ascending fractions"),
    "too many anchors": (
        train("--anchor_distillation", "--anchor_neighbours", "20"),
        r"`anchor_neighbours` must be 1 to `anchor_queue_size` \(16\), got 20",
    ),
    "nothing to validate on": (train("--eval_strategy", "epoch"), r"`eval_strategy` is on, .* no `validation_data`"),
    "best by nothing": (
        train("--validation_data", "videos/test", "--eval_strategy", "epoch", "--save_strategy", "epoch",
              "--load_best_model_at_end", "--metric_for_best_model", "uarr"),
        r"`metric_for_best_model` must be one of loss, uar, war, f1, recall_dark, recall_light, got 'uarr'",
    ),
    "schedule's argument": (train("--lr_scheduler_kwargs", '{"x": 1}'), r"has x, which the schedule linear doesn't"),
    "schedule's JSON": (train("--lr_scheduler_kwargs", "{min"), r"'{min' is no JSON"),
    "nowhere to resume": (train("--resume_from_checkpoint", "nowhere"), r"names nowhere, and there is no such folder"),
    "output is a file": (train("--output_dir", "file"), r"`output_dir` must be a folder, and file is a file"),
    "both stages evaluated": (train("--stage", "both", "--evaluate_only"), r"`evaluate_only` needs a `stage`"),
    # recipes
    "no recipe": (["nowhere.yaml"], r"There is no recipe nowhere\.yaml"),
    "recipe is a folder": (["videos"], r"There is no recipe videos"),
    "recipe is a video": (["videos/train/dark/0.mp4"], r"0\.mp4 is no YAML file"),
    # the paper's data sets
    "data set misspelt": (["--paper_dataset", "DFFW", "--data_root", "DFEW"], r"Unknown data set 'DFFW'"),
    "data set's folder": (["--paper_dataset", "DFEW"], r"`data_root` is missing"),
    "drawing's argument": (["--synthetic_data", '{"x": 1}', "--output_dir", "a"], r"`synthetic_data`: .*'x'"),
}  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_one_line(argv, message, workplace, monkeypatch):
    words = last_words("train", argv, workplace, monkeypatch)
    assert re.search(message, words), words
    # but for lists of files
    assert "\n" not in words or "can't be read" in words


FOLD_MISTAKES = {
    "dataset": (["DFFW", "--data_root", "DFEW"], r"Unknown data set 'DFFW'"),
    "data_root": (["DFEW", "--data_root", "DFWE"], r"--data_root: there is no folder DFWE"),
    "folds": (["DFEW", "--data_root", "DFEW", "--folds", "7"], r"--folds: DFEW has the folds 1, 2, 3, 4, 5, and no 7"),
    "fold": (["DFEW", "--data_root", "DFEW", "--fold", "2"], r"--fold can't be given here: say --folds"),
    "train_data": (["DFEW", "--data_root", "DFEW", "--train_data=x"], r"--train_data can't be given here"),
    "recipe": (["DFEW", "--data_root", "DFEW", "--recipe", "x.yaml"], r"--recipe: there is no file x\.yaml"),
    "counts": (
        ["DFEW", "--data_root", "DFEW", "--model_name_or_path", "model"],
        r"expected 9,356 samples, found 14.* pass --check_counts false",
    ),
    "evaluate_only": (
        ["DFEW", "--data_root", "DFEW", "--evaluate_only", "modle", "--check_counts", "false"], r"no checkpoint modle"
    ),
    "memory": (["DFEW", "--data_root", "DFEW", "--keep_in_memory"], r"--keep_in_memory .* needs --sampling even"),
    "option": (["DFEW", "--data_root", "DFEW", "--sed", "1"], r"no option --sed; did you mean --seed\?"),
    "encoder": (
        ["DFEW", "--data_root", "DFEW", "--landmark_encoder", "x", "--check_counts", "false", "--folds", "1",
         "--model_name_or_path", "model"],
        r"--landmark_encoder: there is no file and no folder x",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), FOLD_MISTAKES.values(), ids=FOLD_MISTAKES)
def test_folds_names_options_as_they_are_typed(argv, message, workplace, monkeypatch):
    argv = [*argv, "--use_cpu", "--bf16", "false", "--fp16", "false", "--disable_tqdm", "true"]
    words = last_words("folds", argv, workplace, monkeypatch)
    assert re.search(message, words), words
    assert not re.search(r"`\w+`", words)


def test_crafted_tables_and_recipes_are_refused(shared, workplace, monkeypatch):
    hostile = shared / "cases" / "hostile"
    if not hostile.is_dir():
        pytest.skip("needs the files in ../shared/cases/hostile")
    started = time.monotonic()
    words = last_words("train", [str(hostile / "bomb.yaml")], workplace, monkeypatch)
    assert re.search(r"bomb\.yaml is no YAML file, line 2: the alias \*a0 is not allowed", words)
    words = last_words("train", train("--train_data", str(hostile / "dupnorm.csv")), workplace, monkeypatch)
    assert re.search(r"dupnorm\.csv, line 8: .*c0\.mp4 is labelled sad, and .*happy in .*line 2", words)
    assert time.monotonic() - started < 20


def test_ablation_says_which_recipes_it_takes(workplace, monkeypatch):
    (workplace / "own.yaml").write_text("train_data: videos/train\nuse_cpu: true\n")
    assert last_words("ablation", ["nowhere.yaml"], workplace, monkeypatch) == "There is no recipe nowhere.yaml."
    words = last_words("ablation", ["own.yaml", "--output_dir", "ablation"], workplace, monkeypatch)
    assert words.startswith("own.yaml must have `synthetic_data`, `new_landmark_encoder` and `stage: both`")


def test_mistakes_in_code_end_in_one_line_too_and_their_traceback_is_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for error in (TypeError("of the\ncode"), KeyError("x"), RuntimeError("y" * 5000), AssertionError(), MemoryError()):
        with pytest.raises(SystemExit) as stopped, ends_in_one_line("train.py"):
            raise error
        words = stopped.value.code
        assert words.startswith(f"train.py: error: unexpected {type(error).__name__}") and "\n" not in words
        assert len(words) < 700
        (file,) = tmp_path.iterdir()
        assert words.endswith(f" (traceback: {file})")
        assert "in test_mistakes_in_code" in file.read_text() and str(error) in file.read_text()
        file.unlink()
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stopped, ends_in_one_line("train.py", debug=True):
        raise TypeError("x")
    assert stopped.value.code == "train.py: error: unexpected TypeError: x"
    assert "Traceback (most recent call last)" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "left", "is_debug"),
    [
        ("--debug", "", True),
        ("a.yaml --debug --seed 1", "a.yaml --seed 1", True),
        ("--seed 1 --debug", "--seed 1", True),
        ("--debug underflow_overflow", "--debug underflow_overflow", False),  # an option of transformers
        ("--seed 1", "--seed 1", False),
        ("", "", False),
    ],
)
def test_debug_is_told_from_the_option_of_transformers(typed, left, is_debug):
    assert take_debug(typed.split()) == (left.split(), is_debug)


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("train", ["nowhere.yaml", "--debug"]),
        ("folds", ["DFFW", "--data_root", "DFEW", "--debug"]),
        ("ablation", ["nowhere.yaml", "--debug"]),
        ("publish", ["nowhere", "me/model", "--debug"]),
    ],
)
def test_debug_shows_where(name, argv, workplace, monkeypatch, capsys):
    last_words(name, argv, workplace, monkeypatch)
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    last_words(name, argv[:-1], workplace, monkeypatch)
    assert "Traceback" not in capsys.readouterr().err


def test_other_processes_wait_for_the_first_one_to_speak(monkeypatch):
    waited = []
    monkeypatch.setattr(script_errors.time, "sleep", waited.append)
    for rank, words in (("0", "train.py: error: of data"), ("1", "train.py: error (process 5): of data")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("RANK", "5")
        with pytest.raises(SystemExit, match=re.escape(words)), ends_in_one_line("train.py"):
            raise ValueError("of data")
        assert len(waited) == int(rank)


@pytest.mark.parametrize("option", ["--train_data", "--landmark_encoder"])
def test_a_hub_that_is_out_of_reach_is_not_asked_again_and_again(option, warm_python, workplace):
    command = [ROOT / "training" / "train.py", *train(option, "me/faces")]
    # a port that nothing listens on
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = warm_python.run(*command, cwd=workplace, env=environment)
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
    assert "no folder me/faces" in run.stderr and "out of reach" in run.stderr


def test_exit_code_is_one_and_nothing_else_is_printed(warm_python, workplace):
    run = warm_python.run(ROOT / "training" / "train.py", "nowhere.yaml", cwd=workplace)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "train.py: error: There is no recipe nowhere.yaml.\n"


def test_help_is_for_readers(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        load_script("train").main()
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert len(shown.splitlines()) < 200
    # no reprs, and no option that says the opposite of what it does
    assert not re.search(r"<[A-Za-z]|\{|\bNone\b|MISSING|lambda|factory|--no[_-]|Strategy\.", shown), shown
    inherited = {field.name for field in fields(S2DTrainingArguments.__base__)}
    own, others = shown.split("transformers' TrainingArguments")
    for kind in (RunArguments, ModelArguments, DataArguments):
        assert all(re.search(rf"^  --{field.name}\b", own, flags=re.MULTILINE) for field in fields(kind))
    assert "--anchor_distillation [true|false]" in own and "Default: windows." in own
    assert {"output_dir", "learning_rate", "seed"} <= set(re.findall(r"\w+", others)) & inherited


def test_training_on_a_cpu_warns_of_nothing(workplace, tmp_path, monkeypatch):
    if torch.accelerator.is_available():
        pytest.skip("memory is pinned for an accelerator")
    monkeypatch.chdir(workplace)
    # without --use_cpu, which has its own way
    argv = [argument for argument in train("--output_dir", str(tmp_path)) if argument != "--use_cpu"]
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_script("train").main()
    assert (tmp_path / "metrics.json").is_file()
