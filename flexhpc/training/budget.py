"""Batch sizes and order of the samples of a training run, and its budget in updates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from flexhpc.config.sections.training import Training
from flexhpc.data.dataset import Ints


def batch_sizes(n: int, batch_size: int | None, *, tail: bool = False) -> list[int]:
    """Split n samples into as few batches as possible, with near-equal sizes; return the sizes.

    A plain DataLoader instead makes the last batch shorter. The few samples of that batch then have
    the weight of a full batch, so whether n samples are fitted depends on n modulo the batch size
    (docs/concepts.md).

    Args:
        n: number of samples.
        batch_size: maximum size of a batch; None for one batch.
        tail: whether to use full batches and a shorter last batch, as a plain DataLoader does.
    """
    if batch_size is None or batch_size >= n:
        return [n]
    if tail:
        full, rest = divmod(n, batch_size)
        return [batch_size] * full + [rest] * (rest > 0)
    count = -(-n // batch_size)
    size, n_larger = divmod(n, count)
    return [size + 1] * n_larger + [size] * (count - n_larger)


def epoch_batch_sizes(training: Training, n: int) -> list[int]:
    """Return the sizes of the batches of one epoch, for training on ``n`` samples."""
    tail = getattr(training, "batches", "near_equal") == "tail"
    return batch_sizes(n, getattr(training, "batch_size", None), tail=tail)


def epoch_order(n: int, seed: int, epoch: int) -> Ints:
    """Return the random order of n samples in an epoch, int64 (n,), derived from seed and epoch."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def budget_in_updates(training: Training, sizes: Sequence[int]) -> int | None:
    """Return the budget in parameter updates, at least 1; None without a budget.

    Args:
        training: training procedure, whose budget is in epochs, steps or gradient evaluations.
        sizes: batch sizes of one epoch.
    """
    if training.budget is None:
        return None
    key, budget = training.budget
    if key == "steps":
        return budget
    if key == "epochs":
        return budget * len(sizes)
    epochs, rest = divmod(budget // training.gradients_per_sample, sum(sizes))
    whole_batches = bisect_right(list(accumulate(sizes)), rest)
    return max(1, epochs * len(sizes) + whole_batches)


def extended_budget(training: Training, max_steps: int, initial_max_steps: int) -> int | None:
    """Return the doubled budget of a training run, at most ``extend_to`` times the initial budget.

    The result is None if ``unconverged`` is not ``extend``, or if the maximum is already reached.

    Args:
        training: training procedure, which sets ``unconverged`` and ``extend_to``.
        max_steps: current budget in updates, which is used up.
        initial_max_steps: budget before the first extension, in updates.
    """
    cap = int(initial_max_steps * training.extend_to)
    if training.unconverged != "extend" or max_steps >= cap:
        return None
    return min(2 * max_steps, cap)
