"""`s2d-hf archive`: thousands of videos to a folder of Parquet files."""

import argparse
import json
import os
import sys

from ..texts_s2d import count_of
from .options import add_model_arguments, chosen_model, model_settings, whole_number
from .predict import FAILED, NO_FACE


def add_archive_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand `archive`."""
    parser = commands.add_parser(
        "archive",
        help="the same for thousands of videos, on many processes or machines",
        description=(
            "Analyse all videos of a folder, a table of paths or a dataset of the Hub into a folder of Parquet files. "
            "What is done is not done again: after a kill, the same command goes on. Videos that fail are listed with "
            "the reason in failures.csv. On the GPUs of one machine: accelerate launch -m s2d_hf.cli archive ...; on "
            f"a cluster: --ray. Exit code: 0, {NO_FACE} if there is no face in any video, {FAILED} if videos failed."
        ),
        epilog="example: s2d-hf archive interviews/ results/ --ray --num-actors 8",
    )
    parser.add_argument("source", help="a folder, a .csv, .jsonl or .parquet file, or a dataset of the Hub")
    parser.add_argument("output", help="the folder to write, or to go on with")
    add_model_arguments(parser)
    parser.add_argument("--path-column", metavar="NAME", help="the column that holds the videos")
    parser.add_argument("--split", metavar="NAME", help="the split of a dataset of the Hub")
    parser.add_argument("--ray", action="store_true", help='run on Ray (pip install "s2d-hf[ray]")')
    parser.add_argument("--num-actors", type=int, metavar="N", help="with --ray (default: one per GPU, or per core)")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster, or auto (default: this machine)")
    parser.add_argument("--skip-failed", action="store_true", help="don't try videos again that failed before")
    parser.add_argument(
        "--stall-limit",
        type=whole_number(1),
        metavar="SECONDS",
        help="give a video up after so long without progress (default: 600)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_archive)


def _archive(arguments: argparse.Namespace) -> int:
    settings, model = model_settings(arguments), chosen_model(arguments)
    source = _existing_source(arguments.source)
    try:
        from ..archive import analyse_archive
        from ..model_loading import hide_loading_bars
        from ..model_sources import DEFAULT_MODEL
    except ImportError as error:
        raise ImportError(f'archives need more libraries: pip install "s2d-hf[archive]". ({error})') from error
    hide_loading_bars()
    given = {} if arguments.stall_limit is None else {"stall_limit": arguments.stall_limit}
    summary = analyse_archive(
        source,
        os.path.expanduser(arguments.output),
        model or DEFAULT_MODEL,
        ray=arguments.ray,
        num_actors=arguments.num_actors,
        ray_address=arguments.ray_address,
        path_column=arguments.path_column,
        split=arguments.split,
        retry_failed=not arguments.skip_failed,
        progress=not arguments.quiet,
        **given,
        **settings,
    )
    if summary is None:  # in a process beside the main one
        return 0
    print(json.dumps({name: value for name, value in vars(summary).items() if name != "failures"}))
    if summary.num_failed:
        failed = count_of(summary.num_failed, "video")
        print(f"s2d-hf: {failed} failed; {arguments.output}/failures.csv says why.", file=sys.stderr)
        return FAILED
    return NO_FACE if summary.num_without_face == summary.num_videos else 0


def _existing_source(source: str) -> str:
    """
    Refuses, before anything is loaded, a path to nothing.

    Raises:
        FileNotFoundError: if `source` can only be a path, and there is nothing.
    """
    path = os.path.expanduser(source)
    is_path = os.path.isabs(path) or source.startswith(".") or source.endswith((".csv", ".jsonl", ".parquet", "/"))
    if is_path and not os.path.exists(path):
        raise FileNotFoundError(f"There is no folder or table {source}.")
    return path if os.path.exists(path) else source


__all__ = ["add_archive_parser"]
