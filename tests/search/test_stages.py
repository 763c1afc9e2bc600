"""Searches that double the budget, on simulated training runs that are continued."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flexhpc.config.sections.search import Bayes
from flexhpc.config.sections.training import Doubling
from flexhpc.search import Estimate, Probe, ProbeResult, estimate_so_far, is_precise, next_probes
from flexhpc.search.budget_curve import budget_curve
from flexhpc.search.history import accepted_probes
from flexhpc.search.policy import gain_of_last_doublings
from flexhpc.search.stages import results_at_stage, runs_without_state, training_runs
from flexhpc.search.times import Times
from tests.conftest import FULL
from tests.search.helpers import Train, play, result

N_LIMIT = 20_000
SEARCH = Bayes(policy="bayes", start=16, tolerance=0.2)
DOUBLING = Doubling(saturation=1.1, max_doublings=6)
EMC, WIDTH = 300.0, 0.1


def log_emc(stage: float, saturates: float) -> float:
    """Return log EMC after ``stage`` doublings: proportional to the budget until it saturates."""
    return math.log(EMC) - math.log1p(2.0 ** (saturates - stage))


def simulated(seed: int, saturates: float, *, exact: bool = True, emc: float = EMC) -> Train:
    """Return training runs whose difficulty does not depend on the budget.

    Args:
        seed: seed of the difficulties.
        saturates: number of doublings at which the EMC is half of ``emc``.
        exact: whether the time of a fit is known, and not only the budget.
        emc: EMC with an unlimited budget (samples).
    """

    def train(probe: Probe) -> ProbeResult:
        rng = np.random.default_rng((seed, probe.n, probe.repeat))
        difficulty = math.log(probe.n) + WIDTH * rng.logistic()
        remaining = emc / math.exp(difficulty) - 1
        time = 2.0 ** (saturates - probe.stage) / remaining if remaining > 0 else math.inf
        fits = time <= 1
        return result(
            probe.n, missed=0 if fits else max(1, probe.n // 10), repeat=probe.repeat,
            stage=probe.stage, share=min(time, 1.0),
            time=None if not fits else time if exact else 1.0,
            failed_after=0.0 if fits and not exact else None,
        )  # fmt: skip

    return train


def play_doubling(
    train: Train, doubling_settings: Doubling = DOUBLING, n_limit: int = N_LIMIT, **changes: object
) -> tuple[Estimate, list[ProbeResult]]:
    """Run a search with changed settings that doubles the budget."""
    return play(
        SEARCH.model_copy(update=changes), n_limit, train, doubling_settings=doubling_settings
    )


@pytest.mark.parametrize("exact", [True, False], ids=["times known", "budgets known"])
def test_budget_is_doubled_until_the_emc_is_saturated(exact: bool) -> None:
    searches = 20 if FULL else 3
    covered, costs = 0, []
    for seed in range(searches):
        estimate, history = play_doubling(simulated(seed, saturates=1.5, exact=exact))
        assert estimate.stage >= 3
        assert (estimate.saturated == "yes") == (estimate.ended_by == "saturation")
        assert (estimate.gain[2] <= 1.1) == (estimate.ended_by == "saturation")
        covered += estimate.emc_lo <= math.exp(log_emc(estimate.stage, 1.5)) <= estimate.emc_hi
        costs.append(sum(run.share for run in results_at_stage(history, estimate.stage)))
        continued = {(r.n, r.repeat) for r in history if r.stage} & {
            (r.n, r.repeat) for r in history if not r.stage
        }
        assert continued
    assert covered >= 0.65 * searches
    assert np.mean(costs) < 20, "more whole training runs than a search at the last budget"


def test_a_pause_of_the_growth_does_not_end_a_search() -> None:
    """The EMC is almost constant from stage 1 to stage 3, and then grows again."""
    stages = np.arange(-4, 7)
    log_emcs = np.log([10, 20, 40, 80, 150, 200, 202, 203, 305, 310, 315])

    def train(probe: Probe) -> ProbeResult:
        rng = np.random.default_rng((0, probe.n, probe.repeat))
        difficulty = math.log(probe.n) + 0.05 * rng.logistic()
        time = 2.0 ** (np.interp(difficulty, log_emcs, stages, right=math.inf) - probe.stage)
        if time <= 1:
            return result(probe.n, repeat=probe.repeat, stage=probe.stage, share=time, time=time)
        return result(probe.n, 1, repeat=probe.repeat, stage=probe.stage, share=1.0)

    estimate, history = play_doubling(train)
    assert estimate.ended_by == "saturation"
    assert estimate.stage >= 4
    assert estimate.emc == pytest.approx(305, rel=0.15)
    curve = budget_curve(results_at_stage(history, estimate.stage), N_LIMIT)
    assert np.all(np.array(estimate.gain) >= curve.gain(0.5, 0.5, 1.0))


def test_search_ends_at_the_largest_budget() -> None:
    estimate, _ = play_doubling(
        simulated(0, saturates=9.0), Doubling(saturation=1.1, max_doublings=2)
    )
    assert (estimate.stage, estimate.ended_by, estimate.saturated) == (2, "max_budget", "no")
    assert estimate.emc == pytest.approx(math.exp(log_emc(2, 9.0)), rel=0.3)


def test_search_is_resumed_after_any_probe_of_a_round() -> None:
    train = simulated(1, saturates=0.0)
    doubling_settings = Doubling(saturation=1.1, max_doublings=2)
    estimate, history = play_doubling(train, doubling_settings, at_once=3)
    policy = SEARCH.model_copy(update={"at_once": 3})
    for end in range(0, len(history), 5):
        missing = next_probes(policy, N_LIMIT, history[:end], doubling_settings=doubling_settings)
        done = end // 3 * 3
        expected = {(r.n, r.repeat, r.arm, r.stage) for r in history[end : done + 3]}
        assert set(missing) == expected
    assert is_precise(policy, N_LIMIT, lambda: history, ((),), estimate, doubling_settings)
    larger = Doubling(saturation=1.0001, max_doublings=4)
    assert not is_precise(policy, N_LIMIT, lambda: history, ((),), estimate, larger)
    assert is_precise(SEARCH, N_LIMIT, lambda: history, ((),), estimate, doubling_settings)


def test_search_with_too_few_samples_is_as_precise_as_requested() -> None:
    """The interval is measured to the tolerance before the search ends for lack of data."""
    limit, policy = 250, SEARCH.model_copy(update={"tolerance": 0.1})
    train = simulated(0, saturates=-3.0)
    estimate, history = play_doubling(train, n_limit=limit, tolerance=0.1)
    assert (estimate.censored, estimate.ended_by) == ("right", "data")
    assert estimate.emc_lo >= limit / 1.2
    assert is_precise(policy, limit, lambda: history, ((),), estimate, DOUBLING)


def test_cap_of_a_stage_does_not_end_the_search() -> None:
    estimate, _ = play_doubling(simulated(0, saturates=4.0), tolerance=0.02, max_cost=6.0)
    assert estimate.stage > 2
    assert estimate.ended_by == "max_cost"


def test_training_runs_at_a_later_stage() -> None:
    fit = result(10, share=0.5, time=0.5)
    failed, continued = result(20, 2, share=1.0), result(20, 1, share=1.0, stage=1)
    diverged = result(30, 3, "diverged", share=0.25)
    rejected = result(40, 4, share=1.0, rejected=True)
    history = [fit, failed, continued, diverged, rejected]
    assert training_runs(history) == [fit, continued, diverged, rejected]
    at_first, at_second, at_third = (
        results_at_stage(history[: 2 + 3 * (s > 0)], s) for s in range(3)
    )
    assert at_first == [fit, failed]
    assert [(r.n, r.share, r.time, r.unfinished) for r in at_second] == [
        (10, 0.25, 0.25, False), (20, 1.0, None, False), (30, 0.125, None, False),
        (40, 0.5, 0.5, True),
    ]  # fmt: skip
    assert [r.unfinished for r in at_third] == [False, True, False, True]
    assert not any(r.rejected for r in at_third)
    assert [r.n for r in accepted_probes(at_third)] == [10, 30]


def test_a_fit_with_a_larger_budget_has_a_time_between_two_budgets() -> None:
    failed = result(20, 2, share=1.0)
    fitted = result(20, share=0.7, time=1.0, failed_after=0.0, stage=2)
    first = result(10, share=0.7, time=1.0, failed_after=0.0)
    at_third = results_at_stage([failed, fitted, first], 3)
    assert [(r.failed_after, r.time) for r in at_third] == [(0.125, 0.5), (0.0, 0.125)]
    times = Times.from_history([*at_third, first])
    assert times.interval_censored.shape == (3, 2)
    assert len(times) == 2
    curve = budget_curve([*at_third, result(40, 2, share=1.0, stage=3)], N_LIMIT)
    assert curve.smallest_factor == 0.125
    medians = [curve.emc(0.5, factor).emc for factor in (0.125, 0.25, 0.5, 1.0)]
    assert medians == sorted(medians)
    assert medians[0] < medians[-1]
    assert estimate_so_far(SEARCH, N_LIMIT, [failed, fitted, first]).stage == 2
    times = Times.from_history(results_at_stage([first], 20))
    assert np.isfinite(times.log_likelihood_by_law(*np.ones((2, 1)))).all()


def test_states_far_from_the_emc_are_not_kept() -> None:
    failed = [result(n, 1, share=1.0) for n in (50, 90, 110, 400)]
    ended = [result(10, share=0.5, time=0.5), result(99, 9, "diverged", share=0.1)]
    assert runs_without_state([*failed, *ended], 100, keep=9) == ended
    dropped = runs_without_state([*failed, *ended], 100, keep=2)
    assert sorted(r.n for r in dropped) == [10, 50, 99, 400]


def test_gain_without_a_time_is_unbounded() -> None:
    gain = gain_of_last_doublings([result(10), result(20, 2)], 100, SEARCH)
    assert gain == (math.inf, math.inf, math.inf)
