"""Whether an existing estimate satisfies a search with other settings."""

from __future__ import annotations

import pytest

from flexhpc.config.sections.search import Bayes, Bisection, Search
from flexhpc.search import Estimate, Probe, ProbeResult, advance, is_precise
from flexhpc.search.arms import SINGLE_ARM
from tests.search.helpers import result

BISECTION = Bisection(policy="bisection", start=64, tolerance=0.2)
BAYES = Bayes(policy="bayes", start=64, tolerance=0.2)
CAPPED = BAYES.model_copy(update={"tolerance": 0.05, "max_cost": 12.0})


def play(search: Search, history: list[ProbeResult]) -> Estimate:
    """Continue a search from a history, which is extended."""
    while isinstance(step := advance(search, 60_000, history), list):
        for n, repeat, *_ in step:
            assert (n, repeat) not in {(r.n, r.repeat) for r in history}
            history.append(result(n, max(0, n - 1000), repeat=repeat, cost=n, share=1.0))
    return step


@pytest.mark.parametrize(
    ("search", "change", "is_sufficient"),
    [
        (BISECTION, {}, True),
        (BISECTION, {"tolerance": 0.5}, True),
        (BISECTION, {"tolerance": 0.01}, False),
        (BISECTION, {"tolerance": 0.01, "max_cost": 2.0}, True),
        (BAYES, {"tolerance": 0.5, "start": 7}, True),
        (BAYES, {"at_once": 4}, True),
        (BAYES, {"max_cost": None}, True),
        (BAYES, {"tolerance": 0.01}, False),
        (CAPPED, {"max_cost": 8.0}, True),
        (CAPPED, {"max_cost": 15.0}, False),
        (CAPPED, {"max_cost": None}, False),
        (CAPPED, {"max_cost": 15.0, "tolerance": 3.0}, True),
    ],
)
def test_only_stricter_settings_continue_a_search(
    search: Search, change: dict, is_sufficient: bool
) -> None:
    history: list[ProbeResult] = []
    estimate = play(search, history)
    other = search.model_copy(update=change)
    assert is_precise(other, 60_000, history, SINGLE_ARM, estimate) is is_sufficient
    count = len(history)
    after = play(other, history)
    if not is_sufficient:
        assert len(history) > count
        assert is_precise(search, 60_000, history, SINGLE_ARM, after)
        assert after.emc_hi / after.emc_lo <= estimate.emc_hi / estimate.emc_lo


def test_a_larger_max_cost_continues_the_estimate_of_a_training_error() -> None:
    history: list[ProbeResult] = []
    search = CAPPED.model_copy(update={"eps": [0.3]})
    estimate = play(search, history)
    assert estimate.ended_by == "max_cost"
    more = search.model_copy(update={"max_cost": 60.0})
    assert not is_precise(more, 60_000, history, SINGLE_ARM, estimate)


def test_missing_repeats_are_trained_first() -> None:
    """The second of two concurrent probes ended first; then ``at_once`` was reduced to 1."""
    search = BISECTION.model_copy(update={"seeds_per_n": 3})
    second = result(64, repeat=1)
    assert advance(search, 60_000, [second]) == [Probe(64, 0)]
    both = [second, result(64, 3)]
    assert advance(search, 60_000, both) == [Probe(64, 2)]
