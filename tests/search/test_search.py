"""Bisection and growth: estimates, intervals, censoring and cost bounds; rules for all policies."""

from __future__ import annotations

import math
import random as stdlib_random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexhpc.config.sections.gates import Gates, PlateauGate
from flexhpc.config.sections.search import (
    Bayes,
    Bisection,
    Growth,
    QuantileSearch,
    Search,
    format_eps,
)
from flexhpc.config.sections.training import Adam
from flexhpc.config.variants import variants
from flexhpc.search import Bracket, Probe, ProbeResult, cost_bound, estimate_so_far, next_probes
from flexhpc.search.fit_curve import posterior
from flexhpc.search.history import accepted_probes
from flexhpc.search.next_n import ascending_n_values, majority_decision
from flexhpc.search.policy import load_policy
from tests.search.helpers import Train, fits, fits_with, misses, play, result

BISECTION = Bisection(policy="bisection", start=64, tolerance=0.05)
GROWTH = Growth(policy="growth", start=64)

SEARCHES = {
    name: st.builds(cls.model_validate, st.just({"policy": name}))
    for name, cls in variants("search").items()
    if cls is not Bayes  # tests/search/test_bayes.py
} | {
    "bisection": st.builds(
        Bisection,
        policy=st.just("bisection"),
        start=st.integers(1, 5000),
        tolerance=st.floats(0.001, 3),
        seeds_per_n=st.integers(1, 5),
    ),
    "growth": st.builds(
        Growth,
        policy=st.just("growth"),
        start=st.integers(1, 5000),
        growth=st.floats(1.05, 3),
        step=st.none() | st.integers(20, 500),
        seeds_per_n=st.integers(1, 3),
    ),
}
"""Sections of each policy; without an entry, all keys have their defaults."""
every_policy = pytest.mark.parametrize("policy", SEARCHES)


@st.composite
def sections(draw: Callable[..., Search], policy: str) -> Search:
    """Draw a section of a policy, including the estimand and ``eps`` if it supports them."""
    search = draw(SEARCHES[policy])
    if not isinstance(search, QuantileSearch):
        return search
    errors = st.lists(st.sampled_from([0.01, 0.1, 0.5]), min_size=1, unique=True)
    quantile = draw(st.integers(1, 99))
    return search.model_copy(update={"estimand": f"n{quantile}", "eps": draw(st.none() | errors)})


def rejecting_half(train: Train, random: stdlib_random.Random) -> Train:
    """Return training runs in which a gate rejects a failure with probability 1/2."""

    def train_and_reject(probe: Probe) -> ProbeResult:
        trained = train(probe)
        return replace(trained, rejected=not trained.fit and random.random() < 0.5)

    return train_and_reject


@given(SEARCHES["bisection"] | SEARCHES["growth"], st.integers(1, 20_000), st.integers(0, 25_000))
def test_search_finds_a_sharp_threshold(search: Search, n_limit: int, threshold: int) -> None:
    estimate, history = play(search, n_limit, fits(lambda n, _: n <= threshold))
    low, high = estimate.largest_fit, estimate.smallest_fail
    if threshold >= n_limit:
        assert (estimate.censored, estimate.emc, estimate.emc_hi) == ("right", n_limit, None)
        assert estimate.ended_by == "data"
    elif isinstance(search, Bisection) and threshold >= 1:
        assert (estimate.censored, estimate.ended_by) == ("none", "tolerance")
        assert low <= threshold < high
        assert high - low == 1 or high <= low * (1 + search.tolerance)
        assert low <= estimate.emc <= high
        assert estimate.emc_lo <= estimate.emc <= estimate.emc_hi
    elif isinstance(search, Bisection):
        assert (estimate.censored, estimate.emc, high) == ("left", 0, 1)
        assert estimate.ended_by == "data"
    elif threshold < min(search.start, n_limit):
        assert (estimate.censored, low) == ("left", None)
    else:
        ns = ascending_n_values(search.start, search.growth, n_limit, search.step)
        assert estimate.emc == max(n for n in ns if n <= threshold)
        assert estimate.ended_by == "failure"
    assert estimate.probes == len(history)
    assert estimate.cost == sum(r.cost for r in history)


