"""The chance of a label conflict in a random subset: against every subset, and against draws."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexhpc.analysis.conflicts import chance_of_conflict, conflict_notes
from flexhpc.analysis.results import row_of
from flexhpc.config.sections.data import Table
from flexhpc.data import load_samples
from flexhpc.data.labelling import draw_subset
from tests.analysis.made import points, status

GROUP = st.lists(st.integers(1, 3), min_size=2, max_size=3).map(tuple)


def holds(inputs: np.ndarray, labels: np.ndarray) -> bool:
    """Whether any two samples are alike but for their labels."""
    seen: dict[bytes, int] = {}
    return any(
        seen.setdefault(x.tobytes(), label) != label
        for x, label in zip(inputs, labels, strict=True)
    )


@settings(max_examples=25)
@given(st.lists(GROUP, min_size=1, max_size=2), st.integers(0, 4))
def test_the_chance_is_that_over_all_subsets(groups: list[tuple[int, ...]], others: int) -> None:
    inputs = [i for i, group in enumerate(groups) for _ in range(sum(group))]
    labels = [label for group in groups for label, many in enumerate(group) for _ in range(many)]
    inputs += range(100, 100 + others)
    labels += [0] * others
    pool, x, y = len(inputs), np.array(inputs), np.array(labels)
    for n in range(min(pool, 7) + 1):
        bad = sum(holds(x[list(some)], y[list(some)]) for some in combinations(range(pool), n))
        found = chance_of_conflict([(group, 1) for group in groups], pool, n)
        assert found == pytest.approx(bad / comb(pool, n), abs=1e-12)


@pytest.mark.parametrize("n", [10, 40, 150, 299])
def test_the_chance_is_that_of_drawn_subsets(n: int, tmp_path: Path) -> None:
    """From a data set with conflicts to the chance, against the subsets that probes draw."""
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(3)
    rows = [
        f"{x},{y}" for x, y in zip(rng.integers(0, 250, 300), rng.integers(0, 3, 300), strict=True)
    ]
    path.write_text("\n".join(["x,y", *rows]) + "\n")
    table = {"source": "table", "path": str(path), "target": "y"}
    samples = load_samples(Table.model_validate(table), seed=0)
    assert len(samples.conflict_groups) > 1
    assert sum(many for _, many in samples.conflict_groups) == samples.conflicts
    draws = 3_000
    found = sum(
        holds(samples.standardised(ids), samples.labels[ids])
        for ids in (draw_subset(samples.pool, n, seed) for seed in range(draws))
    )
    chance = chance_of_conflict(samples.conflict_groups, len(samples.pool), n)
    assert 0 < chance <= 1
    error = 4 * np.sqrt(chance * (1 - chance) / draws) + 1e-3
    assert found / draws == pytest.approx(chance, abs=error)
    dropped = load_samples(Table.model_validate({**table, "conflicts": "drop"}), seed=0)
    assert dropped.conflict_groups == []


def test_the_chance_for_large_pools() -> None:
    """One pair: n (n - 1) / (N (N - 1)); many, nearly independent; a large group."""
    one = chance_of_conflict([((1, 1), 1)], 60_000, 1_000)
    assert one == pytest.approx(1_000 * 999 / (60_000 * 59_999), rel=1e-9)
    many = chance_of_conflict([((1, 1), 50)], 6_000_000, 600_000)
    assert many == pytest.approx(1 - 0.99**50, rel=1e-3)
    odd_one = chance_of_conflict([((1000, 1), 1)], 10_000, 5_000)
    assert odd_one == pytest.approx(0.5, abs=1e-9)
    assert chance_of_conflict([((1, 1), 1)], 100, 100) == 1
    assert chance_of_conflict([((1, 1), 1)], 100, 1) == pytest.approx(0, abs=1e-12)
    assert chance_of_conflict([], 100, 50) == 0


OUTCOMES = [(16, 0), (32, 0), (64, 5), (45, 3), (38, 1)]
PAIRS = json.dumps([[[1, 1], 20]])


def test_results_state_the_chance_at_the_emc(tmp_path: Path) -> None:
    point, _ = points(tmp_path)
    known = status(point, OUTCOMES, n_pool=1000, conflict_groups=PAIRS, conflicts=20, unfittable=20)
    row = row_of(known)
    assert row["conflict_chance"] == chance_of_conflict([((1, 1), 20)], 1000, row["emc"])
    none = status(point, OUTCOMES, n_pool=1000, conflict_groups="[]")
    assert row_of(none)["conflict_chance"] == 0
    left = status(point, [(16, 1), (8, 1)], n_pool=1000, conflict_groups=PAIRS)
    assert row_of(left)["conflict_chance"] is None
    (note,) = conflict_notes([known, known])
    assert "20 groups of identical inputs" in note
    assert f"probability of up to {100 * row['conflict_chance']:.2g} %" in note
    assert "for 2 of 2 points" in note


def test_small_chances_are_not_mentioned(tmp_path: Path) -> None:
    point, _ = points(tmp_path)
    header = {"n_pool": 10**6, "conflict_groups": PAIRS, "conflicts": 20, "unfittable": 20}
    (note,) = conflict_notes([status(point, OUTCOMES, **header)])
    assert "random subset" not in note
    unknown = status(point, OUTCOMES, conflicts=20, unfittable=20)
    assert conflict_notes([status(point, OUTCOMES), replace(unknown, record=None)]) == []
