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
HELD_OUT = ("vit_adamw", "covtype_original", "fashion_relu", "credit_muon")
MODELS = TUNED_ON + HELD_OUT
RATES = tuple(sorted(path.stem for path in RECORDED.glob("rates_*.npz")))
"""Models that were recorded with five learning rates each."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Outcome of one simulated training run.

    Attributes:
        verdict: verdict of the probe.
        share: fraction of the initial budget that the training run used; None if unknown.
        cost: sample passes.
        full_cost: sample passes of a training run that uses the initial budget.
        time: fraction of the budget until the fit; None without a fit, or if it is unknown.
    """

    verdict: str
    share: float | None
    cost: int
    full_cost: int
    time: float | None = None

    def result(self, probe: Probe) -> ProbeResult:
        """Return the result of a probe whose training run has this outcome."""
        return ProbeResult(
            n=probe.n, repeat=probe.repeat, arm=probe.arm, verdict=self.verdict,
            n_errors=int(self.verdict != "fit"), cost=self.cost, share=self.share, time=self.time,
        )  # fmt: skip


class World(Protocol):
    """A source of training runs with a known fit curve."""

    @property
    def n_limit(self) -> int:
        """Largest available n (samples)."""
        ...

    def fit_probability(self, n: float) -> float:
        """Return P(fit | n)."""
        ...

    def draw(self, n: int, rng: np.random.Generator) -> TrainingRun:
        """Draw the outcome of one training run on n samples."""
        ...


def true_emc(world: World) -> float:
    """Return the n, in samples, at which half of all training runs fit."""
    low, high = 1.0, float(world.n_limit)
    while high / low > 1 + 1e-6:
        n = math.sqrt(low * high)
        low, high = (n, high) if world.fit_probability(n) > 0.5 else (low, n)
    return low


class RecordedWorld:
    """Recorded training runs of one model, resampled with replacement.

    P(fit | n) is a monotone kernel regression of the recorded verdicts on log n, so the true EMC is
    known exactly and the curve need not be logistic. The kernel is about as wide as the distance
    between recorded n, because finer structure is noise of a few dozen training runs. To simulate a
    training run at n, a verdict is drawn, and then a recorded training run with this verdict at one
    of the two nearest recorded n.
    """

    n_limit = 20_000

    def __init__(self, name: str, arm: int = 0) -> None:
        with np.load(RECORDED / f"{name}.npz") as file:
            all_runs = dict(file)
        n, full_costs = all_runs["n"], all_runs["full_cost"]
        self._cost_log_n = np.log(np.unique(n))
        self._log_costs = np.log([full_costs[n == size].mean() for size in np.unique(n)])
        of_arm = all_runs.get("arm", np.zeros(len(n), int)) == arm
        self.runs = {key: values[of_arm] for key, values in all_runs.items()}
        self.sizes = np.unique(self.runs["n"])
        fit, log_n = self.runs["verdict"] == "fit", np.log(self.runs["n"])
        self._grid = np.linspace(log_n.min(), log_n.max(), 400)
        kernel = np.exp(-0.5 * ((self._grid[:, None] - log_n) / BANDWIDTH) ** 2)
        probabilities = kernel @ fit / kernel.sum(axis=1)
        monotone = IsotonicRegression(increasing=False, y_min=0, y_max=1)
        self._probabilities = monotone.fit_transform(self._grid, probabilities)
        self._indices = {
            (size, fitted): np.nonzero((self.runs["n"] == size) & (fit == fitted))[0]
            for size in self.sizes
            for fitted in (True, False)
        }

    @staticmethod
    def arms(name: str) -> tuple[int, ...]:
        """Return the recorded arms of a model."""
        with np.load(RECORDED / f"{name}.npz") as file:
            return tuple(int(arm) for arm in np.unique(file["arm"]))

    def fit_probability(self, n: float) -> float:
        """See :class:`World`."""
        return float(np.interp(math.log(n), self._grid, self._probabilities))

    def draw(self, n: int, rng: np.random.Generator) -> TrainingRun:
        """See :class:`World`."""
        fit = bool(rng.random() < self.fit_probability(n))
        position = float(np.interp(math.log(n), np.log(self.sizes), np.arange(len(self.sizes))))
        target = int(position) + int(rng.random() < position % 1)
        nearest = min(
            (i for i, size in enumerate(self.sizes) if len(self._indices[size, fit])),
            key=lambda i: abs(i - target),
        )
        i = rng.choice(self._indices[self.sizes[nearest], fit])
        full_cost = self._full_cost(n)
        share = self.runs["cost"][i] / self.runs["full_cost"][i]
        return TrainingRun(
            verdict=str(self.runs["verdict"][i]),
            share=float(share),
            cost=max(1, round(share * full_cost)),
            full_cost=full_cost,
        )

    def _full_cost(self, n: int) -> int:
        """Interpolate or extrapolate the cost of a full training run, the same for all arms."""
        log_n, log_costs = self._cost_log_n, self._log_costs
        right = min(max(int(np.searchsorted(log_n, math.log(n))), 1), len(log_n) - 1)
        slope = (log_costs[right] - log_costs[right - 1]) / (log_n[right] - log_n[right - 1])
        return round(math.exp(log_costs[right] + slope * (math.log(n) - log_n[right])))


@dataclass(frozen=True, kw_only=True)
class CurveWorld:
    """A world with an exact fit curve and lapses; training runs report only their verdict.

    Attributes:
        curve: P(fit | n) without lapses.
        lapse: fraction of the training runs that fail at any n.
    """

    curve: Callable[[float], float]
    lapse: float
    n_limit: int = 60_000

    def fit_probability(self, n: float) -> float:
        """See :class:`World`."""
        return (1 - self.lapse) * self.curve(n)

    def draw(self, n: int, rng: np.random.Generator) -> TrainingRun:
        """See :class:`World`. A fit uses 0.35 of the budget."""
        fit = bool(rng.random() < self.fit_probability(n))
        return TrainingRun(
            verdict="fit" if fit else "not_fit",
            share=None,
            cost=max(1, round(1000 * n * (0.35 if fit else 1.0))),
            full_cost=1000 * n,
        )


def perceptron(dims: int, lapse: float) -> CurveWorld:
    """Return a world with the fit curve of a perceptron for random labels in d dimensions.

    P(fit | n) = 2^(1-n) sum_{k<d} C(n-1, k) (Cover 1965), which is 1/2 at n = 2 d. It is computed
    as an incomplete beta function, for any real n.
    """
    return CurveWorld(curve=lambda n: float(betainc(max(n - dims, 1e-9), dims, 0.5)), lapse=lapse)


def logistic(center: float, width: float, lapse: float) -> CurveWorld:
    """Return a world whose fit curve is logistic in log n."""
    return CurveWorld(
        curve=lambda n: 1 / (1 + math.exp(min(700, math.log(n / center) / width))), lapse=lapse
    )
