"""No line of the package reads a file in a way that could run what stands in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# of bytes that this program's own processes have sent each other
OWN_PICKLES = {"s2d_hf/archive/isolation.py", "s2d_hf/landmark_processing_s2d.py"}
RUNS_CODE = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"}
PICKLES = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "joblib.load",
    "dill.load",
    "shelve.open",
    "marshal.loads",
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Each call in the code that is shipped: its file, the dotted name of what is called, and the call."""
    for folder in ("s2d_hf", "training", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def unsafe(file: str, name: str, call: ast.Call) -> bool:
    """Whether a call may run what it reads."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in RUNS_CODE or (name in PICKLES and file not in OWN_PICKLES):
        return True
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name in ("yaml.load", "yaml.load_all"):
        return given.get("Loader") not in ("yaml.SafeLoader", "_PlainLoader")
    if name in ("np.load", "numpy.load"):
        return given.get("allow_pickle", "False") != "False"
    return name.startswith("subprocess.") and given.get("shell", "False") != "False"


def test_every_call_reads_safely():
    found = list(calls())
    assert len(found) > 5000 and sum(name == "torch.load" for _, name, _ in found) >= 3  # they are looked at
    assert [f"{file}:{call.lineno} {name}" for file, name, call in found if unsafe(file, name, call)] == []


def test_the_recipes_loader_is_a_safe_one():
    yaml = pytest.importorskip("yaml")
    from s2d_hf.trainer.recipes import _PlainLoader

    assert issubclass(_PlainLoader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.system [exit]", Loader=_PlainLoader)


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)", "yaml.load(text)",
        "eval(text)",
        "yaml.load(text, Loader=yaml.Loader)", "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
    ],
)  # fmt: skip
def test_unsafe_calls_would_be_found(code):
    call = ast.parse(code).body[0].value
    assert unsafe("s2d_hf/x.py", ast.unparse(call.func), call)


def test_digests_are_sha256():
    """But for Git's ids of contents, which are SHA-1, and the names of an archive's files."""
    others = {(file, name) for file, name, _ in calls() if re.fullmatch(r"hashlib\.(?!sha256)\w+", name)}
    assert others == {
        ("s2d_hf/archive/records.py", "hashlib.blake2b"),
        ("s2d_hf/downloads.py", "hashlib.sha1"),
        ("s2d_hf/publishing/uploading.py", "hashlib.sha1"),
    }
