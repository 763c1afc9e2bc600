"""Near-equal batches of an epoch, in an order that depends on seed and epoch only."""

from __future__ import annotations

import numpy as np

from flexhpc.config.sections.training import Training
from flexhpc.data.dataset import Ints


def batch_sizes(n: int, batch_size: int | None, *, tail: bool = False) -> list[int]:
    """Return the sizes of the fewest batches of at most ``batch_size``, equal to within one.

    The short last batch of a plain DataLoader gives its few samples the weight of a full batch:
    whether n samples are fitted then depends on n modulo the batch size (docs/concepts.md).

    Args:
        n: samples; batch_size: None for one batch.
        tail: keep full batches and a short last one, as a plain DataLoader does.
    """
    if batch_size is None or batch_size >= n:
        return [n]
    if tail:
        full, rest = divmod(n, batch_size)
        return [batch_size] * full + [rest] * (rest > 0)
    count = -(-n // batch_size)
    small, larger = divmod(n, count)
    return [small + 1] * larger + [small] * (count - larger)


def sizes_of(training: Training, n: int) -> list[int]:
    """Return the batch sizes of one epoch of a training with ``n`` samples."""
    tail = getattr(training, "batches", "near_equal") == "tail"
    return batch_sizes(n, getattr(training, "batch_size", None), tail=tail)


def epoch_order(n: int, seed: int, epoch: int) -> Ints:
    """Return the order of the samples in an epoch, int64 (n,); a resume needs no further state."""
    return np.random.default_rng((seed, epoch)).permutation(n)
