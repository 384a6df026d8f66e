import shutil

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, AutoVideoProcessor

from s2d_hf import S2DForImageClassification, S2DForVideoClassification
from s2d_hf.conversion import (
    convert_checkpoint,
    convert_state_dict,
    export_state_dict,
    infer_config,
    read_landmark_encoder,
)
from s2d_hf.labels import LABELS, dataset_in_name, find_labels


@pytest.fixture
def image_state(official_state) -> dict[str, torch.Tensor]:
    """The golden checkpoint as an image checkpoint: no temporal modules, other names, and things to drop."""
    state = {
        name.replace("ln_post.", "norm."): tensor
        for name, tensor in official_state.items()
        if "TMA" not in name and name != "temporal_embedding"
    }
    extra = {
        "landmark_net.conv1.conv.weight": torch.zeros(64, 3, 3, 3),
        "weak_head.weight": torch.zeros(8, 64),
        "head.weight": torch.zeros(8, 64),
        "head.bias": torch.zeros(8),
    }
    return state | extra


def test_folder_of_a_video_model(converted):
    config = AutoConfig.from_pretrained(converted)
    assert config.num_frames == 4 and config.temporal_adapters and config.prompt_type == "deep"
    assert config.id2label[3] == "angry" and config.label2id["angry"] == 3
    assert AutoVideoProcessor.from_pretrained(converted).num_frames == 4
    assert AutoImageProcessor.from_pretrained(converted).landmark_encoder is not None
    assert not list(converted.glob("*.bin")) and (converted / "model.safetensors").is_file()


UNUSED = {"prompt_norms.2.weight", "prompt_norms.2.bias"}  # the last norm of three layers, in the authors' code


def test_every_tensor_is_accounted_for(official_state):
    converted, report = convert_state_dict(official_state, infer_config(official_state, num_attention_heads=4))
    mapped = dict(pair for pairs in report.mapped.values() for pair in pairs)
    assert set(mapped) == set(official_state) - UNUSED and set(report.dropped) == UNUSED
    assert set(mapped.values()) == set(converted)
    for old, new in mapped.items():
        assert torch.equal(converted[new].flatten(), official_state[old].flatten())


def test_export_is_the_way_back(official_state):
    converted, _ = convert_state_dict(official_state, infer_config(official_state, num_attention_heads=4))
    exported = export_state_dict(converted)
    assert exported.keys() == official_state.keys()
    assert all(exported[name].shape == tensor.shape for name, tensor in official_state.items())
    assert all(torch.equal(exported[name], tensor) for name, tensor in official_state.items() if name not in UNUSED)
    with pytest.raises(ValueError, match=r"classifier\.scale has no name"):
        export_state_dict({"classifier.scale": torch.ones(1)})


def test_image_checkpoint(image_state, landmark_weights, tmp_path):
    torch.save({"model": image_state}, tmp_path / "image.pth")
    report = convert_checkpoint(
        tmp_path / "image.pth",
        tmp_path / "out",
        landmark_weights,
        labels=find_labels("affectnet7"),
        num_attention_heads=4,
    )
    assert set(report.dropped) == {
        "landmark_net.conv1.conv.weight", "weak_head.weight", "head.weight", "head.bias", *UNUSED,
    }  # fmt: skip
    assert all(name in str(report) and reason in str(report) for name, reason in report.dropped.items())
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert isinstance(model, S2DForImageClassification)
    assert torch.equal(model.s2d.layernorm.weight, image_state["norm.weight"])
    assert torch.equal(model.classifier.weight, image_state["head.fc_cls.weight"])
    assert model.config.id2label[6] == "anger"


def test_image_checkpoint_whose_classifier_is_called_head(image_state):
    state = {name: tensor for name, tensor in image_state.items() if not name.startswith("head.fc_cls")}
    config = infer_config(state, num_attention_heads=4)
    converted, report = convert_state_dict(state, config)
    assert config.num_labels == 8 and torch.equal(converted["classifier.weight"], state["head.weight"])
    assert any("taken as the classifier" in note for note in report.notes)
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    _, report = convert_state_dict(headless, infer_config(headless, num_attention_heads=4))
    assert any("no classifier" in note for note in report.notes)


