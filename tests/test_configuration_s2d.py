import pytest

from s2d_hf import S2DConfig


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_size": 100, "num_attention_heads": 12}, "num_attention_heads"),
        ({"hidden_size": 96, "num_attention_heads": 12, "adapter_ratio": 0.3}, "adapter_ratio"),
        ({"adapter_num_heads": 7}, "adapter_num_heads"),
        ({"adapter_ratio": 0.0}, "adapter_ratio"),
        ({"image_size": 225}, "image_size"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"prompt_type": "medium"}, "prompt_type"),
        ({"adapter_init": "ones"}, "adapter_init"),
        ({"classifier_dropout_prob": 1.0}, "classifier_dropout_prob"),
        ({"hidden_size": "768"}, "hidden_size"),
        ({"temporal_adapters": "yes"}, "temporal_adapters"),
    ],
)
def test_impossible_fields_are_refused_by_name(fields, named):
    with pytest.raises(Exception, match=named):
        S2DConfig(**fields)


def test_adapter_fields_do_not_matter_without_adapters():
    assert not S2DConfig(adapter_num_heads=7, temporal_adapters=False).temporal_adapters


def test_round_trip_through_a_folder(tmp_path):
    config = S2DConfig(
        num_frames=8, prompt_type="shallow", temporal_adapters=False, id2label={0: "happy", 1: "sad", 2: "fear"}
    )
    config.save_pretrained(tmp_path)
    again = S2DConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == config.to_diff_dict()
    assert again.id2label == {0: "happy", 1: "sad", 2: "fear"}
    assert again.num_labels == 3
