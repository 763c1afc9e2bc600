"""Comparisons that decide when a sweep ends: their verdicts, and the points to measure next.

Points are measured in rounds: first with the seeds listed in the spec, to a coarse tolerance; then
with the same seeds, to the tolerance of the spec; then with more seeds. Comparisons are evaluated
after each round. This is a group-sequential test: each round spends a part of the error rate in
proportion to the information that it adds (alpha spending, Lan and DeMets 1983), and Holm's
correction covers the comparisons of a round (Ye, Li, Liu and Yao 2013). A comparison is not
evaluated again if it has a verdict, or if a verdict is predicted to need many more pairs than
``max_seeds`` seeds give. The next round measures only the points of the remaining comparisons.

In each round, a point contributes the training runs that it had when its search first reached the
precision that the round requires. Verdicts are therefore a pure function of the point files: they
depend neither on the process that evaluates them, nor on training runs for later rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from flexhpc.analysis.effect import Effect, Pairing, PairKey, effects_of, with_verdicts
from flexhpc.config.sections.compare import Compare
from flexhpc.search import is_precise
from flexhpc.search.design import CostModel
from flexhpc.search.stages import results_at_stage
from flexhpc.store import to_history
from flexhpc.store.status import PointStatus

_COARSE_INFORMATION = 0.3
"""Information in a coarse estimate, as a fraction of the information in a precise estimate. The
value takes the scatter between seeds into account."""
_PRECISE_COST = 2.5
"""Predicted cost of a precise estimate, as a multiple of the cost of a coarse estimate. The
prediction is used until the first precise estimate is finished."""
_SEEDS_PER_ADDED_SEED = 3
"""From the third round on, a round adds one seed for every three seeds of the previous round, but
at least one."""
_MAX_PAIRS_FACTOR = 5.0
"""A comparison is not evaluated again if the predicted number of pairs for a verdict is larger than
this multiple of the number of pairs that ``max_seeds`` seeds give."""
_SUM_STEP, _LARGEST_SUM = 0.01, 8.0

EndedBy = Literal["decided", "max_seeds", "max_cost"]
EffectKey = tuple[str, ...]
"""Values that identify a comparison; see ``Effect.key``."""


class Round(NamedTuple):
    """A round of measurements, after which the comparisons are evaluated.

    Attributes:
        seeds: number of seeds of each point.
        coarse: whether coarse estimates are sufficient; True only for the first round.
    """

    seeds: int
    coarse: bool


def rounds_of(listed_seeds: int, max_seeds: int) -> list[Round]:
    """Return the rounds: coarse, precise with the same seeds, then precise with more seeds.

    Args:
        listed_seeds: number of seeds in the first round.
        max_seeds: number of seeds in the last round.
    """
    rounds = [Round(listed_seeds, coarse=True), Round(listed_seeds, coarse=False)]
    while rounds[-1].seeds < max_seeds:
        seeds = rounds[-1].seeds + max(1, rounds[-1].seeds // _SEEDS_PER_ADDED_SEED)
        rounds.append(Round(min(seeds, max_seeds), coarse=False))
    return rounds


@lru_cache(maxsize=1000)
def significance_levels(error_rate: float, rounds: tuple[Round, ...]) -> tuple[float, ...]:
    """Return the significance level of a one-sided test after each round.

    Under the null hypothesis, the score of a test is a Brownian motion S at time t, where t is the
    information after a round, as a fraction of the information after the last round. If a round
    adds a fraction f of the information, S first crosses its boundary after this round with the
    probability ``error_rate * f``. The significance levels follow from these boundaries.

    Args:
        error_rate: error rate of the test over all rounds.
        rounds: all rounds.
    """
    sums = np.arange(-_LARGEST_SUM, _LARGEST_SUM, _SUM_STEP)
    density = (np.abs(sums) < _SUM_STEP / 2).astype(float)  # of S, if it has not crossed
    time, levels = 0.0, []
    for round_ in rounds:
        information = round_.seeds * (_COARSE_INFORMATION if round_.coarse else 1.0)
        added = information / rounds[-1].seeds - time
        time += added
        density = gaussian_filter1d(
            density, math.sqrt(added) / _SUM_STEP, mode="constant", truncate=8
        )
        above = np.cumsum(density[::-1])[::-1]
        boundary = float(np.interp(-error_rate * added, -above, sums))
        density[sums >= boundary] = 0.0
        levels.append(float(ndtr(-boundary / math.sqrt(time))))
    return tuple(levels)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """State of the comparisons of one entry of ``compare`` with the key ``decide``.

    Attributes:
        effects: the comparisons with their verdicts, each as it was after its last round.
        next_points: points that the next round needs and that do not have the precision of this
            round yet.
        later_points: points that the round after next needs in addition to ``next_points`` and that
            do not have the precision of that round yet. They are measured unless the next round
            decides all comparisons. Empty if ``max_cost`` is set.
        next_is_precise: whether the next round requires the tolerance of the spec instead of the
            coarse tolerance.
        ended_by: ``decided`` if no comparison remains; ``max_seeds`` or ``max_cost`` if this limit
            prevents a further round; None if another round follows.
        rounds: number of completed rounds.
        max_rounds: maximum number of rounds.
        seeds: number of seeds of each point in the next round, or in the last round if no round
            follows.
        total: number of comparisons, including those whose points failed.
        trainings: cost so far, in whole training runs.
        max_seeds: number of seeds of each point in the last possible round.
        fixed_cost: estimated cost of measuring every point with ``max_seeds`` seeds to the
            tolerance of the spec, in whole training runs.
    """

    effects: list[Effect]
    next_points: list[PointStatus]
    later_points: list[PointStatus]
    next_is_precise: bool
    ended_by: EndedBy | None
    rounds: int
    max_rounds: int
    seeds: int
    total: int
    trainings: float
    max_seeds: int
    fixed_cost: float

    @property
    def text(self) -> str:
        """The state of the comparisons and their cost in words, for the terminal and the report."""
        cost = f"at a cost of {self.trainings:.0f} whole training runs"
        if self.total == 0:
            return f"no pairs to compare; cost so far: {self.trainings:.0f} whole training runs"
        if self.ended_by == "decided":
            return (
                f"all comparisons decided {cost}; measuring every point with {self.max_seeds} "
                f"seeds (max_seeds) would cost about {self.fixed_cost:.0f} whole training runs"
            )
        if self.ended_by is not None:
            decided = sum(effect.verdict != "not decided" for effect in self.effects)
            rest = "next round" if self.ended_by == "max_cost" else "others"
            return (
                f"{decided} of {self.total} comparisons with compare.decide decided {cost}; "
                f"compare.decide.{self.ended_by} is too small for the {rest}"
            )
        return (
            f"{self.rounds} of at most {self.max_rounds} rounds completed {cost}; the next round "
            f"needs {self.seeds} seeds"
        )


def decide(statuses: Sequence[PointStatus], compare: Compare) -> Decision:
    """Evaluate comparisons after each completed round, and choose the points of the next round.

    Args:
        statuses: points of a run, including optional points that were not started, because later
            rounds need their seeds.
        compare: an entry of ``compare`` with the key ``decide``.

    Raises:
        InputError: no point has the compared key, the baseline or a key of ``within``; or
            ``within`` contains the compared key.
    """
    settings = compare.decide
    assert settings is not None
    design = _Design(statuses, compare)
    rounds = tuple(rounds_of(design.listed_seeds, settings.max_seeds))
    effects: dict[EffectKey, Effect] = {}
    undecided = list(design.comparisons)
    completed = abandoned = 0

    def level_in_round(error_rate: float, index: int) -> float:
        return significance_levels(error_rate, rounds)[index]

    for round_ in rounds:
        needed, unstarted = design.needed_points(round_, undecided)
        next_points = design.unmeasured(needed, round_)
        if unstarted or next_points:
            break
        evaluated = {e.key: e for e in design.effects(needed, round_)}
        current = [evaluated[key] for key in undecided if key in evaluated]
        with_ratio = sum(effect.pairs > effect.bounds for effect in current)
        without_ratio = len(undecided) + abandoned - with_ratio
        abandoned += len(undecided) - len(current)  # all points of a value or baseline failed
        undecided = []
        test_level = partial(level_in_round, index=completed)
        for effect in with_verdicts(current, settings.error, test_level, without_ratio):
            if effect.pairs - effect.bounds == 1:  # the scatter between seeds is unknown
                effects[effect.key] = replace(effect, verdict="not decided")
                undecided.append(effect.key)
                continue
            effects[effect.key] = effect
            if effect.verdict == "not decided":
                if _needs_too_many_pairs(effect, round_, settings.max_seeds):
                    abandoned += 1
                else:
                    undecided.append(effect.key)
        completed += 1
        if not undecided:
            break

    # From here on, round_ is the round that needs next_points or, at the end, the last round.
    ended_by: EndedBy | None = None
    if completed and not undecided:
        ended_by = "max_seeds" if abandoned else "decided"
    elif completed == len(rounds):
        ended_by = "max_seeds"
    costs = {id(status): cost_in_trainings(status) for status in statuses}
    precise_costs = [costs[id(s)] for s in statuses if design.states[id(s), False]]
    predicted_costs = [_PRECISE_COST * cost for cost in costs.values() if cost]
    cost_per_point = float(np.mean(precise_costs or predicted_costs or [0.0]))
    max_points = len(design.listed) * rounds[-1].seeds / max(1, design.listed_seeds)
    later_points: list[PointStatus] = []
    if ended_by is None:
        remaining = [max(cost_per_point - costs[id(status)], 0.0) for status in next_points]
        total_cost = sum(costs.values()) + cost_per_point * unstarted + sum(remaining)
        if settings.max_cost is None:
            if next_points and completed + 1 < len(rounds):
                later = rounds[completed + 1]
                chosen = {id(status) for status in next_points}
                candidates = design.unmeasured(design.needed_points(later, undecided)[0], later)
                later_points = [status for status in candidates if id(status) not in chosen]
        elif (
            completed > 0
            and total_cost > settings.max_cost
            and not design.is_started(round_, rounds[completed - 1], needed)
        ):
            next_points, ended_by = [], "max_cost"
    return Decision(
        effects=[effects[key] for key in design.comparisons if key in effects],
        next_points=next_points, later_points=later_points, next_is_precise=completed > 0,
        ended_by=ended_by, rounds=completed, max_rounds=len(rounds), seeds=round_.seeds,
        total=len(design.comparisons), trainings=sum(costs.values()),
        max_seeds=rounds[-1].seeds,
        fixed_cost=cost_per_point * max_points,
    )  # fmt: skip


def _needs_too_many_pairs(effect: Effect, round_: Round, max_seeds: int) -> bool:
    """Return whether a verdict is predicted to need many more pairs than ``max_seeds`` seeds give.

    If the prediction is too high, the comparison ends without a verdict that it could have reached.
    A wrong prediction never causes a wrong verdict.
    """
    if round_.coarse or (effect.pairs > effect.bounds and None in (effect.low, effect.high)):
        return False  # a bound may still exclude 1
    max_pairs = effect.pairs * max_seeds / round_.seeds
    pairs = math.inf if effect.more_pairs is None else effect.pairs + effect.more_pairs
    return pairs > _MAX_PAIRS_FACTOR * max_pairs


class _Design:
    """Points that the comparisons need in each round.

    Attributes:
        comparisons: dict from the ``Effect.key`` of each comparison to its pairs, each with the
            value of the compared key that is not the baseline.
        listed: points that are not optional.
        listed_seeds: number of different seeds of the listed points.
        seeds: seeds of the listed points, followed by all other seeds in ascending order.
        states: result of :func:`at_precision` for each point, by the ``id()`` of its status and
            the argument ``coarse``.
    """

    def __init__(self, statuses: Sequence[PointStatus], compare: Compare) -> None:
        self._compare, self._pairing = compare, Pairing(statuses, compare)
        self._points: dict[tuple[PairKey, str], PointStatus] = {}  # by pair and compared value
        for status in statuses:
            value = self._pairing.compared_value(status)
            if value is not None:
                pair = self._pairing.pair_key(status)._replace(seed=status.point.seed)
                self._points[pair, value] = status
        self.comparisons: dict[EffectKey, list[tuple[PairKey, str]]] = {}
        for pair, value in self._points:
            if value != self._pairing.baseline and (pair, self._pairing.baseline) in self._points:
                effect_key = self._pairing.effect_key(value, pair.group)
                self.comparisons.setdefault(effect_key, []).append((pair, value))
        self.listed = [status for status in statuses if not status.point.optional]
        seeds = list(dict.fromkeys(status.point.seed for status in self.listed))
        self.listed_seeds = len(seeds)
        self.seeds = seeds + sorted({status.point.seed for status in statuses} - set(seeds))
        self.states = {
            (id(status), coarse): at_precision(status, coarse=coarse)
            for status in statuses
            for coarse in (True, False)
        }

    def needed_points(
        self, round_: Round, comparisons: Sequence[EffectKey]
    ) -> tuple[list[PointStatus], int]:
        """Return the points that a round needs for ``comparisons``.

        The first round needs all listed points, including those that belong to no comparison.

        Returns:
            The needed points that were passed to the constructor, and the number of needed points
            that were not.
        """
        keys = {
            (pair._replace(seed=seed), value)
            for comparison in comparisons
            for pair, compared_value in self.comparisons[comparison]
            for seed in self.seeds[: round_.seeds]
            for value in (compared_value, self._pairing.baseline)
        }
        known = [status for key, status in self._points.items() if key in keys]
        further_seeds = max(round_.seeds - len(self.seeds), 0)
        unstarted = len(keys) - len(known) + further_seeds * len(keys) // max(1, len(self.seeds))
        return self.listed if round_.coarse else known, unstarted

    def unmeasured(self, points: Sequence[PointStatus], round_: Round) -> list[PointStatus]:
        """Return the points that have not failed and do not have the precision of a round yet."""
        return [
            status
            for status in points
            if status.state != "failed" and self.states[id(status), round_.coarse] is None
        ]

    def effects(self, points: Sequence[PointStatus], round_: Round) -> list[Effect]:
        """Compare the points as they were when they first had the precision of ``round_``."""
        states = [self.states[id(status), round_.coarse] for status in points]
        measured = [state for state in states if state is not None]
        return effects_of(measured, self._compare, pairing=self._pairing)

    def is_started(self, round_: Round, previous: Round, points: Sequence[PointStatus]) -> bool:
        """Return whether any training run for ``round_`` is recorded in the point files.

        The predicted cost is compared with ``max_cost`` only before a round starts.
        """
        new_seeds = self.seeds if previous.coarse else self.seeds[previous.seeds : round_.seeds]
        for status in points:
            coarse = self.states[id(status), True] if previous.coarse else None
            if status.point.seed in new_seeds and status.probes > (coarse.probes if coarse else 0):
                return True
        return False


def at_precision(status: PointStatus, *, coarse: bool) -> PointStatus | None:
    """Return a point as it was when its search first reached a tolerance; None if it never did.

    Args:
        status: the point.
        coarse: whether to require the coarse tolerance instead of the tolerance of the spec.
    """
    record, point = status.record, status.point
    if record is None:
        return None
    search = point.with_precise_search().search
    search = search.with_coarse_tolerance() if coarse else search
    for count, estimate in record.estimates.items():
        if is_precise(
            search, record.header.n_limit,
            partial(to_history, record.probes[:count], point.training),
            point.arm_coordinates, estimate, point.training.doubling_settings,
        ):  # fmt: skip
            return replace(status, record=record.at_probe_count(count), estimate=estimate)
    return None


def cost_in_trainings(status: PointStatus) -> float:
    """Return the cost of a point so far, expressed as a number of whole training runs with the
    point's last budget."""
    if status.record is None or not status.record.probes:
        return 0.0
    history = to_history(status.record.probes, status.point.training)
    history = results_at_stage(history, max(result.stage for result in history))
    return CostModel.from_history(history).cost_in_whole_runs(history)
