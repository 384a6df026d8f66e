"""
Checks a model's folder and uploads it to the Hub: what will change is shown first, everything goes up in one commit,
and a version is tagged. Needs a token that may write (`hf auth login`, or HF_TOKEN).

    python training/publish.py FOLDER NAMESPACE/NAME --version 0.1.0 [--card model_cards/NAME.md] [--dry-run]

Exit code: 0, or 1 if the folder has problems or the upload is refused or fails.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from s2d_hf.publishing import CheckOptions, publish_folder
from s2d_hf.publishing.files import TRAINING_FILES
from s2d_hf.trainer.script_errors import ends_in_one_line


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The script's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="the model's folder")
    parser.add_argument("repo_id", help="the repository, namespace/name; created if there is none")
    parser.add_argument("--version", help="a semantic version to tag, as v0.1.0")
    parser.add_argument("--private", action="store_true", default=None, help="create a private repository")
    parser.add_argument("--dry-run", action="store_true", help="check and show everything, and upload nothing")
    parser.add_argument("--card", type=Path, metavar="FILE", help="a model card to take for the folder's README.md")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=list(TRAINING_FILES),
        metavar="PATTERN",
        help=f"more files that stay here, such as '*.log' (always: {', '.join(TRAINING_FILES)})",
    )
    parser.add_argument(
        "--allow-other-labels", action="store_true", help="upload over a model with other labels than this one's"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--python", metavar="FILE", help="load the model with this interpreter, of another environment")
    where.add_argument(
        "--fresh-environment", action="store_true", help="load it in a new environment that pip makes (needs network)"
    )
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--debug", action="store_true", help="the traceback of an error, before its line")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Checks and uploads; see `--help`."""
    arguments = parse_arguments(argv)
    with ends_in_one_line("publish.py", debug=arguments.debug):
        options = CheckOptions(
            card=arguments.card,
            leave_out=arguments.leave_out,
            python=arguments.python,
            fresh_environment=arguments.fresh_environment,
        )
        publish_folder(
            arguments.folder,
            arguments.repo_id,
            version=arguments.version,
            private=arguments.private,
            dry_run=arguments.dry_run,
            allow_other_labels=arguments.allow_other_labels,
            commit_message=arguments.message,
            options=options,
        )


if __name__ == "__main__":
    main()
