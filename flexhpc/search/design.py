"""Which n to probe next: the one that tells most about the estimand for its cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from flexhpc.search.evidence import Floats
from flexhpc.search.fit_curve import FitCurve
from flexhpc.search.history import History

_CELLS, _BINS = 240, 16
_CANDIDATES = 32
_FIT_SHARE, _FAIL_SHARE = 0.35, 1.0
"""Part of its budget that a probe uses, until there is one to go by."""
_WORTH = 3
"""How many probes these count for."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a probe costs, as far as the history shows.

    Attributes:
        fit, fail: part of its budget that a fitting and a failing probe use.
        growth: exponent of a whole budget in n: 1 for epochs, 0 for updates.
    """

    fit: float
    fail: float
    growth: float

    @classmethod
    def of(cls, history: History) -> Prices:
        """Estimate prices from finished probes."""
        known = [r for r in history if r.share and r.cost > 0]
        shares = {
            fit: [r.share for r in known if r.fit == fit and r.share is not None]
            for fit in (True, False)
        }
        fit, fail = (
            (guess * _WORTH + sum(some)) / (_WORTH + len(some))
            for guess, some in ((_FIT_SHARE, shares[True]), (_FAIL_SHARE, shares[False]))
        )
        n = np.log([r.n for r in known])
        growth = 1.0
        if len(n) and np.ptp(n) > math.log(1.5):
            full = np.log([r.cost / (r.share or 1) for r in known])
            growth = float(np.clip(np.polyfit(n, full, 1)[0], 0, 1))
        return cls(fit=fit, fail=fail, growth=growth)

    def expected(self, n: Floats, chance: Floats) -> Floats:
        """Return the expected cost of probes at n that fit with some chance, in any unit."""
        return np.asarray(n**self.growth * (self.fit * chance + self.fail * (1 - chance)))


def choose(
    curve: FitCurve,
    q: float,
    prices: Prices,
    n_limit: int,
    count: int,
    belief: Callable[[Floats], Floats] | None,
) -> list[int]:
    """Return the n of the next ``count`` probes, which are run at once.

    The first has the largest mutual information between its verdict and the n at which P(fit) = q,
    per expected cost; each further one adds the most to what those before it will tell.

    Args:
        curve: what is known.
        q: level of the estimand.
        prices: of probes.
        n_limit: largest n there is (samples).
        count: how many.
        belief: log-weight of a threshold (log n) from elsewhere, as from neighbours. It
            says where to look, and nothing else.
    """
    if belief is not None:
        curve = _believing(curve, belief)
    thin = curve.thin(_CELLS, curve.level_set(q))
    low = float(np.quantile(thin.threshold - 2 * thin.width, 0.05))
    high = float(np.quantile(thin.threshold + 2 * thin.width, 0.95))
    ladder = np.exp(np.linspace(low, min(high, math.log(4.0 * n_limit)), _CANDIDATES))
    candidates = np.unique(np.clip(np.round(ladder), 1, n_limit)).astype(np.float64)
    chance = thin.chance(candidates)
    cost = prices.expected(candidates, chance.mean(axis=0))
    outcomes = np.ones((_CELLS, 1))
    chosen: list[int] = []
    told = 0.0
    for _ in range(count):
        gain = _information(outcomes, chance) - told
        best = int(np.argmax(gain / cost))
        chosen.append(int(candidates[best]))
        told += float(gain[best])
        p = chance[:, best, None]
        outcomes = np.concatenate((outcomes * p, outcomes * (1 - p)), axis=1)
    return chosen


def _believing(curve: FitCurve, belief: Callable[[Floats], Floats]) -> FitCurve:
    log_weight = np.log(curve.weight) + belief(curve.threshold)
    weight = np.exp(log_weight - log_weight.max())
    return FitCurve(
        threshold=curve.threshold,
        width=curve.width,
        lapse=curve.lapse,
        weight=weight / weight.sum(),
    )


def _information(outcomes: Floats, chance: Floats) -> Floats:
    """Return the information (nats) of joint outcomes about the estimand, per candidate.

    Args:
        outcomes: chance of each joint outcome of the probes chosen already, shape (cells, m); cells
            are in the order of the estimand and weigh the same.
        chance: P(fit) of one more probe, shape (cells, candidates).
    """
    joint = np.stack(
        [outcomes[:, :, None] * chance[:, None], outcomes[:, :, None] * (1 - chance[:, None])]
    )
    binned = joint.reshape(2, _BINS, -1, *joint.shape[2:]).mean(axis=2)
    within = -xlogy(binned, binned).sum(axis=(0, 2)).mean(axis=0)
    mean = binned.mean(axis=1)
    return np.asarray(-xlogy(mean, mean).sum(axis=(0, 1)) - within)
