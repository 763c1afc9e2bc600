"""The tables of a run as a person reads them in a terminal: status and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from flexhpc.analysis.endings import ending_text, warning_lines
from flexhpc.analysis.text import bracket_text, emc_text, eps_text, plain_text, ratio_text, span
from flexhpc.analysis.tuning import best_text, tuned
from flexhpc.spec import Point
from flexhpc.store.status import PointStatus

_WIDE = 200
_SHORTEST_NAME = 16
_STATUS_COLUMNS = (
    "point", "state", "n", "epoch", "train acc", "probe left", "bracket", "EMC", "probes", "cost",
    "tries", "host", "ended by",
)  # fmt: skip
_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "stopped": "yellow",
    "queued": "magenta",
    "waiting": "dim",
}


def status_table(statuses: Sequence[PointStatus], width: int, rows: int | None = None) -> Table:
    """Return the table of points; running and failed ones first where not all have room.

    Args:
        statuses: of the points; width: of the terminal, to which the points' names are cut.
        rows: as many points at most.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    shown = _most_telling(statuses, rows)
    cells = [_cells(status) for status in shown]
    widths = [max(map(len, column)) for column in zip(_STATUS_COLUMNS, *cells, strict=True)]
    room = max(_SHORTEST_NAME, width - sum(widths[1:]) - 2 * (len(widths) - 1))
    for name in _STATUS_COLUMNS:
        number = name in ("probes", "cost", "tries")
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")
    for (name, *others), status in zip(cells, shown, strict=True):
        table.add_row(_cut(name, room), *others, style=_STYLES[status.state])
    if len(shown) < len(statuses):
        table.add_row(f"... {len(statuses) - len(shown)} more", style="dim")
    return table


def _most_telling(statuses: Sequence[PointStatus], rows: int | None) -> list[PointStatus]:
    if rows is None or len(statuses) <= rows:
        return list(statuses)
    rank = {"running": 0, "failed": 1, "stopped": 2, "done": 3, "queued": 4, "waiting": 5}
    best = sorted(range(len(statuses)), key=lambda i: (rank[statuses[i].state], i))[: rows - 1]
    return [statuses[i] for i in sorted(best)]


def _cells(status: PointStatus) -> list[str]:
    progress = status.progress
    state = f"queued: {status.message}" if status.state == "queued" else status.state
    cells = [_name(status.point), state]
    if progress:
        accuracy = 1 - progress["n_errors"] / progress["n"]
        done, budget = progress["epoch"], progress["epochs"]
        left = "<= " + span(progress["elapsed"] / done * (budget - done)) if budget else ""
        epoch = f"{done}/{budget}" if budget else str(done)
        cells += [str(progress["n"]), epoch, f"{accuracy:.1%}", left]
    else:
        cells += ["", "", "", ""]
    return [
        *cells, bracket_text(status.bracket), emc_text(status.estimate), str(status.probes or ""),
        f"{status.cost:,}" if status.cost else "", str(status.attempts or ""), status.host,
        ending_text(status),
    ]  # fmt: skip


def _name(point: Point) -> str:
    """Return a point's label, without the keys that are not set in it."""
    words = [word for word in point.label.split() if not word.endswith("=None")]
    return " ".join(words) or point.id


def _cut(name: str, width: int) -> str:
    """Cut the middle out of a long name: its ends tell points apart more often."""
    head = width // 3
    return name if len(name) <= width else f"{name[:head]}…{name[head + 1 - width :]}"


def results_table(statuses: Sequence[PointStatus]) -> Table:
    """Return the results as a person reads them: swept keys, parameters, EMC, cost."""
    swept = list(dict.fromkeys(key for status in statuses for key in status.point.swept))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in swept or ["point"]:
        table.add_column(key, no_wrap=True)
    for name in ("params", "EMC", "EMC/param", "bracket", "probes", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    names = dict.fromkeys(n for s in statuses if s.estimate for n in s.estimate.by_eps)
    for name in names:
        table.add_column(f"EMC eps {name}", justify="right", no_wrap=True)
    for name in (*(["best at"] if tuned(statuses) else []), "status", "ended by"):
        table.add_column(name, no_wrap=True)
    for status in statuses:
        record, estimate = status.record, status.estimate
        keys = [plain_text(status.point.swept.get(key)) for key in swept] or [status.point.id]
        table.add_row(
            *keys,
            f"{record.header.params:,}" if record and record.header.params else "",
            emc_text(estimate),
            ratio_text(estimate, record.header.params) if record else "",
            bracket_text(status.bracket),
            str(status.probes or ""),
            f"{status.cost:,}" if status.cost else "",
            *(eps_text(estimate.by_eps.get(name)) if estimate else "" for name in names),
            *([best_text(status)] if tuned(statuses) else []),
            status.state,
            ending_text(status),
        )
    return table


def status_row(status: PointStatus) -> dict[str, Any]:
    """Return where a point stands as plain values, for ``status --json``."""
    estimate = status.estimate
    return {
        "point_id": status.point.id,
        "swept": status.point.swept,
        "state": status.state,
        "bracket": [status.bracket.largest_fit, status.bracket.smallest_fail],
        "probes": status.probes,
        "cost": status.cost,
        "estimate": asdict(estimate) if estimate else None,
        "progress": {k: None if v != v else v for k, v in status.progress.items()},  # nan: no JSON
        "attempts": status.attempts,
        "deaths": status.deaths,
        "host": status.host,
        "job": status.job,
        "message": status.message,
        "log": status.log,
    }


def make_console() -> Console:
    """Return a console that cuts no column where the output is no terminal.

    Names are shown as they are, whatever rich would make of ``[/]``.
    """
    console = Console(markup=False)
    return console if console.is_terminal else Console(markup=False, width=_WIDE)


def print_results(statuses: Sequence[PointStatus]) -> None:
    """Print the results table, and below it what must be known of the intervals."""
    console = make_console()
    console.print(results_table(statuses))
    for line in warning_lines(statuses):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
