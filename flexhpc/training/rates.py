"""Several learning rates for one probe: it fits if it fits with any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flexhpc.training.outcome import Outcome


def combined(tried: Sequence[Outcome], rates: Sequence[float]) -> Outcome:
    """Return the outcome of a probe that was trained with one learning rate after the other.

    It is that of the training that fitted, else of the one that missed the fewest samples (the
    first of several). Epochs, steps, cost and seconds are those of all trainings together. Where
    one of the failures was refused by a convergence gate, so is the probe.

    Args:
        tried: outcomes in the order of the rates; the last one may have fitted.
        rates: learning rates, at least as many.
    """
    if len(rates) == 1:
        return tried[0]
    best = min(tried, key=lambda outcome: (outcome.verdict != "fit", outcome.n_errors))
    chosen = rates[list(map(id, tried)).index(id(best))]
    failed = best.verdict != "fit"
    return replace(
        best,
        epochs=sum(outcome.epochs for outcome in tried),
        steps=sum(outcome.steps for outcome in tried),
        cost=sum(outcome.cost for outcome in tried),
        seconds=sum(outcome.seconds for outcome in tried),
        rejected=failed and any(outcome.rejected for outcome in tried),
        readings={
            **best.readings,
            "learning_rate": chosen,
            "learning_rates_tried": float(len(tried)),
        },
    )
