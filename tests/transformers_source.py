"""The common tests of transformers, from the source distribution of the version that is installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

# names the .tar.gz where PyPI can't be reached
SOURCE_VARIABLE = "S2D_TRANSFORMERS_SDIST"
CACHE = Path.home() / ".cache" / "s2d_hf_tests"
# what the tests are imported as: this project has a package `tests` of its own
PACKAGE = "transformers_tests"

# What the tests import, and the source distribution doesn't hold: the parts of it that they need here.
_STAND_INS = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin: ...\n",
    f"{PACKAGE}/generation/__init__.py": "",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin: ...\n",
    f"{PACKAGE}/utils/__init__.py": "",
    f"{PACKAGE}/utils/test_configuration_utils.py": (
        "config_common_kwargs = {'architectures': ['Other'], 'chunk_size_feed_forward': 3, 'dtype': 'float16',"
        " 'id2label': {0: 'only'}, 'label2id': {'only': 0}, 'output_attentions': True, 'output_hidden_states': True,"
        " 'problem_type': 'regression', 'return_dict': False}\n"
    ),
    "utils/fetch_hub_objects_for_ci.py": (
        "def url_to_local_path(url):\n    raise AssertionError(f'{url} is not at hand without a network.')\n"
    ),
}


def fetch_common_tests() -> Path:
    """
    A folder for `PYTHONPATH` that has transformers' common tests as the package `transformers_tests`.

    Raises:
        RuntimeError: if the source distribution is not at hand and can't be fetched, or is another version's.
    """
    folder = CACHE / f"transformers-{transformers.__version__}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            unpacked = Path(name) / "unpacked"
            _unpack_tests(_find_archive(Path(name)), unpacked)
            for path, text in _STAND_INS.items():
                (unpacked / path).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / path).write_text(text)
            unpacked.rename(folder)  # whole or not at all
    return folder


def _find_archive(folder: Path) -> Path:
    version = transformers.__version__
    if os.environ.get(SOURCE_VARIABLE):
        return Path(os.environ[SOURCE_VARIABLE])
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder]
    run = subprocess.run([*command, f"transformers=={version}"], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(
            f"pip can't fetch the source of transformers {version}: name its .tar.gz in {SOURCE_VARIABLE}.\n"
            f"{run.stderr[-2000:]}"
        )
    return next(folder.glob("*.tar.gz"))


def _unpack_tests(archive: Path, folder: Path) -> None:
    prefix = f"transformers-{transformers.__version__}/tests/"
    with tarfile.open(archive) as source:
        members = [member for member in source if member.isfile() and member.name.startswith(prefix)]
        if not members:
            raise RuntimeError(f"{archive} holds no {prefix}: it is not transformers {transformers.__version__}'s.")
        for member in members:
            target = folder / PACKAGE / Path(member.name).relative_to(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.extractfile(member) as file, target.open("wb") as copy:
                shutil.copyfileobj(file, copy)
