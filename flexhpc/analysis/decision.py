"""Comparisons that decide when a sweep ends: verdicts under optional stopping, and next points.

A comparison is evaluated after each of several rounds: the listed seeds at a coarse tolerance, the
same seeds at the tolerance of the spec, then more seeds. It is a group-sequential test: each round
spends a part of the error rate in proportion to the information that it adds (alpha spending, Lan
and DeMets 1983), and Holm's correction covers the comparisons of a round (Ye, Li, Liu and Yao
2013). A comparison is not evaluated again if it has a verdict, or if a verdict would need many more
pairs than the largest number of seeds gives. The next round measures only the points of the others.

In each round, a point contributes the training runs that it had when its search first reached the
precision of the round. Verdicts are therefore a pure function of the point files: they depend
neither on the process that evaluates them, nor on training runs for later rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

from flexhpc.analysis.effect import Effect, Pairing, effects_of, with_verdicts
from flexhpc.config.sections.compare import Compare
from flexhpc.search import is_precise
from flexhpc.search.design import CostModel
from flexhpc.search.stages import at_stage
from flexhpc.store import history_of
from flexhpc.store.status import PointStatus

_COARSE_INFORMATION = 0.3
"""Information of a coarse estimate in units of a precise one, including the scatter of seeds."""
_PRECISE_COST = 2.5
"""Cost of a precise estimate in units of a coarse one, used before any precise one is finished."""
_GROWTH = 3
"""Each round adds the number of seeds divided by this value, but at least one."""
_MAX_PREDICTED_PAIRS = 5.0
"""Maximum predicted number of pairs, relative to those with the largest number of seeds; a
comparison that needs more is not evaluated again."""
_SUM_STEP, _LARGEST_SUM = 0.01, 8.0

EndedBy = Literal["decided", "max_seeds", "max_cost"]
EffectKey = tuple[str, ...]
"""See ``Effect.key``."""


class Round(NamedTuple):
    """A round of measurements, after which the comparisons are evaluated.

    Attributes:
        seeds: number of seeds of each point.
        coarse: whether coarse estimates are sufficient; only in the first round.
    """

    seeds: int
    coarse: bool


def rounds_of(listed_seeds: int, max_seeds: int) -> list[Round]:
    """Return all rounds, for the numbers of seeds of the first and of the last round."""
    rounds = [Round(listed_seeds, coarse=True), Round(listed_seeds, coarse=False)]
    while rounds[-1].seeds < max_seeds:
        seeds = rounds[-1].seeds + max(1, rounds[-1].seeds // _GROWTH)
        rounds.append(Round(min(seeds, max_seeds), coarse=False))
    return rounds


@lru_cache(maxsize=1000)
def levels_of(error: float, rounds: tuple[Round, ...]) -> tuple[float, ...]:
    """Return the level of a one-sided test after each round.

    If nothing differs, the score of a test is a Brownian motion S at time t, where t is the
    information after a round as a fraction of the last one. The levels are such that S crosses its
    boundary for the first time after a round with a probability of ``error`` times the information
    that the round adds.

    Args:
        error: error rate of the test over all rounds.
        rounds: all rounds.
    """
    sums = np.arange(-_LARGEST_SUM, _LARGEST_SUM, _SUM_STEP)
    density = (np.abs(sums) < _SUM_STEP / 2).astype(float)  # of S, if it was never above
    time, levels = 0.0, []
    for round_ in rounds:
        information = round_.seeds * (_COARSE_INFORMATION if round_.coarse else 1.0)
        added = information / rounds[-1].seeds - time
        time += added
        density = gaussian_filter1d(
            density, math.sqrt(added) / _SUM_STEP, mode="constant", truncate=8
        )
        above = np.cumsum(density[::-1])[::-1]
        boundary = float(np.interp(-error * added, -above, sums))
        density[sums >= boundary] = 0.0
        levels.append(float(norm.sf(boundary / math.sqrt(time))))
    return tuple(levels)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """State of the comparisons of a section that decides when a sweep ends.

    Attributes:
        effects: the comparisons, each after its last round, with their verdicts.
        next_points: points that the next round needs, but that are not measured to its precision.
        later_points: further points that the round after it needs if it gives no verdict.
        precise: whether these are measured to the tolerance of the spec.
        ended_by: why no points are needed; None if a round is missing.
        rounds: number of rounds so far; max_rounds: maximum number of rounds.
        seeds: number of seeds of the next round, or of the last one if none follows.
        total: number of comparisons, including those whose points failed.
        trainings: cost so far, in whole training runs.
        fixed_cost: estimated cost of all listed points at the tolerance of the spec, in whole
            training runs.
    """

    effects: list[Effect]
    next_points: list[PointStatus]
    later_points: list[PointStatus]
    precise: bool
    ended_by: EndedBy | None
    rounds: int
    max_rounds: int
    seeds: int
    total: int
    trainings: float
    fixed_cost: float

    @property
    def text(self) -> str:
        """The state in words: ``decided at a cost of 64 whole training runs; ...``."""
        cost = f"at a cost of {self.trainings:.0f} whole training runs"
        if self.total == 0:
            return f"no pairs to compare {cost}"
        if self.ended_by == "decided":
            return (
                f"decided {cost}; to measure all listed points to the tolerance of the spec costs "
                f"about {self.fixed_cost:.0f}"
            )
        if self.ended_by is not None:
            decided = sum(effect.verdict != "not decided" for effect in self.effects)
            limit = "is reached" if self.ended_by == "max_cost" else "is not enough for the others"
            return (
                f"{decided} of {self.total} decided {cost}; compare.decide.{self.ended_by} {limit}"
            )
        return (
            f"{self.rounds} of at most {self.max_rounds} rounds {cost}; the next one needs "
            f"{self.seeds} seeds"
        )


def decide(statuses: Sequence[PointStatus], compare: Compare) -> Decision:
    """Evaluate comparisons after each round whose points are measured; choose the next points.

    Args:
        statuses: points of a run. To choose points with further seeds, they must include the
            optional ones that were not started.
        compare: comparisons with ``decide``.

    Raises:
        InputError: see :func:`effects_of`.
    """
    settings = compare.decide
    assert settings is not None
    design = _Design(statuses, compare)
    rounds = rounds_of(design.listed_seeds, settings.max_seeds)
    effects: dict[EffectKey, Effect] = {}
    undecided = list(design.comparisons)
    completed = abandoned = 0
    for round_ in rounds:
        needed, unstarted = design.points_of(round_, undecided)
        if unstarted or design.missing(needed, round_):
            break
        evaluated = {e.key: e for e in design.effects(needed, round_)}
        current = [evaluated[key] for key in undecided if key in evaluated]
        test_level = partial(_level_at, rounds=tuple(rounds), index=completed)
        with_ratio = sum(effect.pairs > effect.bounds for effect in current)
        without_ratio = len(undecided) + abandoned - with_ratio
        abandoned += len(undecided) - len(current)  # all points of a value or baseline failed
        undecided = []
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

    ended_by: EndedBy | None = None
    if completed and not undecided:
        ended_by = "max_seeds" if abandoned else "decided"
    elif completed == len(rounds):
        ended_by = "max_seeds"
    round_ = rounds[completed - 1 if ended_by else completed]
    costs = {id(status): cost_in_trainings(status) for status in statuses}
    precise_costs = [costs[id(s)] for s in statuses if design.state(s, coarse=False)]
    predicted_costs = [_PRECISE_COST * cost for cost in costs.values() if cost]
    cost_per_point = float(np.mean(precise_costs or predicted_costs or [0.0]))
    next_points: list[PointStatus] = []
    later_points: list[PointStatus] = []
    if ended_by is None:
        needed, unstarted = design.points_of(round_, undecided)
        next_points = design.missing(needed, round_)
        remaining = [max(cost_per_point - costs[id(status)], 0.0) for status in next_points]
        total_cost = sum(costs.values()) + cost_per_point * unstarted + sum(remaining)
        if settings.max_cost is None:
            if next_points and completed + 1 < len(rounds):
                later = rounds[completed + 1]
                chosen = {id(status) for status in next_points}
                candidates = design.missing(design.points_of(later, undecided)[0], later)
                later_points = [status for status in candidates if id(status) not in chosen]
        elif (
            completed > 0
            and total_cost > settings.max_cost
            and not design.is_started(round_, rounds[completed - 1], needed)
        ):
            next_points, ended_by = [], "max_cost"
    return Decision(
        effects=[effects[key] for key in design.comparisons if key in effects],
        next_points=next_points, later_points=later_points, precise=completed > 0,
        ended_by=ended_by, rounds=completed, max_rounds=len(rounds), seeds=round_.seeds,
        total=len(design.comparisons), trainings=sum(costs.values()),
        fixed_cost=cost_per_point * len(design.listed),
    )  # fmt: skip


def _level_at(error: float, *, rounds: tuple[Round, ...], index: int) -> float:
    return levels_of(error, rounds)[index]


def _needs_too_many_pairs(effect: Effect, round_: Round, max_seeds: int) -> bool:
    """Return whether a verdict would need many more pairs than the largest number of seeds gives.

    A wrong prediction costs no error rate: such a comparison has no verdict.
    """
    if round_.coarse or (effect.pairs > effect.bounds and None in (effect.low, effect.high)):
        return False  # a bound may still exclude 1
    max_pairs = effect.pairs * max_seeds / round_.seeds
    pairs = math.inf if effect.more_pairs is None else effect.pairs + effect.more_pairs
    return pairs > _MAX_PREDICTED_PAIRS * max_pairs


class _PointKey(NamedTuple):
    """Values that identify a point among those of the comparisons."""

    seed: int
    value: str
    size: str
    group: tuple[str, ...]


class _Design:
    """Points that the comparisons need in each round.

    Attributes:
        comparisons: keys of the points at the compared value, by ``Effect.key``.
        listed: points without the optional ones; listed_seeds: number of their seeds.
        seeds: seeds of the listed points, followed by the others in ascending order.
    """

    def __init__(self, statuses: Sequence[PointStatus], compare: Compare) -> None:
        self._compare, self._pairing = compare, Pairing(statuses, compare)
        self._points: dict[_PointKey, PointStatus] = {}
        for status in statuses:
            value = self._pairing.value(status)
            if value is not None:
                group, size, _ = self._pairing.pair_key(status)
                names = tuple(name for _, name in group)
                self._points[_PointKey(status.point.seed, value, size, names)] = status
        self.comparisons: dict[EffectKey, list[_PointKey]] = {}
        baseline = self._pairing.baseline
        for key in self._points:
            if key.value != baseline and key._replace(value=baseline) in self._points:
                effect_key = self._pairing.effect_key(key.value, key.group)
                self.comparisons.setdefault(effect_key, []).append(key)
        self.listed = [status for status in statuses if not status.point.optional]
        seeds = list(dict.fromkeys(status.point.seed for status in self.listed))
        self.listed_seeds = len(seeds)
        self.seeds = seeds + sorted({status.point.seed for status in statuses} - set(seeds))
        self._states: dict[tuple[int, bool], PointStatus | None] = {}

    def state(self, status: PointStatus, *, coarse: bool) -> PointStatus | None:
        """Return :func:`at_precision` of a point."""
        key = id(status), coarse
        if key not in self._states:
            self._states[key] = at_precision(status, coarse=coarse)
        return self._states[key]

    def points_of(
        self, round_: Round, comparisons: Sequence[EffectKey]
    ) -> tuple[list[PointStatus], int]:
        """Return the points that these comparisons need in a round.

        The first round also needs the listed points that belong to no comparison.

        Returns:
            The points, and the number of further points that were not started.
        """
        keys = {
            key._replace(seed=seed, value=value)
            for comparison in comparisons
            for key in self.comparisons[comparison]
            for seed in self.seeds[: round_.seeds]
            for value in (key.value, self._pairing.baseline)
        }
        known = [status for key, status in self._points.items() if key in keys]
        further_seeds = max(round_.seeds - len(self.seeds), 0)
        unstarted = len(keys) - len(known) + further_seeds * len(keys) // max(1, len(self.seeds))
        return self.listed if round_.coarse else known, unstarted

    def missing(self, points: Sequence[PointStatus], round_: Round) -> list[PointStatus]:
        """Return the points that are not measured to the precision of a round and did not fail."""
        return [
            status
            for status in points
            if status.state != "failed" and self.state(status, coarse=round_.coarse) is None
        ]

    def effects(self, points: Sequence[PointStatus], round_: Round) -> list[Effect]:
        """Compare the points as they were when they reached the precision of a round."""
        states = [self.state(status, coarse=round_.coarse) for status in points]
        measured = [state for state in states if state is not None]
        return effects_of(measured, self._compare, pairing=self._pairing)

    def is_started(self, round_: Round, previous: Round, points: Sequence[PointStatus]) -> bool:
        """Return whether training runs for a round exist, so that its cost was checked before."""
        new_seeds = self.seeds if previous.coarse else self.seeds[previous.seeds : round_.seeds]
        for status in points:
            coarse = self.state(status, coarse=True) if previous.coarse else None
            if status.point.seed in new_seeds and status.probes > (coarse.probes if coarse else 0):
                return True
        return False


def at_precision(status: PointStatus, *, coarse: bool) -> PointStatus | None:
    """Return a point as it was when its search reached a precision; None before.

    Args:
        status: the point.
        coarse: the coarse tolerance instead of the tolerance of the spec.
    """
    record, point = status.record, status.point
    if record is None:
        return None
    search = point.precise().search
    search = search.coarse() if coarse else search
    history = history_of(record.probes, point.training)
    for count, estimate in record.estimates.items():
        if is_precise(
            search, record.header.n_limit, history[:count], point.coordinates, estimate,
            point.training.doubling,
        ):  # fmt: skip
            return replace(status, record=record.at_probe_count(count), estimate=estimate)
    return None


def cost_in_trainings(status: PointStatus) -> float:
    """Return the cost of a point in whole training runs at its last budget."""
    if status.record is None or not status.record.probes:
        return 0.0
    history = history_of(status.record.probes, status.point.training)
    history = at_stage(history, max(result.stage for result in history))
    return CostModel.from_history(history).cost_in_full_runs(history)
