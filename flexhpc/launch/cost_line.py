"""Update the cost bounds in specs and Markdown files; ``flexhpc plan`` computes the bounds.

A spec states its cost bound in a comment line. A Markdown file states it after a link to the spec:

    # Cost: 60 points, at most 1.2e11 sample passes.
    [classes](../sweeps/classes.yaml) (6.0e10)

Usage: python -m flexhpc.launch.cost_line FILE...
In this repository, docs/figures.md and the specs in sweeps/ contain cost bounds.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

from flexhpc.atomic import write_atomic
from flexhpc.config import load_points
from flexhpc.launch.plan import make_plan

_LINE = re.compile(r"^# Cost: .*$", re.MULTILINE)
_LINK = re.compile(r"(\]\((?P<path>[^()]+\.yaml)\) )\(\d\.\de\d+\)")


def point_count_and_cost_bound(spec: Path) -> tuple[int, int | None]:
    """Return a spec's number of points and an upper bound on their total cost (sample passes).

    The bound is None if the cost is unbounded, or if the bound cannot be computed without reading
    the data.

    Raises:
        InputError: the spec is invalid.
    """
    planned = make_plan(spec, (), Path("runs"), None, count_params=False)
    bounds = [row["cost_bound"] for row in planned["points"]]
    return len(bounds), None if None in bounds else sum(bounds)


def bound_text(cost: int) -> str:
    """Format a cost bound with two significant digits, rounded up: ``7.5e10``."""
    power = max(0, math.floor(math.log10(cost))) if cost else 0
    tenths = -(-cost * 10 // 10**power)
    if tenths >= 100:
        tenths, power = -(-tenths // 10), power + 1
    return f"{tenths / 10:.1f}e{power}"


def cost_line(spec: Path) -> str:
    """Return the ``# Cost:`` line for the header of a spec."""
    count, bound = point_count_and_cost_bound(spec)
    if bound is not None:
        return f"# Cost: {count} points, at most {bound_text(bound)} sample passes."
    points = load_points(spec)[1]
    unbounded = any(getattr(point.training, "until", None) == "convergence" for point in points)
    reason = "some train until convergence" if unbounded else "the amount of data is unknown"
    return f"# Cost: {count} points; {reason}, so the cost has no known bound."


def text_with_updated_costs(path: Path) -> str:
    """Return the text of a spec or Markdown file, with all cost bounds updated."""
    text = path.read_text()
    if path.suffix == ".md":

        def updated_link(link: re.Match[str]) -> str:
            _, bound = point_count_and_cost_bound(path.parent / link["path"])
            return link[0] if bound is None else f"{link[1]}({bound_text(bound)})"

        return _LINK.sub(updated_link, text)
    return _LINE.sub(lambda _: cost_line(path), text)


def main() -> None:
    """Update the files named on the command line; print the paths of the files that changed."""
    for path in map(Path, sys.argv[1:]):
        text = text_with_updated_costs(path)
        if text != path.read_text():
            write_atomic(path, text)
            print(path)


if __name__ == "__main__":
    main()
