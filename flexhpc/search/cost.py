"""What a point can cost at most, known before anything is trained."""

from __future__ import annotations

import math

from flexhpc.search.bayes import MORE_FOR_ARMS
from flexhpc.search.history import MOST_REJECTED
from flexhpc.search.walk import ladder
from flexhpc.spec.sections.search import Bayes, Bisection, Growth, Search, Walk
from flexhpc.spec.sections.training import Training


def cost_bound(
    search: Search, training: Training, n_limit: int, *, tuned: bool = False
) -> int | None:
    """Return an upper bound on a point's cost: every probe trains to the end of its budget.

    Args:
        search: policy; training: procedure.
        n_limit: largest n there is (samples).
        tuned: whether it searches over several arms.

    Returns:
        Sample passes; None where training goes on until it converges, or the search until its
        interval is narrow.
    """
    if training.until is not None:
        return None
    if isinstance(search, Bayes):
        most = _most(search, tuned) * _probe(training, n_limit) * _factor(training)
        return math.ceil(most) if math.isfinite(most) else None
    repeats = 2 * (search.seeds_per_n // 2) + 1 if isinstance(search, Walk) else 1
    if isinstance(search, Walk) and training.rejects:
        repeats += MOST_REJECTED
    each = sum(_probe(training, n) for n in _ladder(search, n_limit))
    return math.ceil(each * repeats * _factor(training))


def _factor(training: Training) -> float:
    return training.extend_to if training.unconverged == "extend" else 1.0


def _most(search: Bayes, tuned: bool) -> float:
    """Return how many whole trainings the search plans at most."""
    caps: list[float] = []
    if search.max_trainings is not None:
        caps.append(search.max_trainings * (MORE_FOR_ARMS if tuned else 1))
    if search.max_probes is not None:
        caps.append(search.max_probes)
    targets = 1 + len(search.eps or ())
    # A round is planned below the cap and may end above it.
    return min(caps, default=math.inf) * targets + search.at_once - 1


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
    if isinstance(search, Growth):
        return ladder(search.start, search.growth, n_limit)
    if not isinstance(search, Bisection):
        raise TypeError(f"no such policy: {search.policy}")
    rungs = ladder(search.start, 2.0, n_limit) + ladder(1, 2.0, min(search.start, n_limit))
    ratio = min(2.0, n_limit)
    narrowing = math.ceil(math.log2(max(1.0, math.log(ratio) / math.log1p(search.tolerance))))
    walks = 1 + len(search.eps or ())
    return rungs + [n_limit] * ((narrowing + 2) * walks + (walks - 1) * len(rungs))