def test_shallow_checkpoint(official_state):
    state = {
        name: tensor
        for name, tensor in official_state.items()
        if not name.startswith(("prompt_blocks.1.", "prompt_blocks.2."))
    }
    config = infer_config(state, num_attention_heads=4)
    assert config.prompt_type == "shallow"
    converted, report = convert_state_dict(state, config)
    assert {name.split(".")[1] for name in report.dropped} == {"1", "2"}  # prompt norms that nothing uses
    S2DForVideoClassification(config).load_state_dict(converted)


@pytest.mark.parametrize(("wrong", "message"), [
    (torch.zeros(0), "cls_token has the shape"),
    (torch.zeros(64), "cls_token has the shape"),
    (torch.zeros(1, 1, 0), "cls_token has the shape"),
])  # fmt: skip
def test_impossible_shapes_are_refused(official_state, wrong, message):
    with pytest.raises(ValueError, match=message):
        infer_config(official_state | {"cls_token": wrong}, num_attention_heads=4)


@pytest.mark.parametrize("number", ["7", "1000000000", "9" * 5000, "00", "٣", "²"])
def test_block_numbers_do_not_make_a_model_grow(official_state, number):
    """The model has three blocks."""
    for part in ("blocks.{}.norm1.bias", "prompt_blocks.{}.conv0_0.bias"):
        state = official_state | {part.format(number): torch.zeros(64)}
        with pytest.raises(ValueError) as refusal:
            convert_state_dict(state, infer_config(state, num_attention_heads=4))
        assert part.split(".")[0] in str(refusal.value) and len(str(refusal.value)) < 6000


@pytest.mark.parametrize(
    "labels", [("a",) * 7, ("a", "b", "c", "d", "e", "f", " "), ("a", "b", "c", "d", "e", "f", "a ")]
)
def test_each_class_has_a_label_of_its_own(official_state, labels):
    with pytest.raises(ValueError, match="a label of its own"):
        infer_config(official_state, labels, num_attention_heads=4)


@pytest.mark.parametrize("change", [
    lambda tensor: tensor.double() * 1e300, lambda tensor: tensor.to(torch.complex64), lambda tensor: tensor > 0,
])  # fmt: skip
def test_values_that_float32_cannot_hold_are_refused(official_state, change):
    name = "blocks.1.mlp.fc2.weight"
    state = official_state | {name: change(official_state[name])}
    with pytest.raises(ValueError, match=rf"{name}: holds values that are no numbers in float32"):
        convert_state_dict(state, infer_config(state, num_attention_heads=4))


def test_landmark_detectors_of_no_numbers_are_refused(landmark_state, tmp_path):
    state = {name: tensor.float() for name, tensor in landmark_state.items()}
    state["conv1.conv.weight"][0, 0] = float("inf")
    torch.save({"state_dict": state}, tmp_path / "lm.pth")
    with pytest.raises(ValueError, match=r"lm\.pth holds values that are no numbers"):
        read_landmark_encoder(tmp_path / "lm.pth")


def test_values_that_are_no_numbers_are_refused(official_state):
    state = dict(official_state)
    state["blocks.1.mlp.fc2.weight"] = state["blocks.1.mlp.fc2.weight"].clone()
    state["blocks.1.mlp.fc2.weight"][3, 5] = float("nan")
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.fc2\.weight: holds values that are no numbers"):
        convert_state_dict(state, infer_config(state, num_attention_heads=4))


def test_tensors_that_do_not_fit_are_named_one_by_one(official_state):
    state = dict(official_state)
    state["blocks.1.mlp.fc2.weight"] = torch.zeros(64, 255)
    state["prompt_blocks.2.conv1x1.weight"] = torch.zeros(64, 9, 1, 1)
    state["blocks.0.attn.q_norm.weight"] = torch.zeros(16)
    del state["blocks.2.norm1.bias"]
    with pytest.raises(ValueError) as refusal:
        convert_state_dict(state, infer_config(state, num_attention_heads=4))
    message = str(refusal.value)
    assert "blocks.1.mlp.fc2.weight: shape (64, 255), expected (64, 256)" in message
    assert "prompt_blocks.2.conv1x1.weight: shape (64, 9), expected (64, 8)" in message
    assert "blocks.0.attn.q_norm.weight (16,): unknown name" in message
    assert "s2d.layers.2.layernorm_before.bias (64,): missing" in message


