"""The loss that the classifiers return when labels are given."""

import torch
from torch import nn

from .configuration_s2d import S2DConfig


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: S2DConfig) -> torch.Tensor:
    """
    Mean loss of a batch.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`).
        labels (`torch.Tensor`): With `config.problem_type="single_label_classification"` class indices
            `(batch_size,)` or class probabilities `(batch_size, num_labels)`, as mixup and label smoothing give them,
            for cross-entropy; with `"multi_label_classification"` 0 and 1 for every class, `(batch_size, num_labels)`,
            for binary cross-entropy; with `"regression"` targets of the logits' shape for the mean squared error.

            With `None`, as in all of transformers: regression if there is one label, else class indices if the labels
            are integers `(batch_size,)`, and 0 and 1 for every class if they aren't.

    Raises:
        ValueError: if the labels' shape fits none of these, or on a CPU a class index is out of range.
        TypeError: if they are no tensor of real numbers.
    """
    if not isinstance(labels, torch.Tensor) or labels.is_complex():
        what = labels.dtype if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise TypeError(f"`labels` must be a tensor of class indices or probabilities, got {what}.")
    labels = labels.to(logits.device)
    logits = logits.float()
    problem_type = config.problem_type
    if problem_type is None:
        are_indices = labels.ndim == 1 and not labels.is_floating_point()
        problem_type = "single_label_classification" if are_indices else "multi_label_classification"
        if config.num_labels == 1:
            problem_type = "regression"
    if problem_type == "regression" and labels.numel() == logits.numel():
        return nn.functional.mse_loss(logits, labels.view_as(logits).float())
    if problem_type == "multi_label_classification" and labels.shape == logits.shape:
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    if problem_type == "single_label_classification":
        if labels.ndim == 1 and not labels.is_floating_point() and labels.shape[0] == logits.shape[0]:
            try:
                return nn.functional.cross_entropy(logits, labels.long())
            except IndexError as error:  # a GPU would have to be waited for
                raise ValueError(f"`labels` must be 0 to {logits.shape[1] - 1}: {error}") from error
        if labels.shape == logits.shape and labels.is_floating_point():
            return nn.functional.cross_entropy(logits, labels.float())
        raise ValueError(
            f"`labels` must be class indices ({logits.shape[0]},) or floating-point class probabilities "
            f"{tuple(logits.shape)}, got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    raise ValueError(
        f"`labels` must have the shape of the logits, {tuple(logits.shape)}, for a {problem_type} model, got "
        f"{tuple(labels.shape)}."
    )


__all__ = ["classification_loss"]
