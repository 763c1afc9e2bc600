"""Searches over arms: legal steps, the best arm, an honest end."""

from __future__ import annotations

import math
import random as stdlib_random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexhpc.config.sections.search import Bayes
from flexhpc.config.sections.training import Adam
from flexhpc.search import Ask, Estimate, ProbeResult, advance, cost_bound, estimate_so_far
from flexhpc.search.arms import contest

SEARCH = Bayes(policy="bayes", start=16)
LINE = [(float(i),) for i in range(5)]
EMC = (30, 200, 500, 150, 20)


def play(
    search: Bayes, n_limit: int, fits: Callable[[int, int], bool]
) -> tuple[Estimate, list[ProbeResult]]:
    """Run a search over five arms on an oracle of (arm, n); every request is legal and new."""
    history: list[ProbeResult] = []
    while isinstance(step := advance(search, n_limit, history, LINE), Ask):
        assert len(step.probes) == search.at_once
        assert not {(r.n, r.repeat, r.arm) for r in history} & set(step.probes)
        for n, repeat, arm in step.probes:
            assert 1 <= n <= n_limit
            assert 0 <= arm < len(LINE)
            fit = fits(arm, n)
            missed = 0 if fit else max(1, round(0.2 * n))
            verdict = "fit" if fit else "not_fit"
            history.append(
                ProbeResult(
                    n=n, repeat=repeat, arm=arm, verdict=verdict, n_errors=missed,
                    cost=100 * n if not fit else 35 * n, share=0.35 if fit else 1.0,
                )
            )  # fmt: skip
    return step, history


def noisy(seed: int, width: float = 0.15) -> Callable[[int, int], bool]:
    rng = np.random.default_rng(seed)
    return lambda arm, n: bool(rng.random() < 1 / (1 + (n / EMC[arm]) ** (1 / width)))


def test_the_best_of_clearly_different_arms_is_found_for_a_bounded_price() -> None:
    found = [play(SEARCH, 50_000, noisy(seed)) for seed in range(6)]
    assert np.mean([e.arm == 2 for e, _ in found]) > 0.8
    held = [e.emc_lo <= EMC[e.arm] <= (e.emc_hi or math.inf) for e, _ in found]
    assert np.mean(held) > 0.6
    for estimate, history in found:
        assert estimate.ended_by in ("tolerance", "max_trainings")
        assert estimate.best_chance > 0.5
        assert len({r.arm for r in history}) > 1
        assert sum(r.share for r in history) <= 2 * SEARCH.max_trainings + 1
    at_best = [np.mean([r.arm == e.arm for r in h]) for e, h in found]
    assert np.mean(at_best) > 0.35


@pytest.mark.parametrize("at_once", [1, 3])
def test_all_or_nothing_ends_with_the_data(at_once: int) -> None:
    search = SEARCH.model_copy(update={"at_once": at_once})
    everything, _ = play(search, 1000, lambda *_: True)
    assert (everything.censored, everything.emc, everything.ended_by) == ("right", 1000, "data")
    nothing, _ = play(search, 1000, lambda *_: False)
    assert (nothing.censored, nothing.emc) == ("left", 0)
    one, _ = play(search, 1000, lambda arm, _: arm == 4)
    assert (one.arm, one.censored, one.emc) == (4, "right", 1000)


def test_the_estimate_rests_on_the_probes_of_the_best_arm() -> None:
    """The others say how wide its curve may be, and nothing else."""
    estimate, history = play(SEARCH, 50_000, noisy(3))
    own = [r for r in history if r.arm == estimate.arm]
    alone = estimate_so_far(SEARCH, 50_000, [ProbeResult(**{**_plain(r), "arm": 0}) for r in own])
    for key in ("largest_fit", "smallest_fail", "lapse"):
        assert getattr(estimate, key) == getattr(alone, key)
    for key in ("emc", "emc_lo", "emc_hi"):
        assert getattr(estimate, key) == pytest.approx(getattr(alone, key), rel=0.08)
    assert estimate.probes == len(history)
    assert estimate.cost == sum(r.cost for r in history)


def test_a_width_that_all_arms_share_is_learned_from_all_of_them() -> None:
    """Steep arms make the curve of one with three probes steep, flat ones make it flat."""
    few = [ProbeResult(n=n, repeat=0, verdict=v, n_errors=e, cost=1, arm=0)
           for n, v, e in ((80, "fit", 0), (100, "fit", 0), (130, "not_fit", 3))]  # fmt: skip
    coordinates = [(float(arm),) for arm in range(6)]
    widths = []
    for width in (0.02, 0.5):
        rng = np.random.default_rng(0)
        others = [
            ProbeResult(n=n, repeat=i, verdict="not_fit" if missed else "fit", n_errors=missed,
                        cost=1, arm=arm)
            for arm in range(1, 6) for i in range(8) for n in (80, 100, 125)
            for missed in [int(rng.random() > 1 / (1 + (n / 100) ** (1 / width)))]
        ]  # fmt: skip
        own = contest(few + others, 10_000, 0.5, coordinates).own[0]
        widths.append(float(own.weight @ own.width))
    assert widths[0] < 0.08
    assert widths[1] > 0.25


def _plain(result: ProbeResult) -> dict:
    return {key: getattr(result, key) for key in ProbeResult.__slots__}


@settings(max_examples=5)
@given(st.integers(1, 4), st.randoms(use_true_random=False))
def test_it_is_a_function_of_the_history(at_once: int, random: stdlib_random.Random) -> None:
    search = SEARCH.model_copy(update={"at_once": at_once, "max_probes": 12})
    straight, history = play(search, 5000, lambda arm, n: n <= EMC[arm])
    again: list[ProbeResult] = []
    while isinstance(step := advance(search, 5000, again, LINE), Ask):
        for probe in random.sample(step.probes, random.randint(1, len(step.probes))):
            (result,) = [r for r in history if (r.n, r.repeat, r.arm) == probe]
            again.append(result)
    assert step == straight


def test_arms_say_of_each_other_where_they_lie() -> None:
    def probes(arm: int, emc: int) -> list[ProbeResult]:
        return [
            ProbeResult(
                n=round(emc * f), repeat=0, arm=arm, verdict="fit" if f < 1 else "not_fit",
                n_errors=0 if f < 1 else 5, cost=1,
            )
            for f in (0.5, 0.7, 0.9, 1.1, 1.3, 1.6)
        ]  # fmt: skip

    nothing = contest([], 50_000, 0.5, LINE)
    known = contest([*probes(0, 100), *probes(1, 300)], 50_000, 0.5, LINE)
    assert known.tried == [True, True, False, False, False]
    assert known.best == 1
    near, far = np.median(known.level[:, 2]), np.median(known.level[:, 4])
    assert math.log(100) < near < math.log(1500)
    assert known.level[:, 2].std() < known.level[:, 4].std() < nothing.level[:, 4].std()
    assert abs(far - math.log(200)) < 1.5
    assert 0 < known.best_chance < 1
    assert known.regret > 0.1, "three arms that nobody tried may be better"


def test_the_bound_of_the_cost_is_that_of_two_searches() -> None:
    adam = Adam(optimizer="adam", epochs=10)
    assert cost_bound(SEARCH, adam, 100, tuned=True) == 2 * cost_bound(SEARCH, adam, 100)