@every_policy
@given(st.data(), st.integers(1, 20_000), st.randoms(use_true_random=False))
def test_random_verdicts_give_a_valid_estimate(policy: str, data, n_limit: int, random) -> None:
    """The bracket consists of accepted probes, and there is an EMC at each training error."""
    search = data.draw(sections(policy))
    train = misses(lambda n, _: random.choice([0, random.randint(1, n)]))
    estimate, history = play(search, n_limit, rejecting_half(train, random))
    for emc in (estimate, *estimate.by_eps.values()):
        assert 0 <= emc.emc <= n_limit
        assert emc.emc_lo <= emc.emc
        assert emc.emc_hi is None or emc.emc_hi >= emc.emc
        assert (emc.emc_hi is None) == (emc.censored == "right")
    accepted = accepted_probes(history) or history
    assert estimate.largest_fit in {None, *(r.n for r in accepted if r.fit)}
    assert estimate.smallest_fail in {None, *(r.n for r in accepted if not r.fit)}
    assert {*estimate.by_eps} == {format_eps(eps) for eps in getattr(search, "eps", None) or ()}


@every_policy
@settings(max_examples=15)
@given(st.data(), st.integers(100, 20_000), st.randoms(use_true_random=False))
def test_proposal_depends_only_on_the_history(policy: str, data, n_limit: int, random) -> None:
    """The order of the probes has no effect, so that a resumed search needs no other state."""
    search = data.draw(sections(policy))
    train = rejecting_half(fits(lambda n, _: random.random() < 500 / (n + 1)), random)
    estimate, history = play(search, n_limit, train)
    for length in range(len(history)):
        shuffled = history[:length]
        random.shuffle(shuffled)
        step = next_probes(search, n_limit, shuffled)
        assert step == [Probe(history[length].n, history[length].repeat)]
    shuffled = list(history)
    random.shuffle(shuffled)
    assert next_probes(search, n_limit, shuffled) == estimate


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
def test_majority_of_probes_decides_whether_n_fits(
    verdicts: str, seeds: int, expected: bool | None
) -> None:
    named = {"f": "fit", "x": "diverged"}
    results = [result(9, verdict=named[v], repeat=i) for i, v in enumerate(verdicts)]
    assert majority_decision(results, seeds)(9) is expected


def test_lapse_does_not_change_the_decision_of_a_majority() -> None:
    search = BISECTION.model_copy(update={"seeds_per_n": 3})
    estimate, _ = play(search, 60_000, fits(lambda n, repeat: n <= 1000 and repeat != 0))
    assert estimate.largest_fit <= 1000 < estimate.smallest_fail
    single, _ = play(BISECTION, 60_000, fits(lambda n, _: n <= 1000 and n != 64))
    assert single.emc < 64


def test_ascending_ns_end_at_the_number_of_samples() -> None:
    assert ascending_n_values(64, 2.0, 600) == [64, 128, 256, 512, 600]
    assert ascending_n_values(64, 2, 600) == ascending_n_values(64, 2.0, 600)
    assert ascending_n_values(10, 2.0, 30, step=5) == [10, 15, 20, 25, 30]
    assert ascending_n_values(1, 1.01, 6) == [1, 2, 3, 4, 5, 6]
    assert ascending_n_values(100, 2.0, 50) == [50]


def test_max_cost_ends_the_search() -> None:
    search = BISECTION.model_copy(update={"max_cost": 3.0})
    estimate, history = play(search, 60_000, fits(lambda n, _: n <= 1000))
    assert (estimate.censored, estimate.ended_by) == ("right", "max_cost")
    assert estimate.emc == estimate.largest_fit == 256
    assert len(history) == 3


