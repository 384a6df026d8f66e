"""Too old a transformers is named before anything that it lacks is imported."""

import importlib
import re
import sys
import types
from pathlib import Path

import pytest

import s2d_hf
from s2d_hf.requirements_s2d import MINIMUM_TRANSFORMERS

PACKAGE = Path(s2d_hf.__file__).parent


@pytest.fixture
def model_code(monkeypatch):
    """The files of the package as those of another one, which is imported anew."""
    package = types.ModuleType("model_code")
    package.__path__ = [str(PACKAGE)]
    monkeypatch.setitem(sys.modules, "model_code", package)
    yield "model_code"
    for name in [name for name in sys.modules if name.startswith("model_code.")]:
        del sys.modules[name]


# what transformers loads by name from a model's folder
@pytest.mark.parametrize("file", ["configuration_s2d", "modeling_s2d", "image_processing_s2d", "video_processing_s2d"])
@pytest.mark.parametrize("version", ["4.57.6", "5.16.9"])
def test_old_transformers_are_refused(file, version, model_code, monkeypatch):
    old = types.ModuleType("transformers")  # has nothing that could be imported from it
    old.__version__ = version
    monkeypatch.setitem(sys.modules, "transformers", old)
    with pytest.raises(ImportError, match=rf"need transformers {MINIMUM_TRANSFORMERS} .* {version} is installed: pip"):
        importlib.import_module(f"{model_code}.{file}")


@pytest.mark.parametrize("version", [MINIMUM_TRANSFORMERS, f"{MINIMUM_TRANSFORMERS}.dev0", "5.100.0", "6.0.0rc1"])
def test_later_ones_are_accepted(version, model_code, monkeypatch):
    monkeypatch.setattr("transformers.__version__", version)
    importlib.import_module(f"{model_code}.requirements_s2d")


def test_minimum_is_that_of_the_package():
    requirements = (PACKAGE.parent / "pyproject.toml").read_text()
    assert re.findall(r'"transformers>=([\d.]+)"', requirements) == [MINIMUM_TRANSFORMERS]
