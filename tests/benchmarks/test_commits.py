"""The model of a commit, from repositories with known histories and from the project's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForVideoClassification

import s2d_hf
from benchmarks import memory
from benchmarks.commits import build_at, find_commit, load_modeling
from benchmarks.models import SIZES, build_s2d, make_clips
from s2d_hf import S2DConfig, S2DForVideoClassification

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def _git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _commit(root: Path, old: str = "", new: str = "", file: str = "modeling_s2d.py") -> str:
    """Commits a change of a file of the package, and returns the hash."""
    path = root / "s2d_hf" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else text)
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "--allow-empty", "-m", "a change")
    return _git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository without a commit, with the flat files of the installed package."""
    root = tmp_path / "clone"
    (root / "s2d_hf").mkdir(parents=True)
    for file in Path(s2d_hf.__file__).parent.glob("*_s2d.py"):
        shutil.copy(file, root / "s2d_hf")
    (root / "s2d_hf" / "__init__.py").write_text("raise RuntimeError('a commit registers its classes')\n")
    _git(root, "init", "-q")
    return root


@pytest.fixture(scope="module")
def model() -> S2DForVideoClassification:
    return build_s2d(SIZES["tiny"])


@torch.no_grad()
def test_logits_are_the_commits(repository, model):
    """Half the logits in the older commit, the bias of another file in the newer, neither in the working tree."""
    halved = "self.dropout(outputs.pooler_output))"
    older = _commit(repository, f"self.classifier({halved}", f"0.5 * self.classifier({halved}")
    newer = _commit(repository, f"0.5 * self.classifier({halved}", f"self.classifier({halved}")
    (repository / "s2d_hf" / "modeling_s2d.py").write_text("raise RuntimeError('not committed')\n")
    clips = make_clips(model.config, 2)
    expected = model(*clips).logits
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    old = build_at(older, model, repository)
    torch.testing.assert_close(old(*clips).logits, 0.5 * expected)
    torch.testing.assert_close(build_at(newer, model, repository)(*clips).logits, expected)
    # a model of its own, with the same numbers
    old.classifier.bias.zero_()
    torch.testing.assert_close(dict(model.named_parameters()), before, rtol=0, atol=0)


def test_the_installed_model_stays(repository, model):
    registered = AutoModelForVideoClassification._model_mapping[S2DConfig]
    modules = {name for name in sys.modules if name.startswith("s2d_hf.")}
    modeling = load_modeling(_commit(repository), repository)
    assert modeling.S2DForVideoClassification is not S2DForVideoClassification
    assert modeling.S2DConfig.__module__ == f"{modeling.__package__}.configuration_s2d" != S2DConfig.__module__
    assert AutoModelForVideoClassification._model_mapping[S2DConfig] is registered is S2DForVideoClassification
    assert AutoConfig.for_model("s2d").__class__ is S2DConfig
    assert {name for name in sys.modules if name.startswith("s2d_hf.")} == modules


def test_weights_that_do_not_fit(repository, model):
    add = "self.classifier = nn.Linear(config.hidden_size, config.num_labels)"
    more = _commit(repository, add, f"{add}; self.extra = nn.Linear(2, 3)")
    with pytest.raises(ValueError, match=r"misses \['extra.weight', 'extra.bias'\]"):
        build_at(more, model, repository)
    less = _commit(repository, f"{add}; self.extra = nn.Linear(2, 3)", add.replace(")", ", bias=False)"))
    with pytest.raises(ValueError, match=r"doesn't know \['classifier.bias'\]"):
        build_at(less, model, repository)
    other = _commit(repository, add.replace(")", ", bias=False)"), add.replace(")", " + 1)"))
    with pytest.raises(ValueError, match=r"(?s)don't fit the model of commit .*size mismatch for classifier"):
        build_at(other, model, repository)


@torch.no_grad()
def test_only_norms_that_are_never_used_may_be_missing(repository, model):
    """The authors' model has one norm more; one that a layer uses must have its weights."""
    count = "for _ in range(config.num_prompt_norms)"
    unused = _commit(repository, count, "for _ in range(config.num_prompt_norms + 1)")
    clips = make_clips(model.config, 1)
    torch.testing.assert_close(build_at(unused, model, repository)(*clips).logits, model(*clips).logits)
    weights = model.state_dict()
    del weights["s2d.prompt_norms.0.weight"]

    class Incomplete:
        config, device = model.config, model.device

        def state_dict(self):
            return weights

    with pytest.raises(ValueError, match=r"misses \['s2d.prompt_norms.0.weight'\]"):
        build_at(unused, Incomplete(), repository)


def test_commits_that_are_none(repository, tmp_path, monkeypatch):
    first = _commit(repository)
    _git(repository, "tag", "v1")
    assert first.startswith(find_commit("v1", repository)) and len(find_commit("v1", repository)) >= 4
    with pytest.raises(ValueError, match=r"nonsense is no commit of the repository in .*clone"):
        find_commit("nonsense", repository)
    with pytest.raises(ValueError, match="--all is no commit"):
        find_commit("--all", repository)
    _git(repository, "rm", "-rq", "s2d_hf")
    _git(repository, "commit", "-q", "-m", "nothing is left")
    with pytest.raises(ValueError, match=r"HEAD has no s2d_hf/modeling_s2d\.py"):
        find_commit("HEAD", repository)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(ValueError, match=r"v1 can only be read in a git clone.*not a git repository"):
        find_commit("v1", tmp_path / "unpacked")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"v1 can only be read in a git clone.*git is not installed"):
        find_commit("v1", repository)


@pytest.mark.parametrize("part", ["forward", "training"])
def test_peak_memory_in_a_process_of_its_own(head, part, capsys):
    measured = memory.measure_in_own_process(part, f"commit {head}", "tiny", "cpu")
    assert not capsys.readouterr().err
    if memory.peak_memory(lambda: None) is None:
        pytest.skip("this system doesn't tell the peak memory of a process")
    assert measured["peak"] > measured["call"] >= 0
