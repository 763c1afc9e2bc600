"""Will a probe fit within its budget? A forecast from the samples it has missed so far.

A logistic regression over recorded trainings, in quantities that do not grow with n. By itself it
errs on models unlike the recorded ones, so a point's own fits say how low the forecast falls on
trainings that do fit: only a probe well below that is given up. bench/search/forecast.py makes the
numbers below and measures what they cost and save on models that they were not made from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from flexhpc.search.evidence import Floats
from flexhpc.search.history import History
from flexhpc.spec.sections import Bayes, Search, Training

LOOKS = 64
"""Looks over a budget, evenly spread."""
FIRST = 4
"""The first look with a forecast."""
COEFFICIENTS = np.array([1.823, -9.037, -0.06, -0.913, 8.281, 2.436, -0.085, -0.03])
AT_FIRST = 0.005
"""A chance below this ends a probe as long as there are fewer than ``ENOUGH`` fits to go by."""
ENOUGH = 3
_NEAR = 0.4
"""Fits count from this part of the largest fitted n on: those far below say nothing."""
_SAFE, _TAIL = 56.0, 0.8
"""With k fits, the least chance among them is divided by (_SAFE / (k + 1)) ** _TAIL."""
_MOST = 0.15


def applies(search: Search, training: Training) -> bool:
    """Return whether a point's probes may be given up: not where they must go on to their end."""
    wished = isinstance(search, Bayes) and search.give_up and not search.eps
    ends = training.until is None and training.unconverged == "report"
    once = training.learning_rate is None
    return wished and ends and once and not training.rejects


def limit(history: History) -> float:
    """Return the chance to fit below which the next probes are given up."""
    largest = max((r.n for r in history if r.fit), default=0)
    lows = [
        r.least_chance
        for r in history
        if r.fit and r.least_chance is not None and r.n >= _NEAR * largest
    ]
    if len(lows) < ENOUGH:
        return AT_FIRST
    margin = min(1.0, (len(lows) + 1) / _SAFE) ** _TAIL
    return float(min(_MOST, min(lows) * margin))


def features(missed: Floats, n: int, look: int) -> Floats:
    """Return what the forecast goes by, shape (8,).

    Args:
        missed: samples missed at looks 1, 2, ... up to this one at least.
        n: samples in all; look: number of this look, from ``FIRST`` to ``LOOKS`` - 1.
    """
    best = np.minimum.accumulate(missed[:look])
    whole = math.log(2 * n)  # from all samples missed down to half a sample
    rest = math.log(2 * best[-1] + 1) / whole
    fall = math.log((best[(look - 1) // 2] + 0.5) / (best[-1] + 0.5)) / whole
    left = math.log(LOOKS / look - 1)
    ahead = fall * math.log2(LOOKS / look)
    stale = math.log((best == best[-1]).sum() / (LOOKS - look + 1))
    return np.array([1, rest, left, fall, ahead, rest * left, left * left, stale])


def foretold(missed: Floats, n: int, coefficients: Floats = COEFFICIENTS) -> Floats:
    """Return the chance to fit, at each look from ``FIRST`` + 1 on.

    It is the larger one of two looks in a row: no single look ends a probe.

    Args:
        missed: samples missed at looks 1, 2, ..., as far as the training went.
        n: samples in all; coefficients: of the regression.
    """
    looks = range(FIRST, min(len(missed), LOOKS - 1) + 1)
    rows = np.array([features(missed, n, look) for look in looks]).reshape(-1, len(coefficients))
    chance = expit(rows @ coefficients)
    return np.asarray(np.maximum(chance[1:], chance[:-1]))


def looks_of(errors: Sequence[int], epochs: float) -> Floats:
    """Return the samples missed at the looks so far.

    A budget of fewer epochs than there are looks has none: one epoch would count as several.

    Args:
        errors: samples missed after each epoch so far; epochs: that the budget allows.
    """
    ends = _ends(epochs)
    return np.array([errors[end - 1] for end in ends[ends <= len(errors)]], dtype=np.float64)


def _ends(epochs: float) -> NDArray[np.int64]:
    """Return after how many epochs each look is."""
    looks = np.arange(1, LOOKS if epochs >= LOOKS else 1)
    return np.ceil(looks / LOOKS * epochs).astype(np.int64)


def hopeless(errors: Sequence[int], n: int, epochs: float, below: float) -> bool:
    """Return whether a training is to be given up after the epochs that it has done.

    Args:
        errors: samples missed after each epoch so far; n: samples in all.
        epochs: that its budget allows.
        below: chance to fit at which there is no hope.
    """
    if len(errors) not in _ends(epochs):
        return False
    chance = foretold(looks_of(errors, epochs), n)
    return bool(len(chance)) and bool(chance[-1] < below)
