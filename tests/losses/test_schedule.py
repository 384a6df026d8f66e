import re

import pytest

from s2d_hf.losses import AnchorSchedule


def test_the_papers_schedule():
    schedule = AnchorSchedule()
    expected = {0: 0, 29: 0, 29.9: 0, 30: 0.01, 49: 0.01, 50: 0.1, 59: 0.1, 60: 0.5, 79: 0.5, 80: 1, 99: 1}
    assert {epoch: schedule.weight(epoch, 100) for epoch in expected} == expected
    assert [epoch for epoch in range(100) if schedule.is_update_epoch(epoch, 100)] == [20, 60]
    rare = AnchorSchedule(update_every=100)
    assert [epoch for epoch in range(200) if rare.is_update_epoch(epoch, 200)] == [20, 120]


def test_epochs_do_not_stretch_and_fractions_do():
    epochs = AnchorSchedule()
    fractions = AnchorSchedule(
        weights=tuple((time / 100, weight) for time, weight in epochs.weights),
        first_update=0.2,
        update_every=0.4,
        unit="fraction",
    )
    for epoch in range(100):
        assert fractions.weight(epoch, 100) == epochs.weight(epoch, 100)
        assert fractions.is_update_epoch(epoch, 100) == epochs.is_update_epoch(epoch, 100)
    assert [epoch for epoch in range(10) if fractions.is_update_epoch(epoch, 10)] == [2, 6]
    assert fractions.weight(3, 10) == 0.01 and epochs.weight(3, 10) == 0
    # short trainings: an update that falls due within an epoch belongs to that epoch
    assert [epoch for epoch in range(3) if fractions.is_update_epoch(epoch, 3)] == [0, 1]


def test_updates_in_every_epoch():
    schedule = AnchorSchedule(first_update=0, update_every=1)
    assert all(schedule.is_update_epoch(epoch, 5) for epoch in range(5))
    assert all(AnchorSchedule(first_update=0, update_every=0.3).is_update_epoch(epoch, 5) for epoch in range(5))


@pytest.mark.parametrize(
    ("arguments", "num_epochs", "given", "expected"),
    [
        ({}, 100, {"samples": {"a": 8, "b": 900}, "queue_size": 16}, None),  # filled in epochs 20 and 60
        (
            {},
            100,
            {"samples": {"a": 7, "b": 0, "c": 8}, "queue_size": 16},
            "^a, b will never .* in 2 epochs of up",
        ),
        (
            {},
            50,
            {"samples": {"a": 15.5, "b": 16}, "queue_size": 16},
            "^a will never .* in one epoch of updates",
        ),
        ({}, 30, {}, "first weight at 30, beyond the training's end at 30"),
        ({}, 30.5, {}, None),
        ({"weights": ((0, 0.0),)}, 100, {}, "has no weight over 0"),
        (
            {"weights": ((0, 1.0),), "first_update": 20},
            20,
            {},
            "first update falls due at 20, beyond",
        ),
        ({"weights": ((0, 1.0),), "first_update": 20}, 20.5, {}, None),
        ({"weights": ((0, 1.0),), "first_update": 1000}, 100, {"starts_full": True}, "they stay the random numbers"),
        ({"weights": ((0, 1.0),)}, 100, {"starts_full": True, "samples": {"a": 0}, "queue_size": 16}, None),
        # epochs 20 and, for a tenth of it, 60
        ({}, 60.1, {"samples": {"a": 15, "b": 14}, "queue_size": 16}, "^b will never take part"),
        ({"weights": ((0, 1.0), (20, 0.0))}, 100, {}, "weight before their first update only"),
        ({"weights": ((0, 1.0), (21, 0.0))}, 100, {}, None),
        ({"weights": ((0.3, 1.0),), "first_update": 0.2, "update_every": 0.4, "unit": "fraction"}, 2, {}, None),
        (
            {"weights": ((1.0, 1.0),), "first_update": 0, "update_every": 1, "unit": "fraction"},
            2,
            {},
            "training's end at 1",
        ),
    ],
)
def test_anchors_that_will_do_nothing_are_found(arguments, num_epochs, given, expected):
    found = AnchorSchedule(**arguments).find_idle(num_epochs, **given)
    assert found == [] if expected is None else len(found) == 1 and re.search(expected, found[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": ()}, "ascending"),
        ({"weights": ((10, 0.1), (5, 1.0))}, "ascending"),
        ({"weights": ((0, -1.0),)}, "negative"),
        ({"update_every": 0}, "`update_every`"),
        ({"first_update": float("nan")}, "finite"),
        ({"weights": ((0, float("inf")),)}, "finite"),
        ({"unit": "steps"}, "`unit`"),
        ({"unit": "fraction"}, "0 to 1"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnchorSchedule(**arguments)
