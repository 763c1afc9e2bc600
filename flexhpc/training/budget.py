"""Budgets of a training, converted to parameter updates."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.config.sections.training import Training


def gradients_per_sample(training: Training) -> int:
    """Return the number of gradients that an update takes of each sample of its batch."""
    return 1 if training.sam is None else 2


def updates(training: Training, sizes: Sequence[int]) -> int | None:
    """Return the budget in parameter updates; None for training until convergence.

    Args:
        training: has a budget of epochs, steps or gradient evaluations, or none.
        sizes: batch sizes of one epoch.
    """
    if training.until is not None:
        return None
    if training.steps is not None:
        return training.steps
    if training.gradient_evaluations is not None:
        return _within(training.gradient_evaluations // gradients_per_sample(training), sizes)
    return (training.epochs or 0) * len(sizes)


def _within(samples: int, sizes: Sequence[int]) -> int:
    """Return the number of batches with at most ``samples`` samples in all, but at least one."""
    epochs, rest = divmod(samples, sum(sizes))
    count = epochs * len(sizes)
    for size in sizes:
        rest -= size
        if rest < 0:
            break
        count += 1
    return max(1, count)


def epochs(training: Training, sizes: Sequence[int]) -> float | None:
    """Return the initial budget in epochs, or None; see :func:`updates`."""
    allowed = updates(training, sizes)
    return None if allowed is None else allowed / len(sizes)


def extended(training: Training, allowed: int, first: int) -> int | None:
    """Return a larger budget for a training that still improves; None if it is not extended.

    Args:
        allowed: the budget that is used up (updates); first: the initial one.
    """
    cap = int(first * training.extend_to)
    if training.unconverged != "extend" or allowed >= cap:
        return None
    return min(2 * allowed, cap)
