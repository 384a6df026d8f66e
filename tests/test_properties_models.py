"""Any input and any configuration: finite logits of the right shape, or a refusal that names what is wrong."""

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers.activations import ACT2FN

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification, S2DModel

from .refusals import result_or_none
from .small_models import TINY, random_inputs, randomise

IMAGE, NO_PROMPT = TINY | {"temporal_adapters": False}, {"prompt_type": "none"}
KINDS = [
    *((S2DModel, TINY), (S2DModel, IMAGE), (S2DForVideoClassification, TINY), (S2DForVideoClassification, IMAGE)),
    *((S2DForImageClassification, IMAGE), (S2DForImageClassification, IMAGE | NO_PROMPT | {"num_labels": 1})),
    (S2DForVideoClassification, TINY | NO_PROMPT | {"problem_type": "multi_label_classification"}),
    (S2DForVideoClassification, TINY | {"problem_type": "regression"}),
]
MODELS = [randomise(each(S2DConfig(**fields))).eval() for each, fields in KINDS]
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.complex64]
NO_TENSORS = st.sampled_from([None, 3, "x", [], [[1.0]], {}, np.zeros((1, 4, 3, 32, 32)), np.float32(1)])


@st.composite
def tensors(draw, *shape: int) -> torch.Tensor:
    """A tensor of the shape, or near it."""
    shape = list(shape)
    for place in draw(st.lists(st.integers(0, len(shape) - 1), max_size=2)):
        shape[place : place + 1] = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 16, 33, 40]), max_size=2))
    assume(np.prod(shape) < 10**6)
    dtype = draw(st.just(torch.float32) | st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([0, 1e-30, 1, 255, 1e4]))
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)


@given(model=st.sampled_from(MODELS), data=st.data())
def test_any_input_gives_logits_or_is_refused(model, data):
    config, is_classifier = model.config, not isinstance(model, S2DModel)
    changed = data.draw(st.sampled_from(["batch", "pixel_values", "landmark_features", "labels"]))
    sizes = st.tuples(st.integers(0, 2), st.sampled_from([4, 1, 0])) if changed == "batch" else st.just((2, 4))
    leading = data.draw(sizes)[: 1 if isinstance(model, S2DForImageClassification) else 2]
    inputs = {name: data.draw(st.booleans()) for name in ("interpolate_pos_encoding", "interpolate_temporal_encoding")}
    for name, shape in (("pixel_values", (*leading, 3, 32, 32)), ("landmark_features", (*leading, 6, 5, 5))):
        inputs[name] = data.draw(tensors(*shape) | NO_TENSORS if name == changed else st.just(torch.ones(shape)))
    if is_classifier:
        classes = st.lists(st.integers(-3, 7), min_size=leading[0], max_size=2).map(torch.LongTensor)
        labels = tensors(leading[0], config.num_labels) | NO_TENSORS | classes
        inputs["labels"] = data.draw(labels if changed == "labels" else st.none())
    with torch.no_grad():
        output = result_or_none("`(pixel_values|landmark_features|labels)`", model, **inputs)
    if output is None:
        return
    found = output.logits if is_classifier else output.pooler_output
    assert found.shape == (len(inputs["pixel_values"]), config.num_labels if is_classifier else config.hidden_size)
    assert torch.isfinite(found).all()
    if is_classifier:
        assert (output.loss is None) == (inputs["labels"] is None)
        assert output.loss is None or (output.loss.shape == () and torch.isfinite(output.loss))


@given(model=st.sampled_from(MODELS[2:]), places=st.permutations(range(4)), others=st.integers(1, 99))
def test_a_clip_does_not_depend_on_its_neighbours(model, places, others):
    is_video = isinstance(model, S2DForVideoClassification)
    own, foreign = (random_inputs(model.config, 4, is_video, seed) for seed in (0, others))
    mixed = {name: torch.cat([values[places[:2]], foreign[name][2:]])[places] for name, values in own.items()}
    with torch.no_grad():
        found = model(**mixed).logits
        for i, place in enumerate(places[:2]):
            alone = model(**{name: values[place : place + 1] for name, values in own.items()}).logits
            torch.testing.assert_close(found[[places.index(i)]], alone, rtol=1e-5, atol=1e-5)


