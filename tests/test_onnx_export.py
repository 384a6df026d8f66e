import json
import logging
import re
import shutil
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from transformers import AutoConfig

from s2d_hf import (
    MobileFaceNetLandmarkEncoder,
    S2DConfig,
    S2DForImageClassification,
    S2DForVideoClassification,
    S2DImageProcessor,
    S2DVideoProcessor,
    onnx_export,
)
from s2d_hf.cli import main
from s2d_hf.onnx_export import export_onnx, load_onnx

from .small_models import TINY, random_encoder, random_inputs, randomise

FILES = ("model.onnx", "model_quantized.onnx", "landmark_encoder.onnx")
LABELS = {0: "one", 1: "two", 2: "three", 3: "four", 4: "five"}


@pytest.fixture(scope="module")
def video_model() -> S2DForVideoClassification:
    config = TINY | {"num_hidden_layers": 2, "landmark_size": 4}
    return randomise(S2DForVideoClassification(S2DConfig(**config, id2label=LABELS))).eval()


@pytest.fixture(scope="module")
def encoder() -> MobileFaceNetLandmarkEncoder:
    return random_encoder(width=6 / 128, input_size=32)


def processor_settings(encoder: MobileFaceNetLandmarkEncoder | None = None) -> dict:
    return {
        "landmark_encoder": encoder,
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.4, 0.5, 0.6],
    }


@pytest.fixture(scope="module")
def exported(video_model, encoder, tmp_path_factory) -> tuple[Path, list[str]]:
    """What the command writes of the video model, and the lines that it prints."""
    folder = tmp_path_factory.mktemp("exported")
    video_model.save_pretrained(folder / "model")
    S2DVideoProcessor(**processor_settings(encoder), num_frames=4, frame_stride=3).save_pretrained(folder / "model")
    settings = json.loads((folder / "model" / "video_preprocessor_config.json").read_text())
    (folder / "model" / "video_preprocessor_config.json").write_text(json.dumps(settings | {"note": str(Path.home())}))
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
            expected = model(**inputs, return_dict=True).logits
        assert expected.std(dim=1).min() > 0.01
        torch.testing.assert_close(run(**inputs), expected, atol=1e-4, rtol=0)


def test_command_writes_files_with_the_models_logits(video_model, exported):
    folder, lines = exported
    assert {path.name for path in folder.iterdir()} == {*FILES, "config.json", "video_preprocessor_config.json"}
    written = [line.split(", ")[0] for line in lines if "random" in line]
    assert written == [f"Wrote {folder / name}" for name in FILES]
    assert ["largest difference of a logit" in line for line in lines if "random" in line] == [True, True, False]
    check_parity(video_model, folder)
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == LABELS and config.architectures == ["S2DForVideoClassification"]


def check_for_traces(file: Path) -> None:
    """In all that is readable in a file, as `strings` of Unix finds it."""
    texts = b"\n".join(re.findall(rb"[\x20-\x7e]{5,}", file.read_bytes())).decode()
    assert file.suffix == ".data" or "pixel_values" in texts
    traces = [str(Path(__file__).resolve().parents[1]), str(Path.home()), sys.prefix, "site-packages", ".py", "stack"]
    assert [trace for trace in traces if trace in texts] == []


@pytest.mark.parametrize("name", FILES)
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


@pytest.mark.parametrize("name", ["config.json", "video_preprocessor_config.json"])
def test_settings_name_no_folder_and_no_code(name, exported):
    text = (exported[0] / name).read_text()
    assert str(exported[0].parent) not in text and "_name_or_path" not in text and "auto_map" not in text
    assert str(Path.home()) not in text


def test_settings_are_the_processors(exported):
    folders = (exported[0], exported[0].parent / "model")
    written, own = (json.loads((folder / "video_preprocessor_config.json").read_text()) for folder in folders)
    assert set(own) - set(written) == {"auto_map", "note"}
    assert written == {name: own[name] for name in written} and len(written) > 15


def metadata(file: Path) -> dict:
    (text,) = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map.values()
    return json.loads(text)


def test_metadata(exported):
    preparation = {
        "resize": {"shortest_edge": 36, "resample": "bilinear", "antialias": True},
        "center_crop": {"height": 32, "width": 32},
        "rescale_factor": 1 / 255,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.229, 0.224, 0.225],
        "do_crop_faces": False,
        "frame_stride": 3,
        "fps": None,
        "image_size": 32,
    }
    model = preparation | {
        "architecture": "S2DForVideoClassification",
        "labels": list(LABELS.values()),
        "function_to_apply": "softmax",
        "num_frames": 4,
        "inputs": ["pixel_values", "landmark_features"],
        "outputs": ["logits"],
    }
    encoder = preparation | {"inputs": ["pixel_values"], "outputs": ["landmark_features", "landmarks"]}
    assert [metadata(exported[0] / name) for name in FILES] == [model, model, encoder]