def test_estimate_of_an_unfinished_search_is_censored() -> None:
    up = estimate_so_far(BISECTION, 60_000, [result(64)])
    assert (up.censored, up.emc, up.emc_hi) == ("right", 64, None)
    down = estimate_so_far(BISECTION, 60_000, [result(64, 1, "unconverged")])
    assert (down.censored, down.emc, down.smallest_fail, down.unconverged) == ("left", 0, 64, 1)
    both = estimate_so_far(BISECTION, 60_000, [result(64), result(128, 1)])
    assert both.bracket == Bracket(largest_fit=64, smallest_fail=128)
    assert estimate_so_far(BISECTION, 60_000, []) is None


@pytest.mark.parametrize("seeds", [2, 3])
def test_undecided_majority_gives_no_estimate(seeds: int) -> None:
    search = BISECTION.model_copy(update={"seeds_per_n": seeds, "max_cost": 1.0})
    history = [result(64, cost=100)]
    assert estimate_so_far(search, 60_000, history) is None
    assert next_probes(search, 60_000, history) == [Probe(64, 1)]
    decided = [*history, result(64, repeat=1, cost=100)]
    estimate = next_probes(search, 60_000, decided)
    assert (estimate.censored, estimate.emc) == ("right", 64)


def logistic(width: float) -> Train:
    rng = np.random.default_rng(int(width * 1000))
    return fits_with(lambda n: 1 / (1 + (n / 1000) ** (1 / width)), rng)


@pytest.mark.parametrize(
    ("width", "seeds", "max_bias"),
    [(0.02, 1, 0.05), (0.02, 3, 0.05), (0.1, 1, 0.05), (0.1, 2, 0.035), (0.1, 3, 0.035)],
)
def test_interval_covers_n50_without_lapses(width: float, seeds: int, max_bias: float) -> None:
    search = BISECTION.model_copy(update={"seeds_per_n": seeds})
    train = logistic(width)
    estimates = [play(search, 60_000, train)[0] for _ in range(150)]
    covered = np.mean([e.emc_lo <= 1000 <= (e.emc_hi or math.inf) for e in estimates])
    assert covered >= 0.85
    assert abs(np.mean([math.log(e.emc / 1000) for e in estimates])) < max_bias


def test_growth_interval_contains_the_emcs_of_other_runs() -> None:
    train = logistic(0.1)
    runs = [play(GROWTH, 60_000, train)[0] for _ in range(60)]
    emcs = np.array([e.emc for e in runs])
    covered = np.mean([np.mean((e.emc_lo <= emcs) & (emcs <= e.emc_hi)) for e in runs])
    assert covered >= 0.85


def test_posterior_concentrates_at_the_true_curve() -> None:
    train = logistic(0.1)
    ns = [200, 400, 700, 900, 1100, 1400, 2000, 4000] * 25
    curve = posterior([train(Probe(n, i)) for i, n in enumerate(ns)], 60_000)
    low, middle, high = curve.quantiles(curve.n_at_fit_probability(0.5), (0.05, 0.5, 0.95))
    assert low < 1000 < high
    assert high / low < 1.15
    assert middle == pytest.approx(1000, rel=0.08)
    assert curve.weight.sum() == pytest.approx(1)
    assert curve.weight @ curve.width == pytest.approx(0.1, rel=0.35)
    assert (np.diff(curve.mean_fit_probability(np.geomspace(10, 1e5, 50))) <= 1e-12).all()


@every_policy
@given(st.data(), st.integers(0, 6_000), st.randoms(use_true_random=False))
def test_no_search_costs_more_than_its_bound(policy: str, data, threshold: int, random) -> None:
    search = data.draw(sections(policy))
    train = misses(lambda n, _: max(0, n - threshold))
    plain = Adam(optimizer="adam", epochs=10)
    rejecting = plain.model_copy(update={"gates": Gates(plateau=PlateauGate(mode="reject"))})
    for training, outcomes in ((plain, train), (rejecting, rejecting_half(train, random))):
        estimate, _ = play(search, 5_000, outcomes)
        assert estimate.cost <= cost_bound(search, training, 5_000)
    without, with_rejected = (
        sum(count for _, count in load_policy(search).probe_bound(search, 5_000, can_reject=reject))
        for reject in (False, True)
    )
    assert without < with_rejected or without == math.inf
