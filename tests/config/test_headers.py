"""Costs in the headers of specs and in docs/figures.md equal those of ``flexhpc plan``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.launch.cost_line import bound_text, text_with_updated_costs
from flexhpc.launch.plan import make_plan
from tests.conftest import REPOSITORY

SPECS = sorted(p for p in REPOSITORY.glob("sweeps/**/*.yaml") if "# Cost:" in p.read_text())
FIGURES = REPOSITORY / "docs" / "figures.md"


@pytest.mark.parametrize("path", [*SPECS, FIGURES], ids=lambda path: path.stem)
def test_costs_are_up_to_date(path: Path) -> None:
    assert text_with_updated_costs(path) == path.read_text(), (
        "run: python -m flexhpc.launch.cost_line"
    )


def test_figures_page_links_to_all_specs_with_a_cost() -> None:
    links = re.findall(r"\]\(\.\./(sweeps/\w+\.yaml)\) \(\d\.\de\d+\)", FIGURES.read_text())
    without_figure = {"optimizers"}
    specs = {str(p.relative_to(REPOSITORY)) for p in SPECS if p.stem not in without_figure}
    assert specs <= set(links)


def test_only_outdated_costs_are_updated(tmp_path: Path) -> None:
    spec, page = tmp_path / "sweeps" / "classes.yaml", tmp_path / "docs" / "figures.md"
    spec.parent.mkdir()
    page.parent.mkdir()
    current = (REPOSITORY / "sweeps" / "classes.yaml").read_text()
    plan = make_plan(REPOSITORY / "sweeps" / "classes.yaml", (), tmp_path, None, count_params=False)
    bound = bound_text(plan["cost_bound"])
    line = f"# Cost: {len(plan['points'])} points, at most {bound} sample passes."
    assert line in current
    spec.write_text(current.replace(line, "# Cost: 7 points, at most 1.0e3 sample passes."))
    assert text_with_updated_costs(spec) == current
    page.write_text("| [classes](../sweeps/classes.yaml) (1.0e3) | (1.0e3) |\n")
    expected = f"| [classes](../sweeps/classes.yaml) ({bound}) | (1.0e3) |\n"
    assert text_with_updated_costs(page) == expected
    without_cost = REPOSITORY / "sweeps" / "quickstart.yaml"
    assert text_with_updated_costs(without_cost) == without_cost.read_text()


@given(st.integers(1, 10**15))
def test_bound_is_rounded_up_to_two_digits(cost: int) -> None:
    text = bound_text(cost)
    assert re.fullmatch(r"\d\.\de\d+", text)
    assert cost <= float(text) * (1 + 1e-12)
    assert float(text) <= cost * 1.1


def test_bounds_of_two_digits_are_not_rounded() -> None:
    assert [bound_text(n) for n in (1, 10, 75_000, 99_000, 99_001, 0)] == [
        "1.0e0", "1.0e1", "7.5e4", "9.9e4", "1.0e5", "0.0e0",
    ]  # fmt: skip
