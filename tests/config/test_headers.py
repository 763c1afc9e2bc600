"""Costs in the headers of specs and in docs/figures.md equal those of ``flexhpc plan``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.launch.cost_line import bound_text, with_updated_costs
from flexhpc.launch.plan import make_plan
from tests.conftest import REPOSITORY

COST = re.compile(
    r"^# Cost: (?P<points>\d+) points(, at most (?P<bound>\d\.\de\d+) sample passes\.|"
    r"; some train until they converge, so the cost has no known bound\.)$",
    re.MULTILINE,
)
LINK = re.compile(r"\]\(\.\./(?P<path>sweeps/\w+\.yaml)\) \((?P<bound>\d\.\de\d+)\)")
SPECS = sorted(p for p in REPOSITORY.glob("sweeps/**/*.yaml") if "# Cost:" in p.read_text())
FIGURES = REPOSITORY / "docs" / "figures.md"


def plan(spec: Path, runs: Path) -> tuple[int, int | None]:
    """Return the number of points and the cost bound of a spec."""
    planned = make_plan(spec, (), runs, None, params=False)
    assert planned["to_measure"] == len(planned["points"])
    return len(planned["points"]), planned["cost_bound"]


def is_rounded_up(text: str, bound: int) -> bool:
    """Return whether two digits are a bound, rounded up."""
    return bound <= float(text) * (1 + 1e-12) and float(text) <= bound * 1.1


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_header_agrees_with_the_plan(spec: Path, tmp_path: Path) -> None:
    (line,) = COST.finditer(spec.read_text())
    points, bound = plan(spec, tmp_path)
    assert int(line["points"]) == points
    assert (line["bound"] is None) == (bound is None)
    assert bound is None or is_rounded_up(line["bound"], bound), f"the plan has {bound:.3g}"


def test_figures_page_agrees_with_the_plans(tmp_path: Path) -> None:
    links = list(LINK.finditer(FIGURES.read_text()))
    assert {link["path"] for link in links} >= {
        str(spec.relative_to(REPOSITORY)) for spec in SPECS if spec.stem != "optimizers"
    }
    for link in links:
        _, bound = plan(REPOSITORY / link["path"], tmp_path)
        assert is_rounded_up(link["bound"], bound), f"{link['path']}: the plan has {bound:.3g}"


def test_only_outdated_costs_are_updated(tmp_path: Path) -> None:
    spec, page = tmp_path / "sweeps" / "classes.yaml", tmp_path / "docs" / "figures.md"
    spec.parent.mkdir()
    page.parent.mkdir()
    current = (REPOSITORY / "sweeps" / "classes.yaml").read_text()
    spec.write_text(COST.sub("# Cost: 7 points, at most 1.0e3 sample passes.", current))
    assert spec.read_text() != current == with_updated_costs(spec)
    (link,) = (m for m in LINK.finditer(FIGURES.read_text()) if "classes.yaml" in m["path"])
    page.write_text("| [classes](../sweeps/classes.yaml) (1.0e3) | (1.0e3) |\n")
    assert with_updated_costs(page) == f"| [classes{link[0]} | (1.0e3) |\n"
    without_cost = REPOSITORY / "sweeps" / "quickstart.yaml"
    assert with_updated_costs(without_cost) == without_cost.read_text()


@given(st.integers(1, 10**15))
def test_bound_is_rounded_up_to_two_digits(cost: int) -> None:
    assert re.fullmatch(r"\d\.\de\d+", bound_text(cost))
    assert is_rounded_up(bound_text(cost), cost)


def test_bounds_of_two_digits_are_not_rounded() -> None:
    assert [bound_text(n) for n in (1, 10, 75_000, 99_000, 99_001, 0)] == [
        "1.0e0", "1.0e1", "7.5e4", "9.9e4", "1.0e5", "0.0e0",
    ]  # fmt: skip
