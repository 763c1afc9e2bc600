"""The two policies that decide n by n, as pure walks over what is known: bisection and growth.

Each walk replays itself from the history, so that resuming is nothing special.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flexhpc.config.sections.search import Walk
from flexhpc.search.history import MOST_REJECTED, Bracket, History, by_n, counted, quorum

Decide = Callable[[int], bool | None]
"""Whether an n fits, by the quorum of its probes; None if more probes are needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a walk stands.

    Attributes:
        bracket: so far; wanted: the n at which it needs a probe, None where it has ended.
    """

    bracket: Bracket
    wanted: int | None = None


def by_quorum(history: History, seeds_per_n: int) -> Decide:
    """Return what decides an n by the majority of its probes that count."""
    groups = by_n(counted(history))
    return lambda n: quorum(groups.get(n, []), seeds_per_n)


def most_probes(search: Walk, rejects: bool) -> int:
    """Return how many probes one n may take: a majority, a tie broken, refused ones replaced."""
    return 2 * (search.seeds_per_n // 2) + 1 + (MOST_REJECTED if rejects else 0)


def bisection(decide: Decide, *, start: int, tolerance: float, n_limit: int) -> Standing:
    """Double from ``start`` until a failure (halve until a fit), then bisect in log n.

    Args:
        decide: verdict at an n.
        start: first n, in samples; lowered to ``n_limit``.
        tolerance: ends when smallest_fail <= largest_fit * (1 + tolerance).
        n_limit: number of samples there are.
    """
    low: int | None = None
    high: int | None = None
    n = min(start, n_limit)
    while True:
        bracket = Bracket(largest_fit=low, smallest_fail=high)
        fits = decide(n)
        if fits is None:
            return Standing(bracket=bracket, wanted=n)
        low, high = (n, high) if fits else (low, n)
        bracket = Bracket(largest_fit=low, smallest_fail=high)
        if low is None:
            if n == 1:
                return Standing(bracket=bracket)
            n = n // 2
        elif high is None:
            if low == n_limit:
                return Standing(bracket=bracket)
            n = min(2 * low, n_limit)
        elif high - low == 1 or high <= low * (1 + tolerance):
            return Standing(bracket=bracket)
        else:
            n = min(max(round(math.sqrt(low * high)), low + 1), high - 1)


def ladder(start: int, growth: float | int, n_limit: int) -> list[int]:
    """Return the n of the growth policy: from ``start`` by steps or by a factor, to ``n_limit``."""
    rungs = [min(start, n_limit)]
    while rungs[-1] < n_limit:
        n = rungs[-1]
        bigger = n + growth if isinstance(growth, int) else max(n + 1, round(n * growth))
        rungs.append(min(bigger, n_limit))
    return rungs


def growth(decide: Decide, *, start: int, growth: float | int, n_limit: int) -> Standing:
    """Raise n until the first failure (the rule of arXiv 2406.11463, section "EMC").

    Fails at ``start`` already: left-censored. Fits every sample there is: right-censored.
    """
    low: int | None = None
    for n in ladder(start, growth, n_limit):
        fits = decide(n)
        if fits is None:
            return Standing(bracket=Bracket(largest_fit=low), wanted=n)
        if not fits:
            return Standing(bracket=Bracket(largest_fit=low, smallest_fail=n))
        low = n
    return Standing(bracket=Bracket(largest_fit=low))
