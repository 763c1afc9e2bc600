"""Growth policy: raise n until the first failure, as in arXiv 2406.11463.

The state of the search is replayed from the history.
"""

from __future__ import annotations

from flexhpc.config.sections.search import Growth
from flexhpc.search.arms import Coordinates
from flexhpc.search.fit_curve import posterior
from flexhpc.search.history import TAILS, Bracket, EndedBy, EpsEstimate, Found, History
from flexhpc.search.luck import interval_of_a_rule
from flexhpc.search.policy import Policy, Wanted
from flexhpc.search.walk import Standing, by_quorum, growth, ladder, most_probes


def _walk(search: Growth, n_limit: int, history: History) -> Standing:
    fits = by_quorum(history, search.seeds_per_n)
    return growth(fits, start=search.start, growth=search.growth, n_limit=n_limit)


def wanted(search: Growth, n_limit: int, history: History, _: Coordinates) -> Wanted | EndedBy:
    """Propose the next probe, or return why the search has ended."""
    walk = _walk(search, n_limit, history)
    if walk.wanted is not None:
        return [(0, walk.wanted)]
    return "failure" if walk.bracket.censored == "none" else "data"


def found(search: Growth, n_limit: int, history: History, _: Coordinates) -> Found | None:
    """Estimate the last n before the first failure; None while no n is decided."""
    bracket = _walk(search, n_limit, history).bracket
    if bracket == Bracket():
        return None
    curve = posterior(history, n_limit)
    lower, upper = interval_of_a_rule(curve, search, n_limit, (TAILS[0], TAILS[2]))
    return Found(
        answer=EpsEstimate.within(bracket.largest_fit or 0, lower, upper, bracket.censored),
        by_eps={},
        bracket=bracket,
        width=curve.quantiles(curve.width, TAILS),
        lapse=curve.quantiles(curve.lapse, TAILS),
    )


def worst(search: Growth, n_limit: int, *, rejects: bool, tuned: bool) -> list[tuple[int, float]]:
    """Return (n, number of probes) for every n that the policy may propose."""
    each = most_probes(search, rejects)
    return [(n, each) for n in ladder(search.start, search.growth, n_limit)]


POLICY = Policy(wanted=wanted, found=found, worst=worst)
