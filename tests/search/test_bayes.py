"""The Bayesian policy: proposals, termination and coverage of intervals."""

from __future__ import annotations

import math
import random as stdlib_random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc

from flexhpc.config.sections.search import Bayes
from flexhpc.config.sections.training import Adam
from flexhpc.search import Estimate, Probe, ProbeResult, cost_bound, estimate_so_far, next_probes
from flexhpc.search.arms import SINGLE_ARM, Coordinates
from flexhpc.search.design import CostModel
from tests.conftest import FULL
from tests.search.helpers import Train, fits_with, misses, play, result

CAP = 40
SEARCH = Bayes(policy="bayes", start=64, tolerance=0.1, max_cost=float(CAP))


def fails_above(threshold: int) -> Train:
    """Return training runs that miss the samples above a threshold."""
    return misses(lambda n, _: max(0, n - threshold))


results = st.builds(
    ProbeResult,
    n=st.integers(1, 5000),
    repeat=st.integers(0, 10_000),
    verdict=st.sampled_from(["fit", "not_fit", "unconverged", "diverged", "saddle", "unstable"]),
    n_errors=st.integers(0, 5000),
    cost=st.integers(0, 10**9),
    rejected=st.booleans(),
    share=st.none() | st.floats(1e-6, 8),
)
searches = st.builds(
    Bayes,
    policy=st.just("bayes"),
    start=st.integers(1, 6000),
    tolerance=st.floats(1e-3, 3),
    max_cost=st.floats(1, 60),
    estimand=st.sampled_from(["n50", "n90", "n10", "n99"]),
    eps=st.none() | st.just([0.01, 0.2]),
    at_once=st.integers(1, 8),
)


@settings(max_examples=50)
@given(searches, st.integers(5000, 100_000), st.lists(results, max_size=30))
def test_any_history_gives_valid_probes_or_a_valid_estimate(
    search: Bayes, n_limit: int, history: list[ProbeResult]
) -> None:
    step = next_probes(search, n_limit, history)
    completed = len(history) // search.at_once * search.at_once
    if isinstance(step, list):
        assert 1 <= len(step) <= search.at_once
        assert all(1 <= n <= n_limit for n, *_ in step)
        assert len(set(step)) == len(step)
    else:
        assert 0 <= step.emc <= n_limit or step.emc_hi is not None
        assert step.emc_lo <= step.emc
        assert step.emc_hi is None or step.emc <= step.emc_hi
    batches, rest = history[:completed], history[completed:]
    stdlib_random.Random(0).shuffle(batches)
    stdlib_random.Random(0).shuffle(rest)
    assert next_probes(search, n_limit, batches + rest) == step
    if search.eps is None:
        verdicts_only = [replace(result, n_errors=0) for result in history]
        assert next_probes(search, n_limit, verdicts_only) == step


@settings(max_examples=25)
@given(
    st.integers(1, 3000),
    st.integers(1, 6000),
    st.sampled_from([0.05, 0.1, 0.5]),
    st.sampled_from([1, 1, 2, 5]),
)
def test_search_finds_a_sharp_threshold(
    start: int, threshold: int, tolerance: float, at_once: int
) -> None:
    search = SEARCH.model_copy(update={"start": start, "tolerance": tolerance, "at_once": at_once})
    estimate, history = play(search, 5000, fails_above(threshold))
    assert len(history) < CAP + at_once
    high = math.inf if estimate.emc_hi is None else estimate.emc_hi
    if threshold >= 5000:
        assert (estimate.censored, estimate.emc, estimate.emc_hi) == ("right", 5000, None)
    else:
        assert estimate.censored == "none" or threshold > 5000 / 1.21
        assert estimate.emc == pytest.approx(threshold, rel=0.15 + tolerance, abs=2)
    if estimate.ended_by != "max_cost":
        assert estimate.emc_lo <= threshold * 1.05 + 1
        assert high >= threshold / 1.05 - 1


@pytest.mark.parametrize("at_once", [1, 5])
def test_interval_covers_a_sharp_threshold(at_once: int) -> None:
    rng = np.random.default_rng(at_once)
    search = SEARCH.model_copy(update={"at_once": at_once, "tolerance": 0.05})
    covered, searches = 0, 40 if FULL else 25
    for _ in range(searches):
        threshold = int(rng.integers(10, 4000))
        start = int(rng.integers(1, 3000))
        search = search.model_copy(update={"start": start})
        estimate, _ = play(search, 5000, fails_above(threshold))
        covered += estimate.emc_lo <= threshold + 1 <= (estimate.emc_hi or math.inf) + 1
    assert covered >= 0.95 * searches


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize(
    ("train", "censored"),
    [(misses(lambda *_: 0), "right"), (misses(lambda n, _: n), "left"),
     (misses(lambda *_: 1), "left")],
)  # fmt: skip
def test_searches_are_censored_if_all_fit_or_all_fail(
    train: Train, censored: str, at_once: int
) -> None:
    estimate, history = play(SEARCH.model_copy(update={"at_once": at_once}), 1797, train)
    assert (estimate.censored, estimate.ended_by) == (censored, "data")
    assert len(history) < CAP
    if censored == "right":
        assert (estimate.emc, estimate.emc_hi) == (1797, None)
        assert estimate.emc_lo >= 1797 / 1.21 - 1
    else:
        assert (estimate.emc, estimate.emc_lo) == (0, 0)
        assert min(r.n for r in history) == 1


