import pytest
import torch
from safetensors.torch import load_file

from s2d_hf.losses import EmotionAnchors


@pytest.fixture(scope="module")
def sdl(shared) -> dict[str, torch.Tensor]:
    """Anchors before and after one update, and the soft targets and loss of one batch, from the authors' code."""
    return load_file(shared / "golden" / "sdl.safetensors")


@pytest.fixture
def golden_anchors(sdl) -> EmotionAnchors:
    anchors = EmotionAnchors(7, 64)
    anchors.features.copy_(sdl["anchor_features"])
    anchors.probabilities.copy_(sdl["anchor_probs"])
    anchors.counts.fill_(16)
    return anchors


def batch(size: int, num_labels: int = 3, width: int = 5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_labels, (size,), generator=generator)
    return torch.randn(size, width, generator=generator), torch.randn(size, num_labels, generator=generator), labels


def filled(num_labels: int = 3, width: int = 5, queue_size: int = 4, **options) -> EmotionAnchors:
    anchors = EmotionAnchors(num_labels, width, queue_size, **options)
    for label in range(num_labels):
        features, logits, _ = batch(queue_size, num_labels, width, seed=10 + label)
        anchors.update(features, logits, torch.full((queue_size,), label))
    return anchors


def test_golden_soft_targets_loss_and_update(golden_anchors, sdl):
    torch.testing.assert_close(golden_anchors.soft_targets(sdl["features"]), sdl["soft_targets"], atol=1e-6, rtol=1e-6)
    loss = golden_anchors(sdl["logits"], sdl["features"])
    torch.testing.assert_close(loss, sdl["bce_loss"][0], atol=1e-6, rtol=1e-6)
    golden_anchors.update(sdl["features"], sdl["logits"], sdl["labels"])
    assert torch.equal(golden_anchors.features, sdl["anchor_features_after"])
    torch.testing.assert_close(golden_anchors.probabilities, sdl["anchor_probs_after"], atol=1e-7, rtol=1e-6)


def test_soft_targets_equal_their_definition():
    anchors, (features, _, _) = filled(num_neighbours=2), batch(6)
    targets = anchors.soft_targets(features)
    for sample, target in zip(features, targets, strict=True):
        weighted, total = torch.zeros(3), 0.0
        for label in range(3):
            similarities = [
                float(torch.cosine_similarity(sample, anchor, dim=0)) for anchor in anchors.features[label]
            ]
            for i in sorted(range(4), key=lambda i: -similarities[i])[:2]:
                weighted += similarities[i] * anchors.probabilities[label, i]
                total += similarities[i]
        torch.testing.assert_close(target, weighted / total, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_update_equals_queues_that_samples_enter_one_by_one(size):
    anchors = EmotionAnchors(3, 5, queue_size=4)
    queues = [[], [], []]
    for seed in range(3):
        features, logits, labels = batch(size, seed=seed)
        anchors.update(features, logits, labels)
        for feature, logit, label in zip(features, logits, labels, strict=True):
            queues[label] = [*queues[label], (feature, logit.softmax(-1))][-4:]
    for label, queue in enumerate(queues):
        assert int(anchors.counts[label]) == len(queue)
        for slot, (feature, probability) in enumerate(reversed(queue)):
            assert torch.equal(anchors.features[label, -1 - slot], feature)
            torch.testing.assert_close(anchors.probabilities[label, -1 - slot], probability)


def test_classes_without_a_full_queue_take_no_part():
    full, partial = filled(), filled()
    partial.counts[1] = 3
    features, logits, _ = batch(5)
    targets = partial.soft_targets(features)
    torch.testing.assert_close(targets.sum(-1), torch.ones(5))
    assert not torch.allclose(targets, full.soft_targets(features))
    partial.features[1] = 1e3  # whatever stands there
    partial.probabilities[1] = 7.0
    torch.testing.assert_close(partial.soft_targets(features), targets)
    empty = EmotionAnchors(3, 5, queue_size=4)
    assert empty(logits.requires_grad_(), features) == 0
    empty(logits, features).backward()
    assert logits.grad is not None and not logits.grad.any()
    with pytest.raises(ValueError, match="No class has its 4 anchors"):
        empty.soft_targets(features)


def test_targets_are_detached_and_logits_learn():
    anchors, (features, logits, _) = filled(), batch(5)
    features.requires_grad_(), logits.requires_grad_()
    anchors(logits, features).backward()
    assert features.grad is None
    expected = (logits.sigmoid() - anchors.soft_targets(features)) / logits.numel()
    torch.testing.assert_close(logits.grad, expected)


def test_random_start_takes_part_at_once():
    anchors = EmotionAnchors(3, 5, queue_size=4, start="random")
    assert bool(anchors.ready.all())
    features, logits, _ = batch(5)
    assert anchors.soft_targets(features).std() > 0.01 and anchors(logits, features) > 0


def test_random_start_is_even_and_not_normalised():
    torch.manual_seed(0)
    anchors = EmotionAnchors(7, 768, queue_size=64, start="random")
    for numbers in (anchors.features, anchors.probabilities):
        numbers = numbers.flatten()[:3000].double()
        assert numbers.min() >= 0 and numbers.max() < 1
        # the largest distance of the two distribution functions; 1.95 / sqrt(n) is passed once in a thousand draws
        steps = torch.arange(len(numbers)) / len(numbers)
        assert (numbers.sort().values - steps).abs().max() < 1.95 / len(numbers) ** 0.5
    sums = anchors.probabilities.sum(dim=-1)
    assert abs(float(sums.mean()) - 3.5) < 0.15 and float(sums.std()) > 0.5
    # features of a trained model lie on one side, as these: all similarities count alike
    targets = anchors.soft_targets(torch.rand(50, 768)).sum(dim=-1)
    assert abs(float(targets.mean()) - 3.5) < 0.3


def test_half_precision_features(golden_anchors, sdl):
    targets = golden_anchors.soft_targets(sdl["features"].bfloat16())
    assert targets.dtype == torch.float32
    assert (targets - sdl["soft_targets"]).abs().max() < 0.02
    golden_anchors.update(sdl["features"].bfloat16(), sdl["logits"].bfloat16(), sdl["labels"])


def test_state_dict_restores_the_queues():
    anchors, again = filled(), EmotionAnchors(3, 5, queue_size=4)
    again.load_state_dict(anchors.state_dict())
    features, logits, _ = batch(5)
    assert torch.equal(again(logits, features), anchors(logits, features))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queue_size": 0}, "`queue_size`"),
        ({"queue_size": 4, "num_neighbours": 5}, "`num_neighbours`"),
        ({"start": "full"}, "`start`"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmotionAnchors(3, 5, **arguments)


def test_impossible_updates_are_refused():
    anchors, (features, logits, labels) = filled(), batch(5)
    with pytest.raises(ValueError, match="0 to 2, got"):
        anchors.update(features, logits, labels + 3)
    with pytest.raises(ValueError, match="class indices"):
        anchors.update(features, logits, logits.softmax(-1))
    with pytest.raises(ValueError, match="`features` and `logits`"):
        anchors.update(features[:, :4], logits, labels)
    before = anchors.features.clone()
    anchors.update(features[:0], logits[:0], labels[:0])
    assert torch.equal(anchors.features, before)
