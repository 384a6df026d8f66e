import json
import re
import shutil
import sys
from pathlib import Path

import onnx
import pytest
import torch
from transformers import AutoConfig

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification, onnx_export
from s2d_hf.cli import main
from s2d_hf.onnx_export import export_onnx, load_onnx

from .small_models import TINY, random_inputs, randomise

LABELS = {0: "one", 1: "two", 2: "three", 3: "four", 4: "five"}


@pytest.fixture(scope="module")
def video_model() -> S2DForVideoClassification:
    return randomise(S2DForVideoClassification(S2DConfig(**(TINY | {"num_hidden_layers": 2}), id2label=LABELS))).eval()


@pytest.fixture(scope="module")
def exported(video_model, tmp_path_factory) -> tuple[Path, list[str]]:
    """What the command writes of the video model, and the lines that it prints."""
    folder = tmp_path_factory.mktemp("exported")
    video_model.save_pretrained(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda line, **kwargs: lines.append(line))
        code = main(["export-onnx", str(folder / "model"), str(folder / "onnx"), "--int8"])
    assert code == 0, lines
    return folder / "onnx", lines


def check_parity(model: torch.nn.Module, folder: Path) -> None:
    run = load_onnx(folder)
    for batch_size in (1, 5):
        inputs = random_inputs(model.config, batch_size, video=isinstance(model, S2DForVideoClassification), seed=7)
        with torch.no_grad():
            expected = model(**inputs).logits
        assert expected.std(dim=1).min() > 0.01
        torch.testing.assert_close(run(**inputs), expected, atol=1e-4, rtol=0)


def test_command_writes_files_with_the_models_logits(video_model, exported):
    folder, lines = exported
    names = ["config.json", "model.onnx", "model_quantized.onnx"]
    assert [path.name for path in sorted(folder.iterdir())] == names
    written = [line for line in lines if line.startswith("Wrote ")]
    assert len(written) == 2 and all("largest difference of a logit" in line for line in written)
    check_parity(video_model, folder)
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == LABELS and config.architectures == ["S2DForVideoClassification"]


def check_for_traces(file: Path) -> None:
    """In all that is readable in a file, as `strings` of Unix finds it."""
    texts = b"\n".join(re.findall(rb"[\x20-\x7e]{5,}", file.read_bytes())).decode()
    assert file.suffix == ".data" or "pixel_values" in texts
    traces = [str(Path(__file__).resolve().parents[1]), str(Path.home()), sys.prefix, "site-packages", ".py", "stack"]
    assert [trace for trace in traces if trace in texts] == []


@pytest.mark.parametrize("name", ["model.onnx", "model_quantized.onnx"])
def test_files_tell_nothing_of_the_exporter(name, exported):
    check_for_traces(exported[0] / name)


def test_a_stripped_file_gives_the_same_scores(video_model, exported, tmp_path, monkeypatch):
    """To the bit; and so does one whose weights lie beside it, as those of 2 GB and more do."""
    folder, _ = exported
    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "_strip_traces", lambda file: None)
        export_onnx(video_model, tmp_path / "as it was")
    with pytest.raises(AssertionError, match="stack"):
        check_for_traces(tmp_path / "as it was" / "model.onnx")
    save = torch.onnx.ONNXProgram.save
    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", lambda self, file: save(self, file, external_data=True))
    export_onnx(video_model, tmp_path / "beside")
    assert (tmp_path / "beside" / "model.onnx.data").stat().st_size > 50_000
    for file in (tmp_path / "beside").glob("model.onnx*"):
        check_for_traces(file)
    inputs = random_inputs(video_model.config, 5)
    expected = load_onnx(folder)(**inputs)
    assert torch.equal(load_onnx(tmp_path / "as it was")(**inputs), expected)
    assert torch.equal(load_onnx(tmp_path / "beside")(**inputs), expected)


