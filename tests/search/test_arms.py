"""Searches over several arms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flexhpc.config.sections.search import Bayes
from flexhpc.search import Estimate, Probe, ProbeResult, estimate_so_far
from flexhpc.search.arms import arm_posteriors
from tests.conftest import FULL
from tests.search.helpers import play, result

SEARCH = Bayes(policy="bayes", start=16)
LINE = [(float(i),) for i in range(5)]
EMC = (30, 200, 500, 150, 20)


def play_arms(
    search: Bayes, n_limit: int, fits: Callable[[int, int], bool]
) -> tuple[Estimate, list[ProbeResult]]:
    """Run a search over five arms, whose training runs fit if ``fits(arm, n)``."""

    def train(probe: Probe) -> ProbeResult:
        n, repeat, arm, _ = probe
        if fits(arm, n):
            return result(n, repeat=repeat, arm=arm, cost=35 * n, share=0.35)
        return result(n, max(1, round(0.2 * n)), repeat=repeat, arm=arm, cost=100 * n, share=1.0)

    return play(search, n_limit, train, LINE)


def noisy(seed: int, width: float = 0.15) -> Callable[[int, int], bool]:
    rng = np.random.default_rng(seed)
    return lambda arm, n: bool(rng.random() < 1 / (1 + (n / EMC[arm]) ** (1 / width)))


def test_searches_find_the_best_arm_at_a_bounded_cost() -> None:
    searches = [play_arms(SEARCH, 50_000, noisy(seed)) for seed in range(12 if FULL else 6)]
    assert np.mean([e.arm == 2 for e, _ in searches]) > 0.8
    covered = [e.emc_lo <= EMC[e.arm] <= (e.emc_hi or math.inf) for e, _ in searches]
    assert np.mean(covered) > 0.6
    for estimate, history in searches:
        assert estimate.ended_by in ("tolerance", "max_cost")
        assert estimate.best_chance > 0.5
        assert len({r.arm for r in history}) > 1
        assert sum(r.share for r in history) <= 2 * SEARCH.max_cost + 1
    share_of_best = [np.mean([r.arm == e.arm for r in h]) for e, h in searches]
    assert np.mean(share_of_best) > 0.35


@pytest.mark.parametrize("at_once", [1, 3])
def test_searches_are_censored_if_all_fit_or_all_fail(at_once: int) -> None:
    search = SEARCH.model_copy(update={"at_once": at_once})
    all_fit, _ = play_arms(search, 1000, lambda *_: True)
    assert (all_fit.censored, all_fit.emc, all_fit.ended_by) == ("right", 1000, "data")
    none_fit, _ = play_arms(search, 1000, lambda *_: False)
    assert (none_fit.censored, none_fit.emc) == ("left", 0)
    one_arm, _ = play_arms(search, 1000, lambda arm, _: arm == 4)
    assert (one_arm.arm, one_arm.censored, one_arm.emc) == (4, "right", 1000)


def test_estimate_uses_the_probes_of_the_best_arm() -> None:
    """The probes of the other arms affect only the width."""
    estimate, history = play_arms(SEARCH, 50_000, noisy(3))
    probes = [r for r in history if r.arm == estimate.arm]
    alone = estimate_so_far(SEARCH, 50_000, [replace(r, arm=0) for r in probes])
    for key in ("largest_fit", "smallest_fail"):
        assert getattr(estimate, key) == getattr(alone, key)
    assert estimate.lapse == pytest.approx(alone.lapse, abs=0.05)
    for key in ("emc", "emc_lo", "emc_hi"):
        assert getattr(estimate, key) == pytest.approx(getattr(alone, key), rel=0.08)
    assert estimate.probes == len(history)
    assert estimate.cost == sum(r.cost for r in history)


def test_width_is_inferred_from_all_arms() -> None:
    """The curve of an arm with three probes is steep or flat as those of the other arms."""
    few = [result(80), result(100), result(130, 3)]
    coordinates = [(float(arm),) for arm in range(6)]
    widths = []
    for width in (0.02, 0.5):
        rng = np.random.default_rng(0)
        others = [
            result(n, missed, repeat=i, arm=arm)
            for arm in range(1, 6) for i in range(8) for n in (80, 100, 125)
            for missed in [int(rng.random() > 1 / (1 + (n / 100) ** (1 / width)))]
        ]  # fmt: skip
        curve = arm_posteriors(few + others, 10_000, 0.5, coordinates).separate_curves[0]
        widths.append(float(curve.weight @ curve.width))
    assert widths[0] < 0.08
    assert widths[1] > 0.25


def test_threshold_of_an_arm_is_predicted_from_other_arms() -> None:
    def probes(arm: int, emc: int) -> list[ProbeResult]:
        return [
            result(round(emc * f), 0 if f < 1 else 5, arm=arm)
            for f in (0.5, 0.7, 0.9, 1.1, 1.3, 1.6)
        ]

    prior = arm_posteriors([], 50_000, 0.5, LINE)
    posteriors = arm_posteriors([*probes(0, 100), *probes(1, 300)], 50_000, 0.5, LINE)
    assert posteriors.probed == [True, True, False, False, False]
    assert posteriors.best_arm == 1
    near, far = np.median(posteriors.log_emc[:, 2]), np.median(posteriors.log_emc[:, 4])
    assert math.log(100) < near < math.log(1500)
    assert (
        posteriors.log_emc[:, 2].std() < posteriors.log_emc[:, 4].std() < prior.log_emc[:, 4].std()
    )
    assert abs(far - math.log(200)) < 1.5
    assert 0 < posteriors.best_chance < 1
    assert posteriors.regret > 0.1, "three arms without probes may be better"