def test_n_is_at_most_halved_after_failures() -> None:
    """Networks with batch normalisation cannot train on one sample."""
    _, history = play(SEARCH, 50_000, fails_above(9))
    smallest = np.minimum.accumulate([r.n for r in history])
    assert (smallest[1:] >= smallest[:-1] // 2).all()


@pytest.mark.parametrize("at_once", [1, 4])
def test_contradictory_verdicts_end_in_a_wide_interval(at_once: int) -> None:
    search = SEARCH.model_copy(update={"at_once": at_once})
    estimate, history = play(search, 60_000, misses(lambda n, repeat: 1 - (n + repeat) % 2))
    assert len(history) <= CAP
    assert estimate.emc_hi is None or estimate.emc_hi > 1.5 * estimate.emc_lo


@settings(max_examples=6)
@given(
    st.integers(1, 8), st.sampled_from([SINGLE_ARM, [(0.0,), (1.0,), (2.0,)]]),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_order_of_probes_within_a_round_has_no_effect(
    at_once: int, coordinates: Coordinates, random: stdlib_random.Random
) -> None:
    """After an interruption, exactly the missing probes are proposed."""

    def train(probe: Probe) -> ProbeResult:
        n, repeat, arm, _ = probe
        return result(n, max(0, n - 300 // (arm + 1)), repeat=repeat, arm=arm, cost=10 * n)

    search = SEARCH.model_copy(update={"at_once": at_once, "max_cost": 10.0})
    expected, _ = play(search, 5000, train, coordinates)
    history: list[ProbeResult] = []
    while isinstance(step := next_probes(search, 5000, history, coordinates), list):
        history += [train(probe) for probe in random.sample(step, random.randint(1, len(step)))]
    assert step == expected


def test_first_probes_of_a_round() -> None:
    """Multiples of ``start`` up to the number of samples, then smaller values."""

    def first(start: int, at_once: int) -> list[int]:
        search = SEARCH.model_copy(update={"start": start, "at_once": at_once})
        return [n for n, *_ in next_probes(search, 1797, [])]

    assert first(64, 8) == [64, 128, 256, 512, 1024, 1797, 32, 16]
    assert first(5000, 4) == [1797, 898, 449, 224]
    assert first(1, 3) == [1, 2, 4]


@pytest.mark.parametrize("at_once", [1, 3])
def test_n_is_one_only_if_no_probe_fits(at_once: int) -> None:
    search = SEARCH.model_copy(update={"at_once": at_once, "start": 3})
    _, history = play(search, 1797, fails_above(2))
    fitted = [i for i, r in enumerate(history) if r.n > 1 and r.verdict == "fit"]
    end_of_round = (fitted[0] // at_once + 1) * at_once
    assert all(r.n > 1 for r in history[end_of_round:])


def test_several_probes_per_round_need_fewer_rounds() -> None:
    searches = (SEARCH.model_copy(update={"at_once": k}) for k in (1, 4))
    (_, sequential), (_, four) = (play(search, 60_000, fails_above(2000)) for search in searches)
    assert len(four) / 4 < 0.6 * len(sequential)
    assert len({r.n for r in four[4:8]}) == 4


def test_max_cost_ends_the_search() -> None:
    search = SEARCH.model_copy(update={"max_cost": 3.0})
    estimate, history = play(search, 60_000, fails_above(1000))
    assert len(history) == 3
    assert (estimate.censored, estimate.ended_by) == ("right", "max_cost")
    assert estimate.emc == estimate.largest_fit
    assert estimate_so_far(search, 60_000, history[:2]).ended_by is None
    estimate, _ = play(Bayes(policy="bayes", start=64), 5000, fails_above(300))
    assert estimate.ended_by == "tolerance"
    bound = cost_bound(SEARCH, Adam(optimizer="adam", epochs=10), 60_000)
    assert bound == 60_000 * 10 * CAP
    capped = SEARCH.model_copy(update={"max_cost": 30.0, "at_once": 4})
    assert cost_bound(capped, Adam(optimizer="adam", epochs=10), 60_000) == 600_000 * 33
    free = SEARCH.model_copy(update={"max_cost": None})
    assert cost_bound(free, Adam(optimizer="adam", epochs=10), 60_000) is None


def perceptron(dims: int, rng: np.random.Generator, lapse: float = 0.0) -> Train:
    """Return training runs on the curve of Cover 1965, whose n50 is 2 d."""
    return fits_with(lambda n: float((1 - lapse) * betainc(max(n - dims, 1e-9), dims, 0.5)), rng)


@pytest.mark.parametrize(
    ("dims", "lapse"), [(20, 0.0), (200, 0.0), (50, 0.05)] if FULL else [(20, 0.0), (50, 0.05)]
)
def test_intervals_cover_the_perceptron_and_are_narrow(dims: int, lapse: float) -> None:
    rng = np.random.default_rng(dims)
    search = SEARCH.model_copy(update={"start": max(2, dims // 5)})
    searches = range(40 if FULL else 25)
    estimates = [play(search, 60_000, perceptron(dims, rng, lapse))[0] for _ in searches]
    covered = np.mean([e.emc_lo <= 2 * dims <= (e.emc_hi or math.inf) for e in estimates])
    assert covered >= 0.8
    errors = np.array([math.log(e.emc / (2 * dims)) for e in estimates])
    assert np.sqrt((errors**2).mean()) < 0.1
    narrow = [e.emc_hi <= e.emc_lo * 1.21 + 3 or e.ended_by == "max_cost" for e in estimates]
    assert all(narrow)
    for estimate in estimates:
        assert estimate.width[0] <= estimate.width[1] <= estimate.width[2]
        assert estimate.lapse[0] <= estimate.lapse[2]


def test_eps_is_estimated_from_shared_and_additional_probes() -> None:
    search = SEARCH.model_copy(update={"eps": [0.1, 0.3]})
    estimate, _ = play(search, 60_000, fails_above(1000))
    for eps, at_eps in estimate.by_eps.items():
        truth = 1000 / (1 - float(eps))
        assert at_eps.emc_lo <= truth * 1.02
        assert at_eps.emc_hi >= truth * 0.98
        assert at_eps.emc == pytest.approx(truth, rel=0.15)


def test_eps_gets_additional_probes() -> None:
    rng = np.random.default_rng(3)
    train = fits_with(
        lambda n: 1 / (1 + (n / 300) ** 3), rng, lambda n: max(1, round(0.3 * (n - 150)))
    )
    search = SEARCH.model_copy(update={"eps": [0.1], "max_cost": 20.0, "tolerance": 0.05})
    estimate, history = play(search, 60_000, train)
    assert 20 < len(history) <= 40
    at_eps = estimate.by_eps["0.1"]
    assert at_eps.emc_lo <= 300 * 1.1, "above 225 only fits pass, half of them at 300"
    assert at_eps.emc_hi >= 300 / 1.1
    assert at_eps.emc_hi / at_eps.emc_lo < 1.6
    diverged = [replace(r, verdict="diverged") for r in history if not r.fit]
    assert estimate_so_far(search, 60_000, diverged).by_eps["0.1"].censored == "left"


def test_other_quantiles_of_the_fit_curve() -> None:
    train = fits_with(lambda n: 1 / (1 + (n / 1000) ** 10), np.random.default_rng(1))
    for percent in (90, 10):
        truth = 1000 * ((100 - percent) / percent) ** 0.1
        search = SEARCH.model_copy(update={"estimand": f"n{percent}", "max_cost": 60.0})
        estimate, _ = play(search, 60_000, train)
        assert estimate.emc_lo <= truth * 1.05
        assert estimate.emc_hi >= truth / 1.05


def test_search_of_rejected_probes_is_left_censored() -> None:
    history = [result(10 + i, 3, "saddle", rejected=True) for i in range(CAP)]
    estimate = next_probes(SEARCH, 5000, history)
    assert isinstance(estimate, Estimate)
    assert (estimate.emc, estimate.emc_lo, estimate.censored) == (0, 0, "left")
    assert estimate.smallest_fail == 10
    assert isinstance(next_probes(SEARCH, 5000, history[:5]), list)
    assert estimate_so_far(SEARCH, 5000, history[:5]) is None


def test_max_cost_counts_fractions_of_budgets() -> None:
    """A search on a flat curve ends at the cap of 60."""
    rng = np.random.default_rng(1)
    train = fits_with(lambda n: 1 / (1 + (n / 400) ** 1.2), rng)
    estimate, history = play(Bayes(policy="bayes", tolerance=0.05), 60_000, train)
    assert estimate.ended_by == "max_cost"
    assert 55 <= len(history) <= 65, "without shares, probes count by their cost"
    shares = [replace(r, share=0.35 if r.fit else 1.0) for r in history]
    assert CostModel.from_history(shares).cost_in_whole_runs(shares) == pytest.approx(
        sum(r.share for r in shares)
    )
    assert isinstance(next_probes(Bayes(policy="bayes", tolerance=0.05), 60_000, shares), list)


def test_training_run_without_budget_counts_at_most_one() -> None:
    """A training run to convergence may take a thousand times as long as an unstable one."""
    fitted = [(16, 272), (32, 6464), (64, 7616), (158, 307_626), (381, 1_630_299)]
    history = [result(n, cost=cost) for n, cost in [*fitted, (606, 107_469_858)]]
    history.append(result(111, 40, "unstable", cost=131_979))
    assert 1 < CostModel.from_history(history).cost_in_whole_runs(history) <= len(history)
    assert isinstance(next_probes(Bayes(policy="bayes", max_cost=8.0), 1797, history), list)
