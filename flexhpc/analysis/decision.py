"""Comparisons that decide when a sweep ends: verdicts under optional stopping, and next points.

A comparison is evaluated at fixed looks: the listed seeds at a coarse tolerance, the same seeds at
the tolerance of the spec, then more seeds. It is a group-sequential test: each look spends a part
of the error rate in proportion to the information that it adds (alpha spending, Lan and DeMets
1983), and Holm's correction covers the comparisons of a look (Ye, Li, Liu and Yao 2013). A
comparison is not evaluated again if it has a verdict, or if a verdict would need many more pairs
than the largest number of seeds gives. The next look measures only the points of the others.

At each look, a point contributes the training runs that it had when its search first reached the
precision of the look. Verdicts are therefore a pure function of the point files: they depend
neither on the process that asks, nor on training runs for later looks.
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
"""The number of seeds grows by one in this many per look, and by at least one."""
_HOPELESS = 5.0
"""Predicted number of pairs, relative to those with the largest number of seeds, from which a
comparison is given up."""
_SUM_STEP, _LARGEST_SUM = 0.01, 8.0

EndedBy = Literal["decided", "max_seeds", "max_cost"]
Key = tuple[str, ...]


class Look(NamedTuple):
    """One evaluation of the comparisons.

    Attributes:
        seeds: number of seeds of each point.
        coarse: whether coarse estimates are sufficient.
    """

    seeds: int
    coarse: bool


def looks_of(listed: int, max_seeds: int) -> list[Look]:
    """Return the looks of a comparison, for a number of listed seeds and the maximum number."""
    looks = [Look(listed, coarse=True), Look(listed, coarse=False)]
    while looks[-1].seeds < max_seeds:
        seeds = looks[-1].seeds + max(1, looks[-1].seeds // _GROWTH)
        looks.append(Look(min(seeds, max_seeds), coarse=False))
    return looks


@lru_cache(maxsize=1000)
def levels_of(error: float, looks: tuple[Look, ...]) -> tuple[float, ...]:
    """Return the level of a one-sided test at each look.

    If nothing differs, the score of a test is a Brownian motion S at time t, where t is the
    information at a look as a fraction of the last one. The levels are such that S crosses its
    boundary for the first time at a look with a probability of ``error`` times the information that
    the look adds.

    Args:
        error: error rate of the test over all looks.
        looks: all looks.
    """
    sums = np.arange(-_LARGEST_SUM, _LARGEST_SUM, _SUM_STEP)
    density = (np.abs(sums) < _SUM_STEP / 2).astype(float)  # of S, if it was never above
    time, levels = 0.0, []
    for look in looks:
        information = look.seeds * (_COARSE_INFORMATION if look.coarse else 1.0)
        added = information / looks[-1].seeds - time
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
        effects: the comparisons, each at its last look, with their verdicts.
        wanted: points that the next look needs, but that are not measured to its precision.
        later: further points that the look after it needs if it gives no verdict.
        precise: whether these are measured to the tolerance of the spec.
        ended_by: why no points are needed; None if a look is missing.
        looks: number of looks so far; max_looks: maximum number of looks.
        seeds: number of seeds of the next look, or of the last one if none follows.
        total: number of comparisons, including those whose points failed.
        trainings: cost so far, in whole training runs.
        fixed_cost: estimated cost of all listed points at the tolerance of the spec, in whole
            training runs.
    """

    effects: list[Effect]
    wanted: list[PointStatus]
    later: list[PointStatus]
    precise: bool
    ended_by: EndedBy | None
    looks: int
    max_looks: int
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
            f"{self.looks} of at most {self.max_looks} looks {cost}; the next one needs "
            f"{self.seeds} seeds"
        )


