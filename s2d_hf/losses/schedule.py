"""When the emotion anchors count, and when they are renewed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class AnchorSchedule:
    """
    Weight of the self-distillation loss and epochs in which the anchors are updated, over a training.

    The defaults are the paper's, for 100 epochs. Times are epochs, counted from 0, or with `unit="fraction"` parts of
    the whole training from 0 to 1.

    Args:
        weights (`tuple[tuple[float, float], ...]`): Pairs of a time and the weight from then on, in order.
        first_update (`float`): When the anchors are filled for the first time.
        update_every (`float`): Time from one update to the next; 40 or 100 epochs in the authors' code.
        unit (`"epochs"` or `"fraction"`): What the times are counted in.

    Raises:
        ValueError: if the times are not in order, a weight is negative, or `update_every` is not positive.
    """

    weights: tuple[tuple[float, float], ...] = ((0, 0.0), (30, 0.01), (50, 0.1), (60, 0.5), (80, 1.0))
    first_update: float = 20
    update_every: float = 40
    unit: str = "epochs"

    def __post_init__(self):
        times = [time for time, _ in self.weights]
        if not times or times != sorted(set(times)):
            raise ValueError(f"`weights` must have ascending times, got {times}.")
        if any(weight < 0 for _, weight in self.weights):
            raise ValueError(f"`weights` must not be negative, got {[weight for _, weight in self.weights]}.")
        if not all(map(math.isfinite, [*times, self.first_update, self.update_every, *(w for _, w in self.weights)])):
            raise ValueError("The anchors' times and weights must be finite numbers.")
        if self.update_every <= 0 or self.first_update < 0:
            raise ValueError(
                f"`update_every` must be positive and `first_update` not negative, got {self.update_every} and "
                f"{self.first_update}."
            )
        if self.unit not in ("epochs", "fraction"):
            raise ValueError(f'`unit` must be "epochs" or "fraction", got {self.unit!r}.')
        latest = max(times[-1], self.first_update)
        if self.unit == "fraction" and latest > 1:
            raise ValueError(f'With `unit="fraction"` all times are 0 to 1, got {latest}.')

    def weight(self, epoch: float, num_epochs: float) -> float:
        """
        The loss's weight.

        Args:
            epoch (`float`): Epochs trained so far; parts of an epoch count.
            num_epochs (`float`): Epochs of the whole training.
        """
        now = epoch / num_epochs if self.unit == "fraction" else epoch
        return max((pair for pair in self.weights if pair[0] <= now), default=(0.0, 0.0))[1]

    def is_update_epoch(self, epoch: int, num_epochs: float) -> bool:
        """
        Whether the anchors are updated in this epoch: an update falls due at a time within it.

        Args:
            epoch (`int`): Number of the epoch, from 0.
            num_epochs (`float`): Epochs of the whole training.
        """
        scale = num_epochs if self.unit == "fraction" else 1.0
        first, step = self.first_update * scale, self.update_every * scale
        if epoch + 1 <= first:
            return False
        # the last time due before this epoch ends
        updates_due = int((epoch + 1 - first - 1e-9) // step)
        return first + updates_due * step >= epoch - 1e-9

    def find_idle(
        self,
        num_epochs: float,
        samples: Mapping[str, float] | None = None,
        queue_size: int = 0,
        starts_full: bool = False,
    ) -> list[str]:
        """
        What of a training's anchors will do nothing, in words.

        Args:
            num_epochs (`float`): Epochs of the whole training.
            samples (`Mapping[str, float]`, *optional*): Training samples of each class in an epoch.
            queue_size (`int`): Anchors that each class keeps.
            starts_full (`bool`): Whether the queues are full at the start.
        """
        scale = num_epochs if self.unit == "fraction" else 1.0
        end = f"the training's end at {num_epochs / scale:g}"
        ends = [time for time, _ in self.weights[1:]] + [math.inf]
        weighted = [  # until when there is each weight that comes in time, in epochs
            until * scale
            for (time, weight), until in zip(self.weights, ends, strict=True)
            if weight > 0 and time * scale < num_epochs
        ]
        if not weighted:
            first = next((time for time, weight in self.weights if weight > 0), None)
            when = "has no weight over 0" if first is None else f"gets its first weight at {first:g}, beyond {end}"
            return [f"their loss never counts: it {when} (`anchor_weight_times`, `anchor_weights`)"]
        updates = [epoch for epoch in range(math.ceil(num_epochs)) if self.is_update_epoch(epoch, num_epochs)]
        if starts_full:
            return [] if updates else ["they stay the random numbers that they start as (`anchor_first_update`)"]
        if not updates:
            return [f"they are never filled: the first update falls due at {self.first_update:g}, beyond {end}"]
        if max(weighted) <= updates[0]:
            return ["they have weight before their first update only (`anchor_first_update`, `anchor_weight_times`)"]
        # a training may end within an epoch
        updated = sum(min(1.0, num_epochs - epoch) for epoch in updates)
        few = [name for name, count in (samples or {}).items() if count * updated < queue_size]
        if not few:
            return []
        times = "in one epoch" if len(updates) == 1 else f"in {len(updates)} epochs"
        return [
            f"{', '.join(few)} will never take part: of each fewer than {queue_size} clips come {times} of updates "
            "(`anchor_queue_size`, `anchor_update_every`)"
        ]
