"""Worlds on which searches are replayed: recorded training runs and exact fit curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.special import betainc
from sklearn.isotonic import IsotonicRegression

from flexhpc.search import Probe, ProbeResult

RECORDED = Path(__file__).parent / "recorded"
BANDWIDTH = 0.12
"""Bandwidth of the kernel in log n."""
TUNED_ON = ("mlp_tanh", "cnn_adam", "digits_relu", "perceptron_adam")
JUDGED_ON = ("vit_adamw", "covtype_original", "fashion_relu", "credit_muon")
MODELS = TUNED_ON + JUDGED_ON
RATES = tuple(sorted(path.stem for path in RECORDED.glob("rates_*.npz")))
"""Models that were recorded with five learning rates each."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One simulated training run.

    Attributes:
        verdict: verdict of the probe.
        n_errors: samples missed at the end.
        share: fraction of the initial budget that it used; None if unknown.
        cost: sample passes.
        full_cost: sample passes of the initial budget.
        time: fraction of the budget after which it fitted; None if it failed or unknown.
    """

    verdict: str
    n_errors: int
    share: float | None
    cost: int
    full_cost: int
    time: float | None = None

    def result(self, probe: Probe) -> ProbeResult:
        """Return the result of a probe with this training run."""
        return ProbeResult(
            n=probe.n, repeat=probe.repeat, arm=probe.arm, verdict=self.verdict,
            n_errors=self.n_errors, cost=self.cost, share=self.share, time=self.time,
        )  # fmt: skip


class World(Protocol):
    """A source of training runs with a known fit curve."""

    @property
    def n_limit(self) -> int:
        """Largest available n (samples)."""
        ...

    def chance(self, n: float) -> float:
        """Return P(fit | n)."""
        ...

    def draw(self, n: int, rng: np.random.Generator) -> Training:
        """Draw the outcome of one training run on n samples."""
        ...


def middle(world: World) -> float:
    """Return the n, in samples, at which half of all training runs fit."""
    low, high = 1.0, float(world.n_limit)
    while high / low > 1 + 1e-6:
        n = math.sqrt(low * high)
        low, high = (n, high) if world.chance(n) > 0.5 else (low, n)
    return low


class Table:
    """Recorded training runs of one model, resampled with replacement.

    P(fit | n) is a monotone kernel regression of the recorded verdicts on log n, so the true EMC is
    known exactly and the curve need not be logistic. The kernel is about as wide as the distance
    between recorded n, because finer structure is noise of a few dozen training runs. To simulate a
    training run at n, its verdict is drawn, and then a recorded training run with this verdict at
    one of the two nearest recorded n; its number of missed samples is scaled to n.
    """

    n_limit = 20_000

    def __init__(self, name: str, arm: int = 0) -> None:
        with np.load(RECORDED / f"{name}.npz") as stored:
            data = dict(stored)
        costs, of_arm = data["full_cost"], data.get("arm", np.zeros(len(data["n"]), int)) == arm
        priced = np.unique(data["n"])
        self._priced = np.log(priced)
        self._prices = np.log([costs[data["n"] == n].mean() for n in priced])
        self.data = {key: values[of_arm] for key, values in data.items()}
        self.rows = np.unique(self.data["n"])
        fit = self.data["verdict"] == "fit"
        at = np.log(self.data["n"])
        self._ladder = np.linspace(at.min(), at.max(), 400)
        kernel = np.exp(-0.5 * ((self._ladder[:, None] - at) / BANDWIDTH) ** 2)
        rate = kernel @ fit / kernel.sum(axis=1)
        smooth = IsotonicRegression(increasing=False, y_min=0, y_max=1)
        self._rate = smooth.fit_transform(self._ladder, rate)
        self._of = {(n, v): np.nonzero((self.data["n"] == n) & (fit == v))[0]
                    for n in self.rows for v in (True, False)}  # fmt: skip

    @staticmethod
    def arms(name: str) -> tuple[int, ...]:
        """Return the recorded arms of a model."""
        with np.load(RECORDED / f"{name}.npz") as stored:
            return tuple(int(arm) for arm in np.unique(stored["arm"]))

    def chance(self, n: float) -> float:
        """See :class:`World`."""
        return float(np.interp(math.log(n), self._ladder, self._rate))

    def draw(self, n: int, rng: np.random.Generator) -> Training:
        """See :class:`World`."""
        fit = bool(rng.random() < self.chance(n))
        at = float(np.interp(math.log(n), np.log(self.rows), np.arange(len(self.rows))))
        target = int(at) + int(rng.random() < at % 1)
        row = min(
            (r for r in range(len(self.rows)) if len(self._of[self.rows[r], fit])),
            key=lambda r: abs(r - target),
        )
        i = rng.choice(self._of[self.rows[row], fit])
        scale = n / self.data["n"][i]
        full = self._full_cost(n)
        share = self.data["cost"][i] / self.data["full_cost"][i]
        return Training(
            verdict=str(self.data["verdict"][i]),
            n_errors=0 if fit else min(n, max(1, round(self.data["n_errors"][i] * scale))),
            share=float(share),
            cost=max(1, round(share * full)),
            full_cost=full,
        )

    def _full_cost(self, n: int) -> int:
        """Return the cost of a full training run, inter- or extrapolated; equal for all arms."""
        at, prices = self._priced, self._prices
        right = min(max(int(np.searchsorted(at, math.log(n))), 1), len(at) - 1)
        slope = (prices[right] - prices[right - 1]) / (at[right] - at[right - 1])
        return round(math.exp(prices[right] + slope * (math.log(n) - at[right])))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A world with a known fit curve and lapses; training runs report only their verdict.

    Attributes:
        fits: P(fit | n) without lapses.
        lapse: fraction of the training runs that fail at any n.
    """

    fits: Callable[[float], float]
    lapse: float
    n_limit: int = 60_000

    def chance(self, n: float) -> float:
        """See :class:`World`."""
        return (1 - self.lapse) * self.fits(n)

    def draw(self, n: int, rng: np.random.Generator) -> Training:
        """See :class:`World`. A fit uses 0.35 of the budget."""
        fit = bool(rng.random() < self.chance(n))
        share = 0.35 if fit else 1.0
        cost = max(1, round(1000 * n * share))
        return Training(
            verdict="fit" if fit else "not_fit",
            n_errors=0 if fit else 1,
            share=None,
            cost=cost,
            full_cost=1000 * n,
        )


def perceptron(dims: int, lapse: float) -> Curve:
    """Return the fit curve of a perceptron for n random labels in d dimensions.

    P(fit | n) = 2^(1-n) sum_{k<d} C(n-1, k) (Cover 1965), which is 1/2 at n = 2 d. It is computed
    as an incomplete beta function, for any real n.
    """
    return Curve(fits=lambda n: float(betainc(max(n - dims, 1e-9), dims, 0.5)), lapse=lapse)


def logistic(middle: float, width: float, lapse: float) -> Curve:
    """Return a curve that is logistic in log n."""
    return Curve(
        fits=lambda n: 1 / (1 + math.exp(min(700, math.log(n / middle) / width))), lapse=lapse
    )
