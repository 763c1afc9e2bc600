"""Replay searches on the worlds of tables.py; record cost and estimate after every round."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from bench.search.tables import World, middle
from flexhpc.config.sections.search import Bayes
from flexhpc.search import Estimate, ProbeResult, advance, estimate_so_far
from flexhpc.search.evidence import Floats
from flexhpc.search.fit_curve import _posterior
from flexhpc.search.next_n import SearchState, ascending_ns, bisection, first_failure


@dataclass(frozen=True, kw_only=True)
class Play:
    """Course of one search; arrays have shape (rounds,), where a round is a batch of probes.

    Attributes:
        cost: sample passes so far, in units of a full training run at the true EMC.
        time: the same, if the probes of a batch run concurrently.
        error: log(estimate / true EMC).
        low, high: ends of the interval, as log(end / true EMC).
        seconds: total CPU time in which the policy chooses probes, without cached state.
        estimate: the final estimate.
    """

    cost: Floats
    time: Floats
    error: Floats
    low: Floats
    high: Floats
    seconds: float
    estimate: Estimate


def start_of(truth: float, rng: np.random.Generator) -> int:
    """Draw a first n far below the EMC, because users do not know the EMC."""
    return max(2, round(truth / math.exp(rng.uniform(math.log(6), math.log(24)))))


def unit_of(world: World, truth: float) -> float:
    """Return the sample passes of a full training run at the true EMC."""
    return world.draw(round(truth), np.random.default_rng(0)).full_cost


def play(world: World, search: Bayes, rng: np.random.Generator, *, counts: bool = True) -> Play:
    """Run one Bayesian search.

    Args:
        world: source of training runs.
        search: settings; ``start`` is replaced.
        rng: source of randomness.
        counts: whether the policy uses the numbers of missed samples.
    """
    truth = middle(world)
    unit = unit_of(world, truth)
    search = search.model_copy(update={"start": start_of(truth, rng)})
    history: list[ProbeResult] = []
    rows = []
    cost = passed = seconds = 0.0
    while True:
        clear_cache()
        start = time.process_time()
        step = advance(search, world.n_limit, history)
        seconds += time.process_time() - start
        if isinstance(step, Estimate):
            final = step
            break
        longest = 0.0
        for probe in step:
            training = world.draw(probe.n, rng)
            cost += training.cost / unit
            longest = max(longest, training.cost / unit)
            result = training.result(probe)
            history.append(result if counts else replace(result, n_errors=0))
        estimate = estimate_so_far(search, world.n_limit, history)
        assert estimate is not None
        passed += longest
        rows.append((cost, passed, *_errors(estimate, truth)))
    columns = np.array(rows).T
    return Play(
        cost=columns[0],
        time=columns[1],
        error=columns[2],
        low=columns[3],
        high=columns[4],
        seconds=seconds,
        estimate=final,
    )


def clear_cache() -> None:
    """Clear the cached posterior, so that decisions take as long as in a new process."""
    _posterior.cache_clear()


def _errors(estimate: Estimate, truth: float) -> tuple[float, float, float]:
    high = math.inf if estimate.emc_hi is None else math.log(estimate.emc_hi / truth)
    emc, low = (math.log(max(x, 0.5) / truth) for x in (estimate.emc, estimate.emc_lo))
    return emc, low, high


def walk(world: World, rng: np.random.Generator, step: float | None) -> tuple[float, float]:
    """Run one bisection to 5 % (``step`` None), or the growth rule with a factor ``step``.

    Returns:
        log(estimate / true n50), and the cost in units of a full training run at the true n50.
    """
    truth = middle(world)
    start = start_of(truth, rng)
    verdicts: dict[int, bool] = {}
    cost = 0
    while True:
        if step is None:
            at = bisection(verdicts.get, start=start, tolerance=0.05, n_limit=world.n_limit)
        else:
            at = first_failure(verdicts.get, ascending_ns(start, step, world.n_limit))
        if at.next_n is None:
            break
        training = world.draw(at.next_n, rng)
        verdicts[at.next_n] = training.verdict == "fit"
        cost += training.cost
    return math.log(_end(at, step) / truth), cost / unit_of(world, truth)


def _end(at: SearchState, step: float | None) -> float:
    low, high = at.bracket.largest_fit, at.bracket.smallest_fail
    if low is None or high is None or step is not None:
        return low or 0.5
    return math.sqrt(low * high)
