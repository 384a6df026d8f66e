"""
Trains and evaluates on a data set of the paper, fold by fold, and writes a report beside the authors' numbers.

    accelerate launch training/folds.py DFEW --data_root DFEW --model_name_or_path IMAGE_MODEL [--FIELD VALUE ...]
    accelerate launch training/folds.py DFEW --data_root DFEW --evaluate_only 'dfew-set{fold}'

Further fields are those of training/train.py. What is finished in the output folder is not run again, so a run that
was broken off goes on, and folds may be given to several jobs (--folds) that share a folder. A fold that breaks stops
no others; at the end, the exit code is 1.
"""

import argparse
import json
import re
import sys
import traceback
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState

from s2d_hf.data.paper_datasets import PAPER_DATASETS, PaperDataset, find_paper_dataset
from s2d_hf.metrics.fold_report import VARIANTS, build_report, collect_results, format_report
from s2d_hf.trainer.arguments import S2DTrainingArguments
from s2d_hf.trainer.recipes import DataArguments, ModelArguments, Recipe, RunArguments, read_recipe
from s2d_hf.trainer.script_errors import describe_error, ends_in_one_line
from s2d_hf.trainer.stages import check_recipe, run_recipe

RECIPES = Path(__file__).resolve().parent / "recipes"
# fields of a recipe that are this script's to give, and how they are said to it
OWN_FIELDS = {
    "--paper_dataset": "the data set is the first argument",
    "--fold": "say --folds, with one or several",
    "--train_data": "the data are the data set's, in --data_root",
    "--test_data": "the data are the data set's, in --data_root",
}


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The script's own arguments, and those for the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("dataset", metavar="DATASET", help=", ".join(PAPER_DATASETS))
    parser.add_argument("--data_root", required=True, help="the folder of the data")
    parser.add_argument("--folds", nargs="+", help="which of its folds (default: all)")
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), default=["plain"], help="oversampling: --balanced_sampling"
    )
    parser.add_argument(
        "--evaluate_only", metavar="MODEL", help="train nothing, evaluate this model; {fold} in it stands for the fold"
    )
    parser.add_argument("--recipe", help="default: the recipe of the data set in training/recipes")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/DATASET")
    parser.add_argument("--debug", action="store_true", help="the traceback of an error, before its line")
    return parser.parse_known_args(argv)


def as_typed(message: str) -> str:
    """A message of the package in which fields have the names of this script's options."""
    kinds = (RunArguments, ModelArguments, DataArguments, S2DTrainingArguments)
    names = {field.name: f"--{field.name}" for kind in kinds for field in fields(kind)}
    names |= {"fold": "--folds", "paper_dataset": "DATASET"}

    def option(match: re.Match) -> str:
        name, value = match.groups(default="")
        return f"{names[name]} {value.lower()}".strip() if name in names else match.group()

    # `field`, `field=False` and `field: value`
    return re.sub(r"`(\w+)(?:(?:=|: )(\w+))?`", option, message)


def check_arguments(arguments: argparse.Namespace, more: list[str], dataset: PaperDataset) -> None:
    """
    Raises:
        FileNotFoundError: if there are no such data.
        ValueError: if there is no such fold, or a field is given that this script gives itself.
    """
    unknown = sorted(set(arguments.folds or ()) - set(dataset.folds))
    if unknown:
        raise ValueError(f"--folds: {dataset.name} has the folds {', '.join(dataset.folds)}, and no {unknown[0]}.")
    for typed in (argument.partition("=")[0] for argument in more):
        if typed in OWN_FIELDS:
            raise ValueError(f"{typed} can't be given here: {OWN_FIELDS[typed]}.")
    if not Path(arguments.data_root).is_dir():
        raise FileNotFoundError(f"--data_root: there is no folder {arguments.data_root}.")
    if arguments.recipe is not None and not Path(arguments.recipe).is_file():
        raise FileNotFoundError(f"--recipe: there is no file {arguments.recipe}.")


def read_recipes(
    arguments: argparse.Namespace, more: list[str], dataset: PaperDataset, output_dir: Path
) -> dict[str, Recipe]:
    """What is to run, by what it is: a variant and a fold."""
    # AffectNet-7 and AffectNet-8 have one recipe
    recipe = arguments.recipe or str(RECIPES / f"{dataset.name.lower().replace('-', '').rstrip('0123456789')}.yaml")
    recipes = {}
    for variant in arguments.variants:
        for fold in arguments.folds or dataset.folds:
            own = ["--paper_dataset", dataset.name, "--data_root", arguments.data_root, "--fold", fold]
            own += ["--output_dir", str(output_dir / variant / f"fold-{fold}"), "--resume_from_checkpoint", "true"]
            if variant == "oversampling":
                own.append("--balanced_sampling")
            if arguments.evaluate_only is not None:
                model = arguments.evaluate_only.replace("{fold}", fold)
                own += ["--evaluate_only", "--model_name_or_path", model]
            recipes[f"{variant}, fold {fold}"] = read_recipe([recipe, *own, *more], default=recipe)
    return recipes


def main() -> None:
    """Runs the folds; see `--help`."""
    arguments, more = parse_arguments(sys.argv[1:])
    with ends_in_one_line("folds.py", as_typed, arguments.debug):
        run_folds(arguments, more)


def run_folds(arguments: argparse.Namespace, more: list[str]) -> None:
    """
    Trains or evaluates all that is asked for, and writes the report.

    A fold that breaks doesn't stop the others, unless several processes work on it, which would wait for each other.

    Raises:
        ValueError: if folds have broken, after all others are done and the report is written.
    """
    dataset = find_paper_dataset(arguments.dataset)
    check_arguments(arguments, more, dataset)
    output_dir = arguments.output_dir or Path("outputs") / dataset.name.lower()
    recipes = read_recipes(arguments, more, dataset, output_dir)
    collect_results(output_dir, dataset)  # what can't be used of earlier runs is told now, and not at the end
    for recipe in recipes.values():  # a mistake in the fifth fold is told before the first one is trained
        check_recipe(recipe)
    broken = []
    try:
        for name, recipe in recipes.items():
            try:
                run_recipe(recipe)
            except Exception as error:
                if PartialState().num_processes > 1:
                    raise
                if arguments.debug:
                    traceback.print_exc()
                broken.append(f"{name}: {describe_error(error, keep_traceback=not arguments.debug)}")
                print(f"folds.py: {as_typed(broken[-1])}", file=sys.stderr, flush=True)
    finally:
        if PartialState().is_main_process:
            write_report(dataset, output_dir)
    if broken:
        listed = "; ".join(broken).rstrip(".")
        raise ValueError(
            f"{len(broken)} of {len(recipes)} broke: {listed}. The report holds the others; the same command goes on."
        )


def write_report(dataset: PaperDataset, output_dir: Path) -> None:
    """Writes what is finished in the output folder as JSON and Markdown, and prints the latter."""
    report = build_report(dataset, collect_results(output_dir, dataset))
    text = format_report(report)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (output_dir / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nWritten to {output_dir / 'report.md'} and report.json.")


if __name__ == "__main__":
    main()
