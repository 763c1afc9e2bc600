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
_GROWS = 0.25
"""Exponent with which time is taken to grow with a key of size, before it is known better."""
_CATEGORY, _SLOPE, _OTHER_SLOPE = 0.16, 0.3, 1.0
"""How little a key's value, an exponent, and that of a combination of values beyond the exponent of
all, are taken to move time: variance of what is seen of a point over that of the belief."""
_MOST_GROUPS = 30
"""Combinations of values up to which each has exponents of its own."""
_ENOUGH = 4
"""Trainings from which a point says how long it will take."""
_RESIDUAL, _RESIDUAL_BELIEVED = 0.3, 2.0
"""How far the logarithm of a point's time is taken to lie from what its keys say, and how many
points this is worth."""
_UNFORESEEN = 0.25
"""Of the logarithm of all that is left: what the points measured so far cannot tell of the others
(`python -m bench.forecast`)."""
_PACE = 0.2
"""Of the logarithm of a training's seconds, from those a point has had to those it will have."""
_DRAWS = 200
_LARGEST = 30.0
"""Logarithm of the seconds that a point is believed to take at most."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How far a sweep is, in seconds of training; of all workers together.

    Attributes:
        spent: so far.
        left: to come, drawn from what is believed, (draws,).
        longest: of it, what the longest open point still needs, which one worker trains, (draws,).
        of_points: what each point still needs, the middle of what is believed, (points,).
    """

    spent: float
    left: Floats
    longest: Floats
    of_points: Floats

    @property
    def done(self) -> float:
        """Part of the training time that lies behind, 0 to 1."""
        return self.spent / (self.spent + float(np.median(self.left)))

    @classmethod
    def of(cls, statuses: Sequence[PointStatus]) -> Forecast | None:
        """Foretell from the points measured so far; None before one says how long it takes.

        The seconds of a point not begun are taken to be a power of each number that is swept, times
        a factor for each other value; points done and begun say which.
        """
        rng = np.random.default_rng(0)  # so that nothing moves between looks but what was learnt
        spent = np.array([_spent(status) for status in statuses])
        usual = _usual(statuses)
        known = np.array([s.probes >= _ENOUGH for s in statuses])
        if not known.any():
            return None
        over = np.array([s.state in ("done", "failed") for s in statuses])
        begun = np.zeros((len(statuses), _DRAWS))
        for i, status in enumerate(statuses):
            if known[i] and not over[i]:
                begun[i] = _to_come(status, usual[len(status.point.arms) > 1], rng)
        logs = np.log(np.maximum(spent + np.median(begun, axis=1), 1e-3))
        total = np.exp(_drawn(statuses, logs, known.astype(np.float64), rng))
        left = np.where(known[:, None], begun, np.maximum(total - spent[:, None], 0.0))
        left[over] = 0.0
        left *= np.exp(_UNFORESEEN * rng.standard_normal(_DRAWS))
        return cls(
            spent=float(spent.sum()),
            left=left.sum(axis=0),
            longest=left.max(axis=0),
            of_points=np.asarray(np.median(left, axis=1)),
        )


def between(seconds: Floats) -> tuple[float, float]:
    """Return the range in which four of five draws of a time left lie."""
    low, high = np.quantile(seconds, [0.1, 0.9])
    return float(low), float(high)


