"""How much information about labels a network has taken up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from flexhpc.search import History
from flexhpc.search.history import counted
from flexhpc.store.record import ProbeSummary

_NEAR = 1.1
"""Probes of n that differ by at most this factor are taken together."""


def information(n: int, accuracy: float, classes: int) -> float:
    """Return the mutual information (bits) of n uniform random labels and a network's answers.

    n [log2 C + a log2 a + (1 - a) log2((1 - a) / (C - 1))] for accuracy a among C classes, if
    errors fall on all wrong classes alike; 0 at or below chance. Collins et al. 2017 (arXiv
    1611.09913).
    """
    if accuracy <= 1 / classes:
        return 0.0
    wrong = 1 - accuracy
    missing = wrong * math.log2(wrong / (classes - 1)) if wrong > 0 else 0.0
    return n * (math.log2(classes) + accuracy * math.log2(accuracy) + missing)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The information (bits) that a network holds at the n at which it holds most.

    Attributes:
        most: mean over the probes within a factor of ``_NEAR`` of that n.
        low, high: 90 % interval of that mean by Student's t, None for a single probe. That it is
            the largest of several means is not taken into account.
    """

    most: float
    low: float | None
    high: float | None

    def per(self, size: int) -> Held:
        """Return it per parameter."""
        low, high = (None if end is None else end / size for end in (self.low, self.high))
        return Held(most=self.most / size, low=low, high=high)


def most_information(history: History, classes: int) -> Held | None:
    """Return the information (bits) that a network holds at the n at which it holds most.

    The maximum over n of Morris et al. 2025 (arXiv 2505.24832). At an n it is the mean over the
    probes within a factor of ``_NEAR`` of it, in bits per sample: searches seldom try an n twice,
    and the maximum over single probes is that of the luckiest.

    Args:
        history: finished probes, in any order; those that a convergence gate refused do not count.
        classes: number of classes, at least 2.

    Returns:
        None while no probe counts.
    """
    probes = counted(history)
    return _most([(p.n, information(p.n, 1 - p.n_errors / p.n, classes)) for p in probes])


def most_of_tokens(probes: Iterable[ProbeSummary], length: int, vocabulary: int) -> Held | None:
    """Return the information (bits) about random tokens at the n at which a network holds most.

    n sequences of ``length`` tokens hold n length log2 V bits; with the network they are written in
    n length loss / ln 2, and it holds the difference (Morris et al. 2025, arXiv 2505.24832, section
    3.1). Means over near n as in :func:`most_information`.

    Args:
        probes: finished ones, whose loss is per token (nats).
        length: tokens of a sequence; vocabulary: different tokens.
    """
    each = math.log2(vocabulary)
    return _most(
        [
            (p.n, max(0.0, p.n * length * (each - p.loss / math.log(2))))
            for p in probes
            if math.isfinite(p.loss)
        ]
    )


def _most(held: Sequence[tuple[int, float]]) -> Held | None:
    """Return the most bits, from pairs of n and bits, as means over those of near n."""
    if not held:
        return None
    n, bits = np.array(held, dtype=np.float64).T
    near = np.abs(np.log(n[:, None] / n)) <= math.log(_NEAR) + 1e-12
    means = n * (near @ (bits / n)) / near.sum(axis=1)
    best = int(means.argmax())
    taken = (bits / n)[near[best]] * n[best]
    low = high = None
    if (count := len(taken)) > 1:
        away = float(stdtrit(count - 1, 0.95) * taken.std(ddof=1) / math.sqrt(count))
        low, high = max(0.0, float(means[best]) - away), float(means[best]) + away
    return Held(most=float(means[best]), low=low, high=high)
