"""
Trains S2D models: an image model (static), a video model from it (dynamic), or both, as a recipe says.

    accelerate launch training/train.py [RECIPE.yaml] [--FIELD VALUE ...]

Without arguments it draws a data set of talking faces and trains on that; --help lists the fields.
Errors are one line; --debug prints their traceback before it.
"""

import sys
from pathlib import Path

from synthetic.recipe import draw_data

from s2d_hf.trainer.recipes import read_recipe
from s2d_hf.trainer.script_errors import ends_in_one_line, take_debug
from s2d_hf.trainer.stages import run_recipe

DEFAULT_RECIPE = Path(__file__).resolve().parent / "recipes" / "synthetic.yaml"


def main() -> None:
    """Runs the training."""
    arguments, debug = take_debug(sys.argv[1:])
    with ends_in_one_line("train.py", debug=debug):
        recipe = read_recipe(arguments, default=DEFAULT_RECIPE)
        draw_data(recipe)
        run_recipe(recipe)


if __name__ == "__main__":
    main()
