"""
Trains and evaluates on a data set of the paper, fold by fold, and writes a report beside the authors' numbers.

    accelerate launch training/benchmark.py DFEW --data_root DFEW --model_name_or_path IMAGE_MODEL [--FIELD VALUE ...]
    accelerate launch training/benchmark.py DFEW --data_root DFEW --evaluate_only 'dfew-set{fold}'

Further fields are those of training/train.py. What is finished in the output folder is not run again, so a run that
was broken off goes on, and folds may be given to several jobs (--folds) that share a folder.
"""

import argparse
import json
import sys
from pathlib import Path

from accelerate import PartialState

from s2d_hf.data.benchmarks import BENCHMARKS, find_benchmark
from s2d_hf.trainer.benchmark_report import VARIANTS, build_report, collect_results, format_report
from s2d_hf.trainer.recipes import read_recipe
from s2d_hf.trainer.stages import run_recipe

RECIPES = Path(__file__).resolve().parent / "recipes"


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The script's own arguments, and those for the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("benchmark", help=", ".join(BENCHMARKS))
    parser.add_argument("--data_root", required=True, help="the folder of the data")
    parser.add_argument("--folds", nargs="+", help="which of its folds (default: all)")
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), default=["plain"], help="oversampling: --balanced_sampling"
    )
    parser.add_argument(
        "--evaluate_only", metavar="MODEL", help="train nothing, evaluate this model; {fold} in it stands for the fold"
    )
    parser.add_argument("--recipe", help="default: the recipe of the benchmark in training/recipes")
    parser.add_argument("--output_dir", type=Path, help="default: outputs/BENCHMARK")
    return parser.parse_known_args(argv)


def main() -> None:
    """Runs the benchmark; see `--help`."""
    arguments, more = parse_arguments(sys.argv[1:])
    try:
        benchmark = find_benchmark(arguments.benchmark)
        unknown = sorted(set(arguments.folds or ()) - set(benchmark.folds))
        if unknown:
            raise ValueError(f"{benchmark.name} has the folds {', '.join(benchmark.folds)}, and no {unknown[0]}.")
    except ValueError as error:
        sys.exit(f"benchmark.py: error: {error}")
    output_dir = arguments.output_dir or Path("outputs") / benchmark.name.lower()
    # AffectNet-7 and AffectNet-8 have one recipe
    recipe = arguments.recipe or str(RECIPES / f"{benchmark.name.lower().replace('-', '').rstrip('0123456789')}.yaml")
    for variant in arguments.variants:
        for fold in arguments.folds or benchmark.folds:
            own = ["--benchmark", benchmark.name, "--data_root", arguments.data_root, "--fold", fold]
            own += ["--output_dir", str(output_dir / variant / f"fold-{fold}"), "--resume_from_checkpoint", "true"]
            if variant == "oversampling":
                own.append("--balanced_sampling")
            if arguments.evaluate_only is not None:
                model = arguments.evaluate_only.replace("{fold}", fold)
                own += ["--evaluate_only", "--model_name_or_path", model]
            run_recipe(read_recipe([recipe, *own, *more], default=recipe))
    if PartialState().is_main_process:
        report = build_report(benchmark, collect_results(output_dir, benchmark))
        text = format_report(report)
        (output_dir / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (output_dir / "report.md").write_text(text, encoding="utf-8")
        print(f"\n{text}\nWritten to {output_dir / 'report.md'} and report.json.")


if __name__ == "__main__":
    main()
