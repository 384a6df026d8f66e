"""
Trains the synthetic recipe as it is and without its parts, over several seeds, and writes a table. Beside them stand
logistic regressions on landmark features and points: what the landmark encoder tells without a transformer.

    python training/ablation.py [RECIPE.yaml] [--seeds 0 1 2] [--output_dir outputs/ablation]

What was trained before in the same folder is not trained again. The numbers are of drawn faces: they say which parts
work together here, and nothing about real faces.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from synthetic.recipe import draw_data

from s2d_hf import S2DImageProcessor
from s2d_hf.trainer.recipes import Recipe, read_recipe
from s2d_hf.trainer.script_errors import ends_in_one_line
from s2d_hf.trainer.stages import StageResult, run_recipe

DEFAULT_RECIPE = Path(__file__).resolve().parent / "recipes" / "synthetic.yaml"
FULL = "full"
# what stands in the metrics of the full model's training, and the table's rows
COMPARED = {
    "chance": "chance",
    "landmark_points": "logistic regression on the 68 points of all frames",
    "landmark_features": "logistic regression on the landmark features of all frames",
    "image_model_averaged": "image model, averaged over frames",
}


def without_prompters(recipe: Recipe, full: Path) -> None:
    """Both stages without MCPs and landmarks."""
    for stage in recipe.stages:
        stage.model.config_overrides = {**(stage.model.config_overrides or {}), "prompt_type": "none"}


def with_zero_landmarks(recipe: Recipe, full: Path) -> None:
    """Both stages with an encoder whose features are zeros; the MCPs stay."""
    folder = recipe.output_dir / "zero-landmarks"
    processor = S2DImageProcessor.from_pretrained(full / "landmarks")
    with torch.no_grad():
        for parameter in processor.landmark_encoder.parameters():
            parameter.zero_()  # without weights and biases nothing comes through
        features = processor.landmark_encoder(torch.rand(1, 3, 64, 64)).features
    if features.any():
        raise RuntimeError("The landmark features of an encoder of zeros are not zero.")
    processor.save_pretrained(folder)
    recipe.stages[0].model.landmark_encoder = str(folder)


def without_temporal_adapters(recipe: Recipe, full: Path) -> None:
    """The dynamic stage, from the same image model, tunes the other modules and averages over the frames."""
    _keep_dynamic_stage(recipe, full)
    stage = recipe.stages[0]
    stage.model.config_overrides = {**(stage.model.config_overrides or {}), "temporal_adapters": False}


def without_anchors(recipe: Recipe, full: Path) -> None:
    """The dynamic stage, from the same image model, with the task loss alone."""
    _keep_dynamic_stage(recipe, full)
    recipe.stages[0].training.anchor_distillation = False


VARIANTS: dict[str, Callable[[Recipe, Path], None]] = {
    "no MCP (no landmarks)": without_prompters,
    "landmark features are zeros": with_zero_landmarks,
    "no TMA": without_temporal_adapters,
    "no anchors": without_anchors,
}


def _keep_dynamic_stage(recipe: Recipe, full: Path) -> None:
    recipe.stages = [stage for stage in recipe.stages if stage.name == "dynamic"]
    recipe.stages[0].model.model_name_or_path = str(full / "static")


def run_variant(recipe_file: str, name: str, seed: int, folder: Path) -> StageResult:
    """Trains a variant for a seed and returns what its video model gave."""
    full = folder / f"seed-{seed}" / FULL
    place = folder / f"seed-{seed}" / name.split(" (")[0].replace(" ", "-").lower()
    print(f"\n=== {name}, seed {seed}", flush=True)
    arguments = ["--seed", str(seed), "--output_dir", str(place), "--resume_from_checkpoint", "true"]
    recipe = read_recipe([recipe_file, *arguments], default=DEFAULT_RECIPE)
    run = recipe.run
    if run.synthetic_data is None or run.new_landmark_encoder is None or run.stage != "both":
        raise ValueError(
            f"{recipe_file} must have `synthetic_data`, `new_landmark_encoder` and `stage: both`: parts of that whole "
            "are left out."
        )
    run.compare_image_model, run.compare_landmarks = True, name == FULL
    run.synthetic_data = {**run.synthetic_data, "root": str(folder / f"seed-{seed}" / "data")}
    if name != FULL:
        recipe.stages = [stage for stage in recipe.stages if stage.name != "landmarks"]
        recipe.stages[0].model.landmark_encoder = str(full / "landmarks")
        VARIANTS[name](recipe, full)
    draw_data(recipe)
    return run_recipe(recipe)[-1]


def format_markdown(scores: dict[str, dict[int, dict[str, float]]]) -> str:
    """Scores by row, seed and metric (fractions) as a table in percent, with mean and standard deviation."""
    seeds = sorted(next(iter(scores.values())))
    lines = [
        f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | UAR, mean ± std | WAR, mean ± std |",
        f"| --- |{' --- |' * (len(seeds) + 2)}",
    ]
    for name, by_seed in scores.items():
        cells = [f"{100 * by_seed[seed]['uar']:.1f}" for seed in seeds]
        for metric in ("uar", "war"):
            values = [100 * by_seed[seed][metric] for seed in seeds]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the ablation; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=str(DEFAULT_RECIPE), help="a recipe with synthetic data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/ablation"), help="default: %(default)s")
    parser.add_argument("--debug", action="store_true", help="the traceback of an error, before its line")
    arguments = parser.parse_args()
    with ends_in_one_line("ablation.py", debug=arguments.debug):
        run_ablation(arguments)


def run_ablation(arguments: argparse.Namespace) -> None:
    """Trains all variants and writes the table."""
    scores: dict[str, dict[int, dict[str, float]]] = {name: {} for name in (*COMPARED.values(), FULL, *VARIANTS)}
    for seed in arguments.seeds:
        for name in (FULL, *VARIANTS):
            metrics = run_variant(arguments.recipe, name, seed, arguments.output_dir).metrics
            scores[name][seed] = {metric: metrics["test"][metric] for metric in ("uar", "war")}
            if name == FULL:
                for key, row in COMPARED.items():
                    scores[row][seed] = {metric: metrics[key][metric] for metric in ("uar", "war")}
    table = format_markdown(scores)
    (arguments.output_dir / "ablation.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    (arguments.output_dir / "ablation.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\nMeasured on drawn faces of people not trained on; UAR of each seed in percent.")


if __name__ == "__main__":
    main()
