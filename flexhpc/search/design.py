"""Which n to probe next: those that tell most about the estimand for their cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
    curve: FitCurve, q: float, prices: Prices, reach: tuple[int, int],
    belief: Callable[[Floats], Floats] | None, *, count: int = 1, given: Sequence[int] = (),
) -> list[int]:  # fmt: skip
    """Return the n of the next probes, which may run at once.

    Each has the largest mutual information between its verdict and the n at which P(fit) = q, on
    top of what those before it will tell, per expected cost.

    Args:
        curve: what is known.
        q: level of the estimand.
        prices: of probes.
        reach: smallest and largest n that may be chosen (samples).
        belief: log-weight of a threshold (log n) from elsewhere, as from neighbours. It
            says where to look, and nothing else.
        count: how many; given: the n of the first ones, where these are settled.
    """
    if belief is not None:
        curve = _believing(curve, belief)
    thin = curve.thin(_CELLS, curve.level_set(q))
    low = float(np.quantile(thin.threshold - 2 * thin.width, 0.05))
    high = float(np.quantile(thin.threshold + 2 * thin.width, 0.95))
    ladder = np.exp(np.linspace(low, min(high, math.log(4.0 * reach[1])), _CANDIDATES))
    candidates = np.unique(np.clip(np.round(ladder), *reach)).astype(np.float64)
    chance = thin.chance(candidates)
    cost = prices.expected(candidates, chance.mean(axis=0))
    chosen = list(given[:count])
    outcomes = np.ones((_CELLS, 1))
    for p in thin.chance(np.array(chosen, dtype=np.float64)).T:
        outcomes = _joint(outcomes, p[:, None])[..., 0]
    while len(chosen) < count:
        joint = _joint(outcomes, chance)
        gain = _information(joint) - _information(outcomes)
        best = int(np.argmax(gain / cost))
        chosen.append(int(candidates[best]))
        outcomes = joint[..., best]
    return chosen


def _joint(outcomes: Floats, chance: Floats) -> Floats:
    """Return the chance of each joint outcome with one more probe: shape (cells, 2 m, candidates).

    Args:
        outcomes: of the probes so far, shape (cells, m).
        chance: P(fit) of the further one, shape (cells, candidates).
    """
    fits, fails = (outcomes[:, :, None] * p[:, None, :] for p in (chance, 1 - chance))
    return np.concatenate((fits, fails), axis=1)


def _information(outcomes: Floats) -> Floats:
    """Return what outcomes tell about the estimand (nats): shape of the further axes.

    Args:
        outcomes: chance of each, shape (cells, m, ...); cells weigh the same and are in the order
            of the estimand.
    """
    binned = outcomes.reshape(_BINS, -1, *outcomes.shape[1:]).mean(axis=1)
    within = _entropy(binned.swapaxes(0, 1)).mean(axis=0)
    return np.asarray(_entropy(binned.mean(axis=0)) - within)


def _entropy(chance: Floats) -> Floats:
    """Return the entropy (nats) over the first axis."""
    return np.asarray(-xlogy(chance, chance).sum(axis=0))


def _believing(curve: FitCurve, belief: Callable[[Floats], Floats]) -> FitCurve:
    log_weight = np.log(curve.weight) + belief(curve.threshold)
    weight = np.exp(log_weight - log_weight.max())
    return replace(curve, weight=weight / weight.sum())
