"""Emotion anchors: queues of reference clips whose predictions soften ambiguous labels (paper section 3.4)."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

# the file of a checkpoint
ANCHORS_NAME = "emotion_anchors.safetensors"


class EmotionAnchors(nn.Module):
    """
    A queue of anchors for each class, and the self-distillation loss that they give.

    An anchor is the feature of a clip and the class probabilities that the model predicted for it. The soft target of
    a clip is the mean of its nearest anchors' probabilities, weighted by their cosine similarity to the clip. The
    queues are buffers, so that they move with `.to()` and stand in the state dict.

    Args:
        num_labels (`int`): Classes C.
        hidden_size (`int`): Width D of the clip features.
        queue_size (`int`): Anchors Q that each class keeps.
        num_neighbours (`int`): Nearest anchors k of each class that make a soft target; at most `queue_size`.
        start (`"empty"` or `"random"`): Before its queue is full, a class takes no part in the targets (`"empty"`).
            `"random"` is the start of the authors' code: queues full of numbers drawn evenly from [0, 1), features and
            probabilities alike, which take part until they are pushed out. Such probabilities are not normalised:
            those of an anchor, and the soft targets at first, sum to about `num_labels / 2`.

    Raises:
        ValueError: if a number is out of range, or `start` is unknown.
    """

    features: torch.Tensor
    probabilities: torch.Tensor
    counts: torch.Tensor

    def __init__(
        self, num_labels: int, hidden_size: int, queue_size: int = 16, num_neighbours: int = 2, start: str = "empty"
    ):
        super().__init__()
        for name, value in (("num_labels", num_labels), ("hidden_size", hidden_size), ("queue_size", queue_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if not 1 <= num_neighbours <= queue_size:
            raise ValueError(f"`num_neighbours` must be 1 to `queue_size` ({queue_size}), got {num_neighbours}.")
        if start not in ("empty", "random"):
            raise ValueError(f'`start` must be "empty" or "random", got {start!r}.')
        self.num_neighbours = num_neighbours
        is_random = start == "random"
        numbers = torch.rand if is_random else torch.zeros
        self.register_buffer("features", numbers(num_labels, queue_size, hidden_size))
        self.register_buffer("probabilities", numbers(num_labels, queue_size, num_labels))
        self.register_buffer("counts", torch.full((num_labels,), queue_size if is_random else 0))

    @property
    def queue_size(self) -> int:
        """Anchors that each class keeps."""
        return self.features.shape[1]

    @property
    def ready(self) -> torch.Tensor:
        """Which classes take part: `(num_labels,)`, True where the queue is full."""
        return self.counts >= self.queue_size

    @torch.no_grad()
    def soft_targets(self, features: torch.Tensor) -> torch.Tensor:
        """
        The anchors' opinion of a batch.

        Args:
            features (`torch.Tensor` of shape `(batch_size, hidden_size)`): Clip features (`pooler_output`).

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels)`, without gradients; it sums to 1 for each clip,
            but for anchors that are left of a random start. Of anchors that point away from the clip the similarity is
            negative, and where many do, targets lie far outside 0 to 1: it is the authors' formula, for features that
            have been trained.

        Raises:
            ValueError: if no class's queue is full yet, or the features have another shape.
        """
        if features.ndim != 2 or features.shape[1] != self.features.shape[2]:
            wanted = f"(batch_size, {self.features.shape[2]})"
            raise ValueError(f"`features` must be {wanted}, got {tuple(features.shape)}.")
        if not bool(self.ready.any()):
            raise ValueError(f"No class has its {self.queue_size} anchors yet: there are no soft targets.")
        features = nn.functional.normalize(features.to(self.features.dtype), dim=-1)
        anchors = nn.functional.normalize(self.features, dim=-1)
        similarity = torch.einsum("bd,cqd->bcq", features, anchors)
        nearest, index = similarity.topk(self.num_neighbours, dim=-1)  # (batch_size, num_labels, k)
        nearest = nearest * self.ready[None, :, None]
        # features that are all zero are similar to nothing: all anchors count alike
        has_weight = nearest.sum(dim=(1, 2), keepdim=True) != 0
        nearest = torch.where(has_weight, nearest, self.ready[None, :, None].to(nearest.dtype))
        classes = torch.arange(len(self.counts), device=index.device)[None, :, None]
        opinions = self.probabilities[classes, index]  # (batch_size, num_labels, k, num_labels)
        weighted = (nearest[..., None] * opinions).sum(dim=(1, 2))
        return weighted / nearest.sum(dim=(1, 2))[:, None]

    def forward(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """
        The self-distillation loss: binary cross-entropy between the logits and the soft targets.

        Args:
            logits (`torch.Tensor` of shape `(batch_size, num_labels)`).
            features (`torch.Tensor` of shape `(batch_size, hidden_size)`): Clip features (`pooler_output`).

        Returns:
            `torch.Tensor` of shape `()`; zero, and still connected to the logits, before any class's queue is full.

        Raises:
            ValueError: if the shapes don't fit each other.
        """
        if not bool(self.ready.any()):
            return logits.float().sum() * 0.0
        targets = self.soft_targets(features.detach())
        if logits.shape != targets.shape:
            raise ValueError(f"`logits` must be {tuple(targets.shape)}, got {tuple(logits.shape)}.")
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)

    @torch.no_grad()
    def update(self, features: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """
        Puts a batch into the queues of its labels, in the batch's order; the oldest anchors go.

        In distributed training every process must pass the whole batch of all processes, so that all keep the same
        queues.

        Args:
            features (`torch.Tensor` of shape `(batch_size, hidden_size)`): Features of the clips.
            logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Predictions for the same clips.
            labels (`torch.Tensor` of shape `(batch_size,)`): Class indices.

        Raises:
            ValueError: if the shapes don't fit each other, or a label is no class index.
        """
        num_labels, queue_size, hidden_size = self.features.shape
        batch_size = len(labels)
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(
                f"`labels` must be class indices (batch_size,), got {labels.dtype} {tuple(labels.shape)}."
            )
        if features.shape != (batch_size, hidden_size) or logits.shape != (batch_size, num_labels):
            raise ValueError(
                f"`features` and `logits` must be {(batch_size, hidden_size)} and {(batch_size, num_labels)}, got "
                f"{tuple(features.shape)} and {tuple(logits.shape)}."
            )
        if batch_size == 0:
            return
        if int(labels.min()) < 0 or int(labels.max()) >= num_labels:
            raise ValueError(
                f"`labels` must be 0 to {num_labels - 1}, got {int(labels.min())} to {int(labels.max())}."
            )

        one_hot = nn.functional.one_hot(labels.long(), num_labels)
        added = one_hot.sum(dim=0)  # per class
        rank = one_hot.cumsum(dim=0)[torch.arange(batch_size, device=labels.device), labels.long()] - 1
        # each class's old queue with its new anchors behind; the new queue is the last queue_size of what is there
        kept = torch.arange(queue_size, device=labels.device)[None] + added[:, None]
        classes = torch.arange(num_labels, device=labels.device)[:, None]
        for name, new in (("features", features), ("probabilities", logits.float().softmax(dim=-1))):
            old = getattr(self, name)
            behind = old.new_zeros(num_labels, int(added.max()), old.shape[-1])
            behind[labels.long(), rank] = new.to(old.dtype)
            old.copy_(torch.cat((old, behind), dim=1)[classes, kept])
        self.counts.copy_((self.counts + added).clamp(max=queue_size))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the queues into a checkpoint's folder."""
        save_file(self.state_dict(), Path(folder, ANCHORS_NAME))

    def load(self, folder: str | os.PathLike) -> None:
        """
        Takes over what [`save`] wrote.

        Raises:
            FileNotFoundError: if the folder has no anchors.
            ValueError: if they are of other sizes.
        """
        anchors = load_file(Path(folder, ANCHORS_NAME))
        if {name: x.shape for name, x in anchors.items()} != {name: x.shape for name, x in self.named_buffers()}:
            raise ValueError(f"{folder} has emotion anchors of another `anchor_queue_size` or other labels.")
        self.load_state_dict(anchors)
