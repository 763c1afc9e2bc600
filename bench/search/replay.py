"""Replay searches on simulated models; record cost and estimate after every round."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from bench.search.worlds import World, true_emc
from flexhpc.config.sections.search import Bayes
from flexhpc.search import Estimate, ProbeResult, estimate_so_far, next_probes
from flexhpc.search.fit_curve import _posterior
from flexhpc.search.history import Floats
from flexhpc.search.next_n import ascending_n_values, replay_bisection, replay_growth


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Course of one search; arrays have shape (rounds,), where a round is a batch of probes.

    Attributes:
        cost: sample passes so far, in units of a full training run at the true EMC.
        time: duration so far in the same unit, if the probes of each batch run concurrently.
        error: log(estimate / true EMC).
        low, high: ends of the interval, as log(end / true EMC).
        seconds: total CPU time that the policy takes to choose probes, without cached state.
        estimate: the final estimate.
    """

    cost: Floats
    time: Floats
    error: Floats
    low: Floats
    high: Floats
    seconds: float
    estimate: Estimate


def draw_start(emc: float, rng: np.random.Generator) -> int:
    """Draw the first n of a search, far below the EMC, because users do not know the EMC."""
    return max(2, round(emc / math.exp(rng.uniform(math.log(6), math.log(24)))))


def unit_cost(world: World, emc: float) -> float:
    """Return the sample passes of a full training run at the true EMC."""
    return world.draw(round(emc), np.random.default_rng(0)).full_cost


def replay_search(world: World, search: Bayes, rng: np.random.Generator) -> Replay:
    """Replay one Bayesian search.

    Args:
        world: source of training runs.
        search: settings; ``start`` is replaced.
        rng: source of randomness.
    """
    emc = true_emc(world)
    unit = unit_cost(world, emc)
    search = search.model_copy(update={"start": draw_start(emc, rng)})
    history: list[ProbeResult] = []
    rounds = []
    cost = elapsed = seconds = 0.0
    while True:
        clear_cache()
        start = time.process_time()
        step = next_probes(search, world.n_limit, history)
        seconds += time.process_time() - start
        if isinstance(step, Estimate):
            break
        runs = [world.draw(probe.n, rng) for probe in step]
        history += [run.result(probe) for probe, run in zip(step, runs, strict=True)]
        cost += sum(run.cost for run in runs) / unit
        elapsed += max(run.cost for run in runs) / unit
        estimate = estimate_so_far(search, world.n_limit, history)
        assert estimate is not None
        rounds.append((cost, elapsed, *_log_errors(estimate, emc)))
    costs, times, errors, low, high = np.array(rounds).T
    return Replay(
        cost=costs, time=times, error=errors, low=low, high=high, seconds=seconds, estimate=step
    )


def clear_cache() -> None:
    """Clear the cached posterior, so that decisions take as long as in a new process."""
    _posterior.cache_clear()


def _log_errors(estimate: Estimate, emc: float) -> tuple[float, float, float]:
    """Return log(x / true EMC) for the estimate and the ends of its interval."""
    high = math.inf if estimate.emc_hi is None else math.log(estimate.emc_hi / emc)
    middle, low = (math.log(max(x, 0.5) / emc) for x in (estimate.emc, estimate.emc_lo))
    return middle, low, high


def replay_single_runs(
    world: World, rng: np.random.Generator, growth: float | None
) -> tuple[float, float]:
    """Replay one search with one training run at each n.

    Args:
        growth: factor between consecutive n; None for bisection to 5 %.

    Returns:
        log(estimate / true EMC), and the cost in units of a full training run at the true EMC.
    """
    emc = true_emc(world)
    start = draw_start(emc, rng)
    verdicts: dict[int, bool] = {}
    cost = 0
    while True:
        if growth is None:
            state = replay_bisection(
                verdicts.get, start=start, tolerance=0.05, n_limit=world.n_limit
            )
        else:
            state = replay_growth(verdicts.get, ascending_n_values(start, growth, world.n_limit))
        if state.next_n is None:
            break
        run = world.draw(state.next_n, rng)
        verdicts[state.next_n] = run.verdict == "fit"
        cost += run.cost
    low, high = state.bracket.largest_fit, state.bracket.smallest_fail
    estimate = low or 0.5
    if growth is None and low is not None and high is not None:
        estimate = math.sqrt(low * high)
    return math.log(estimate / emc), cost / unit_cost(world, emc)
