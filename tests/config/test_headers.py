"""What the headers of the specs say that a sweep costs is what ``flexhpc plan`` computes."""

from __future__ import annotations

import re
import shutil
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


def planned(spec: Path, runs: Path) -> tuple[int, int | None]:
    plan = make_plan(spec, (), runs, None, params=False)
    assert plan["to_measure"] == len(plan["points"])
    return len(plan["points"]), plan["cost_bound"]


def agree(said: str, bound: int) -> bool:
    """Whether two digits are the bound, rounded up."""
    return bound <= float(said) * (1 + 1e-12) and float(said) <= bound * 1.1


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_a_header_says_what_the_plan_says(spec: Path, tmp_path: Path) -> None:
    (line,) = COST.finditer(spec.read_text())
    points, bound = planned(spec, tmp_path)
    assert int(line["points"]) == points
    assert (line["bound"] is None) == (bound is None)
    assert bound is None or agree(line["bound"], bound), f"the plan says {bound:.3g}"


def test_the_figures_page_says_what_the_plans_say(tmp_path: Path) -> None:
    links = list(LINK.finditer(FIGURES.read_text()))
    assert {link["path"] for link in links} >= {
        str(spec.relative_to(REPOSITORY)) for spec in SPECS if spec.stem != "optimizers"
    }
    for link in links:
        _, bound = planned(REPOSITORY / link["path"], tmp_path)
        assert agree(link["bound"], bound), f"{link['path']}: the plan says {bound:.3g}"


def test_the_command_rewrites_a_stale_cost_and_nothing_else(tmp_path: Path) -> None:
    spec, page = tmp_path / "sweeps" / "classes.yaml", tmp_path / "docs" / "figures.md"
    spec.parent.mkdir()
    page.parent.mkdir()
    fresh = (REPOSITORY / "sweeps" / "classes.yaml").read_text()
    spec.write_text(COST.sub("# Cost: 7 points, at most 1.0e3 sample passes.", fresh))
    assert spec.read_text() != fresh == with_updated_costs(spec)
    (link,) = (m for m in LINK.finditer(FIGURES.read_text()) if "classes.yaml" in m["path"])
    page.write_text("| [classes](../sweeps/classes.yaml) (1.0e3) | (1.0e3) |\n")
    assert with_updated_costs(page) == f"| [classes{link[0]} | (1.0e3) |\n"
    plain = tmp_path / "plain.yaml"
    shutil.copy(REPOSITORY / "sweeps" / "quickstart.yaml", plain)
    assert with_updated_costs(plain) == plain.read_text(), "a spec without such a line gets none"


@given(st.integers(1, 10**15))
def test_a_rounded_bound_is_a_bound(cost: int) -> None:
    assert re.fullmatch(r"\d\.\de\d+", bound_text(cost))
    assert agree(bound_text(cost), cost)


def test_round_numbers_stay_as_they_are() -> None:
    assert [bound_text(n) for n in (1, 10, 75_000, 99_000, 99_001, 0)] == [
        "1.0e0", "1.0e1", "7.5e4", "9.9e4", "1.0e5", "0.0e0",
    ]  # fmt: skip
