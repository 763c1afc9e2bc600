"""Status of every point of a run, as a table that fits a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flexhpc.analysis.endings import ending_text
from flexhpc.analysis.failures import alike, reason_lines
from flexhpc.analysis.text import bracket_text, estimate_text, span
from flexhpc.analysis.trimmed import trimmed
from flexhpc.analysis.whole_columns import Column, table_of
from flexhpc.config import Point
from flexhpc.store.status import PointStatus

_SHORTEST_NAME = 16
_COLUMNS = {
    "point": None, "state": None, "n": 8, "epoch": 5, "train acc": 4, "probe left": 3,
    "bracket": 7, "EMC": None, "probes": 9, "cost": 2, "tries": 0, "host": 1, "ended by": 6,
}  # fmt: skip
"""Columns with their rank of removal in a terminal that is too narrow for all (0 is removed first,
None is always kept)."""
_NUMBERS = ("probes", "cost", "tries")
_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "stopped": "yellow",
    "queued": "magenta",
    "waiting": "dim",
}


def status_view(
    statuses: Sequence[PointStatus], width: int, rows: int | None = None, *, reasons: bool = True
) -> RenderableType:
    """Return the table of points, followed by one line per reason for which points failed.

    Args:
        statuses: status of each point; width: width of the terminal (characters).
        rows: maximum number of lines; None for no limit.
        reasons: False if the caller prints the reasons.
    """
    together, alone = alike(trimmed(statuses))
    lines = [Text(line, style="red") for line in reason_lines(together)] if reasons else []
    room = None if rows is None else rows - len(lines)
    return Group(_table(alone, width, room), *lines) if alone else Group(*lines)


def _table(statuses: Sequence[PointStatus], width: int, rows: int | None) -> Table:
    """Return the table of points; if not all fit, running and failed ones take precedence."""
    shown = _most_telling(statuses, rows)
    cells = [_cells(status) for status in shown]
    columns = [
        Column(
            name=name, cells=[row[name] for row in cells], right=name in _NUMBERS, goes=goes,
            least=_SHORTEST_NAME if name == "point" else None,
        )
        for name, goes in _COLUMNS.items()
    ]  # fmt: skip
    table = table_of(columns, width, [_STYLES[status.state] for status in shown])
    if len(shown) < len(statuses):
        table.add_row(f"... {len(statuses) - len(shown)} more", style="dim")
    return table


def _most_telling(statuses: Sequence[PointStatus], rows: int | None) -> list[PointStatus]:
    if rows is None or len(statuses) <= rows:
        return list(statuses)
    rank = {"running": 0, "failed": 1, "stopped": 2, "done": 3, "queued": 4, "waiting": 5}
    best = sorted(range(len(statuses)), key=lambda i: (rank[statuses[i].state], i))
    return [statuses[i] for i in sorted(best[: max(rows - 1, 1)])]


def _cells(status: PointStatus) -> dict[str, Text]:
    progress = status.progress
    state = f"queued: {status.message}" if status.state == "queued" else status.state
    cells = {
        "point": _name(status.point),
        "state": state,
        "bracket": bracket_text(status.bracket),
        "EMC": estimate_text(status),
        "probes": str(status.probes or ""),
        "cost": f"{status.cost:,}" if status.cost else "",
        "tries": str(status.attempts or ""),
        "host": status.host,
        "ended by": ending_text(status),
    }
    if progress:
        accuracy = 1 - progress["n_errors"] / progress["n"]
        done, budget = progress["epoch"], progress["epochs"]
        cells |= {
            "n": str(progress["n"]),
            "epoch": f"{done}/{budget}" if budget else str(done),
            "train acc": f"{accuracy:.1%}",
            "probe left": "<= " + span(progress["elapsed"] / done * (budget - done))
            if budget
            else "",
        }
    styled = {name: Text(cells.get(name, "")) for name in _COLUMNS}
    if status.state != "done":
        styled["EMC"].stylize("dim italic")
    return styled


def _name(point: Point) -> str:
    """Return the label of a point without keys whose value is None."""
    words = [word for word in point.label.split() if not word.endswith("=None")]
    return " ".join(words) or point.id


def status_row(status: PointStatus) -> dict[str, Any]:
    """Return the status of a point as plain values, for ``status --json``."""
    estimate = status.estimate
    return {
        "point_id": status.point.id,
        "swept": status.point.swept,
        "state": status.state,
        "bracket": [status.bracket.largest_fit, status.bracket.smallest_fail],
        "probes": status.probes,
        "cost": status.cost,
        "estimate": asdict(estimate) if estimate else None,
        # JSON has no nan
        "progress": {k: None if v != v else v for k, v in status.progress.items()},
        "attempts": status.attempts,
        "deaths": status.deaths,
        "host": status.host,
        "job": status.job,
        "message": status.message,
        "log": status.log,
    }