def test_landmark_encoder(encoder, exported):
    session = onnxruntime.InferenceSession(exported[0] / "landmark_encoder.onnx")
    assert [value.shape[1:] for value in session.get_outputs()] == [[6, 4, 4], [68, 2]]
    frames = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    expected = encoder(frames, return_landmarks=True)
    features, landmarks = session.run(["landmark_features", "landmarks"], {"pixel_values": frames.numpy()})
    for found, wanted in ((features, expected.features), (landmarks, expected.landmarks)):
        scale = wanted.std(dim=0).max().item()
        assert scale > 0.01
        torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-4 * scale, rtol=1e-5)


def test_operators_are_those_of_onnx(video_model, exported):
    """The standard's own, plain implementation runs them, too, and gives what onnxruntime gives."""
    operators = {}
    for name in FILES:
        model = onnx.load(exported[0] / name)
        onnx.checker.check_model(model, full_check=True)
        assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 20)} and not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        operators[name] = {node.op_type for node in model.graph.node}
        sizes = {"pixel_values": [1, 4, 3, 32, 32], "landmark_features": [1, 4, 6, 4, 4]}
        inputs = random_inputs(video_model.config, 1)
        feed = {value.name: inputs[value.name].numpy() for value in model.graph.input}
        if name == "landmark_encoder.onnx":
            feed = {"pixel_values": feed["pixel_values"][0]}
        else:
            assert {name: list(array.shape) for name, array in feed.items()} == sizes
        found = ReferenceEvaluator(model).run(None, feed)
        wanted = onnxruntime.InferenceSession(exported[0] / name).run(None, feed)
        for one, other in zip(found, wanted, strict=True):
            # a value in the middle of two int8 ones may become either
            tolerance = 0.02 if name == "model_quantized.onnx" else 1e-4
            torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(other), atol=tolerance, rtol=1e-4)
    int8 = operators["model_quantized.onnx"] - operators["model.onnx"]
    assert int8 == {"DynamicQuantizeLinear", "MatMulInteger", "Cast"}


def test_int8_clips_do_not_depend_on_each_other(video_model, exported):
    """To the bit. Of larger inputs, a shared scale would be coarser."""
    inputs = random_inputs(video_model.config, 3)
    inputs["pixel_values"][2] *= 50
    run = load_onnx(exported[0], int8=True)
    together = run(**inputs)
    for i in range(3):
        assert torch.equal(run(**{name: values[i : i + 1] for name, values in inputs.items()})[0], together[i])
    assert together.shape == (3, 5)
    session = onnxruntime.InferenceSession(exported[0] / "model_quantized.onnx")
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Got: 3 Expected: 1"):
        session.run(["logits"], {name: values.numpy() for name, values in inputs.items()})
    one = session.run(["logits"], {name: values[1:2].numpy() for name, values in inputs.items()})[0]
    assert torch.equal(torch.from_numpy(one)[0], together[1])


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
        (S2DForImageClassification, {"prompt_type": "shallow", "temporal_adapters": False, "return_dict": False}),
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


def test_landmark_encoder_with_other_results_is_refused(video_model, encoder, exported, tmp_path, monkeypatch):
    def write_another(encoder, image_size, file, opset):
        shutil.copy(exported[0] / "landmark_encoder.onnx", file)

    monkeypatch.setattr(onnx_export, "_write_encoder", write_another)
    monkeypatch.setattr(
        onnx_export, "_write", lambda model, file, opset: shutil.copy(exported[0] / "model.onnx", file)
    )
    folder = make_folder(
        tmp_path / "model", video_model, S2DVideoProcessor(**processor_settings(encoder), num_frames=4)
    )
    export_onnx(folder, tmp_path / "right")
    another = random_encoder(width=6 / 128, input_size=32, seed=1)
    make_folder(tmp_path / "model", video_model, S2DVideoProcessor(**processor_settings(another), num_frames=4))
    with pytest.raises(RuntimeError, match=r"landmark features differ from PyTorch's .*: nothing was written"):
        export_onnx(folder, tmp_path / "wrong")
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


