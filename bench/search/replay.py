"""Play searches on worlds: what each one costs and finds, after every round of probes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.search.tables import Training, World, middle
from flexhpc.search import Ask, Estimate, ProbeResult, advance, estimate_so_far
from flexhpc.search.hopeless import COEFFICIENTS, FIRST, LOOKS, foretold
from flexhpc.search.neighbours import Belief
from flexhpc.search.walk import Ended, Wanted, bisection, growth
from flexhpc.spec.sections import Bayes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Play:
    """One search, round by round; all arrays have shape (rounds,).

    Attributes:
        cost: sample passes so far, in units of one whole training at the true EMC.
        time: the same, where probes that are planned together run at the same time.
        error: log of the estimate over the truth; low, high: of the interval's ends.
        stopped: cost of failing probes as they were stopped, over that of whole trainings.
        false_stops: given up, though the training would have fitted; would_fit: that would have.
        failing: whole cost of the failing probes; saved: what giving up saved of it.
        seconds: that the policy itself took to decide, in all.
    """

    cost: Floats
    time: Floats
    error: Floats
    low: Floats
    high: Floats
    false_stops: int
    would_fit: int
    failing: float
    saved: float
    seconds: float


def start_of(truth: float, rng: np.random.Generator) -> int:
    """Return a first n that lies far below: a user does not know where the EMC is."""
    return max(2, round(truth / math.exp(rng.uniform(math.log(6), math.log(24)))))


def unit_of(world: World, truth: float) -> float:
    """Return the sample passes of a whole training at the truth."""
    return world.draw(round(truth), np.random.default_rng(0)).full_cost


def play(
    world: World, search: Bayes, rng: np.random.Generator, *, q: float = 0.5,
    belief: Belief | None = None, forecast: Floats = COEFFICIENTS, counts: bool = True,
    shares: bool = True,
) -> Play:  # fmt: skip
    """Run the Bayesian policy to its end.

    Args:
        world: where trainings come from; search: settings; its start is replaced.
        rng: random source.
        q: level of the estimand.
        belief: of neighbours.
        forecast: coefficients of the forecast.
        counts, shares: whether the policy sees missed samples and the budget used.
    """
    truth = middle(world, q)
    unit = unit_of(world, truth)
    search = search.model_copy(update={"start": start_of(truth, rng)})
    history: list[ProbeResult] = []
    rows = []
    false_stops = would_fit = 0
    cost = passed = failing = saved = seconds = 0.0
    while True:
        begun = time.perf_counter()
        step = advance(search, world.n_limit, history, belief)
        seconds += time.perf_counter() - begun
        if not isinstance(step, Ask):
            break
        longest = 0.0
        for n, repeat in step.probes:
            training = world.draw(n, rng)
            shown, least = shorten(training, n, forecast, step.hopeless_below)
            fits = training.verdict == "fit"
            would_fit += fits
            false_stops += fits and shown.verdict != "fit"
            failing += 0.0 if fits else training.cost
            saved += 0.0 if fits else training.cost - shown.cost
            cost += shown.cost / unit
            longest = max(longest, shown.cost / unit)
            history.append(
                ProbeResult(
                    n=n,
                    repeat=repeat,
                    verdict=shown.verdict,
                    n_errors=shown.n_errors if counts else 0,
                    cost=shown.cost,
                    share=shown.share if shares else None,
                    least_chance=least,
                )
            )
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
        false_stops=false_stops,
        would_fit=would_fit,
        failing=failing / unit,
        saved=saved / unit,
        seconds=seconds,
    )


def shorten(
    training: Training, n: int, forecast: Floats, below: float
) -> tuple[Training, float | None]:
    """Return a training as it is if it may be given up, and the least chance on its way."""
    missed = training.errors[:-1] if training.verdict == "fit" else training.errors
    if not below or not len(training.errors):
        return training, None
    chance = foretold(missed, n, forecast)
    (hopeless,) = np.nonzero(chance < below)
    if not len(hopeless):
        return training, float(chance.min()) if len(chance) else None
    look = FIRST + 1 + int(hopeless[0])
    given_up = replace(
        training,
        verdict="hopeless",
        n_errors=max(1, round(missed[look - 1])),
        share=look / LOOKS,
        cost=max(1, round(training.full_cost * look / LOOKS)),
    )
    return given_up, float(chance[hopeless[0]])


def _errors(estimate: Estimate, truth: float) -> tuple[float, float, float]:
    high = math.inf if estimate.emc_hi is None else math.log(estimate.emc_hi / truth)
    emc, low = (math.log(max(x, 0.5) / truth) for x in (estimate.emc, estimate.emc_lo))
    return emc, low, high


def walk(world: World, rng: np.random.Generator, step: float | None) -> tuple[float, float]:
    """Run one plain bisection to 5 %, or growth by a factor ``step``.

    Returns:
        Log of the estimate over the truth (of n50), and cost in units of a training at the truth.
    """
    truth = middle(world)
    start = start_of(truth, rng)
    seen: dict[int, bool] = {}
    cost = 0
    while True:
        if step is None:
            at = bisection(seen.get, start=start, tolerance=0.05, n_limit=world.n_limit)
        else:
            at = growth(seen.get, start=start, growth=step, n_limit=world.n_limit)
        if not isinstance(at, Wanted):
            break
        training = world.draw(at.n, rng)
        seen[at.n] = training.verdict == "fit"
        cost += training.cost
    return math.log(_end(at, step) / truth), cost / unit_of(world, truth)


def _end(at: Ended, step: float | None) -> float:
    low, high = at.bracket.largest_fit, at.bracket.smallest_fail
    if low is None or high is None or step is not None:
        return low or 0.5
    return math.sqrt(low * high)
