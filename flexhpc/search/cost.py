"""What a point can cost at most, known before anything is trained."""

from __future__ import annotations

import math

from flexhpc.search.history import MOST_REJECTED
from flexhpc.search.walk import ladder
from flexhpc.spec.sections import Bayes, Bisection, Growth, Search, Training, Walk


def cost_bound(search: Search, training: Training, n_limit: int) -> int | None:
    """Return an upper bound on a point's cost: every probe trains to the end of its budget.

    Args:
        search: policy; training: procedure.
        n_limit: largest n there is (samples).

    Returns:
        Sample passes; None where training goes on until it converges.
    """
    if training.until is not None:
        return None
    repeats = 2 * (search.seeds_per_n // 2) + 1 if isinstance(search, Walk) else 1
    if isinstance(search, Walk) and training.rejects:
        repeats += MOST_REJECTED
    each = sum(_probe(training, n) for n in _ladder(search, n_limit))
    factor = training.extend_to if training.unconverged == "extend" else 1.0
    return math.ceil(each * repeats * len(training.learning_rate or [0]) * factor)


def _probe(training: Training, n: int) -> int:
    """Sample passes of one training to the end of its first budget."""
    gradients = 1 if training.sam is None else 2
    if training.gradient_evaluations is not None:
        return max(training.gradient_evaluations, n * gradients)
    if training.epochs is not None:
        return n * training.epochs * gradients
    batch = getattr(training, "batch_size", None)
    return (n if batch is None else min(n, batch)) * (training.steps or 0) * gradients


def _ladder(search: Search, n_limit: int) -> list[int]:
    """Return n of every probe that the policy may ask for, at worst."""
    if isinstance(search, Bayes):
        most = search.max_probes * (1 + len(search.eps or ()))
        return [n_limit] * (math.ceil(most / search.at_once) * search.at_once)
    if isinstance(search, Growth):
        return ladder(search.start, search.growth, n_limit)
    if not isinstance(search, Bisection):
        raise TypeError(f"no such policy: {search.policy}")
    rungs = ladder(search.start, 2.0, n_limit) + ladder(1, 2.0, min(search.start, n_limit))
    ratio = min(2.0, n_limit)
    narrowing = math.ceil(math.log2(max(1.0, math.log(ratio) / math.log1p(search.tolerance))))
    walks = 1 + len(search.eps or ())
    return rungs + [n_limit] * ((narrowing + 2) * walks + (walks - 1) * len(rungs))
