"""Probability of a label conflict in a random subset, compared with enumeration and sampling."""

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
from flexhpc.analysis.results import results_row
from flexhpc.config.sections.data import Table
from flexhpc.data import load_samples
from flexhpc.data.labelling import draw_subset
from tests.analysis.builders import measured_point, one_point

GROUP = st.lists(st.integers(1, 3), min_size=2, max_size=3).map(tuple)
"""Number of samples of each label in a group of identical inputs."""


def has_conflict(inputs: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether identical inputs have different labels."""
    first_label: dict[bytes, int] = {}
    return any(
        first_label.setdefault(x.tobytes(), label) != label
        for x, label in zip(inputs, labels, strict=True)
    )


@settings(max_examples=25)
@given(st.lists(GROUP, min_size=1, max_size=2), st.integers(0, 4))
def test_chance_equals_fraction_of_all_subsets(groups: list[tuple[int, ...]], others: int) -> None:
    inputs = [i for i, group in enumerate(groups) for _ in range(sum(group))]
    labels = [label for group in groups for label, count in enumerate(group) for _ in range(count)]
    inputs += range(100, 100 + others)
    labels += [0] * others
    pool, x, y = len(inputs), np.array(inputs), np.array(labels)
    for n in range(min(pool, 7) + 1):
        subsets = map(list, combinations(range(pool), n))
        conflicts = sum(has_conflict(x[subset], y[subset]) for subset in subsets)
        chance = chance_of_conflict([(group, 1) for group in groups], pool, n)
        assert chance == pytest.approx(conflicts / comb(pool, n), abs=1e-12)


@pytest.mark.parametrize("n", [10, 40, 150, 299])
def test_chance_agrees_with_subsets_drawn_from_a_table(n: int, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(3)
    columns = zip(rng.integers(0, 250, 300), rng.integers(0, 3, 300), strict=True)
    path.write_text("\n".join(["x,y", *(f"{x},{y}" for x, y in columns)]) + "\n")
    table = {"source": "table", "path": str(path), "target": "y"}
    samples = load_samples(Table.model_validate(table), seed=0)
    assert len(samples.conflict_groups) > 1
    assert sum(count for _, count in samples.conflict_groups) == samples.conflicts
    draws = 3_000
    conflicts = sum(
        has_conflict(samples.select_inputs(ids), samples.labels[ids])
        for ids in (draw_subset(samples.pool, n, seed) for seed in range(draws))
    )
    chance = chance_of_conflict(samples.conflict_groups, len(samples.pool), n)
    assert 0 < chance <= 1
    error = 4 * np.sqrt(chance * (1 - chance) / draws) + 1e-3
    assert conflicts / draws == pytest.approx(chance, abs=error)
    dropped = load_samples(Table.model_validate({**table, "conflicts": "drop"}), seed=0)
    assert dropped.conflict_groups == []


def test_chance_is_accurate_for_large_pools() -> None:
    pair = chance_of_conflict([((1, 1), 1)], 60_000, 1_000)
    assert pair == pytest.approx(1_000 * 999 / (60_000 * 59_999), rel=1e-9)
    many_pairs = chance_of_conflict([((1, 1), 50)], 6_000_000, 600_000)
    assert many_pairs == pytest.approx(1 - 0.99**50, rel=1e-3)
    large_group = chance_of_conflict([((1000, 1), 1)], 10_000, 5_000)
    assert large_group == pytest.approx(0.5, abs=1e-9)
    assert chance_of_conflict([((1, 1), 1)], 100, 100) == 1
    assert chance_of_conflict([((1, 1), 1)], 100, 1) == pytest.approx(0, abs=1e-12)
    assert chance_of_conflict([], 100, 50) == 0


OUTCOMES = [(16, 0), (32, 0), (64, 5), (45, 3), (38, 1)]
PAIRS = json.dumps([[[1, 1], 20]])


def test_results_and_notes_contain_the_chance_at_the_emc(tmp_path: Path) -> None:
    """Notes omit small chances."""
    point = one_point(tmp_path)
    header = {"n_pool": 1000, "conflict_groups": PAIRS, "conflicts": 20, "unfittable": 20}
    with_conflicts = measured_point(point, OUTCOMES, **header)
    row = results_row(with_conflicts)
    assert row["conflict_chance"] == chance_of_conflict([((1, 1), 20)], 1000, row["emc"])
    without = measured_point(point, OUTCOMES, n_pool=1000, conflict_groups="[]")
    assert results_row(without)["conflict_chance"] == 0
    left_censored = measured_point(point, [(16, 1), (8, 1)], n_pool=1000, conflict_groups=PAIRS)
    assert results_row(left_censored)["conflict_chance"] is None
    (note,) = conflict_notes([with_conflicts, with_conflicts])
    assert "20 groups of identical inputs" in note
    assert f"probability of up to {100 * row['conflict_chance']:.2g} %" in note
    assert "for 2 of 2 points" in note
    (note,) = conflict_notes([measured_point(point, OUTCOMES, **{**header, "n_pool": 10**6})])
    assert "random subset" not in note
    unmeasured = replace(with_conflicts, record=None)
    assert conflict_notes([measured_point(point, OUTCOMES), unmeasured]) == []
