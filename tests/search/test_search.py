"""Bisection and growth: estimates, intervals, censoring and cost bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexhpc.config.sections.search import Bisection, Growth, Search
from flexhpc.config.sections.training import Adam
from flexhpc.search import (
    Bracket,
    Estimate,
    Probe,
    ProbeResult,
    advance,
    cost_bound,
    estimate_so_far,
)
from flexhpc.search.fit_curve import posterior
from flexhpc.search.history import quorum
from flexhpc.search.next_n import ascending_ns
from tests.search import helpers
from tests.search.helpers import result

BISECTION = Bisection(policy="bisection", start=64, tolerance=0.05)
GROWTH = Growth(policy="growth", start=64)

searches = st.one_of(
    st.builds(
        Bisection,
        policy=st.just("bisection"),
        start=st.integers(1, 5000),
        tolerance=st.floats(0.001, 3),
        seeds_per_n=st.integers(1, 5),
    ),
    st.builds(
        Growth,
        policy=st.just("growth"),
        start=st.integers(1, 5000),
        growth=st.floats(1.05, 3),
        step=st.none() | st.integers(20, 500),
        seeds_per_n=st.integers(1, 3),
    ),
)


def play(
    search: Search, n_limit: int, fits: Callable[[int, int], bool]
) -> tuple[Estimate, list[ProbeResult]]:
    """Run a search on an oracle of (n, repeat)."""

    def oracle(probe: Probe) -> ProbeResult:
        n, repeat, *_ = probe
        return result(
            n, verdict="fit" if fits(n, repeat) else "not_fit", repeat=repeat, cost=10 * n
        )

    return helpers.play(search, n_limit, oracle)


@given(searches, st.integers(1, 20_000), st.integers(0, 25_000))
def test_searches_find_a_hard_threshold(search: Search, n_limit: int, threshold: int) -> None:
    estimate, history = play(search, n_limit, lambda n, _: n <= threshold)
    low, high = estimate.largest_fit, estimate.smallest_fail
    if threshold >= n_limit:
        assert (estimate.censored, estimate.emc, estimate.emc_hi) == ("right", n_limit, None)
    elif isinstance(search, Bisection) and threshold >= 1:
        assert estimate.censored == "none"
        assert low <= threshold < high
        assert high - low == 1 or high <= low * (1 + search.tolerance)
        assert low <= estimate.emc <= high
        assert estimate.emc_lo <= estimate.emc <= estimate.emc_hi
    elif isinstance(search, Bisection):
        assert (estimate.censored, estimate.emc, high) == ("left", 0, 1)
    elif threshold < min(search.start, n_limit):
        assert (estimate.censored, low) == ("left", None)
    else:
        rungs = ascending_ns(search.start, search.growth, n_limit, search.step)
        assert estimate.emc == max(n for n in rungs if n <= threshold)
    assert estimate.probes == len(history)
    assert estimate.cost == sum(r.cost for r in history)


@given(searches, st.integers(1, 20_000), st.randoms(use_true_random=False))
def test_random_verdicts_end_in_a_valid_estimate(search: Search, n_limit: int, random) -> None:
    estimate, _ = play(search, n_limit, lambda *_: random.random() < 0.5)
    assert 0 <= estimate.emc <= n_limit
    assert estimate.emc_lo <= estimate.emc
    assert estimate.emc_hi is None or estimate.emc_hi >= estimate.emc
    assert (estimate.emc_hi is None) == (estimate.censored == "right")


@settings(max_examples=30)
@given(searches, st.integers(100, 20_000), st.randoms(use_true_random=False))
def test_steps_depend_on_the_history_only(search: Search, n_limit: int, random) -> None:
    """Any prefix of a history, in any order, gives the same proposal: a resume needs no state."""
    estimate, history = play(search, n_limit, lambda n, _: random.random() < 500 / (n + 1))
    for length in range(len(history)):
        shuffled = history[:length]
        random.shuffle(shuffled)
        step = advance(search, n_limit, shuffled)
        assert step == [Probe(history[length].n, history[length].repeat)]
    shuffled = list(history)
    random.shuffle(shuffled)
    assert advance(search, n_limit, shuffled) == estimate


@pytest.mark.parametrize(
    ("verdicts", "seeds", "expected"),
    [
        ("", 1, None), ("f", 1, True), ("x", 1, False),
        ("f", 3, None), ("ff", 3, True), ("fx", 3, None), ("xx", 3, False), ("fxf", 3, True),
        ("f", 2, None), ("x", 2, None), ("xf", 2, None), ("xx", 2, False), ("ff", 2, True),
        ("xff", 2, True), ("fxx", 2, False),
        ("xxf", 5, None), ("xxx", 5, False),
    ],
)  # fmt: skip
def test_quorum(verdicts: str, seeds: int, expected: bool | None) -> None:
    named = {"f": "fit", "x": "diverged"}
    results = [result(9, verdict=named[v], repeat=i) for i, v in enumerate(verdicts)]
    assert quorum(results, seeds) is expected


def test_a_majority_outvotes_a_lapse() -> None:
    search = BISECTION.model_copy(update={"seeds_per_n": 3})
    estimate, _ = play(search, 60_000, lambda n, repeat: n <= 1000 and repeat != 0)
    assert estimate.largest_fit <= 1000 < estimate.smallest_fail
    single, _ = play(BISECTION, 60_000, lambda n, _: n <= 1000 and n != 64)
    assert single.emc < 64


def test_ladder() -> None:
    assert ascending_ns(64, 2.0, 600) == [64, 128, 256, 512, 600]
    assert ascending_ns(64, 2, 600) == ascending_ns(64, 2.0, 600)
    assert ascending_ns(10, 2.0, 30, step=5) == [10, 15, 20, 25, 30]
    assert ascending_ns(1, 1.01, 6) == [1, 2, 3, 4, 5, 6]
    assert ascending_ns(100, 2.0, 50) == [50]


def test_max_cost_ends_the_search() -> None:
    search = BISECTION.model_copy(update={"max_cost": 3.0})
    estimate, history = play(search, 60_000, lambda n, _: n <= 1000)
    assert (estimate.censored, estimate.ended_by) == ("right", "max_cost")
    assert estimate.emc == estimate.largest_fit == 256
    assert len(history) == 3


def test_unfinished_estimates_are_censored() -> None:
    up = estimate_so_far(BISECTION, 60_000, [result(64)])
    assert (up.censored, up.emc, up.emc_hi) == ("right", 64, None)
    down = estimate_so_far(BISECTION, 60_000, [result(64, 1, "unconverged")])
    assert (down.censored, down.emc, down.smallest_fail, down.unconverged) == ("left", 0, 64, 1)
    both = estimate_so_far(BISECTION, 60_000, [result(64), result(128, 1)])
    assert both.bracket == Bracket(largest_fit=64, smallest_fail=128)
    assert estimate_so_far(BISECTION, 60_000, []) is None


@pytest.mark.parametrize("seeds", [2, 3])
def test_an_undecided_quorum_gives_no_estimate(seeds: int) -> None:
    search = BISECTION.model_copy(update={"seeds_per_n": seeds, "max_cost": 1.0})
    history = [result(64, cost=100)]
    assert estimate_so_far(search, 60_000, history) is None
    assert advance(search, 60_000, history) == [Probe(64, 1)]
    decided = [*history, result(64, repeat=1, cost=100)]
    estimate = advance(search, 60_000, decided)
    assert (estimate.censored, estimate.emc) == ("right", 64)


@pytest.mark.parametrize("seeds", [2, 3])
def test_an_even_number_of_seeds_does_not_bias_the_estimate(seeds: int) -> None:
    search = BISECTION.model_copy(update={"seeds_per_n": seeds})
    fits = logistic(0.1)
    logs = [math.log(play(search, 60_000, fits)[0].emc / 1000) for _ in range(200)]
    assert abs(np.mean(logs)) < 0.035


def logistic(width: float, lapse: float = 0.0, n50: float = 1000) -> Callable[[int, int], bool]:
    rng = np.random.default_rng(int(width * 1000 + lapse * 100))

    def fits(n: int, _: int) -> bool:
        chance = (1 - lapse) / (1 + math.exp((math.log(n) - math.log(n50)) / width))
        return bool(rng.random() < chance)

    return fits


@pytest.mark.parametrize("width", [0.02, 0.1])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_covers_n50(width: float, seeds: int) -> None:
    """Without lapses; docs/search.md describes the coverage with lapses."""
    search = BISECTION.model_copy(update={"seeds_per_n": seeds})
    fits = logistic(width)
    estimates = [play(search, 60_000, fits)[0] for _ in range(150)]
    covered = np.mean([e.emc_lo <= 1000 <= (e.emc_hi or math.inf) for e in estimates])
    assert covered >= 0.85
    assert abs(np.mean([math.log(e.emc / 1000) for e in estimates])) < 0.05


def test_the_growth_interval_contains_the_emcs_of_other_runs() -> None:
    fits = logistic(0.1)
    runs = [play(GROWTH, 60_000, fits)[0] for _ in range(60)]
    emcs = np.array([e.emc for e in runs])
    covered = np.mean([np.mean((e.emc_lo <= emcs) & (emcs <= e.emc_hi)) for e in runs])
    assert covered >= 0.85


def test_the_posterior_concentrates_at_the_truth() -> None:
    fits = logistic(0.1)
    ns = [200, 400, 700, 900, 1100, 1400, 2000, 4000] * 25
    history = [
        result(n, verdict="fit" if fits(n, i) else "not_fit", repeat=i) for i, n in enumerate(ns)
    ]
    curve = posterior(history, 60_000)
    low, middle, high = curve.quantiles(curve.level_set(0.5), (0.05, 0.5, 0.95))
    assert low < 1000 < high
    assert high / low < 1.15
    assert middle == pytest.approx(1000, rel=0.08)
    assert curve.weight.sum() == pytest.approx(1)
    assert curve.weight @ curve.width == pytest.approx(0.1, rel=0.35)
    assert (np.diff(curve.mean_chance(np.geomspace(10, 1e5, 50))) <= 1e-12).all()


def test_the_cost_bound_holds() -> None:
    training = Adam(optimizer="adam", epochs=10)
    rng = np.random.default_rng(0)
    for search in (BISECTION, GROWTH, BISECTION.model_copy(update={"seeds_per_n": 3})):
        bound = cost_bound(search, training, 5_000)
        for _ in range(40):
            threshold = int(rng.integers(0, 6_000))
            estimate, _ = play(search, 5_000, lambda n, _, t=threshold: n <= t)
            assert estimate.cost <= bound


def test_ended_by() -> None:
    for search, expected in ((BISECTION, "tolerance"), (GROWTH, "failure")):
        assert play(search, 60_000, lambda n, _: n <= 1000)[0].ended_by == expected
        assert play(search, 500, lambda n, _: n <= 1000)[0].ended_by == "data"
    assert play(BISECTION, 500, lambda *_: False)[0].ended_by == "data"
