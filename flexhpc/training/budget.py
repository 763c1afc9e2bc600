"""How many updates a probe may make: every kind of budget comes down to that."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.config.sections.training import Training


def gradients_per_sample(training: Training) -> int:
    """Return how often an update takes the gradient of each sample of its batch."""
    return 1 if training.sam is None else 2


def updates(training: Training, sizes: Sequence[int]) -> int | None:
    """Return the budget in parameter updates; None if training goes on until it converges.

    Args:
        training: the procedure; its budget is one of epochs, steps, gradient evaluations, none.
        sizes: of the batches of one epoch (samples).
    """
    if training.until is not None:
        return None
    if training.steps is not None:
        return training.steps
    if training.gradient_evaluations is not None:
        return _within(training.gradient_evaluations // gradients_per_sample(training), sizes)
    return (training.epochs or 0) * len(sizes)


def _within(samples: int, sizes: Sequence[int]) -> int:
    """Return how many batches hold at most ``samples`` together; at least one."""
    epochs, rest = divmod(samples, sum(sizes))
    count = epochs * len(sizes)
    for size in sizes:
        rest -= size
        if rest < 0:
            break
        count += 1
    return max(1, count)


def epochs(training: Training, sizes: Sequence[int]) -> float | None:
    """Return the first budget in epochs; None if there is none. Arguments as in :func:`updates`."""
    allowed = updates(training, sizes)
    return None if allowed is None else allowed / len(sizes)


def extended(training: Training, allowed: int, first: int) -> int | None:
    """Return a larger budget (updates) for a probe that still improves; None if there is none.

    Args:
        training: the procedure; allowed: the budget that ran out; first: the one it began with.
    """
    cap = int(first * training.extend_to)
    if training.unconverged != "extend" or allowed >= cap:
        return None
    return min(2 * allowed, cap)