class Pace:
    """How fast the workers of a sweep train, as seen while it runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent = self._busy = 0.0
        self._last: tuple[float, float, int] | None = None
        self._workers = 1

    def seconds_left(self, statuses: Sequence[PointStatus], forecast: Forecast) -> Floats | None:
        """Return how long the sweep will take from now, (draws,).

        None before anything was seen to move.
        """
        now, at_work = self._clock(), sum(status.state == "running" for status in statuses)
        if self._last is not None:
            before, spent, were_at_work = self._last
            self._busy += (now - before) * max(were_at_work, 1)
            self._spent += forecast.spent - spent
        self._last = (now, forecast.spent, at_work)
        self._workers = max(self._workers, at_work)
        if self._spent <= 0 or self._busy <= 0:
            return None
        slower = self._busy / self._spent
        return np.maximum(forecast.left / self._workers, forecast.longest) * slower


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
    return np.where(known > 0, speeds, np.exp(_regressed(statuses, np.log(speeds), known).fitted))


_MORE = 0.25
"""Part of the trainings that a point has had, and of the time that one in hand has taken, which are
taken to be needed still, at least."""


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


def _to_come(status: PointStatus, usual: statistics.NormalDist, rng: np.random.Generator) -> Floats:
    """Draw how many seconds a point begun still needs, if it is like others, (draws,)."""
    assert status.record is not None
    probes = status.record.probes
    had = usual.cdf(math.log(len(probes) + 0.5))
    shares = had + (1 - had) * rng.random(_DRAWS)
    needed = np.exp([usual.inv_cdf(min(max(share, 1e-9), 1 - 1e-9)) for share in shares])
    more = np.maximum(needed - len(probes), _MORE * len(probes))
    late = statistics.mean(probe.seconds for probe in probes[len(probes) // 2 :])
    seconds = more * late * np.exp(_PACE * rng.standard_normal(_DRAWS))
    elapsed = float(status.progress.get("elapsed", 0.0))
    return np.asarray(np.maximum(seconds - elapsed, _MORE * elapsed))


@dataclass(frozen=True, kw_only=True)
class _Regression:
    """A ridge regression, as the Bayesian one that it is.

    Attributes:
        fitted: its value at every point, (points,).
        away: of every point's features from the mean of those known, (points, features).
        inverse: of the ridge's matrix, (features, features).
        squares: of what is left of the known ones and of the slopes; known: how many.
    """

    fitted: Floats
    away: Floats
    inverse: Floats
    squares: float
    known: float


def _regressed(statuses: Sequence[PointStatus], logs: Floats, weights: Floats) -> _Regression:
    """Regress logs, (points,), on the swept values; weights: 0 where a log is not known."""
    features, shrinks, offset = _features(statuses)
    y = logs - offset
    mean = np.average(y, weights=weights)
    x = features - np.average(features, axis=0, weights=weights)
    inverse = np.linalg.inv((x * weights[:, None]).T @ x + np.diag(shrinks))
    slopes = inverse @ ((x * weights[:, None]).T @ (y - mean))
    residuals = weights * (y - mean - x @ slopes)
    return _Regression(
        fitted=np.asarray(mean + x @ slopes + offset),
        away=x,
        inverse=np.asarray(inverse, dtype=np.float64),
        squares=float(residuals @ residuals + slopes @ (shrinks * slopes)),
        known=float(weights.sum()),
    )


def _drawn(
    statuses: Sequence[PointStatus], logs: Floats, weights: Floats, rng: np.random.Generator
) -> Floats:
    """Draw logs of all points from what those with a weight say, (points, draws)."""
    of = _regressed(statuses, logs, weights)
    freedom = _RESIDUAL_BELIEVED + of.known - 1
    squares = _RESIDUAL_BELIEVED * _RESIDUAL**2 + of.squares
    spread = np.sqrt(squares / rng.chisquare(freedom, _DRAWS))
    half = np.linalg.cholesky(of.inverse)
    slopes = half @ rng.standard_normal((len(half), _DRAWS))
    mean = rng.standard_normal(_DRAWS) / math.sqrt(of.known)
    own = rng.standard_normal((len(statuses), _DRAWS))
    drawn = of.fitted[:, None] + spread * (mean + of.away @ slopes + own)
    return np.asarray(np.minimum(drawn, _LARGEST))


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
        away = logs - logs.mean()  # or a slope that is not known would be a level that is not
        columns.append((away, _SLOPE))
        for group in dict.fromkeys(groups) if len(set(groups)) > 1 else ():
            columns.append((away * [one == group for one in groups], _OTHER_SLOPE))
        if key.split(".")[-1] in SIZES:
            offset += _GROWS * logs
    shrinks = np.array([shrink for _, shrink in columns])
    features = np.array([column for column, _ in columns], dtype=np.float64).T
    return features.reshape(len(statuses), len(columns)), shrinks, offset


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
