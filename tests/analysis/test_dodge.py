"""Offsets of points with the same x: all are visible, near their x and in the order of curves."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from flexhpc.analysis.figures.dodge import Dodge
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.layout import layout_of
from tests.analysis.builders import swept_points

NAMES = ["relu", "tanh", "gelu"]


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("seeds", [1, 2, 5, 40])
def test_points_are_distinct_and_nearest_to_their_x(seeds: int, logarithmic: bool) -> None:
    xs = [100.0, 300.0, 1200.0] if logarithmic else [100.0, 200.0, 350.0]
    points = product(["random", "original"], NAMES, xs, range(seeds))
    rows = [
        {"id": number, "facet": facet, "series": name, "x": x}
        for number, (facet, name, x, _) in enumerate(points)
    ]
    dodge = Dodge(rows, NAMES, [50, 2000], 600, logarithmic=logarithmic)
    drawn = [dodge.x(row["x"], row["series"], dodge.ranks[row["id"]]) for row in rows]
    distinct = {(row["facet"], round(x, 9)) for row, x in zip(rows, drawn, strict=True)}
    assert len(distinct) == len(rows)
    axis = np.log if logarithmic else np.asarray
    for row, x in zip(rows, drawn, strict=True):
        assert xs[int(np.abs(axis(np.array(xs)) - axis(x)).argmin())] == row["x"]
        assert dodge.right(row["x"]) >= x - 1e-9
    for x in xs:
        middles = [dodge.x(x, name) for name in NAMES]
        assert middles == sorted(middles)
        assert middles[1] == pytest.approx(x)


@pytest.mark.parametrize("order", [1, -1])
def test_nearly_equal_sizes_share_a_position(order: int) -> None:
    sizes = [1000.0, 1008.0, 1012.0][::order]
    rows = [
        {"id": i, "facet": "", "series": name, "x": x}
        for i, (name, x) in enumerate([*zip(NAMES, sizes, strict=True), ("relu", 4000.0)])
    ]
    dodge = Dodge(rows, NAMES, [500, 8000], 600, logarithmic=True)
    drawn = [dodge.x(row["x"], row["series"], dodge.ranks[row["id"]]) for row in rows[:3]]
    assert dodge.step > 0
    assert np.diff(np.log(drawn)) == pytest.approx([dodge.step] * 2)


def test_points_with_different_x_are_not_moved() -> None:
    rows = [{"id": i, "facet": "", "series": "", "x": x} for i, x in enumerate([10.0, 100.0])]
    dodge = Dodge(rows, [""], [1, 1000], 600, logarithmic=True)
    assert [dodge.x(row["x"], "", dodge.ranks[row["id"]]) for row in rows] == [10, 100]


@pytest.mark.parametrize("rates", [[2e-3, 3e-3, 4e-3], [1e-3, 3e-2, 1e-1]])
def test_axis_contains_all_points(rates: list[float], tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [40, 90, 50], lr=rates, activation=NAMES, seed=[*range(5)])
    spec = emc_figure(statuses)
    assert layout_of(statuses).x_axis == "number"
    (scale,) = {str(layer["encoding"]["x"]["scale"]): layer["encoding"]["x"]["scale"]
                for layer in spec["layer"]}.values()  # fmt: skip
    drawn = [row["x"] for row in spec["data"]["values"] if row["kind"] in ("point", "label")]
    assert scale["type"] == ("log" if rates[-1] > 8 * rates[0] else "linear")
    assert scale["domain"][0] < min(drawn) < min(rates)
    assert max(drawn) < scale["domain"][1]
