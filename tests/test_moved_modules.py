"""Old import paths lead to where things are now, and say so."""

import importlib
import sys

import pytest

from s2d_hf.moved_modules import MOVED


@pytest.mark.parametrize(
    ("old", "names", "new"),
    [
        ("s2d_hf.data.benchmarks", "find_benchmark BENCHMARKS Benchmark DFEW", "s2d_hf.data.paper_datasets"),
        ("s2d_hf.data.benchmarks.ferplus", "find_majority", "s2d_hf.data.paper_datasets.ferplus"),
        ("s2d_hf.data.face_drawing", "draw_face FaceIdentity project", "synthetic.face_drawing"),
        ("s2d_hf.data.synthetic_faces", "SyntheticFaces read_still_points write_synthetic_dataset", "synthetic"),
        ("s2d_hf.model_options", "PRECISIONS add_model_arguments hide_loading_bars", "s2d_hf.cli.options"),
        ("s2d_hf.prediction_command", "find_videos output_path", "s2d_hf.cli.predict"),
        ("s2d_hf.prediction_printing", "JsonLines clock count_of visible", "s2d_hf.cli.printing"),
        ("s2d_hf.trainer.benchmark_report", "build_report", "s2d_hf.metrics.fold_report"),
        (
            "s2d_hf.trainer.landmark_training",
            "train_landmark_encoder normalized_mean_error",
            "s2d_hf.trainer.landmark_encoder_training",
        ),
        ("s2d_hf.trainer.model_card", "TEMPLATE write_model_card", "s2d_hf.publishing.card_filling"),
    ],
)
def test_old_paths_work_and_warn(old, names, new):
    for name in [name for name in sys.modules if name == old or name.startswith(f"{old}.")]:
        del sys.modules[name]
    with pytest.warns(FutureWarning, match=rf"{old} has moved to {new}"):
        module = importlib.import_module(old)
    for name in names.split():
        assert getattr(module, name) is not None and (name in dir(module) or name not in module.__all__)
    bound: dict = {}
    exec(f"from {old} import *", bound)
    assert set(module.__all__) <= set(bound) and set(module.__all__) & set(names.split())
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018


def test_every_move_is_tested_and_leads_somewhere():
    for old, places in MOVED.items():
        for place in places:
            importlib.import_module(place)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"{old}_too")


def test_the_drawn_faces_are_not_in_the_package(warm_python, tmp_path):
    code = "import s2d_hf.data.synthetic_faces"
    done = warm_python.run("-c", code, cwd=tmp_path)
    assert "has moved out of the package, to training/synthetic/ of the repository" in done.stderr
