"""How an epoch is cut: near-equal batches, in an order that depends on (seed, epoch) only."""

from __future__ import annotations

import numpy as np

from flexhpc.config.sections.training import Training
from flexhpc.data.dataset import Ints


def batch_sizes(n: int, batch_size: int | None, *, tail: bool = False) -> list[int]:
    """Cut ``n`` samples into the fewest batches of at most ``batch_size``, equal to within one.

    A short tail batch, as a plain DataLoader leaves it, makes the noise of its few samples as
    strong as that of a full batch: whether n fits then depends on n modulo the batch size
    (docs/concepts.md shows it); ``tail`` cuts like that all the same. With None there is one batch.
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
    """Return the batches of one epoch (samples), as a training cuts it."""
    tail = getattr(training, "batches", "near_equal") == "tail"
    return batch_sizes(n, getattr(training, "batch_size", None), tail=tail)


def epoch_order(n: int, seed: int, epoch: int) -> Ints:
    """Return the order of the samples in one epoch, int64 (n,); needs no state to resume."""
    return np.random.default_rng((seed, epoch)).permutation(n)