def make_folder(folder: Path, model: torch.nn.Module, processor: S2DVideoProcessor | S2DImageProcessor) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_processors_that_are_not_the_models_are_refused(video_model, encoder, tmp_path):
    settings = processor_settings(encoder) | {"num_frames": 4}
    large = S2DVideoProcessor(**(settings | {"crop_size": {"height": 48, "width": 32}}))
    with pytest.raises(
        ValueError, match=r"large makes frames of 48x32 pixels, and the model takes 32x32: .*video_pre"
    ):
        export_onnx(make_folder(tmp_path / "large", video_model, large), tmp_path / "onnx")
    wide = S2DVideoProcessor(**(settings | {"landmark_encoder": MobileFaceNetLandmarkEncoder(0.125, input_size=32)}))
    with pytest.raises(ValueError, match=r"wide gives features of 16 channels and 4x4 cells, and the model takes 6"):
        export_onnx(make_folder(tmp_path / "wide", video_model, wide), tmp_path / "onnx")
    (tmp_path / "wide" / "landmark_encoder.safetensors").unlink()
    with pytest.raises(OSError, match=r"wide holds no landmark_encoder\.safetensors"):
        export_onnx(tmp_path / "wide", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


WORKING = [
    {},
    {"size": {"shortest_edge": 20}},
    {"size": {"height": 40, "width": 36}},
    {"size": {"height": 32, "width": 32}, "do_center_crop": False, "crop_size": None},
    {"do_resize": False, "size": None, "resample": None},
    {"do_resize": None, "size": None},
    {"do_normalize": False, "image_mean": None, "image_std": None},
    {"do_rescale": False, "rescale_factor": None},
]
REFUSED = [
    ({"size": {"height": 48, "width": 48}, "do_center_crop": False}, r"48x48 pixels.* takes 32x32: correct `size` in"),
    ({"crop_size": {"height": 32, "width": 48}}, r"32x48 pixels.* takes 32x32: correct `crop_size` in"),
    ({"size": {"shortest_edge": 32}, "do_center_crop": False}, r"depends on the picture.* turn `do_center_crop` on"),
    ({"do_resize": False, "do_center_crop": False}, r"depends on the picture.* turn `do_center_crop` on"),
    ({"size": None}, "`size` and `resample` must be specified"),
    ({"resample": None}, "`size` and `resample` must be specified"),
    ({"crop_size": None}, "`crop_size` must be specified"),
    ({"rescale_factor": None}, "`rescale_factor` must be specified"),
    ({"image_mean": None}, "`image_mean` and `image_std` must both be specified"),
    ({"image_std": None}, "`image_mean` and `image_std` must both be specified"),
    ({"size": {"longest_edge": 36}}, "resizes to {'longest_edge': 36}.* `size`"),
]


def frame_shapes(processor: S2DVideoProcessor | S2DImageProcessor) -> set[tuple[int, ...]] | None:
    """What a processor makes of a broad picture and a high one; None if it refuses them."""
    shapes = set()
    for size in ((40, 70), (64, 33)):
        picture = torch.zeros(3, *size, dtype=torch.uint8)
        try:
            output = processor([picture] * 5 if isinstance(processor, S2DVideoProcessor) else picture)
        except ValueError:
            return None
        shapes.add(tuple(output["pixel_values"][0].shape))
    return shapes


def make_processor(processor_class: type, changes: dict) -> S2DVideoProcessor | S2DImageProcessor:
    """As it is made of its JSON file."""
    frames = {"num_frames": 4} if processor_class is S2DVideoProcessor else {}
    return processor_class.from_dict(processor_settings() | {"do_landmarks": False} | frames | changes)


@pytest.mark.parametrize("processor_class", [S2DVideoProcessor, S2DImageProcessor])
def test_processors_that_give_the_models_frames_are_taken(processor_class):
    for changes in WORKING:
        processor = make_processor(processor_class, changes)
        onnx_export._check_processor(processor, S2DConfig(**TINY), "model")
        wanted = (4, 3, 32, 32) if processor_class is S2DVideoProcessor else (3, 32, 32)
        assert frame_shapes(processor) == {wanted}, changes
        description = onnx_export.describe_preparation(processor)
        assert None not in (description["rescale_factor"], *description["image_mean"], *description["image_std"])


@pytest.mark.parametrize("processor_class", [S2DVideoProcessor, S2DImageProcessor])
def test_processors_that_give_no_such_frames_are_refused(processor_class):
    own = (
        ({"num_frames": 9}, "takes 9 frames of a video, and the model takes 4: correct `num_frames`"),
        ({"num_frames": None}, "takes all frames of a video, and the model takes 4: correct `num_frames`"),
    )
    if processor_class is S2DImageProcessor:
        own = (({"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "turn `do_pad` off"),)
    for changes, message in (*REFUSED, *own):
        processor = make_processor(processor_class, changes)
        assert frame_shapes(processor) not in ({(3, 32, 32)}, {(4, 3, 32, 32)}), changes
        with pytest.raises(ValueError, match=f"^the .*processor of model .*{message}.*") as caught:
            onnx_export._check_processor(processor, S2DConfig(**TINY), "model")
        assert onnx_export.PROCESSOR_FILES[processor_class] in str(caught.value) and "\n" not in str(caught.value)


def test_sizes_that_the_metadata_have_no_word_for_are_refused():
    """Though the processor gives the model's frames."""
    processor = make_processor(S2DImageProcessor, {"size": {"shortest_edge": 36, "longest_edge": 50}})
    assert frame_shapes(processor) == {(3, 32, 32)}
    with pytest.raises(ValueError, match=r"resizes to .*longest_edge.*: give `size` in its preprocessor_config\.json"):
        onnx_export._check_processor(processor, S2DConfig(**TINY), "model")


@pytest.mark.parametrize("changes", [{"fps": 5.0}, {"frame_stride": 3, "image_mean": [0.4, 0.5, 0.5]}])
def test_image_models_take_frames_as_their_video_processor_does(changes, tmp_path, caplog):
    config = S2DConfig(**(TINY | {"num_hidden_layers": 1, "temporal_adapters": False, "prompt_type": "none"}))
    image_processor = make_processor(S2DImageProcessor, {})
    make_folder(tmp_path, S2DForImageClassification(config), image_processor)
    own = onnx_export.describe_preparation(image_processor)
    assert onnx_export._load(str(tmp_path), "model")[2] == own
    make_processor(S2DVideoProcessor, {"num_frames": 9} | changes).save_pretrained(tmp_path)
    transformers_logging = logging.getLogger("transformers")
    transformers_logging.addHandler(caplog.handler)
    try:
        preparation = onnx_export._load(str(tmp_path), "model")[2]
    finally:
        transformers_logging.removeHandler(caplog.handler)
    sampling = {name: changes.get(name) for name in ("frame_stride", "fps")}
    assert preparation == own | sampling
    told = "video_preprocessor_config.json of model prepares frames in another way" in caplog.text
    assert told == ("image_mean" in changes) == ("describe: image_mean." in caplog.text)


@pytest.mark.parametrize(
    "weights", ["model-00001-of-00002.safetensors", "pytorch_model.bin", "landmark_encoder.safetensors"]
)
def test_models_folders_are_refused(weights, tiny_video_model, tmp_path):
    """Also of a model that has no folder of its own, or another one."""
    names = (weights, "config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    for name in names:
        (tmp_path / name).write_text(name)
    for model in (tiny_video_model, tmp_path / "nowhere"):
        with pytest.raises(
            ValueError, match=rf"{tmp_path.name} holds a model's weights \({re.escape(weights)}\), .*another"
        ):
            export_onnx(model, tmp_path, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in names}


def test_own_folder_and_tokens_are_refused(encoder, tmp_path):
    config = S2DConfig(**(TINY | {"num_hidden_layers": 1, "landmark_size": 4, "temporal_adapters": False}))
    model = randomise(S2DForImageClassification(config))
    folder = make_folder(tmp_path / "model", model, S2DImageProcessor(**processor_settings(encoder)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"model holds a model's weights \(model\.safetensors\)"):
        export_onnx(folder, tmp_path / "x" / ".." / "model", overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    labels = {"id2label": {**config.id2label, 0: "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3h"}, "label2id": None}
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | labels))
    with pytest.raises(ValueError, match=r"No model.onnx is written: its settings hold an access token \(hf_aB3d"):
        export_onnx(folder, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_missing_processor_is_told_and_an_earlier_export_leaves_nothing(exported, tmp_path, caplog):
    config = S2DConfig(**(TINY | {"num_hidden_layers": 1, "temporal_adapters": False}))
    model = randomise(S2DForImageClassification(config))
    model.save_pretrained(tmp_path / "model")
    shutil.copytree(exported[0], tmp_path / "onnx")
    transformers_logging = logging.getLogger("transformers")
    transformers_logging.addHandler(caplog.handler)
    try:
        (report,) = export_onnx(tmp_path / "model", tmp_path / "onnx", overwrite=True)
    finally:
        transformers_logging.removeHandler(caplog.handler)
    assert "model has no preprocessor_config.json" in caplog.text and "no landmark_encoder.onnx" in caplog.text
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"config.json", "model.onnx"}
    assert set(metadata(report.file)) == {
        "architecture", "labels", "function_to_apply", "num_frames", "image_size", "inputs", "outputs",
    }  # fmt: skip