def decide(statuses: Sequence[PointStatus], compare: Compare) -> Decision:
    """Evaluate comparisons at all looks whose points are measured, and choose the next points.

    Args:
        statuses: points of a run. To choose points with further seeds, they must include the
            optional ones that were not started.
        compare: comparisons with ``decide``.

    Raises:
        InputError: see :func:`effects_of`.
    """
    settings = compare.decide
    assert settings is not None
    pairing = Pairing(statuses, compare)
    undecided, points = _comparisons(pairing, statuses)
    names = list(undecided)
    listed = [status for status in statuses if not status.point.optional]
    seeds = list(dict.fromkeys(status.point.seed for status in listed))
    looks = looks_of(len(seeds), settings.max_seeds)
    seeds += sorted({status.point.seed for status in statuses} - set(seeds))
    records: dict[tuple[int, bool], PointStatus | None] = {}

    def reached(status: PointStatus, *, coarse: bool) -> PointStatus | None:
        key = id(status), coarse
        if key not in records:
            records[key] = at_precision(status, coarse=coarse)
        return records[key]

    def needed_at(look: Look) -> tuple[list[PointStatus], int]:
        """Return the points of a look, and the number of its points that were not started."""
        needed = {
            place._replace(seed=seed, value=value)
            for places in undecided.values()
            for place in places
            for seed in seeds[: look.seeds]
            for value in (place.value, pairing.baseline)
        }
        known = [status for place, status in points.items() if place in needed]
        further = (look.seeds - min(look.seeds, len(seeds))) * len(needed) // max(1, len(seeds))
        return known, len(needed) - len(known) + further

    def missing_at(look: Look, needed: Sequence[PointStatus]) -> list[PointStatus]:
        open_points = [status for status in needed if status.state != "failed"]
        return [s for s in open_points if reached(s, coarse=look.coarse) is None]

    effects: dict[Key, Effect] = {}
    wanted: list[PointStatus] = []
    ended_by: EndedBy | None = "max_seeds"
    done = given_up = 0
    for look in looks:
        known, absent = needed_at(look)
        if done == 0:
            known = listed  # also those that belong to no comparison
        wanted = missing_at(look, known)
        if wanted or absent:
            ended_by = None
            break
        measured = [m for s in known if (m := reached(s, coarse=look.coarse)) is not None]
        evaluated = {e.key: e for e in effects_of(measured, compare, pairing=pairing)}
        current = [evaluated[name] for name in undecided if name in evaluated]
        level = partial(_level_at, looks=tuple(looks), index=done)
        known_pairs = sum(effect.pairs > effect.bounds for effect in current)
        others = len(undecided) + given_up - known_pairs
        done += 1
        for effect in with_verdicts(current, settings.error, level, others):
            effects[effect.key] = effect
            if effect.pairs - effect.bounds == 1:  # the scatter between seeds is unknown
                effects[effect.key] = replace(effect, verdict="not decided")
                continue
            hopeless = _is_hopeless(effect, look, settings.max_seeds)
            if effect.verdict != "not decided" or hopeless:
                del undecided[effect.key]
                given_up += effect.verdict == "not decided"
        for name in [name for name in undecided if name not in evaluated]:
            del undecided[name]  # all points of the value or of the baseline failed
            given_up += 1
        if not undecided:
            ended_by = "max_seeds" if given_up else "decided"
            break
    costs = {id(status): trainings_of(status) for status in statuses}
    precise = [costs[id(s)] for s in statuses if reached(s, coarse=False)]
    coarse = [_PRECISE_COST * cost for cost in costs.values() if cost]
    each = float(np.mean(precise or coarse or [0.0]))
    missing = each * absent + sum(max(each - costs[id(status)], 0.0) for status in wanted)
    is_new = done > 0 and ended_by is None and not _is_started(look, looks[done - 1], known, seeds)
    if is_new and sum(costs.values()) + missing > (settings.max_cost or math.inf):
        wanted, ended_by = [], "max_cost"
    wanted_ids = {id(status) for status in wanted}
    next_look = looks[done + 1 : done + 2] if wanted and settings.max_cost is None else []
    later = [s for look in next_look for s in missing_at(look, needed_at(look)[0])]
    return Decision(
        effects=[effects[name] for name in names if name in effects], wanted=wanted,
        later=[status for status in later if id(status) not in wanted_ids], total=len(names),
        precise=done > 0, ended_by=ended_by, looks=done, max_looks=len(looks), seeds=look.seeds,
        trainings=sum(costs.values()), fixed_cost=each * len(listed),
    )  # fmt: skip


def _is_started(
    look: Look, previous: Look, needed: Sequence[PointStatus], seeds: Sequence[int]
) -> bool:
    """Return whether training runs for a look exist, so that ``max_cost`` was checked before."""
    fresh = set(seeds if previous.coarse else seeds[previous.seeds : look.seeds])
    for status in needed:
        coarse = at_precision(status, coarse=True) if previous.coarse else None
        before = 0 if coarse is None or coarse.record is None else len(coarse.record.probes)
        if status.point.seed in fresh and status.probes > before:
            return True
    return False


def _level_at(error: float, *, looks: tuple[Look, ...], index: int) -> float:
    return levels_of(error, looks)[index]


def _is_hopeless(effect: Effect, look: Look, max_seeds: int) -> bool:
    """Return whether a verdict would need many more pairs than the largest number of seeds gives.

    A wrong guess costs no error rate: such a comparison has no verdict.
    """
    if look.coarse or (effect.pairs > effect.bounds and None in (effect.low, effect.high)):
        return False  # a bound may still exclude 1
    largest = effect.pairs * max_seeds / look.seeds
    return effect.more is None or effect.pairs + effect.more > _HOPELESS * largest


class Place(NamedTuple):
    """Position of a point in the comparisons: seed, compared value, size and grouping values."""

    seed: int
    value: str
    size: str
    group: Key


def _comparisons(
    pairing: Pairing, statuses: Sequence[PointStatus]
) -> tuple[dict[Key, list[Place]], dict[Place, PointStatus]]:
    """Return the places of each comparison, by ``Effect.key``, and the point at each place."""
    comparisons: dict[Key, list[Place]] = {}
    points: dict[Place, PointStatus] = {}
    for status in statuses:
        value = pairing.value(status)
        if value is not None:
            group, size, _ = pairing.unit(status)
            place = Place(status.point.seed, value, size, tuple(text for _, text in group))
            points[place] = status
    for place in points:
        is_pair = place._replace(value=pairing.baseline) in points
        if place.value != pairing.baseline and is_pair:
            comparisons.setdefault(pairing.key(place.value, place.group), []).append(place)
    return comparisons, points


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
            return replace(status, record=record.after(count), estimate=estimate)
    return None


def trainings_of(status: PointStatus) -> float:
    """Return the cost of a point in whole training runs at its last budget."""
    if status.record is None or not status.record.probes:
        return 0.0
    history = history_of(status.record.probes, status.point.training)
    history = at_stage(history, max(result.stage for result in history))
    return CostModel.from_history(history).in_full_runs(history)
