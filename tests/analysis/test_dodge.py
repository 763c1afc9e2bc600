"""Points with the same x are drawn side by side, and curves keep their order."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexhpc.analysis.figures.dodge import Dodge
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.layout import layout_of
from tests.analysis.test_page import swept

NAMES = ["relu", "tanh", "gelu"]


def rows(places: list[float], seeds: int) -> list[dict[str, Any]]:
    every = product(["random", "original"], NAMES, places, range(seeds))
    return [
        {"id": number, "facet": facet, "series": name, "x": place}
        for number, (facet, name, place, _) in enumerate(every)
    ]


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("seeds", [1, 2, 5, 40])
def test_every_point_is_seen_nearest_to_its_own_place(seeds: int, logarithmic: bool) -> None:
    places = [100.0, 200.0, 350.0] if not logarithmic else [100.0, 300.0, 1200.0]
    some = rows(places, seeds)
    dodge = Dodge(some, NAMES, [50, 2000], 600, logarithmic=logarithmic)
    stand = [dodge.x(row["x"], row["series"], dodge.ranks[row["id"]]) for row in some]
    seen = {(row["facet"], round(x, 9)) for row, x in zip(some, stand, strict=True)}
    assert len(seen) == len(some)
    axis = np.log if logarithmic else np.asarray
    for row, x in zip(some, stand, strict=True):
        away = np.abs(axis(np.array(places)) - axis(x))
        assert places[int(away.argmin())] == row["x"]
        assert dodge.right(row["x"]) >= x - 1e-9
    for place in places:
        middles = [dodge.x(place, name) for name in NAMES]
        assert middles == sorted(middles)
        assert middles[1] == pytest.approx(place)


def test_points_that_have_their_place_alone_stay() -> None:
    some = [{"id": i, "facet": "", "series": "", "x": x} for i, x in enumerate([10.0, 100.0])]
    dodge = Dodge(some, [""], [1, 1000], 600, logarithmic=True)
    assert [dodge.x(row["x"], "", dodge.ranks[row["id"]]) for row in some] == [10, 100]


@pytest.mark.parametrize("order", [1, -1])
def test_sizes_that_nearly_agree_are_one_place(order: int) -> None:
    """As of networks of three families with equal parameters, give or take some."""
    sizes = [1000.0, 1008.0, 1012.0][::order]
    some = [
        {"id": i, "facet": "", "series": name, "x": x}
        for i, (name, x) in enumerate([*zip(NAMES, sizes, strict=True), ("relu", 4000.0)])
    ]
    dodge = Dodge(some, NAMES, [500, 8000], 600, logarithmic=True)
    assert dodge.step > 0
    stand = [dodge.x(row["x"], row["series"], dodge.ranks[row["id"]]) for row in some[:3]]
    assert np.diff(np.log(stand)) == pytest.approx([dodge.step] * 2)


@pytest.mark.parametrize("rates", [[2e-3, 3e-3, 4e-3], [1e-3, 3e-2, 1e-1]])
def test_the_first_points_stand_within_the_axis(rates: list[float], tmp_path: Path) -> None:
    some = swept(
        tmp_path, [40, 90, 50], [100], lr=rates, activation=["relu", "tanh", "gelu"],
        seed=[0, 1, 2, 3, 4],
    )  # fmt: skip
    spec = emc_figure(some)
    assert layout_of(some).along == "number"
    (axis,) = {json.dumps(one["encoding"]["x"]["scale"]) for one in spec["layer"]}
    scale = json.loads(axis)
    stand = [row["x"] for row in spec["data"]["values"] if row["kind"] in ("point", "label")]
    assert scale["type"] == ("log" if rates[-1] > 8 * rates[0] else "linear")
    assert scale["domain"][0] < min(stand) < min(rates)
    assert max(stand) < scale["domain"][1]
