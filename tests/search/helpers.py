"""Searches with simulated training runs (oracles)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flexhpc.config.sections.search import Search
from flexhpc.search import Estimate, Probe, ProbeResult, advance, round_size
from flexhpc.search.arms import SINGLE_ARM, Coordinates


def result(n: int, missed: int = 0, verdict: str = "", **values: Any) -> ProbeResult:
    """Return the result of a probe; by default it fits unless samples are missed."""
    verdict = verdict or ("not_fit" if missed else "fit")
    values = {"repeat": 0, "cost": 1, **values}
    return ProbeResult(n=n, verdict=verdict, n_errors=missed, **values)


def play(
    search: Search,
    n_limit: int,
    oracle: Callable[[Probe], ProbeResult],
    coordinates: Coordinates = SINGLE_ARM,
) -> tuple[Estimate, list[ProbeResult]]:
    """Run a search to its end; check that every proposed probe is valid and new."""
    history: list[ProbeResult] = []
    while isinstance(step := advance(search, n_limit, history, coordinates), list):
        assert len(step) == round_size(search)
        assert not {(r.n, r.repeat, r.arm) for r in history} & set(step)
        assert all(1 <= probe.n <= n_limit for probe in step)
        assert all(0 <= probe.arm < len(coordinates) for probe in step)
        history += [oracle(probe) for probe in step]
        assert len(history) < 5_000
    return step, history
