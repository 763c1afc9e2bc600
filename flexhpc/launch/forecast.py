"""How much of a sweep is done, by the time that its trainings take, and how long the rest will."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.analysis.figures.curves import SIZES
from flexhpc.store.status import PointStatus

Floats = NDArray[np.float64]
_TRAININGS, _TRAININGS_OF_ARMS = 17.0, 27.0
"""What a point needs, before any was finished; more where keys are tuned."""
_SPREAD, _BELIEVED = 0.4, 2.0
"""Of the logarithm of that number over points, and how many points this is worth."""
_GROWS = 0.5
"""Exponent with which time is taken to grow with a key of size, before it is known better."""
_CATEGORY, _SLOPE = 0.16, 0.64
"""How little a key's value, and an exponent, is taken to move time: variance of what is seen of a
point over that of the belief."""
_MOST_GROUPS = 30
"""Combinations of values up to which each has exponents of its own."""
_ENOUGH = 4
"""Trainings from which a point says how long it will take."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How far a sweep is, in seconds of training; of all workers together.

    Attributes:
        spent: so far; left: to come; longest: of it, what the longest open point still needs,
            which one worker trains.
    """

    spent: float
    left: float
    longest: float

    @property
    def done(self) -> float:
        """Part of the training time that lies behind, 0 to 1."""
        return self.spent / (self.spent + self.left)

    @classmethod
    def of(cls, statuses: Sequence[PointStatus]) -> Forecast | None:
        """Foretell from the points measured so far; None before one says how long it takes.

        The seconds of a point not begun are taken to be a power of each number that is swept, times
        a factor for each other value; points done and begun say which.
        """
        spent = np.array([_spent(status) for status in statuses])
        usual = _usual(statuses)
        known = np.array([s.probes >= _ENOUGH for s in statuses])
        if not known.any():
            return None
        begun = np.array([
            0.0 if s.state in ("done", "failed") else _to_come(s, usual[len(s.point.arms) > 1])
            for s in statuses
        ])  # fmt: skip
        logs = np.log(np.maximum(spent + begun, 1e-3))
        total = np.exp(_fitted(statuses, logs, known.astype(np.float64)))
        left = np.where(known, begun, np.maximum(total - spent, 0.0))
        left[[s.state in ("done", "failed") for s in statuses]] = 0.0
        return cls(spent=float(spent.sum()), left=float(left.sum()), longest=float(left.max()))


def between(seconds: float, finished: int) -> tuple[float, float]:
    """Return the range in which a time left is told to lie, given how many points are finished.

    How many trainings a point needs varies by a factor of two from point to point, and where one
    takes five times as long as its like nothing tells beforehand.
    """
    factor = max(1.4, 2.0 - finished / 40)
    return seconds / factor, seconds * factor


class Pace:
    """How fast the workers of a sweep train, as seen while it runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent = self._busy = 0.0
        self._last: tuple[float, float, int] | None = None
        self._workers = 1

    def seconds_left(self, statuses: Sequence[PointStatus], forecast: Forecast) -> float | None:
        """Return how long the sweep will take from now; None before anything was seen to move."""
        now, at_work = self._clock(), sum(status.state == "running" for status in statuses)
        if self._last is not None:
            before, spent, were_at_work = self._last
            self._busy += (now - before) * max(were_at_work, 1)
            self._spent += forecast.spent - spent
        self._last = (now, forecast.spent, at_work)
        self._workers = max(self._workers, at_work)
        if self._spent <= 0 or self._busy <= 0:
            return None
        return max(forecast.left / self._workers, forecast.longest) * self._busy / self._spent


def seconds_per_pass(statuses: Sequence[PointStatus]) -> Floats | None:
    """Return how long a sample pass takes at each point, (points,); None before any training.

    Where a point has no training yet, from the others, as :class:`Forecast` does.
    """
    cost = np.array([status.cost for status in statuses], dtype=np.float64)
    seconds = np.array([_spent(replace(status, progress={})) for status in statuses])
    known = (cost > 0).astype(np.float64)
    if not known.any():
        return None
    speeds = np.maximum(seconds, 1e-6) / np.maximum(cost, 1.0)
    return np.where(known > 0, speeds, np.exp(_fitted(statuses, np.log(speeds), known)))