def test_what_cannot_be_a_model_is_refused(official_state, landmark_weights, tmp_path):
    torch.save({"model": official_state}, tmp_path / "official.pth")
    arguments = {"checkpoint": tmp_path / "official.pth", "output": tmp_path / "out", "num_attention_heads": 4}
    with pytest.raises(ValueError, match=r"(?s)does not hold the weights of .*conv1\.conv\.weight: missing"):
        convert_checkpoint(**arguments, landmark_weights=tmp_path / "official.pth")
    with pytest.raises(ValueError, match=r"official\.pth: The checkpoint's classifier has 7 classes, but 11"):
        convert_checkpoint(**arguments, landmark_weights=landmark_weights, labels=LABELS["MAFW"])
    with pytest.raises(ValueError, match=r"no S2D checkpoint: it has no cls_token"):
        infer_config({"conv1.weight": torch.zeros(1)})
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        convert_checkpoint(**arguments, landmark_weights=landmark_weights)


def test_landmark_checkpoint_as_the_authors_publish_it(official_state, landmark_state, tmp_path, golden):
    """`.pth.tar`, under `state_dict`, from DataParallel."""
    torch.save(
        {"epoch": 80, "state_dict": {f"module.{name}": t.float() for name, t in landmark_state.items()}},
        tmp_path / "landmarks.pth.tar",
    )
    torch.save({"model_state_dict": official_state}, tmp_path / "official.pth")
    convert_checkpoint(
        tmp_path / "official.pth", tmp_path / "out", tmp_path / "landmarks.pth.tar", num_attention_heads=4
    )
    output = AutoVideoProcessor.from_pretrained(tmp_path / "out")(golden["frames"], return_tensors="pt")
    assert (output["landmark_features"] - golden["landmark_features"]).abs().mean() < 1e-3


@pytest.fixture
def golden_checkpoint(shared) -> str:
    """A video model as the authors' training writes it: beside the weights, arguments, paths and NumPy scalars."""
    return str(shared / "golden" / "split01_checkpoint-best.pth")


def test_the_authors_video_checkpoint(golden, golden_checkpoint, landmark_weights, tmp_path):
    report = convert_checkpoint(golden_checkpoint, tmp_path / "out", landmark_weights, num_attention_heads=4)
    assert set(report.dropped) == UNUSED
    # its arguments say DFEW, of which they are no proof, and its name says nothing
    assert any("LABEL_0" in note and "name the `dataset`" in note for note in report.notes)
    model = S2DForVideoClassification.from_pretrained(tmp_path / "out")
    pixels = AutoVideoProcessor.from_pretrained(tmp_path / "out")(golden["frames"], return_tensors="pt")
    with torch.no_grad():
        logits = model(pixels["pixel_values"], landmark_features=golden["landmark_features"]).logits
    assert (logits - golden["logits"]).abs().max() < 1e-5


def test_the_authors_image_checkpoint_brings_its_landmark_detector(shared, landmark_weights, face, tmp_path):
    """No landmark option, no network; the answers are those with the detector as a file."""
    checkpoint = shared / "golden" / "pretrain-image.pth"
    report = convert_checkpoint(checkpoint, tmp_path / "own", num_attention_heads=4)
    assert len(report.mapped["landmark encoder"]) == 333 and set(report.dropped) == UNUSED
    report = convert_checkpoint(checkpoint, tmp_path / "given", landmark_weights, num_attention_heads=4)
    assert any("is not used" in note and "mobilefacenet" in note for note in report.notes)
    state = torch.load(checkpoint, weights_only=False)["model_state_dict"]  # a file of ours
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("landmark.")}
    torch.save({"model": bare}, tmp_path / "bare.pth")
    convert_checkpoint(tmp_path / "bare.pth", tmp_path / "bare", landmark_weights, num_attention_heads=4)
    scores = []
    for name in ("own", "bare"):
        processor = AutoImageProcessor.from_pretrained(tmp_path / name)
        model = AutoModelForImageClassification.from_pretrained(tmp_path / name)
        with torch.no_grad():
            scores.append(model(**processor(face, return_tensors="pt")).logits)
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-6)