def test_notes_are_cleared_at_any_depth():
    """A node within an `If`, in a function: models of other exporters have these."""
    noted = {"doc_string": "a.py"}
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1], doc_string="a.py")
    node = onnx.helper.make_node("Identity", ["x"], ["y"], **noted)
    onnx.helper.set_metadata_props(node, {"pkg.torch.onnx.stack_trace": "a.py"})
    branch = onnx.helper.make_graph([node], "branch", [], [value], **noted)
    choice = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    function = onnx.helper.make_function("own", "f", ["c"], ["y"], [choice], [onnx.helper.make_opsetid("", 20)])
    function.doc_string = "a.py"
    graph = onnx.helper.make_graph([choice], "graph", [], [value], **noted)
    model = onnx.helper.make_model(graph, functions=[function], **noted)
    before = model.SerializeToString().count(b"a.py")
    onnx_export._clear_notes(model)
    assert before == 20 and b"a.py" not in model.SerializeToString()
    assert len(model.functions[0].node[0].attribute) == 2 and model.graph.output[0].name == "y"


def test_configuration_names_no_folder(exported):
    text = (exported[0] / "config.json").read_text()
    assert str(exported[0].parent) not in text and "_name_or_path" not in text


def test_int8_weights(video_model, exported):
    folder, _ = exported
    types = [
        {tensor.data_type for tensor in onnx.load(folder / name).graph.initializer}
        for name in ("model.onnx", "model_quantized.onnx")
    ]
    assert onnx.TensorProto.INT8 in types[1] and onnx.TensorProto.INT8 not in types[0]
    inputs = random_inputs(video_model.config, batch_size=16)
    with torch.no_grad():
        expected = video_model(**inputs).logits
    logits = load_onnx(folder, int8=True)(**inputs)
    error = (logits - expected).abs().max()
    assert 1e-4 < error < 0.1 * expected.abs().max(), "int8 is near float32, and not the same"
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(
    ("model_class", "changes"),
    [
        (S2DForVideoClassification, {"prompt_type": "none"}),
        (S2DForImageClassification, {"prompt_type": "shallow", "temporal_adapters": False}),
    ],
)
def test_other_models(model_class, changes, tmp_path):
    model = randomise(model_class(S2DConfig(**(TINY | changes | {"num_hidden_layers": 1})))).eval()
    (report,) = export_onnx(model, tmp_path)
    assert report.file == tmp_path / "model.onnx" and report.difference < 1e-4
    assert report.agreement == report.num_inputs
    check_parity(model, tmp_path)


def test_file_with_other_logits_is_refused(video_model, exported, tmp_path, monkeypatch):
    def write_another(model, file, opset):
        shutil.copy(exported[0] / "model.onnx", file)

    monkeypatch.setattr(onnx_export, "_write", write_another)
    export_onnx(video_model, tmp_path / "right")
    another = randomise(S2DForVideoClassification(video_model.config), seed=1)
    with pytest.raises(RuntimeError, match="nothing was written"):
        export_onnx(another, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_bad_inputs(tiny_video_model, exported, converted, tmp_path, monkeypatch):
    folder, _ = exported
    run = load_onnx(folder)
    inputs = random_inputs(run.config, 1)
    with pytest.raises(ValueError, match="`landmark_features` are missing"):
        run(inputs["pixel_values"])
    with pytest.raises(ValueError, match=r"must be \(batch_size, 4, 3, 32, 32\)"):
        run(inputs["pixel_values"][..., :16], inputs["landmark_features"])
    with pytest.raises(FileNotFoundError, match="export-onnx --int8"):
        load_onnx(tmp_path, int8=True)
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_onnx(tiny_video_model, folder)
    with pytest.raises(ValueError, match="S2DModel"):
        export_onnx(tiny_video_model.s2d, tmp_path / "onnx")
    with pytest.raises(ValueError, match="float32"):
        export_onnx(tiny_video_model.bfloat16(), tmp_path / "onnx")
    config = json.loads((converted / "config.json").read_text()) | {"architectures": ["S2DModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is S2DModel"):
        export_onnx(tmp_path, tmp_path / "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for act in (lambda: load_onnx(folder), lambda: export_onnx(tiny_video_model, tmp_path / "onnx")):
        with pytest.raises(ImportError, match=r"s2d-hf\[onnx\]"):
            act()
    assert not (tmp_path / "onnx").exists()
