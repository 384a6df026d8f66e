from pathlib import Path

import pytest

from s2d_hf.trainer.recipes import read_recipe

from .frames_dataset import make_trainer

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


def test_the_old_name_of_a_field_works_and_warns(tmp_path):
    (tmp_path / "dfew.yaml").write_text("stage: dynamic\nbenchmark: DFEW\ndata_root: .\nuse_cpu: true\n")
    for options in ([str(tmp_path / "dfew.yaml")], ["--benchmark", "MAFW"], ["--dynamic.benchmark=MAFW"]):
        argv = [*options, *([] if options[0][0] != "-" else ["--stage", "dynamic", "--data_root", ".", "--use_cpu"])]
        with pytest.warns(FutureWarning, match="`benchmark` is `paper_dataset` now"):
            recipe = read_recipe(argv, default="")
        assert recipe.stages[0].data.paper_dataset == ("DFEW" if options[0][0] != "-" else "MAFW")


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
        ("augmentation_fill: [128, 128]", [], "mine.yaml.*`augmentation_fill` must be red, green and blue"),
        ("augmentation_fill: [0, 0, 256]", [], r"`augmentation_fill` must be .*\[0, 0, 256\]"),
        ("augmentation_order: flip_first", [], "mine.yaml.*--augmentation_order.*'flip_first'"),
        ("augmentation_interpolation: nearest", [], "--augmentation_interpolation.*'nearest'"),
        ("anchor_update: later", [], "--anchor_update.*'later'"),
        ("keep_in_memory: true", [], "sampling: even"),
        ("new_landmark_encoder: {width: 0.5}", [], "needs `synthetic_data`"),
        ("config_overrides: 3", [], "`config_overrides` must be a mapping"),
        ("seed: 1", ["--config_overrides", "{a"], "`config_overrides` must be JSON"),
        ("learning_rate: fast", [], "learning_rate.*'fast'"),
        ("weight_decay: .nan", [], "`weight_decay` must be a finite number"),
        ("seed: 1", ["--crop_scale", "0.1", "inf"], "`crop_scale` must be a finite number"),
        ("seed: 1", ["--resume_from_checkpoint", ""], "`resume_from_checkpoint` is empty"),
    ],
)
def test_mistakes_are_named(text, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_recipe([write_recipe(tmp_path, text), "--use_cpu", *arguments], default=DEFAULT)


def test_pictures_may_be_kept_in_memory(tmp_path):
    """The frames of a video, only where they are the same each time."""
    recipe = write_recipe(tmp_path, "keep_in_memory: true\nstage: static")
    assert read_recipe([recipe, "--use_cpu"], default=DEFAULT).stages[0].data.keep_in_memory
    with pytest.raises(ValueError, match="sampling: even"):
        read_recipe([recipe, "--use_cpu", "--stage", "dynamic"], default=DEFAULT)


def test_missing_recipe_is_named():
    with pytest.raises(FileNotFoundError, match=r"no recipe nowhere\.yaml"):
        read_recipe(["nowhere.yaml"], default=DEFAULT)


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_that_come_along_are_valid(path):
    assert read_recipe([str(path), "--use_cpu", "--data_root", "somewhere"], default=DEFAULT).stages


VIDEO_RECIPES = ["dfew", "ferv39k", "mafw"]


def video_recipe(name: str, *options: str):
    path = ROOT / "training" / "recipes" / f"{name}.yaml"
    return read_recipe([str(path), "--use_cpu", "--fp16", "false", "--data_root", "somewhere", *options], default="")


@pytest.mark.parametrize("name", VIDEO_RECIPES)
def test_video_recipes_augment_as_the_authors_do(name):
    (stage,) = video_recipe(name).stages
    data, training = stage.data, stage.training
    assert data.augmentation_order == "rand_augment_first" and data.augmentation_interpolation == "bicubic"
    assert data.augmentation_fill == [128, 128, 128] and training.dataloader_drop_last
    assert (data.rand_augment_ops, data.rand_augment_magnitude, data.rand_augment_std) == (4, 7.0, 0.5)
    assert training.anchor_distillation == (name == "ferv39k")
    assert (training.anchor_start, training.anchor_update) == ("empty", "before")


@pytest.mark.parametrize("name", VIDEO_RECIPES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_learning_rate_of_the_video_recipes(name, accumulation, tmp_path):
    """1e-5 for a batch of 8 after the warm-up, 1e-8 for a batch of 256 at the end, both scaled with the batch."""
    (stage,) = video_recipe(name, "--gradient_accumulation_steps", str(accumulation)).stages
    names = (
        "learning_rate", "learning_rate_batch", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
        "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay",
    )  # fmt: skip
    trainer = make_trainer(tmp_path, **{field: getattr(stage.training, field) for field in names})
    trainer.create_optimizer_and_scheduler(num_training_steps=200)
    rates = [trainer.lr_scheduler.get_last_lr()]
    for _ in range(200):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        rates.append(trainer.lr_scheduler.get_last_lr())
    assert all(len(set(groups)) == 1 for groups in rates)
    rates = [groups[0] for groups in rates]
    batch = 8 * accumulation
    assert max(rates) == rates[4] == pytest.approx(1e-5 * batch / 8)  # two epochs of 100
    assert min(rates[4:]) == rates[-1] == pytest.approx(1e-8 * batch / 256, rel=1e-6)
