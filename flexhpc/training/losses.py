"""Loss and correctness of samples. A sample has one label, or one label per token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flexhpc.config.sections.data import IGNORED


def cross_entropy(
    logits: Tensor, labels: Tensor, *, reduction: str, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy; the loss of a sequence is the mean over its tokens with a label.

    Args:
        logits: (m, classes), or (m, classes, length) for sequences.
        labels: int64 (m,), or (m, length) for sequences.
        reduction: ``mean`` or ``sum`` over samples.
        label_smoothing: fraction of each label that is spread over all classes.
    """
    per_token = labels.ndim > 1
    loss = functional.cross_entropy(
        logits, labels, reduction="none" if per_token else reduction,
        label_smoothing=label_smoothing, ignore_index=IGNORED,
    )  # fmt: skip
    if not per_token:
        return loss
    losses = loss.sum(dim=1) / (labels != IGNORED).sum(dim=1)
    return losses.mean() if reduction == "mean" else losses.sum()


def missed_samples(logits: Tensor, labels: Tensor, prompt: int) -> Tensor:
    """Return whether each sample is misclassified, bool (m,).

    A sequence is misclassified if the prediction of any token with a label after its first
    ``prompt`` tokens is wrong.
    """
    wrong = logits.argmax(dim=1) != labels
    if labels.ndim == 1:
        return wrong
    return (wrong & (labels != IGNORED))[:, prompt:].any(dim=1)


def has_finite_logits(logits: Tensor) -> Tensor:
    """Return whether all logits of each sample are finite, bool (m,)."""
    return logits.abs().flatten(1).amax(dim=1) < torch.inf  # false for nan as well
