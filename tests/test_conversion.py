import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, AutoVideoProcessor

from s2d_hf import S2DForImageClassification, S2DForVideoClassification
from s2d_hf.conversion import (
    convert_checkpoint,
    convert_state_dict,
    export_state_dict,
    infer_config,
    read_checkpoint,
)
from s2d_hf.labels import LABELS, find_labels


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


def test_every_tensor_is_accounted_for(official_state):
    converted, report = convert_state_dict(official_state, infer_config(official_state, num_attention_heads=4))
    mapped = dict(pair for pairs in report.mapped.values() for pair in pairs)
    assert set(mapped) == set(official_state) and not report.dropped
    assert set(mapped.values()) == set(converted)
    for old, new in mapped.items():
        assert torch.equal(converted[new].flatten(), official_state[old].flatten())


def test_export_is_the_way_back(official_state):
    converted, _ = convert_state_dict(official_state, infer_config(official_state, num_attention_heads=4))
    exported = export_state_dict(converted)
    assert exported.keys() == official_state.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in official_state.items())
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
        "landmark_net.conv1.conv.weight", "weak_head.weight", "head.weight", "head.bias",
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


@pytest.mark.parametrize("wrapping", ["model", "model_state_dict", "state_dict", "top", "module.", "safetensors"])
def test_ways_in_which_checkpoints_are_stored(official_state, tmp_path, wrapping):
    path = tmp_path / "checkpoint.pth"
    if wrapping == "top":
        torch.save(official_state, path)
    elif wrapping == "module.":
        torch.save({"state_dict": {f"module.{name}": t for name, t in official_state.items()}, "epoch": 3}, path)
    elif wrapping == "safetensors":
        path = tmp_path / "checkpoint.safetensors"
        save_file(official_state, path)
    else:
        torch.save({"epoch": 100, wrapping: official_state}, path)
    state = read_checkpoint(path)
    assert state.keys() == official_state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in official_state.items())


class Malicious:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pickles_of_more_than_tensors_are_refused(official_state, tmp_path, capsys):
    for payload, found in ((Malicious(), "print"), (argparse.Namespace(lr=1e-5), "argparse.Namespace")):
        torch.save({"model": official_state, "args": payload}, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=rf"bad\.pth was refused.*{found}"):
            read_checkpoint(tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match=r"plain\.pth"):
        read_checkpoint(tmp_path / "plain.pth")
    assert "never" not in capsys.readouterr().out


def test_files_that_are_no_checkpoints_are_named(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"model": {"epoch": 3}}, tmp_path / "empty_state.pth")
    for name in ("text.pth", "empty.pth", "text.safetensors", "empty_state.pth"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            read_checkpoint(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_checkpoint(tmp_path / "nowhere.pth")


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
    assert "prompt_blocks.2.conv1x1.weight: shape (64, 9, 1, 1), expected (64, 8)" in message
    assert "blocks.0.attn.q_norm.weight (16,): unknown name" in message
    assert "s2d.layers.2.layernorm_before.bias (64,): missing" in message


def test_what_cannot_be_a_model_is_refused(official_state, landmark_weights, tmp_path):
    torch.save({"model": official_state}, tmp_path / "official.pth")
    arguments = {"checkpoint": tmp_path / "official.pth", "output": tmp_path / "out", "num_attention_heads": 4}
    with pytest.raises(ValueError, match=r"official\.pth is guided by landmarks"):
        convert_checkpoint(**arguments)
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