def test_a_part_of_a_landmark_detector_is_none(shared, landmark_weights, tmp_path):
    state = torch.load(shared / "golden" / "pretrain-image.pth", weights_only=False)["model_state_dict"]
    del state["landmark.backbone.conv_4.model.0.conv.bn.weight"]
    torch.save({"model": state}, tmp_path / "part.pth")
    report = convert_checkpoint(tmp_path / "part.pth", tmp_path / "out", landmark_weights, num_attention_heads=4)
    assert len(set(report.dropped) - UNUSED) == 332 and "landmark encoder" not in report.mapped
    assert str(report).count("landmark.backbone") == 4 and "and 328 more" in str(report)


@pytest.mark.parametrize(("name", "first"), [
    ("pretrain-AffectNet-7.pth", "neutral"), ("Pretrain_affectnet7.pth", "neutral"), ("AffectNet.pth", "neutral"),
    ("DFEW-set1.pth", "happy"), ("ferv39k.pth", "angry"), ("raf-db_7.pth", "surprise"),
])  # fmt: skip
def test_labels_that_the_name_says(golden_checkpoint, landmark_weights, tmp_path, name, first):
    shutil.copy(golden_checkpoint, tmp_path / name)
    report = convert_checkpoint(tmp_path / name, tmp_path / "out", landmark_weights)
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label[0] == first
    assert any("as the checkpoint's name says" in note for note in report.notes)


@pytest.mark.parametrize("name", [
    "split01_checkpoint-best.pth", "DFEW_from_AffectNet-7.pth", "MAFW-set1.pth", "AffectNet-8.pth", "FERPlus.pth",
    "affectnet-7-or-8_AffectNet8.pth", "DFEW-ck+.pth", "no_dfew.pth", "DFEW-finetuned-on-Aff-Wild2.pth", "grafdb.pth",
    "pretrained-for-ferv39k.pth",
])  # fmt: skip
def test_labels_that_no_name_says_are_asked_for(golden_checkpoint, landmark_weights, tmp_path, name):
    """Of other numbers of classes (this one has 7), two data sets at once, or none."""
    shutil.copy(golden_checkpoint, tmp_path / name)
    with pytest.raises(ValueError, match=r"name the `dataset` .*DFEW, FERV39k, AffectNet-7, RAF-DB"):
        convert_checkpoint(tmp_path / name, tmp_path / "out", landmark_weights, needs_labels=True)
    assert not (tmp_path / "out").exists()
    convert_checkpoint(tmp_path / name, tmp_path / "out", landmark_weights)
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label[0] == "LABEL_0"


def test_the_folder_of_a_file_says_nothing(golden_checkpoint, landmark_weights, tmp_path):
    """People keep everything of a project in one; in a repository of the Hub it is the authors who name folders."""
    assert dataset_in_name("DFEW/best.pth", 7) is None
    assert dataset_in_name("hf://cyinen/S2D@main/DFEW/best.pth", 7) == "DFEW"
    assert dataset_in_name("hf://dfew/dfew/best.pth", 7) is None


def test_without_a_classifier_nothing_is_predicted(official_state, landmark_weights, tmp_path):
    state = {name: tensor for name, tensor in official_state.items() if not name.startswith("head")}
    torch.save({"model": state}, tmp_path / "dfew.pth")
    with pytest.raises(ValueError, match=r"dfew\.pth: It has no classifier"):
        convert_checkpoint(tmp_path / "dfew.pth", tmp_path / "out", landmark_weights, needs_labels=True)


def test_end_to_end_scores_follow_from_the_weights_alone(golden, converted):
    """Frames to scores through the converted folder; float16 landmark weights leave a difference of 4e-5."""
    processor = AutoVideoProcessor.from_pretrained(converted)
    model = S2DForVideoClassification.from_pretrained(converted)
    with torch.no_grad():
        logits = model(**processor(golden["frames"], return_tensors="pt")).logits
    assert (logits - golden["logits"]).abs().max() < 1e-4


def test_label_names():
    assert [len(labels) for labels in LABELS.values()] == [7, 7, 11, 7, 8, 7, 8]
    assert find_labels("dfew")[3] == "angry" and find_labels("FERV39K")[6] == "surprise"
    with pytest.raises(ValueError, match="DFEW, FERV39k, MAFW, AffectNet-7"):
        find_labels("imagenet")
