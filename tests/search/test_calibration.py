"""Simulation-based calibration: what the interval claims, over the prior of the fit curve."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from bench.search.calibration import Drawn, search_once, summary


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_interval_holds_as_often_as_it_says() -> None:
    """Searches to the default tolerance on curves drawn from the prior: 0.90 to within 0.02."""
    with ProcessPoolExecutor(2) as pool:
        found = summary(list(pool.map(search_once, range(1200), chunksize=8)))
    assert found["coverage"] == pytest.approx(0.90, abs=0.02), found


def test_a_draw_of_the_prior_is_a_world_whose_truth_is_known() -> None:
    """The n at which half fit, of the same curve that trainings are drawn from."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        world = Drawn.of(rng)
        n = round(world.middle)
        assert world.chance(world.middle) == pytest.approx(0.5)
        fits = [world.draw(n, rng).verdict == "fit" for _ in range(600)]
        assert np.mean(fits) == pytest.approx(world.chance(n), abs=0.08)
        row = search_once(seed)
        assert row["ended_by"] in {"tolerance", "max_trainings", "data"}
        assert abs(row["error"]) < 1
        assert 0.015 <= row["width"] <= 1
