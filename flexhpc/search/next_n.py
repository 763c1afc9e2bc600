"""Choose the next n for the bisection and growth policies by replaying a search from its history.

A search can therefore be resumed from its history alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flexhpc.config.sections.search import MajoritySearch
from flexhpc.search.history import MAX_REJECTED, Bracket, History, accepted_probes, group_by_n

FitDecision = Callable[[int], bool | None]
"""Function that takes n and returns whether n samples can be fitted; None if this needs more probes
at n."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchState:
    """State of a search after replaying its history.

    Attributes:
        bracket: largest n that fitted and smallest n that failed, among the n that have enough
            probes for a decision.
        next_n: the n at which a probe is needed; None if the search has ended.
    """

    bracket: Bracket
    next_n: int | None = None


def majority_decision(history: History, seeds_per_n: int) -> FitDecision:
    """Return a function that decides by the majority of accepted probes at n whether n fits.

    If ``seeds_per_n`` is even, one more probe breaks a tie. Counting a tie as a fit would bias the
    estimate towards n at which fewer than half of the training runs fit.
    """
    groups, needed = group_by_n(accepted_probes(history)), seeds_per_n // 2 + 1

    def decide(n: int) -> bool | None:
        results = groups.get(n, [])
        fits = sum(result.fit for result in results)
        if fits >= needed:
            return True
        return False if len(results) - fits >= needed else None

    return decide


def max_probes_per_n(search: MajoritySearch, can_reject: bool) -> int:
    """Return the maximum number of probes at one n, including a tie-break and rejected probes.

    Args:
        search: policy and its settings.
        can_reject: whether a convergence gate can reject probes.
    """
    return 2 * (search.seeds_per_n // 2) + 1 + (MAX_REJECTED if can_reject else 0)


def replay_bisection(
    decide: FitDecision, *, start: int, tolerance: float, n_limit: int
) -> SearchState:
    """Return the state of a bisection in log n after replaying its history.

    First, n is doubled from ``start`` while it fits, or halved while it fails. The bisection starts
    once one n has fitted and one n has failed.

    Args:
        decide: function that returns whether n fits; see ``FitDecision``.
        start: first n (samples); values above ``n_limit`` are reduced to ``n_limit``.
        tolerance: the bisection ends when smallest_fail <= largest_fit * (1 + tolerance), or when
            no integer is left between largest_fit and smallest_fail.
        n_limit: largest available n (samples).
    """
    low: int | None = None
    high: int | None = None
    n: int | None = min(start, n_limit)
    while n is not None and (fits := decide(n)) is not None:
        low, high = (n, high) if fits else (low, n)
        if low is None:
            n = n // 2 if n > 1 else None
        elif high is None:
            n = min(2 * low, n_limit) if low < n_limit else None
        elif high - low == 1 or high <= low * (1 + tolerance):
            n = None
        else:
            n = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
    return SearchState(bracket=Bracket(largest_fit=low, smallest_fail=high), next_n=n)


def ascending_n_values(
    start: int, growth: float, n_limit: int, step: int | None = None
) -> list[int]:
    """Return an increasing sequence of n from ``start`` to ``n_limit``.

    Args:
        start: first n (samples).
        growth: factor between successive n.
        n_limit: last n (samples).
        step: difference between successive n (samples); if it is set, ``growth`` is ignored.
    """
    ns = [min(start, n_limit)]
    while ns[-1] < n_limit:
        n = ns[-1]
        larger = max(n + 1, round(n * growth)) if step is None else n + step
        ns.append(min(larger, n_limit))
    return ns


def replay_growth(decide: FitDecision, ns: Sequence[int]) -> SearchState:
    """Return the state of a search that raises n until the first failure, after replaying it.

    This is the growth policy (arXiv 2406.11463, section "EMC"). The bracket is left-censored
    if the first n fails, and right-censored if the last n fits.

    Args:
        decide: function that returns whether n fits; see ``FitDecision``.
        ns: the n to try, in ascending order.
    """
    low: int | None = None
    for n in ns:
        fits = decide(n)
        if fits is None:
            return SearchState(bracket=Bracket(largest_fit=low), next_n=n)
        if not fits:
            return SearchState(bracket=Bracket(largest_fit=low, smallest_fail=n))
        low = n
    return SearchState(bracket=Bracket(largest_fit=low))
