"""What a search sees and says: finished probes in, the next probes or an estimate out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from flexhpc.config.sections.training import Procedure

Censored = Literal["none", "left", "right"]
Quantiles = tuple[float, float, float]
EndedBy = Literal["tolerance", "max_probes", "max_trainings", "max_cost", "data", "failure"]
"""Why a search ended: its interval (a bisection: its bracket) is as narrow as was asked; a cap; the
data, all of which was fitted, or not one sample; the failure that ends the growth rule."""
LEVEL = 0.9
"""Probability that an interval claims to hold."""
TAILS = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)
"""Levels of an interval's ends, and of its middle."""
UNTOLD = ("diverged", "unstable", "hopeless")
"""Verdicts whose count of missed samples says nothing of capacity; the last one is of flexhpc 0.1,
which gave probes up."""
MOST_REJECTED = 4
"""Rejected probes at one n that the search puts up with; with one more they all count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """One finished probe, as far as a search needs it.

    Attributes:
        n: number of samples in its subset.
        repeat: 0 for the first probe at this n, then 1, 2, ...
        verdict: see docs/concepts.md.
        n_errors: samples missed at the end.
        cost: sample passes (samples x epochs actually trained).
        rejected: a convergence gate says that its failure is one of training, not of capacity.
        share: part of its first budget that it used; None where there is no such thing.
        arm: which values of the tuned keys it was trained with.
    """

    n: int
    repeat: int
    verdict: str
    n_errors: int
    cost: int
    rejected: bool = False
    share: float | None = None
    arm: int = 0

    @property
    def fit(self) -> bool:
        """Whether every sample was fitted."""
        return self.verdict == "fit"


History = Sequence[ProbeResult]


class Recorded(Protocol):
    """A stored probe, whatever else it holds."""

    @property
    def n(self) -> int:
        """Samples of its subset."""
        ...

    @property
    def repeat(self) -> int:
        """Which of the trainings at this n."""
        ...

    @property
    def arm(self) -> int:
        """Which values of the tuned keys."""
        ...

    @property
    def verdict(self) -> str:
        """How it ended."""
        ...

    @property
    def n_errors(self) -> int:
        """Samples missed."""
        ...

    @property
    def epochs(self) -> int:
        """Passes begun."""
        ...

    @property
    def steps(self) -> int:
        """Updates."""
        ...

    @property
    def cost(self) -> int:
        """Sample passes."""
        ...

    @property
    def rejected(self) -> bool:
        """Whether a gate refused it."""
        ...


def history_of(probes: Iterable[Recorded], training: Procedure) -> list[ProbeResult]:
    """Return the history that stored probes make: replaying it is all that a resume needs.

    Args:
        probes: in any order; training: the procedure that they followed.
    """
    return [
        ProbeResult(
            n=p.n,
            repeat=p.repeat,
            verdict=p.verdict,
            n_errors=p.n_errors,
            cost=p.cost,
            rejected=p.rejected,
            share=_share(p, training),
            arm=p.arm,
        )
        for p in probes
    ]


def _share(probe: Recorded, training: Procedure) -> float | None:
    """Return the part of its first budget that a probe used; None where it had none."""
    if training.steps is not None:
        return probe.steps / training.steps
    if training.gradient_evaluations is not None:
        return probe.cost / training.gradient_evaluations
    return probe.epochs / training.epochs if training.epochs else None


def counted(history: History) -> list[ProbeResult]:
    """Return the probes that say something about capacity: all but the rejected ones.

    Where more than ``MOST_REJECTED`` probes at one n and arm were rejected, they count as the
    failures that they are: this training does not get there, and the search must end.
    """
    rejected = Counter((r.n, r.arm) for r in history if r.rejected)
    return [r for r in history if not r.rejected or rejected[r.n, r.arm] > MOST_REJECTED]


class Probe(NamedTuple):
    """A training that is wanted: its samples, which of those at this n and arm, and its arm."""

    n: int
    repeat: int
    arm: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """The search wants these probes next.

    Attributes:
        probes: usually one.
    """

    probes: tuple[Probe, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bracket:
    """What the quorums say so far.

    Attributes:
        largest_fit: largest n that fitted, or None.
        smallest_fail: smallest n that failed, or None.
    """

    largest_fit: int | None = None
    smallest_fail: int | None = None

    @property
    def censored(self) -> Censored:
        """Which side of the EMC nothing bounds: nothing fitted (left), or nothing failed."""
        if self.largest_fit is None:
            return "left"
        return "right" if self.smallest_fail is None else "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpsEstimate:
    """The largest n that is trained to at most some training error on average, in samples.

    Attributes:
        emc, emc_lo, emc_hi, censored: as in :class:`Estimate`.
    """

    emc: int
    emc_lo: int
    emc_hi: int | None
    censored: Censored

    @classmethod
    def within(cls, emc: int, lower: float, upper: float, censored: Censored) -> EpsEstimate:
        """Return an EMC with the whole numbers around its interval, open where it is censored."""
        return cls(
            emc=emc,
            emc_lo=min(emc, math.floor(lower)) if censored != "left" else 0,
            emc_hi=None if censored == "right" else max(emc, math.ceil(upper)),
            censored=censored,
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a policy makes of a history.

    Attributes:
        answer: for a perfect fit; by_eps: for each training error that was asked for.
        bracket: see :class:`Bracket`.
        width, lapse: of the fit curve; arm, best_chance: see :class:`Estimate`.
    """

    answer: EpsEstimate
    by_eps: Mapping[str, EpsEstimate]
    bracket: Bracket
    width: Quantiles
    lapse: Quantiles
    arm: int = 0
    best_chance: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """An EMC with its interval.

    Attributes:
        emc: samples; with ``censored`` right it is a lower bound, with left it is 0 (below 1).
        emc_lo, emc_hi: interval at ``level``, in samples; ``emc_hi`` is None where nothing bounds
            it from above.
        estimand: which of the meanings of EMC this is.
        probes: finished probes; cost: their sample passes.
        unconverged: probes that hit the budget while improving.
        rejected: probes that did not count, as a convergence gate refused them.
        width, lapse: low end, median and high end, at ``level``, of the fit curve's width in log n
            and its lapse rate; None in older files.
        by_eps: for each training error that was asked for, written as ``0.1``.
        ended_by: why the search ended; None in older files, and while it goes on.
        arm: which values of the tuned keys are the best; best_chance: the chance that they are,
            None where nothing is tuned.
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
    rejected: int = 0
    width: Quantiles | None = None
    lapse: Quantiles | None = None
    by_eps: Mapping[str, EpsEstimate] = field(default_factory=dict)
    ended_by: EndedBy | None = None
    arm: int = 0
    best_chance: float | None = None

    @property
    def bracket(self) -> Bracket:
        """Largest n that fitted and smallest that failed."""
        return Bracket(largest_fit=self.largest_fit, smallest_fail=self.smallest_fail)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Estimate:
        """Return the estimate that a point's file holds as plain values."""
        by_eps = {
            eps: EpsEstimate(**{"emc_hi": None, **values})
            for eps, values in stored.get("by_eps", {}).items()
        }
        curve = {key: tuple(stored[key]) for key in ("width", "lapse") if stored.get(key)}
        return cls(**{**stored, **curve, "by_eps": by_eps})


def passes(eps: float | None) -> Callable[[ProbeResult], bool]:
    """Return what tells whether a probe fits, or misses at most a part ``eps`` of its samples."""
    if eps is None:
        return lambda result: result.fit
    return lambda result: result.verdict != "diverged" and result.n_errors <= eps * result.n


def quorum(results: Sequence[ProbeResult], seeds_per_n: int) -> bool | None:
    """Decide whether an n fits by the majority of ``seeds_per_n`` probes; None while it is open.

    With an even number a tie is broken by one more probe: counting it as a fit would move the
    estimate to where fewer than half of the trainings fit.
    """
    fits = sum(result.fit for result in results)
    needed = seeds_per_n // 2 + 1
    if fits >= needed:
        return True
    return False if len(results) - fits >= needed else None


def by_n(history: History) -> dict[int, list[ProbeResult]]:
    """Group a history by n, in the order of repeats."""
    groups: dict[int, list[ProbeResult]] = {}
    for result in sorted(history, key=lambda r: (r.n, r.repeat)):
        groups.setdefault(result.n, []).append(result)
    return groups
