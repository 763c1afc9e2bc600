"""What a search sees and says: finished probes in, the next probes or an estimate out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Censored = Literal["none", "left", "right"]
LEVEL = 0.9
"""Probability that an interval claims to hold."""
MOST_REJECTED = 4
"""Rejected probes at one n that the search puts up with; with one more they all count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """One finished probe, as far as a search needs it.

    Attributes:
        n: number of samples in its subset.
        repeat: 0 for the first probe at this n, then 1, 2, ...
        verdict: fit, not_fit, saddle, unconverged or diverged.
        n_errors: samples missed at the end.
        cost: sample passes (samples x epochs actually trained).
        rejected: a convergence gate says that its failure is one of training, not of capacity.
    """

    n: int
    repeat: int
    verdict: str
    n_errors: int
    cost: int
    rejected: bool = False

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
    def verdict(self) -> str:
        """How it ended."""
        ...

    @property
    def n_errors(self) -> int:
        """Samples missed."""
        ...

    @property
    def cost(self) -> int:
        """Sample passes."""
        ...

    @property
    def rejected(self) -> bool:
        """Whether a gate refused it."""
        ...


def history_of(probes: Iterable[Recorded]) -> list[ProbeResult]:
    """Return the history that stored probes make: replaying it is all that a resume needs."""
    return [
        ProbeResult(
            n=p.n,
            repeat=p.repeat,
            verdict=p.verdict,
            n_errors=p.n_errors,
            cost=p.cost,
            rejected=p.rejected,
        )
        for p in probes
    ]


def counted(history: History) -> list[ProbeResult]:
    """Return the probes that say something about capacity: all but the rejected ones.

    Where more than ``MOST_REJECTED`` probes at one n were rejected, they count as the failures that
    they are: this training does not get there, and the search must end.
    """
    rejected: dict[int, int] = {}
    for result in history:
        rejected[result.n] = rejected.get(result.n, 0) + result.rejected
    return [r for r in history if not r.rejected or rejected[r.n] > MOST_REJECTED]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """The search wants these probes next.

    Attributes:
        probes: (n, repeat) pairs, usually one.
    """

    probes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bracket:
    """What the quorums say so far.

    Attributes:
        largest_fit: largest n that fitted, or None.
        smallest_fail: smallest n that failed, or None.
    """

    largest_fit: int | None = None
    smallest_fail: int | None = None


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
        by_eps: for each training error that was asked for, written as ``0.1``.
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
    by_eps: Mapping[str, EpsEstimate] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Estimate:
        """Return the estimate that a point's file holds as plain values."""
        by_eps = {
            eps: EpsEstimate(**{"emc_hi": None, **values})
            for eps, values in stored.get("by_eps", {}).items()
        }
        return cls(**{**stored, "by_eps": by_eps})


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
