"""Simulation-based calibration of the interval, over the prior of the fit curve."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from bench.search.calibration import PriorWorld, search_once, summary


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_interval_covers_the_emc_of_curves_drawn_from_the_prior() -> None:
    with ProcessPoolExecutor(2) as pool:
        result = summary(list(pool.map(search_once, range(1200), chunksize=8)))
    assert result["coverage"] == pytest.approx(0.90, abs=0.02), result


def test_half_of_the_training_runs_fit_at_the_emc_of_a_drawn_curve() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        world = PriorWorld.of(rng)
        n = round(world.emc)
        assert world.fit_probability(world.emc) == pytest.approx(0.5)
        fits = [world.draw(n, rng).verdict == "fit" for _ in range(600)]
        assert np.mean(fits) == pytest.approx(world.fit_probability(n), abs=0.08)
        row = search_once(seed)
        assert row["ended_by"] in {"tolerance", "max_cost", "data"}
        assert abs(row["error"]) < 1
        assert 0.015 <= row["width"] <= 1
