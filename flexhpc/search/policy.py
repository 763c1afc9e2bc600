"""The joint of every search: history -> the next probes, or the estimate. Pure: no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flexhpc.search import bayes, plain
from flexhpc.search.history import LEVEL, Ask, Bracket, Estimate, Found, History, counted
from flexhpc.search.hopeless import limit
from flexhpc.search.neighbours import Belief
from flexhpc.spec.sections import Bayes, Search, Walk


def at_once(search: Search) -> int:
    """Return how many probes a search plans at a time."""
    return search.at_once if isinstance(search, Bayes) else 1


def advance(
    search: Search, n_limit: int, history: History, belief: Belief | None = None
) -> Ask | Estimate:
    """Return the probes to run next, or the estimate if the search has ended.

    A search with ``at_once`` plans that many probes at a time, from those before them alone. So it
    does not matter which of them ends first, and after an interruption only the missing ones run.

    Args:
        search: policy and its settings.
        n_limit: largest n there is (samples).
        history: every finished probe; in the order in which they ended, where several are planned
            at a time.
        belief: what neighbours say of the EMC; only the Bayesian policy listens.
    """
    each = at_once(search)
    whole = len(history) // each * each
    planned_from = sorted(history[:whole], key=lambda r: (r.n, r.repeat))
    spent = sum(result.cost for result in planned_from)
    wanted = _wanted(search, n_limit, planned_from, belief)
    if not wanted or (search.max_cost is not None and spent >= search.max_cost):
        estimate = estimate_so_far(search, n_limit, history)
        if estimate is not None:
            return estimate
    assert wanted, "a search that has ended has an estimate"
    done = {(result.n, result.repeat) for result in history[whole:]}
    probes = tuple(probe for probe in _numbered(wanted, planned_from) if probe not in done)
    below = limit(planned_from) if isinstance(search, Bayes) and search.give_up else 0.0
    return Ask(probes=probes, hopeless_below=below)


def _numbered(wanted: list[int], history: History) -> Iterator[tuple[int, int]]:
    """Yield (n, repeat) of new probes."""
    count = Counter(result.n for result in history)
    for n in wanted:
        yield n, count[n]
        count[n] += 1


def estimate_so_far(search: Search, n_limit: int, history: History) -> Estimate | None:
    """Return the honest answer of a search: wide while it is unfinished, and censored where nothing
    bounds it. None while there is nothing to go by.
    """
    found = _found(search, n_limit, history)
    if found is None:
        return None
    return Estimate(
        emc=found.answer.emc,
        emc_lo=found.answer.emc_lo,
        emc_hi=found.answer.emc_hi,
        level=LEVEL,
        estimand=search.estimand,
        censored=found.answer.censored,
        largest_fit=found.bracket.largest_fit,
        smallest_fail=found.bracket.smallest_fail,
        probes=len(history),
        cost=sum(result.cost for result in history),
        unconverged=sum(result.verdict == "unconverged" for result in history),
        rejected=len(history) - len(counted(history)),
        width=found.width,
        lapse=found.lapse,
        by_eps=found.by_eps,
    )


def bracket_of(search: Search, n_limit: int, history: History) -> Bracket:
    """Return the bracket that the search has reached."""
    if isinstance(search, Walk):
        return plain.bracket_of(search, n_limit, history)
    return bayes.bracket_of(history)


def _wanted(
    search: Search, n_limit: int, history: History, belief: Belief | None
) -> list[int] | None:
    if isinstance(search, Bayes):
        return bayes.wanted(search, n_limit, history, belief)
    if isinstance(search, Walk):
        return plain.wanted(search, n_limit, history)
    raise TypeError(f"no such policy: {search.policy}")


def _found(search: Search, n_limit: int, history: History) -> Found | None:
    if isinstance(search, Bayes):
        return bayes.found(search, n_limit, history)
    if isinstance(search, Walk):
        return plain.found(search, n_limit, history)
    raise TypeError(f"no such policy: {search.policy}")