_MORE = 0.25
"""Part of the trainings that a point has had which it is taken to need still, at least."""


def _spent(status: PointStatus) -> float:
    """Return seconds of training of a point so far, of the probe in hand too."""
    finished = sum(probe.seconds for probe in status.record.probes) if status.record else 0.0
    return finished + float(status.progress.get("elapsed", 0.0))


def _usual(statuses: Sequence[PointStatus]) -> dict[bool, statistics.NormalDist]:
    """Return the logarithm of how many trainings a point needs, with tuned keys (True) or without.

    Points done correct what is believed before there are any, which counts as two.
    """
    usual = {}
    for tuned, first in ((False, _TRAININGS), (True, _TRAININGS_OF_ARMS)):
        done = [
            math.log(s.probes) for s in statuses
            if s.state == "done" and s.probes and (len(s.point.arms) > 1) == tuned
        ]  # fmt: skip
        mean = statistics.mean([math.log(first), *done])
        squares = _BELIEVED * _SPREAD**2 + sum((one - mean) ** 2 for one in done)
        usual[tuned] = statistics.NormalDist(mean, math.sqrt(squares / (_BELIEVED + len(done))))
    return usual


def _to_come(status: PointStatus, usual: statistics.NormalDist) -> float:
    """Return how many seconds a point begun still needs, if it is like others."""
    probes = status.record.probes if status.record else []
    if not probes:
        return 0.0
    needed = [math.exp(usual.inv_cdf((i + 0.5) / 40)) for i in range(40)]
    more = [count - len(probes) for count in needed if count > len(probes)]
    left = max(statistics.mean(more) if more else 0.0, _MORE * len(probes))
    late = [probe.seconds for probe in probes[len(probes) // 2 :]]
    return max(left * statistics.mean(late) - float(status.progress.get("elapsed", 0.0)), 0.0)


def _fitted(statuses: Sequence[PointStatus], logs: Floats, weights: Floats) -> Floats:
    """Return a ridge regression's value at every point, (points,).

    Args:
        statuses: whose swept values are the features; logs: what is regressed, (points,).
        weights: 0 where that is not known.
    """
    features, shrinks, offset = _features(statuses)
    y = logs - offset
    mean = np.average(y, weights=weights)
    x = features - np.average(features, axis=0, weights=weights)
    gram = (x * weights[:, None]).T @ x + np.diag(shrinks)
    slopes = np.linalg.solve(gram, (x * weights[:, None]).T @ (y - mean))
    return np.asarray(mean + x @ slopes + offset)


def _features(statuses: Sequence[PointStatus]) -> tuple[Floats, Floats, Floats]:
    """Return what is known of each point ahead.

    Returns:
        Marks of values, and logs of numbers apart for each combination of these, (points,
        features); how much each is shrunk; and what is believed of sizes, (points,).
    """
    keys = dict.fromkeys(key for s in statuses for key in s.point.swept if key != "seed")
    values = {key: [s.point.swept.get(key) for s in statuses] for key in keys}
    numbers = {
        key: np.log(np.array(some, dtype=np.float64))
        for key, some in values.items() if all(map(_is_size, some))
    }  # fmt: skip
    marks = {
        key: [json.dumps(value, sort_keys=True, default=str) for value in some]
        for key, some in values.items() if key not in numbers
    }  # fmt: skip
    columns: list[tuple[Any, float]] = []
    for texts in marks.values():
        columns += [([t == one for t in texts], _CATEGORY) for one in dict.fromkeys(texts)]
    groups = list(zip(*marks.values(), strict=True)) if marks else [()] * len(statuses)
    if len(set(groups)) > _MOST_GROUPS:
        groups = [()] * len(statuses)
    offset = np.zeros(len(statuses))
    for key, logs in numbers.items():
        for group in dict.fromkeys(groups):
            columns.append((logs * [one == group for one in groups], _SLOPE))
        if key.split(".")[-1] in SIZES:
            offset += _GROWS * logs
    shrinks = np.array([shrink for _, shrink in columns])
    features = np.array([column for column, _ in columns], dtype=np.float64).T
    return features.reshape(len(statuses), len(columns)), shrinks, offset


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
