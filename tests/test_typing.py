"""Hints that `py.typed` promises: they are there, and a type checker finds no contradiction among them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def public_functions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods without a leading underscore, of classes without one, wherever a module defines them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if child.name.startswith("_"):
                continue
            if isinstance(child, ast.ClassDef):
                yield from public_functions(child, f"{owner}{child.name}.")
            else:
                yield f"{owner}{child.name}", child
        else:  # under an `if` or a `try`
            yield from public_functions(child, owner)


def without_hints(source: str) -> list[str]:
    """What lacks a hint, as `function: parameter` or `function: result`."""
    missing = []
    for name, function in public_functions(ast.parse(source)):
        arguments = function.args
        parameters = [*arguments.posonlyargs, *arguments.args]
        is_static = any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in function.decorator_list)
        if "." in name and not is_static:
            parameters = parameters[1:]  # self or cls
        parameters += [*arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
        missing += [f"{name}: {parameter.arg}" for parameter in parameters if parameter.annotation is None]
        missing += [f"{name}: result"] if function.returns is None else []
    return missing


def test_what_lacks_hints_is_found():
    source = """
def whole(a: int, /, b: int = 0, *c: int, d: int, **e: int) -> None: ...
def _private(a): ...
class Open:
    def method(self, a, *b, c, **d): ...
    @staticmethod
    def static(a) -> None: ...
    @classmethod
    def whole(cls, a: int) -> None: ...
    def __init__(self, a): ...
    class _Hidden:
        def method(self, a): ...
if True:
    async def later(a: int): ...
"""
    method = [f"Open.method: {name}" for name in ("a", "c", "b", "d", "result")]
    assert without_hints(source) == [*method, "Open.static: a", "later: result"]


def test_everything_public_has_hints():
    files = sorted((ROOT / "s2d_hf").rglob("*.py"))
    missing = [f"{file.relative_to(ROOT)}: {what}" for file in files for what in without_hints(file.read_text())]
    assert len(files) > 100 and not missing, "\n".join(missing)


@pytest.mark.slow
def test_type_checker_passes(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "no issues found in" in run.stdout
