"""The data that a recipe asks for with `synthetic_data`."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState

from s2d_hf.trainer.recipes import Recipe

from .clips import SYNTHETIC_LABELS
from .dataset import write_synthetic_dataset

_ARGUMENTS_NAME = "arguments.json"
_DATA_NAME = "synthetic talking faces (drawn, no real faces)"


def draw_data(recipe: Recipe) -> None:
    """
    Draws the data set of a recipe's `synthetic_data` unless it is there, and makes it the data of all stages that name
    none. Recipes without `synthetic_data` stay as they are.

    Raises:
        FileExistsError: if something else lies where it would be written.
        ValueError: if it lies there with other arguments, or an argument is wrong.
    """
    if recipe.run.synthetic_data is None:
        return
    for data in (stage.data for stage in recipe.stages):
        if data.train_data is None and data.test_data is not None:
            raise ValueError("`synthetic_data` draws `train_data` and `test_data`: name both of these, or neither.")
    arguments = dict(recipe.run.synthetic_data or {})
    arguments.setdefault("seed", recipe.stages[-1].training.seed)
    root = Path(arguments.pop("root", recipe.output_dir / "data"))
    state = PartialState()
    if state.is_main_process:
        _write(root, arguments, progress=not recipe.stages[-1].training.disable_tqdm)
    state.wait_for_everyone()
    for stage in recipe.stages:
        base = root if stage.name == "dynamic" else root / "stills"
        if stage.data.train_data is None:
            stage.data.train_data, stage.data.test_data = str(base / "train"), str(base / "test")
            stage.data.labels, stage.data.data_name = list(SYNTHETIC_LABELS), _DATA_NAME
            stage.data.check_data = False  # it was written just now


def _write(root: Path, arguments: dict[str, Any], progress: bool) -> None:
    record = root / _ARGUMENTS_NAME
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) == arguments:
            PartialState().print(f"The data in {root} are those of the recipe.")
            return
        raise ValueError(f"{root} holds synthetic data of other arguments: remove it, or take another `output_dir`.")
    if root.exists():
        raise FileExistsError(f"{root} exists and is no synthetic data set: remove it, or take another `output_dir`.")
    # a name of its own until it is whole
    partial = root.with_name(root.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    try:
        write_synthetic_dataset(partial, progress=progress, **arguments)
    except TypeError as error:
        raise ValueError(f"`synthetic_data`: {error}") from error
    (partial / record.name).write_text(json.dumps(arguments, indent=2) + "\n", encoding="utf-8")
    partial.rename(root)


__all__ = ["draw_data"]
