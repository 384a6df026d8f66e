"""The worked example runs from its first cell to its last, and does what its text says."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from transformers import AutoModelForVideoClassification

from s2d_hf.publishing import check_card
from s2d_hf.timeline import VideoTimeline

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "worked_example.ipynb"


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook after a run, and the folder that it wrote."""
    place = tmp_path_factory.mktemp("notebook")
    (place / "training").symlink_to(NOTEBOOK.parents[1] / "training")  # it finds the drawn faces from the root
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(place)}})
    # as on most machines, two threads or more: rounding differs from that of one
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"})
    return notebook, place / "worked_example"


@pytest.mark.slow
def test_models_learn_and_the_folder_is_ready_for_the_hub(executed):
    notebook, root = executed
    scores = {name.strip(): float(uar) for name, uar in re.findall(r"^(.+?) +UAR ([\d.]+)%", printed(notebook), re.M)}
    assert set(scores) == {"chance", "image model, averaged", "video model"}
    # 100 videos of 20 people: chance is 33.3
    assert scores["video model"] > 75
    folder = root / "s2d-drawn-faces"
    model = AutoModelForVideoClassification.from_pretrained(folder)
    assert list(model.config.id2label.values()) == ["neutral", "happy", "surprise"]
    assert model.config.temporal_adapters
    assert check_card(folder / "README.md", model.config, folder=folder) == []
    assert (root / "timeline.png").stat().st_size > 10_000
    # what the drawn person did is what the timeline says, most of the time: it was trained for a minute
    (face,) = VideoTimeline.from_json(root / "timeline.json").tracks
    acts = ["neutral", "happy", "neutral", "surprise", "neutral", "happy", "neutral"]
    assert [segment.label for segment in face.segments] == acts
    right = sum(
        max(0, min(segment.end, 4 * number + 4) - max(segment.start, 4 * number))
        for number, segment in enumerate(face.segments)
    )
    assert right / (4 * len(acts)) > 0.8
    listing = printed(notebook).split("your-name/s2d-drawn-faces:")[1]
    uploaded = set(re.findall(r"^  (\S+) +[\d.]+ k?B ", listing, re.M))
    assert {"model.safetensors", "landmark_encoder.safetensors", "README.md", "modeling_s2d.py"} <= uploaded
    assert "training_args.bin" not in uploaded


def test_kept_outputs_are_of_these_cells_small_and_clean():
    """What readers see without running it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert NOTEBOOK.stat().st_size < 400_000
    kept = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in kept)
    # nothing of the machine on which it was run
    assert not re.search(r"/(tmp|home|root|Users|work)/", str(kept))
