"""Whether an existing estimate satisfies a search with other settings."""

from __future__ import annotations

import pytest

from flexhpc.config.sections.search import Bayes, Bisection, Search
from flexhpc.search import Probe, ProbeResult, is_precise, next_probes
from flexhpc.search.arms import SINGLE_ARM
from tests.search.helpers import play, result

BISECTION = Bisection(policy="bisection", start=64, tolerance=0.2)
BAYES = Bayes(policy="bayes", start=64, tolerance=0.2)
CAPPED = BAYES.model_copy(update={"tolerance": 0.05, "max_cost": 12.0})


def train(probe: Probe) -> ProbeResult:
    n, repeat, *_ = probe
    return result(n, max(0, n - 1000), repeat=repeat, cost=n, share=1.0)


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
    estimate, history = play(search, 60_000, train)
    other = search.model_copy(update=change)
    assert is_precise(other, 60_000, lambda: history, SINGLE_ARM, estimate) is is_sufficient
    after, continued = play(other, 60_000, train, history=history)
    if not is_sufficient:
        assert len(continued) > len(history)
        assert is_precise(search, 60_000, lambda: continued, SINGLE_ARM, after)
        assert after.emc_hi / after.emc_lo <= estimate.emc_hi / estimate.emc_lo


def test_larger_max_cost_continues_the_estimate_of_a_training_error() -> None:
    search = CAPPED.model_copy(update={"eps": [0.3]})
    estimate, history = play(search, 60_000, train)
    assert estimate.ended_by == "max_cost"
    uncapped = search.model_copy(update={"max_cost": 60.0})
    assert not is_precise(uncapped, 60_000, lambda: history, SINGLE_ARM, estimate)


def test_missing_repeats_are_trained_first() -> None:
    """The second of two concurrent probes ended first; then ``at_once`` was reduced to 1."""
    search = BISECTION.model_copy(update={"seeds_per_n": 3})
    second = result(64, repeat=1)
    assert next_probes(search, 60_000, [second]) == [Probe(64, 0)]
    both = [second, result(64, 3)]
    assert next_probes(search, 60_000, both) == [Probe(64, 2)]
