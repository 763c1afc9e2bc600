"""EMC at other budgets, from the times of the fits of simulated training runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from flexhpc.config.sections.search import Bayes
from flexhpc.search import Probe, ProbeResult
from flexhpc.search.budget_curve import budget_curve
from flexhpc.search.fit_curve import posterior
from tests.conftest import FULL
from tests.search.helpers import Train, fits, play, result

N_LIMIT = 20_000
SEARCH = Bayes(policy="bayes", start=16, tolerance=0.2)
GRID = np.linspace(-15.0, 0.0, 3001)
"""Log of fractions of the budget."""


def growth(u: np.ndarray, early: float, saturates: float) -> np.ndarray:
    """Return log EMC at exp(u) times the budget, up to a constant: a power law that saturates."""
    return early * -np.logaddexp(0, saturates - u)


def simulated(
    rng: np.random.Generator, emc: float, early: float, saturates: float, width: float = 0.1
) -> Train:
    """Return training runs with this EMC at the whole budget; other arguments: :func:`growth`."""
    log_emc = math.log(emc) + growth(GRID, early, saturates) - growth(GRID[-1:], early, saturates)

    def train(probe: Probe) -> ProbeResult:
        difficulty = math.log(probe.n) + width * rng.logistic()
        if difficulty > log_emc[-1]:
            return result(probe.n, missed=max(1, probe.n // 10), share=1.0, repeat=probe.repeat)
        time = math.exp(GRID[np.searchsorted(log_emc, difficulty)])
        return result(probe.n, share=time, time=time, repeat=probe.repeat)

    return train


@pytest.mark.parametrize(("early", "saturates"), [(0.6, 4.0), (1.0, 0.0), (1.0, -4.0)])
def test_emc_at_other_budgets_is_covered_and_unbiased(early: float, saturates: float) -> None:
    rng = np.random.default_rng(1)
    searches = 60 if FULL else 36
    covered = dict.fromkeys((0.25, 0.5, 2.0), 0)
    errors: dict[float, list[float]] = {factor: [] for factor in covered}
    for _ in range(searches):
        _, history = play(SEARCH, N_LIMIT, simulated(rng, 300.0, early, saturates))
        curve = budget_curve(history, N_LIMIT)
        assert curve is not None
        for factor in covered:
            u = np.array([0.0, math.log(factor)])
            truth = 300.0 * math.exp(np.diff(growth(u, early, saturates))[0])
            estimate = curve.emc(0.5, factor)
            covered[factor] += estimate.emc_lo <= truth <= (estimate.emc_hi or math.inf)
            errors[factor].append(math.log(estimate.emc / truth))
    assert min(covered.values()) >= 0.75 * searches
    assert max(abs(np.mean(errors[factor])) for factor in (0.25, 0.5)) < 0.15


def test_saturated_point_is_recognized() -> None:
    rng = np.random.default_rng(2)
    saturated, _ = play(SEARCH, N_LIMIT, simulated(rng, 300.0, 1.0, -5.0, width=0.05))
    assert saturated.doubling[1] < 1.1
    growing, _ = play(SEARCH, N_LIMIT, simulated(rng, 300.0, 1.0, 3.0, width=0.05))
    assert growing.saturated == "no"
    unknown = replace(growing, doubling=(1.0, 1.08, 1.3))
    assert unknown.saturated == "unknown"
    assert replace(growing, doubling=(1.0, 1.02, 1.1)).saturated == "yes"
    assert replace(growing, doubling=None).saturated is None


def test_times_that_no_growth_law_describes_are_ignored() -> None:
    rng = np.random.default_rng(3)
    history = []
    for repeat in range(30):
        n = round(100 * math.exp(rng.normal(0, 0.3)))
        fits = rng.random() < 1 / (1 + (n / 100) ** 8)
        history.append(result(n, missed=0 if fits else n // 10, repeat=repeat))
    timed = [replace(r, time=0.02) if r.fit else r for r in history]
    without_times, with_times = (
        curve.quantiles(curve.n_at_fit_probability(0.5), (0.05, 0.5, 0.95))
        for curve in (posterior(h, N_LIMIT) for h in (history, timed))
    )
    assert with_times == pytest.approx(without_times, rel=0.1)


def test_emc_at_other_budgets_is_censored_without_fits_or_failures() -> None:
    fits = [result(n, time=n / 1000, repeat=n) for n in (50, 100, 200, 400)]
    curve = budget_curve([*fits, result(800, missed=80)], 1000)
    assert curve.emc(0.5, 0.01).censored == "left"
    assert (curve.emc(0.5, 0.01).emc, curve.emc(0.5, 0.5).censored) == (0, "none")
    all_fit = budget_curve([result(1000, time=0.2, repeat=i) for i in range(4)], 1000)
    assert (all_fit.emc(0.5, 1.0).censored, all_fit.emc(0.5, 1.0).emc) == ("right", 1000)
    assert all_fit.emc(0.5, 1.0).emc_hi is None
    assert all_fit.emc(0.5, 0.1).censored == "left"


def test_there_is_no_budget_curve_without_times() -> None:
    assert budget_curve([result(10), result(20, missed=3)], 100) is None
    estimate, _ = play(SEARCH, N_LIMIT, fits(lambda n, _: n <= 90))
    assert (estimate.doubling, estimate.saturated) == (None, None)
