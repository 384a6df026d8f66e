"""Other precisions, weights from elsewhere, copies and other processes: what people do with a PyTorch model."""

import copy
import pickle
import time

import pytest
import torch

from s2d_hf import S2DConfig, S2DForImageClassification, S2DForVideoClassification

from .reference import reference_logits
from .small_models import TINY, random_inputs, randomise

Model = S2DForVideoClassification | S2DForImageClassification
SQUARE = {"landmark_size": 4}  # landmark features on the patches' grid, as the reference takes them


@pytest.fixture(params=["video", "image"])
def model(request) -> Model:
    video = request.param == "video"
    model_class = S2DForVideoClassification if video else S2DForImageClassification
    return randomise(model_class(S2DConfig(**(TINY | SQUARE | {"temporal_adapters": video})))).eval()


@pytest.fixture
def inputs(model) -> dict[str, torch.Tensor]:
    return random_inputs(model.config, 2, video=isinstance(model, S2DForVideoClassification))


def compute_logits(model: Model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


# --- precisions

# the largest difference of a score, in parts of the largest score
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 0.004, torch.bfloat16: 0.03}
HALVES = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("way", "dtype"), [*(("model", dtype) for dtype in TOLERANCES), *(("autocast", dtype) for dtype in HALVES)]
)
def test_scores_in_every_precision(attention, way, dtype):
    model = randomise(S2DForVideoClassification(S2DConfig(**(TINY | SQUARE)))).eval()
    inputs = random_inputs(model.config, batch_size=8)
    exact = {name: x.double() for name, x in inputs.items()}
    expected, _ = reference_logits(copy.deepcopy(model).double().state_dict(), model.config, **exact)
    model.set_attn_implementation(attention)
    if way == "autocast":
        with torch.autocast("cpu", dtype):
            logits = compute_logits(model, inputs)
    else:
        logits = compute_logits(model.to(dtype), exact if dtype == torch.float64 else inputs)
        assert logits.dtype == dtype
    error = (logits.double() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", HALVES)
def test_scores_of_flex_attention_in_half_precision(dtype):
    """It takes heads of 16 and more, and 16 frames."""
    model = randomise(
        S2DForVideoClassification(S2DConfig(**(TINY | SQUARE | {"adapter_ratio": 1.0, "num_frames": 16})))
    )
    inputs = random_inputs(model.config, batch_size=1)
    expected, _ = reference_logits(model.state_dict(), model.config, **inputs)
    model.eval().to(dtype).set_attn_implementation("flex_attention")
    error = (compute_logits(model, inputs).float() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCES[dtype]


# --- weights from elsewhere


def test_call_with_other_weights(model, inputs):
    """By `torch.func.functional_call`; the model keeps its own."""
    other = randomise(copy.deepcopy(model), seed=1)
    own = compute_logits(model, inputs)
    with torch.no_grad():
        found = torch.func.functional_call(model, dict(other.named_parameters()), (), inputs).logits
    expected = compute_logits(other, inputs)
    assert (expected - own).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    torch.testing.assert_close(compute_logits(model, inputs), own, atol=0, rtol=0)


def test_gradients_of_each_sample_have_the_batchs_mean(model, inputs):
    labels = torch.tensor([1, 3])
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def compute_loss(weights: dict[str, torch.Tensor], i: int) -> torch.Tensor:
        sample = {name: x[i : i + 1] for name, x in inputs.items()} | {"labels": labels[i : i + 1]}
        return torch.func.functional_call(model, weights, (), sample).loss

    each = [torch.func.grad(compute_loss)(weights, i) for i in range(2)]
    model(**inputs, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        first, second = (gradients[name] for gradients in each)
        torch.testing.assert_close((first + second) / 2, parameter.grad, atol=1e-5, rtol=1e-4, msg=name)
    assert (each[0]["classifier.weight"] - each[1]["classifier.weight"]).abs().max() > 1e-2


def test_weights_assigned_to_a_model_without_any(model, inputs):
    """On PyTorch's meta device, made there or moved there."""
    expected = compute_logits(model, inputs)
    state = copy.deepcopy(model.state_dict())
    with torch.device("meta"):
        made = type(model)(model.config).eval()
    for empty in (made, copy.deepcopy(model).to("meta")):
        assert all(parameter.is_meta for parameter in empty.parameters())
        shapes = {name: x.to("meta") for name, x in inputs.items()}
        assert compute_logits(empty, shapes).shape == expected.shape
        empty.load_state_dict(state, assign=True)
        torch.testing.assert_close(compute_logits(empty, inputs), expected, atol=0, rtol=0)


# --- copies and processes


def make_copy(model: Model, way: str, folder) -> Model:
    if way == "deepcopy":
        return copy.deepcopy(model)
    if way == "pickle":
        return pickle.loads(pickle.dumps(model))
    torch.save(model, folder / "model.pt")
    return torch.load(folder / "model.pt", weights_only=False)


@pytest.mark.filterwarnings("ignore:.*_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_is_the_same_and_apart(model, inputs, way, tmp_path):
    """Also what is frozen, and which layers are computed again."""
    model.freeze_for_video_tuning().set_attn_implementation("eager")
    expected = compute_logits(model, inputs)
    made = make_copy(model, way, tmp_path)
    torch.testing.assert_close(compute_logits(made, inputs), expected, atol=0, rtol=0)
    assert made.config.to_dict() == model.config.to_dict()
    assert made.config._attn_implementation == "eager" and made.s2d.layers[0].attention.config is made.config
    for own, other in zip(model.parameters(), made.parameters(), strict=True):
        assert own.requires_grad == other.requires_grad and own.data_ptr() != other.data_ptr()
    assert made.is_gradient_checkpointing
    made.train()(**inputs, labels=torch.tensor([1, 3])).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in made.parameters())
    assert all(p.grad is None for p in model.parameters())
    randomise(made, seed=1)
    torch.testing.assert_close(compute_logits(model, inputs), expected, atol=0, rtol=0)


def work(rank: int, model: Model, inputs: dict[str, torch.Tensor], results: torch.Tensor) -> None:
    """In a process of its own: writes features, and adds to the shared classifier's bias for the parent to see."""
    torch.set_num_threads(1)  # the parent's threads don't outlive a fork
    with torch.no_grad():
        results[rank] = model(**inputs).pooler_output
        model.classifier.bias[rank] += 1


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_model_in_other_processes(method, tiny_video_model):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    model = tiny_video_model
    inputs = random_inputs(model.config, batch_size=2)
    with torch.no_grad():
        expected = model(**inputs)
    model.share_memory()
    assert all(parameter.is_shared() for parameter in model.parameters())
    results = torch.zeros(2, *expected.pooler_output.shape).share_memory_()
    started = torch.multiprocessing.start_processes(
        work, (model, inputs, results), nprocs=2, join=False, start_method=method
    )
    end = time.monotonic() + 120
    try:
        while not started.join(timeout=1):
            assert time.monotonic() < end, "the processes hang"
    finally:
        for process in started.processes:
            process.kill()
    for features in results:
        torch.testing.assert_close(features, expected.pooler_output, atol=1e-6, rtol=0)
    shift = torch.tensor([1.0, 1, 0, 0, 0])
    torch.testing.assert_close(compute_logits(model, inputs), expected.logits + shift, atol=1e-5, rtol=0)
