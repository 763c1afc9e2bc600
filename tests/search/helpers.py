"""Searches with simulated training runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Doubling
from flexhpc.search import Estimate, Probe, ProbeResult, next_probes, probes_per_round
from flexhpc.search.arms import SINGLE_ARM, Coordinates

Train = Callable[[Probe], ProbeResult]


def result(n: int, missed: int = 0, verdict: str = "", **values: Any) -> ProbeResult:
    """Return the result of a probe; by default it fits unless samples are missed."""
    verdict = verdict or ("not_fit" if missed else "fit")
    values = {"repeat": 0, "cost": 1, **values}
    return ProbeResult(n=n, verdict=verdict, n_errors=missed, **values)


def misses(count: Callable[[int, int], int]) -> Train:
    """Return training runs that miss ``count(n, repeat)`` samples."""

    def train(probe: Probe) -> ProbeResult:
        values = {"repeat": probe.repeat, "arm": probe.arm, "stage": probe.stage}
        return result(probe.n, count(probe.n, probe.repeat), cost=10 * probe.n, **values)

    return train


def fits(predicate: Callable[[int, int], bool]) -> Train:
    """Return training runs that fit if ``predicate(n, repeat)``, and else miss one sample."""
    return misses(lambda n, repeat: 0 if predicate(n, repeat) else 1)


def fits_with(
    chance: Callable[[int], float], rng: np.random.Generator,
    missed: Callable[[int], int] = lambda _: 1,
) -> Train:  # fmt: skip
    """Return training runs that fit with probability ``chance(n)``, and else miss ``missed(n)``."""
    return misses(lambda n, _: 0 if rng.random() < chance(n) else missed(n))


def play(
    search: Search,
    n_limit: int,
    train: Train,
    coordinates: Coordinates = SINGLE_ARM,
    doubling_settings: Doubling | None = None,
    history: Sequence[ProbeResult] = (),
) -> tuple[Estimate, list[ProbeResult]]:
    """Run a search to its end, by default from its start; check all proposed probes.

    The probes of a round end in the reverse order.
    """
    results = list(history)
    while isinstance(
        step := next_probes(search, n_limit, results, coordinates, doubling_settings), list
    ):
        assert history or len(step) == probes_per_round(search)
        assert not {Probe(r.n, r.repeat, r.arm, r.stage) for r in results} & set(step)
        assert not {(r.n, r.repeat, r.arm) for r in results if r.fit} & {p[:3] for p in step}
        assert all(1 <= probe.n <= n_limit for probe in step)
        assert all(0 <= probe.arm < len(coordinates) for probe in step)
        results += [train(probe) for probe in reversed(step)]
        assert len(results) < 5_000
    return step, results
