"""Estimates for quantiles and training errors, and rejected probes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from flexhpc.config.sections.gates import Gates, PlateauGate
from flexhpc.config.sections.search import Bayes, Bisection, Growth, Search
from flexhpc.config.sections.training import Adam, Sam
from flexhpc.search import (
    Probe,
    ProbeResult,
    cost_bound,
    estimate_at_training_error,
    estimate_so_far,
)
from flexhpc.search.fit_curve import posterior
from flexhpc.search.history import MAX_REJECTED, accepted_probes
from tests.search.helpers import Train, misses, play, result

SEARCH = Bisection(policy="bisection", start=32, tolerance=0.05)


def fits_up_to(capacity: int) -> Train:
    """Return training runs that fit ``capacity`` samples and miss the others."""
    return misses(lambda n, _: max(0, n - capacity))


@given(st.integers(50, 3_000))
def test_each_training_error_is_estimated_from_shared_probes(capacity: int) -> None:
    eps = [0.1, 0.01, 0.5]
    search = SEARCH.model_copy(update={"eps": eps})
    train = fits_up_to(capacity)
    estimate, history = play(search, 100_000, train)
    alone, shorter = play(SEARCH, 100_000, train)
    assert (estimate.emc, estimate.censored) == (alone.emc, "none")
    assert history[: len(shorter)] == shorter
    assert list(estimate.by_eps) == ["0.01", "0.1", "0.5"]
    assert len({(r.n, r.repeat) for r in history}) == len(history)
    for level in eps:
        at_eps = estimate.by_eps[f"{level:g}"]
        exact = capacity / (1 - level)
        assert at_eps.censored == "none"
        assert abs(at_eps.emc / exact - 1) < 0.06
        assert at_eps.emc_lo <= exact + 1
        assert at_eps.emc_hi >= exact - 1


@settings(max_examples=8)
@given(st.integers(50, 3_000), st.sampled_from([0.01, 0.1, 0.5]))
def test_estimate_at_equals_the_estimate_of_a_bayesian_search(capacity: int, eps: float) -> None:
    search = Bayes(policy="bayes", start=32)
    train = fits_up_to(capacity)
    before, history = play(search.model_copy(update={"eps": [eps]}), 100_000, train)
    assert estimate_at_training_error(eps, 100_000, history) == before.by_eps[f"{eps:g}"]


@pytest.mark.parametrize(
    "search", [Bayes(policy="bayes", start=32), SEARCH, Growth(policy="growth", start=32)]
)
def test_estimate_at_for_every_policy(search: Search) -> None:
    _, history = play(search, 100_000, fits_up_to(700))
    at_eps = estimate_at_training_error(0.05, 100_000, history)
    assert at_eps.emc_lo <= 1.05 * 700 / 0.95
    assert (at_eps.emc_hi or math.inf) >= 700 / 0.95
    assert estimate_at_training_error(0.9, 100_000, history).censored == "right"
    ends = [estimate_at_training_error(eps, 100_000, history).emc_lo for eps in (0.01, 0.05, 0.1)]
    assert ends == sorted(ends)


def test_estimate_at_uses_the_missed_samples_of_failed_probes() -> None:
    fits = [result(n) for n in (100, 120, 140)]
    many = [result(n, n // 2) for n in (200, 210, 220)]
    few = [result(n, n // 50) for n in (200, 210, 220)]
    assert estimate_at_training_error(0.1, 1_000, [*fits, *many]).emc_hi < 300
    assert estimate_at_training_error(0.1, 1_000, [*fits, *few]).censored == "right"


def test_estimate_at_is_none_without_accepted_probes() -> None:
    assert estimate_at_training_error(0.1, 1_000, []) is None
    assert estimate_at_training_error(0.1, 1_000, [result(50, 3, "saddle", rejected=True)]) is None


def test_eps_is_censored_if_all_samples_pass() -> None:
    search = SEARCH.model_copy(update={"eps": [0.5]})
    estimate, _ = play(search, 100, fits_up_to(60))
    assert estimate.censored == "none"
    at_eps = estimate.by_eps["0.5"]
    assert (at_eps.emc, at_eps.emc_hi, at_eps.censored) == (100, None, "right")


def test_eps_of_an_unfinished_search() -> None:
    search = SEARCH.model_copy(update={"eps": [0.1]})
    _, history = play(search, 10_000, fits_up_to(500))
    _, shorter = play(SEARCH, 10_000, fits_up_to(500))
    assert estimate_so_far(search, 10_000, history[: len(shorter) + 1]) is not None
    assert estimate_so_far(search, 10_000, history[:3]).by_eps == {}


@pytest.mark.parametrize("q", [10, 25, 75, 90])
def test_quantiles_of_a_logistic_fit_curve_are_estimated(q: int) -> None:
    width, middle = 0.3, 400
    rng = np.random.default_rng(q)
    history = [
        result(n, int(rng.random() > expit(np.log(middle / n) / width)), repeat=i)
        for n in (100, 200, 283, 400, 566, 800, 1600)
        for i in range(60)
    ]
    search = SEARCH.model_copy(update={"start": 100, "estimand": f"n{q}", "seeds_per_n": 60})
    estimate = estimate_so_far(search, 100_000, history)
    exact = middle * np.exp(-width * logit(q / 100))
    assert estimate.estimand == f"n{q}"
    assert abs(estimate.emc / exact - 1) < 0.15
    assert estimate.emc_lo <= estimate.emc <= estimate.emc_hi
    assert estimate.emc_hi / estimate.emc_lo < 1.5


def rejecting(times: int) -> Train:
    """Fit up to 300; above, reject the first ``times`` probes at each n and fail the others."""

    def train(probe: Probe) -> ProbeResult:
        n, repeat, *_ = probe
        if n <= 300:
            return result(n, repeat=repeat, cost=5)
        rejected = repeat < times
        return result(n, 3, "unconverged", repeat=repeat, cost=5, rejected=rejected)

    return train


@pytest.mark.parametrize("times", [0, 1, MAX_REJECTED])
def test_rejected_probes_are_repeated_and_do_not_count(times: int) -> None:
    estimate, history = play(SEARCH, 5_000, rejecting(times))
    assert estimate.largest_fit <= 300 < estimate.smallest_fail
    failing = {r.n for r in history if r.n > 300}
    assert estimate.rejected == times * len(failing)
    assert len([r for r in history if r.n > 300]) == (times + 1) * len(failing)
    assert len(accepted_probes(history)) == len(history) - estimate.rejected
    assert estimate.cost == 5 * len(history)


def test_search_ends_if_all_failures_are_rejected() -> None:
    estimate, history = play(SEARCH, 5_000, rejecting(10**9))
    assert estimate.largest_fit <= 300 < estimate.smallest_fail
    assert max(r.repeat for r in history) == MAX_REJECTED


def test_posterior_ignores_rejected_probes() -> None:
    counting = [result(50), result(100), result(200, 9)]
    rejected = result(100, 1, "saddle", repeat=1, rejected=True)
    before, after = posterior(counting, 9_000), posterior([*counting, rejected], 9_000)
    np.testing.assert_array_equal(before.weight, after.weight)
    accepted = posterior([*counting, replace(rejected, rejected=False)], 9_000)
    assert not np.array_equal(before.weight, accepted.weight)


def test_cost_bound_includes_every_factor() -> None:
    plain = Adam(optimizer="adam", epochs=10)
    base = cost_bound(SEARCH, plain, 1_000)
    for change, factor in (
        ({"sam": Sam()}, 2),
        ({"unconverged": "extend", "extend_to": 4.0}, 4),
        ({"gates": Gates(plateau=PlateauGate(mode="reject"))}, 1 + MAX_REJECTED),
    ):
        assert cost_bound(SEARCH, plain.model_copy(update=change), 1_000) == factor * base
    assert cost_bound(SEARCH, plain.model_copy(update={"until": "convergence"}), 1_000) is None
    bayes = Bayes(policy="bayes", start=16)
    assert cost_bound(bayes, plain, 100, tuned=True) == 2 * cost_bound(bayes, plain, 100)
    with_eps = SEARCH.model_copy(update={"eps": [0.1]})
    assert cost_bound(with_eps, plain, 1_000) > base
    growth = Growth(policy="growth", start=500, step=500)
    gradients = Adam(optimizer="adam", gradient_evaluations=5_000)
    assert cost_bound(growth, gradients, 1_000) == 10_000