AVERAGING = S2DForVideoClassification(MODELS[4].config).eval()
AVERAGING.load_state_dict(MODELS[4].state_dict())
ADAPTED = S2DForVideoClassification(S2DConfig(**TINY | {"adapter_init": "zero"})).eval()
ADAPTED.load_state_dict(MODELS[4].state_dict(), strict=False)


@given(seed=st.integers(0, 999), frames=st.integers(1, 6))
def test_a_still_video_gives_the_answer_of_the_image_model(seed, frames):
    image = MODELS[4]
    inputs = random_inputs(image.config, 2, video=False, seed=seed)
    with torch.no_grad():
        for model, length in ((AVERAGING, frames), (ADAPTED, 4)):
            still = {name: values[:, None].expand(-1, length, *values.shape[1:]) for name, values in inputs.items()}
            torch.testing.assert_close(model(**still).logits, image(**inputs).logits, rtol=1e-5, atol=1e-5)


NUMBERS = st.sampled_from([*range(-1, 9), 16, 32, 33, 10**9, 10**30])
PARTS = st.floats() | st.sampled_from([0, 0.25, 0.5, 1, 2, -1, 10**400])
CHOICES = st.sampled_from([*ACT2FN, "deep", "shallow", "none", "zero", "random", "regression"])
ODD = st.none() | st.booleans() | NUMBERS | PARTS | CHOICES | st.text(max_size=3) | st.just([]) | st.just({})
NAMES = [*S2DConfig.__annotations__, "num_labels", "id2label", "problem_type"]
ID2LABEL = st.dictionaries(st.integers(-1, 2) | st.text(max_size=1), ODD, max_size=3)


@given(changed=st.dictionaries(st.sampled_from(NAMES), ODD | ID2LABEL, max_size=3))
@example(changed={"num_labels": 0})
@example(changed={"num_labels": 10**9})
@example(changed={"num_labels": None})
@example(changed={"id2label": {}})
@example(changed={"id2label": {0: None}})
@example(changed={"problem_type": "x"})
@example(changed={"initializer_range": 0.0})
@example(changed={"layer_norm_eps": -1.0})
@example(changed={"prompt_fovea_scale": float("nan")})
@example(changed={"adapter_ratio": 1e168})
def test_any_configuration_runs_or_is_refused(changed):
    try:
        config = result_or_none("|".join(NAMES), S2DConfig, **TINY | changed)
    except StrictDataclassError as error:  # of another type than the field's
        assert any(name in str(error) for name in changed), error
        return
    if config is not None:
        inputs = random_inputs(config, 1)
        inputs["pixel_values"] = inputs["pixel_values"][:, :, :1].expand(-1, -1, config.num_channels, -1, -1)
        with torch.no_grad():
            logits = S2DForVideoClassification(config).eval()(**inputs).logits
        assert logits.shape == (1, len(config.id2label)) and torch.isfinite(logits).all()
        assert S2DConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@given(labels=st.lists(st.text(max_size=12) | st.characters().map(lambda c: c * 10_000), min_size=1, max_size=6))
def test_labels_of_any_script_are_kept(labels, tmp_path_factory):
    fields = TINY | {"num_labels": None, "id2label": dict(enumerate(labels))}
    config = result_or_none("gives several classes the same name", S2DConfig, **fields)
    assert (config is None) == (len(set(labels)) < len(labels))
    if config is not None:
        folder = tmp_path_factory.mktemp("config")
        config.save_pretrained(folder)
        again = S2DConfig.from_pretrained(folder)
        assert again.id2label == fields["id2label"] and again.to_diff_dict() == config.to_diff_dict()
