from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from flexhpc.launch.order import in_order
from flexhpc.spec import checked


@pytest.mark.parametrize("count", [1, 2, 3, 12, 33])
def test_with_neighbours_the_ends_come_first_and_then_the_gaps(tmp_path: Path, count: int) -> None:
    path = tmp_path / "spec.yaml"
    widths = list(range(1, count + 1))
    path.write_text(
        "name: x\nfixed: {model: {family: mlp}, search: {policy: bayes, neighbours: true}}\n"
        f"grid: {{model.width: {widths}}}\n"
    )
    points = checked(path)[1]
    order = [point.model.width for point in in_order(points)]
    assert sorted(order) == widths
    assert order[:2] == [1, count][:count]
    for begun in (4, 8, 16):
        if begun < count:
            done = sorted(order[:begun])
            assert max(b - a for a, b in pairwise(done)) <= 2 * count / begun + 1
    plain = checked(path, ["search.neighbours=false"])[1]
    assert in_order(plain) == plain
