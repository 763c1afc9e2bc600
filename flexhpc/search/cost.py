"""Upper bound on the cost of a point, computed before any training run."""

from __future__ import annotations

import math

from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Procedure, Training
from flexhpc.search.policy import cost_cap, load_policy, probes_per_round


def cost_bound(
    search: Search, training: Procedure, n_limit: int, *, tuned: bool = False,
    doublings: int | None = None,
) -> int | None:  # fmt: skip
    """Return an upper bound on the cost of a point.

    The bound assumes that every probe uses its whole budget, including extensions. If the budget is
    doubled, it assumes that every probe uses the largest budget.

    Args:
        search: policy and its settings.
        training: training procedure.
        n_limit: largest available n (samples).
        tuned: whether the search covers several arms.
        doublings: number of times that the budget is doubled; by default the maximum that
            ``training`` permits.

    Returns:
        Upper bound in sample passes. None if training runs until convergence, the number of probes
        is not limited, or a custom trainer determines its own budget.
    """
    if not isinstance(training, Training) or training.until == "convergence":
        return None
    if training.doubling_settings is not None:
        training = training.at_stage(
            training.doubling_settings.max_doublings if doublings is None else doublings
        )
    probes = load_policy(search).probe_bound(search, n_limit, can_reject=training.can_reject)
    # A round of `at_once` probes starts below the cap and may end above it.
    cap = cost_cap(search, 2 if tuned else 1) + probes_per_round(search) - 1
    bound = min(
        sum(count * _full_cost(training, n) for n, count in probes),
        cap * _full_cost(training, n_limit),
    )
    if training.unconverged == "extend":
        bound *= training.extend_to
    return math.ceil(bound) if math.isfinite(bound) else None


def _full_cost(training: Training, n: int) -> int:
    """Return the sample passes of a training run that uses its full budget, without extensions."""
    gradients = training.gradients_per_sample
    if training.gradient_evaluations is not None:
        return max(training.gradient_evaluations, n * gradients)
    if training.epochs is not None:
        return n * training.epochs * gradients
    batch = getattr(training, "batch_size", None)
    return (n if batch is None else min(n, batch)) * (training.steps or 0) * gradients
