"""The house rules that can be counted: short files, few parameters, and a map that names every folder."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES, MOST_PARAMETERS = 600, 14
MAPS = ("CONTRIBUTING.md", "docs/design.md")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The Python files in version control, and those that are about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.py"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("needs a clone made with Git")
    # a file that was removed stays in the list until the next commit
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def parameters(function: ast.AST) -> int:
    """How many parameters have names of their own, `self` among them; `*args` and `**kwargs` stand for others."""
    return len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs)


def test_files_have_a_readable_size(tracked):
    assert Path(__file__).resolve() in tracked
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in tracked}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_functions_have_few_parameters(tracked):
    counts = {}
    for path in tracked:
        name = path.relative_to(ROOT)
        if name.parts[0] in ("s2d_hf", "training", "benchmarks"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    counts[f"{name}:{node.lineno} {getattr(node, 'name', 'lambda')}"] = parameters(node)
    assert len(counts) > 1000
    assert {place: count for place, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_the_map_names_every_folder_of_the_package(tracked):
    maps = [ROOT / name for name in MAPS if (ROOT / name).is_file()]
    if not maps:
        pytest.skip(f"there is no map of the files: none of {', '.join(MAPS)}")
    text = "\n".join(path.read_text("utf-8") for path in maps)
    folders = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in tracked if ROOT / "s2d_hf" in path.parents}
    assert "s2d_hf/trainer/" in folders
    assert sorted(folder for folder in folders if f"`{folder}`" not in text) == []
