"""The pages of docs/: links lead somewhere, and commands of the benchmark are understood."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.speed import parse_arguments

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, place = target.partition("#")
        if "://" in target:
            continue
        there = page.parent / path if path else page
        assert there.exists(), f"{target} leads nowhere"
        if place:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert place in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_of_the_benchmark_are_understood(tmp_path):
    text = (DOCS / "speed.md").read_text(encoding="utf-8")
    commands = [
        line for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert commands
    (tmp_path / "FILE").touch()
    for command in commands:
        # a commit of a clone whose history may be missing
        command = re.sub(r" --against \w+", "", command).replace(" FILE", f" {tmp_path / 'FILE'}")
        start = "python -m benchmarks.speed "
        assert command.startswith(start), f"nothing checks the command {command!r}"
        parse_arguments(shlex.split(command.removeprefix(start)))
