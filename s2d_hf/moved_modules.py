"""Where modules have moved: their old import paths work for one version, with a warning that names the new one."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Of a package, modules below it move along. Where a module was divided, all parts, the main one first.
MOVED: dict[str, tuple[str, ...]] = {
    "s2d_hf.data.benchmarks": ("s2d_hf.data.paper_datasets",),
    "s2d_hf.data.face_drawing": ("synthetic.face_drawing", "synthetic.face_shape"),
    "s2d_hf.data.synthetic_faces": (
        "synthetic.dataset",
        "synthetic.clips",
        "s2d_hf.trainer.landmark_encoder_training",
    ),
    "s2d_hf.model_options": ("s2d_hf.cli.options", "s2d_hf.precision", "s2d_hf.model_loading"),
    "s2d_hf.prediction_command": ("s2d_hf.cli.predict",),
    "s2d_hf.prediction_printing": ("s2d_hf.cli.printing", "s2d_hf.texts_s2d"),
    "s2d_hf.trainer.benchmark_report": ("s2d_hf.metrics.fold_report",),
    "s2d_hf.trainer.landmark_training": ("s2d_hf.trainer.landmark_encoder_training",),
    "s2d_hf.trainer.model_card": ("s2d_hf.publishing.card_filling",),
}
_PACKAGES = ("s2d_hf.data.benchmarks",)
_RENAMED = {
    "BENCHMARKS": "PAPER_DATASETS",
    "Benchmark": "PaperDataset",
    "find_benchmark": "find_paper_dataset",
}


class _MovedModule(ModuleType):
    """A module under its old path."""

    _parts: list[ModuleType]

    def __getattr__(self, name: str) -> Any:
        parts = self.__dict__.get("_parts", ())
        if name == "__all__":
            known = {item for part in parts for item in getattr(part, "__all__", vars(part)) if item[0] != "_"}
            return sorted(known | {old for old, new in _RENAMED.items() if new in known})
        if not name.startswith("__"):
            for part in parts:
                for known_as in (name, _RENAMED.get(name, name)):
                    if hasattr(part, known_as):
                        return getattr(part, known_as)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


class _MovedFinder(MetaPathFinder, Loader):
    """Asked last, for modules that nobody else finds."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        places = _new_places(fullname)
        return ModuleSpec(fullname, self, is_package=fullname in _PACKAGES) if places else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, _MovedModule)
        places = _new_places(module.__name__)
        try:
            module._parts = [importlib.import_module(place) for place in places]
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("synthetic"):
                raise
            raise ModuleNotFoundError(
                f"{module.__name__} has moved out of the package, to training/synthetic/ of the repository: put "
                f"training/ into sys.path, and import {places[0]}.",
                name=module.__name__,
            ) from None
        warnings.warn(
            f"{module.__name__} has moved to {' and '.join(places)}; the old name goes with the next version.",
            FutureWarning,
            stacklevel=2,
        )


def _new_places(name: str) -> tuple[str, ...]:
    for old, places in MOVED.items():
        if name == old:
            return places
        if old in _PACKAGES and name.startswith(f"{old}."):
            return tuple(f"{place}{name.removeprefix(old)}" for place in places[:1])
    return ()


sys.meta_path.append(_MovedFinder())
