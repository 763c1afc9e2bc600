"""Inputs and outputs of a search: finished probes, proposed probes and estimates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Censored = Literal["none", "left", "right"]
Quantiles = tuple[float, float, float]
EndedBy = Literal[
    "tolerance", "max_cost", "data", "complete", "failure", "saturation", "max_budget"
]  # fmt: skip
"""Why a search ended; see ``ended_by`` in docs/search.md."""
Saturated = Literal["yes", "no", "unknown"]
SATURATION = 1.1
"""A point is saturated if doubling its budget raises the EMC by at most this factor."""
LEVEL = 0.9
"""Coverage probability of all intervals."""
TAILS = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)
"""Probabilities of the quantiles that are the lower end, median and upper end of an interval."""
MAX_REJECTED = 4
"""Maximum number of rejected probes with the same n and arm that are ignored. If there are more,
each of them counts as a failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """The fields of a finished probe that a search uses.

    Attributes:
        n: number of samples in the subset.
        repeat: index among the training runs at this n and arm: 0, 1, 2, ... All probes of a
            continued training run have the same ``repeat``.
        verdict: see docs/concepts.md.
        n_errors: number of samples missed at the end.
        cost: number of sample passes since the start of the training run.
        rejected: whether a convergence gate attributes the failure to training, not to capacity.
        share: fraction of the budget (without extensions) that was used; None if training has no
            budget.
        time: fraction of the budget after which all samples were fitted; None if the probe failed
            or the time is unknown.
        failed_after: set only if the exact time is unknown, because the budget is doubled and the
            learning rate depends on the budget. Then ``time`` is the fraction of the budget with
            which the training run fitted, and ``failed_after`` is the largest fraction with which
            this training run failed.
        arm: index of the combination of values of the tuned keys.
        stage: number of times that the budget was doubled before this probe; see
            :mod:`flexhpc.search.stages`.
        unfinished: whether the training run failed with a smaller budget and was not continued;
            ``time`` is then the fraction of the budget that was used.
    """

    n: int
    repeat: int
    verdict: str
    n_errors: int
    cost: int
    rejected: bool = False
    share: float | None = None
    time: float | None = None
    failed_after: float | None = None
    arm: int = 0
    stage: int = 0
    unfinished: bool = False

    @property
    def fit(self) -> bool:
        """Whether the verdict is ``fit``: every sample was fitted."""
        return self.verdict == "fit"

    def fits_at(self, eps: float | None) -> bool:
        """Return whether the probe counts as a fit at the training error ``eps``.

        It does if at most ``eps * n`` samples were missed and training did not diverge. If ``eps``
        is None, it does if every sample was fitted.
        """
        if eps is None:
            return self.fit
        return self.verdict != "diverged" and self.n_errors <= eps * self.n


History = Sequence[ProbeResult]


def accepted_probes(history: History) -> list[ProbeResult]:
    """Return the probes that are evidence of capacity, without unfinished and rejected probes.

    If more than ``MAX_REJECTED`` rejected probes have the same n and arm, they are returned as
    well, as failures. Without this rule, a search in which no training run converges would not end.
    """
    finished = [r for r in history if not r.unfinished]
    rejected = Counter((r.n, r.arm) for r in finished if r.rejected)
    return [r for r in finished if not r.rejected or rejected[r.n, r.arm] > MAX_REJECTED]


def accepted_and_unfinished(history: History) -> tuple[ProbeResult, ...]:
    """Return the accepted and the unfinished probes, sorted by n and repeat."""
    probes = [*accepted_probes(history), *(r for r in history if r.unfinished)]
    return tuple(sorted(probes, key=lambda r: (r.n, r.repeat)))


