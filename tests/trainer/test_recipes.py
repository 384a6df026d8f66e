from pathlib import Path

import pytest

from s2d_hf.trainer.recipes import read_recipe

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "training" / "recipes" / "synthetic.yaml"


def write_recipe(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_command_line_overrules_section_overrules_recipe(tmp_path):
    recipe = write_recipe(
        tmp_path,
        "stage: both\noutput_dir: out\nlearning_rate: 1e-3\nseed: 4\nlabels: [a, b]\nnum_train_epochs: 7\n"
        "weight_decay: null\nstatic:\n  learning_rate: 2e-3\n  config_overrides: {hidden_size: 64}\n"
        "dynamic:\n  num_train_epochs: 2\n  anchor_distillation: true\n  crop_scale: [0.5, 1]\n",
    )
    read = read_recipe(
        [recipe, "--seed", "5", "--use_cpu", "--dynamic.num-train-epochs=3", "--static.crop_scale", "0.2", "0.3"],
        default=DEFAULT,
    )
    static, dynamic = read.stages
    assert (read.name, read.output_dir, read.run.stage) == ("mine", Path("out"), "both")
    assert (static.name, static.training.output_dir) == ("static", str(Path("out/static")))
    assert (dynamic.name, dynamic.training.output_dir) == ("dynamic", str(Path("out/dynamic")))
    assert (static.training.learning_rate, dynamic.training.learning_rate) == (2e-3, 1e-3)
    assert (static.training.num_train_epochs, dynamic.training.num_train_epochs) == (7, 3)
    assert static.training.seed == dynamic.training.seed == 5 and static.training.use_cpu
    assert (static.data.crop_scale, dynamic.data.crop_scale) == ([0.2, 0.3], [0.5, 1.0])
    assert static.data.labels == dynamic.data.labels == ["a", "b"]
    assert static.model.config_overrides == {"hidden_size": 64} and dynamic.model.config_overrides is None
    assert dynamic.training.anchor_distillation and not static.training.anchor_distillation
    assert static.training.weight_decay == 0.0  # null is transformers' own default


def test_a_single_stage_writes_right_into_its_folder():
    recipe = read_recipe(
        ["--stage", "dynamic", "--train_data", "videos", "--output_dir", "out", "--use_cpu"], default=DEFAULT
    )
    assert recipe.name == "training" and recipe.run.synthetic_data is None
    (stage,) = recipe.stages
    assert (stage.name, stage.training.output_dir, stage.data.train_data) == ("dynamic", "out", "videos")


def test_without_recipe_and_data_there_are_synthetic_faces():
    recipe = read_recipe(["--use_cpu", "--seed", "3"], default=DEFAULT)
    assert recipe.run.synthetic_data["image_size"] == 64
    assert [stage.name for stage in recipe.stages] == ["landmarks", "static", "dynamic"]
    assert all(stage.training.seed == 3 for stage in recipe.stages)


def test_each_pushed_stage_has_a_repository_of_its_own():
    arguments = ["--use_cpu", "--train_data", "x", "--push_to_hub", "--output_dir", "runs/faces"]
    names = [s.training.hub_model_id for s in read_recipe(arguments, default=DEFAULT).stages]
    assert names == ["faces-static", "faces-dynamic"]
    arguments += ["--hub_model_id", "me/s2d"]
    names = [s.training.hub_model_id for s in read_recipe(arguments, default=DEFAULT).stages]
    assert names == ["me/s2d-static", "me/s2d-dynamic"]


def test_config_overrides_are_json_on_the_command_line():
    arguments = ["--use_cpu", "--train_data", "x", "--config_overrides", '{"prompt_type": "none", "num_frames": 8}']
    recipe = read_recipe(arguments, default=DEFAULT)
    assert recipe.stages[0].model.config_overrides == {"prompt_type": "none", "num_frames": 8}


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("lerning_rate: 1", [], "mine.yaml.*no field `lerning_rate`; did you mean `learning_rate`"),
        ("static: {lerning_rate: 1}", [], "mine.yaml.*no field `lerning_rate`"),
        ("seed: 1", ["--sed", "2"], "no option --sed; did you mean --seed"),
        ("stage: first", [], "mine.yaml.*--stage.*'first'"),
        ("static: {stage: both}", [], "`stage` concerns the whole run"),
        ("statc: {seed: 1}", [], "no field `statc`; did you mean `static`"),
        ("help: true", [], "no field `help`"),
        ("static: {1: 2}", [], "section `static` must hold fields"),
        ("static: 3", [], "section `static`"),
        ("- 1", [], "mine.yaml must hold fields"),
        ("seed: 1\na: [", [], "mine.yaml is no YAML file, line 2"),
        ("seed: 1\nseed: 2", [], "mine.yaml.*line 2: `seed` stands there twice"),
        ("static: {seed: 1, seed: 1}", [], "mine.yaml.*`seed` stands there twice"),
        ("stage: &a static\nseed: *a", [], r"mine.yaml.*line 2: the alias \*a is not allowed"),
        ("crop_scale: [0.5]", [], "`crop_scale` must be two numbers"),
        ("keep_in_memory: true", [], "sampling: even"),
        ("new_landmark_encoder: {width: 0.5}", [], "needs `synthetic_data`"),
        ("config_overrides: 3", [], "`config_overrides` must be a mapping"),
        ("seed: 1", ["--config_overrides", "{a"], "`config_overrides` must be JSON"),
        ("learning_rate: fast", [], "learning_rate.*'fast'"),
    ],
)
def test_mistakes_are_named(text, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_recipe([write_recipe(tmp_path, text), "--use_cpu", *arguments], default=DEFAULT)


def test_missing_recipe_is_named():
    with pytest.raises(FileNotFoundError, match=r"no recipe nowhere\.yaml"):
        read_recipe(["nowhere.yaml"], default=DEFAULT)


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_that_come_along_are_valid(path):
    assert read_recipe([str(path), "--use_cpu", "--data_root", "somewhere"], default=DEFAULT).stages