class Probe(NamedTuple):
    """A proposed probe.

    Attributes:
        n: number of samples in the subset.
        repeat: index among the training runs at this n and arm; see :class:`ProbeResult`.
        arm: index of the combination of values of the tuned keys.
        stage: number of times that the budget is doubled before this probe.
    """

    n: int
    repeat: int
    arm: int = 0
    stage: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bracket:
    """Largest n that fitted and smallest n that failed.

    Attributes:
        largest_fit: largest n that fitted; None if no n fitted.
        smallest_fail: smallest n that failed; None if no n failed.
    """

    largest_fit: int | None = None
    smallest_fail: int | None = None

    @property
    def censored(self) -> Censored:
        """Side on which the EMC is unbounded.

        This is ``left`` if no n fitted, ``right`` if no n failed, and ``none`` otherwise.
        """
        if self.largest_fit is None:
            return "left"
        return "right" if self.smallest_fail is None else "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmcInterval:
    """EMC and its interval at one training error and one budget.

    Attributes:
        emc, emc_lo, emc_hi, censored: see :class:`Estimate`.
    """

    emc: int
    emc_lo: int
    emc_hi: int | None
    censored: Censored

    @classmethod
    def from_ends(cls, emc: int, lower: float, upper: float, censored: Censored) -> EmcInterval:
        """Create an interval whose ends are rounded outwards to integers.

        The interval is widened to contain ``emc``. The lower end of a left-censored interval is 0;
        a right-censored interval has no upper end.

        Args:
            emc: point estimate (samples).
            lower, upper: ends of the interval (samples).
            censored: side on which the EMC is unbounded.
        """
        return cls(
            emc=emc,
            emc_lo=min(emc, math.floor(lower)) if censored != "left" else 0,
            emc_hi=None if censored == "right" else max(emc, math.ceil(upper)),
            censored=censored,
        )

    @classmethod
    def from_quantiles(
        cls, quantiles: Quantiles, fits: Sequence[int], n_limit: int, *, any_failed: bool
    ) -> EmcInterval:
        """Create an EMC and its interval from quantiles of the posterior.

        The EMC is left-censored if no probe fitted, and right-censored if no probe failed or the
        median is at least ``n_limit``.

        Args:
            quantiles: lower end, median and upper end of the interval (samples).
            fits: n of each probe that fitted.
            n_limit: largest available n (samples).
            any_failed: whether any probe failed.
        """
        lower, middle, upper = quantiles
        if not fits:
            return cls.from_ends(0, lower, upper, "left")
        if not any_failed or middle >= n_limit:
            return cls.from_ends(n_limit if any_failed else max(fits), lower, upper, "right")
        return cls.from_ends(max(1, round(middle)), lower, upper, "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """EMC with its interval.

    Attributes:
        emc: EMC in samples. If ``censored`` is ``right``, this is a lower bound. If ``censored`` is
            ``left``, this is 0, and ``smallest_fail`` is an upper bound.
        emc_lo, emc_hi: ends of the interval (samples); ``emc_hi`` is None if right-censored.
        level: coverage probability of the interval.
        estimand: definition of the EMC, such as ``n50``, ``n90`` or ``last_fit``.
        censored: side on which the EMC is unbounded.
        largest_fit, smallest_fail: see :class:`Bracket`.
        probes: number of training runs; a continued training run counts once.
        cost: number of sample passes of these training runs.
        unconverged: number of probes that exhausted the budget while still improving.
        rejected: number of probes that are ignored because a convergence gate rejected them.
        width, lapse: width (log n) and lapse rate of the fit curve, each as the lower end, median
            and upper end of its interval.
        by_eps: EMC and interval at each training error in ``search.eps``; the keys are training
            errors as strings, such as ``0.1``.
        by_budget: EMC and interval at each additional budget that the user requested; the keys are
            budgets as strings, such as ``500``.
        doubling: lower end, median and upper end of the interval of the predicted factor by which
            the EMC would increase if the budget were doubled. None while the search is running, if
            the EMC is censored, or if the ``time`` of every fit is unknown.
        gain: lower end, median and upper end of the interval of the measured factor by which the
            last doubling of the budget, or the one before, raised the EMC (the larger factor). None
            if ``doubling`` is None or the budget was doubled less than twice.
        ended_by: why the search ended; None while the search is running.
        arm: index of the best arm.
        stage: number of times that the budget was doubled.
        best_chance: posterior probability that ``arm`` is the best arm; None if no keys are tuned.
        tolerance, max_cost: values of these keys of ``search`` when the estimate was made.
    """

    emc: int
    emc_lo: int
    emc_hi: int | None
    level: float
    estimand: str
    censored: Censored
    largest_fit: int | None
    smallest_fail: int | None
    probes: int
    cost: int
    unconverged: int
    rejected: int
    width: Quantiles
    lapse: Quantiles
    by_eps: Mapping[str, EmcInterval] = field(default_factory=dict)
    by_budget: Mapping[str, EmcInterval] = field(default_factory=dict)
    doubling: Quantiles | None = None
    gain: Quantiles | None = None
    ended_by: EndedBy | None = None
    arm: int = 0
    stage: int = 0
    best_chance: float | None = None
    tolerance: float | None = None
    max_cost: float | None = None

    @property
    def saturated(self) -> Saturated | None:
        """Whether doubling the budget raises the EMC by a factor of at most 1.1.

        The factor is ``gain`` or, if ``gain`` is None, ``doubling``. The result is ``unknown`` if
        the interval of the factor contains 1.1, and None if both factors are None.
        """
        factor = self.gain or self.doubling
        if factor is None:
            return None
        low, _, high = factor
        if high <= SATURATION:
            return "yes"
        return "no" if low > SATURATION else "unknown"

    @property
    def bracket(self) -> Bracket:
        """Largest n that fitted and smallest n that failed."""
        return Bracket(largest_fit=self.largest_fit, smallest_fail=self.smallest_fail)

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Estimate:
        """Create an estimate from a dict of its fields, as read from a point file."""
        by_eps = {eps: EmcInterval(**values) for eps, values in stored["by_eps"].items()}
        keys = ("width", "lapse", "doubling", "gain")
        quantiles = {key: tuple(stored[key]) for key in keys if stored.get(key)}
        return cls(**{**stored, **quantiles, "by_eps": by_eps})


def group_by_n(history: History) -> dict[int, list[ProbeResult]]:
    """Return a dict from each n to the finished probes at this n, sorted by ``repeat``."""
    groups: dict[int, list[ProbeResult]] = {}
    for result in sorted(history, key=lambda r: (r.n, r.repeat)):
        groups.setdefault(result.n, []).append(result)
    return groups
