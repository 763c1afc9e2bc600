"""Results table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from flexhpc.analysis.endings import ending_text, warning_lines
from flexhpc.analysis.failures import alike, reason_lines
from flexhpc.analysis.text import bracket_text, eps_text, estimate_text, ratio_text
from flexhpc.analysis.trimmed import trimmed
from flexhpc.analysis.tuning import best_text, tuned
from flexhpc.analysis.whole_columns import Column, table_of
from flexhpc.config.point import plain_text
from flexhpc.config.sections.compare import Compare
from flexhpc.store.status import PointStatus

_WIDE = 200
_SHORTEST, _LONGEST = 5, 16
"""Range of the minimum width (characters) to which the column of a swept key may be cut."""


def results_table(statuses: Sequence[PointStatus], width: int = _WIDE) -> Table:
    """Return the results as a table of swept keys, parameters, EMC, cost and status.

    Args:
        statuses: status of each point; width: width of the terminal (characters).
    """
    columns = [*_swept(statuses), *_measured(statuses)]
    return table_of(columns, width)


def _swept(statuses: Sequence[PointStatus]) -> list[Column]:
    """Return one column per swept key, or the point ids if nothing is swept."""
    swept = dict.fromkeys(key for status in statuses for key in status.point.swept)
    if not swept:
        return [Column(name="point", cells=[status.point.id for status in statuses])]
    values = {key: [plain_text(s.point.swept.get(key)) for s in statuses] for key in swept}
    return [
        Column(name=key, cells=cells, least=max(_SHORTEST, min(_LONGEST, max(map(len, cells)))))
        for key, cells in values.items()
    ]


def _measured(statuses: Sequence[PointStatus]) -> list[Column]:
    params = [s.record.header.params if s.record else 0 for s in statuses]
    estimates = [status.estimate for status in statuses]
    sizes = zip(estimates, params, strict=True)
    names = dict.fromkeys(n for one in estimates if one for n in one.by_eps)
    best = [Column(name="best at", cells=[best_text(s) for s in statuses], goes=6)]
    return [
        _number("params", [f"{size:,}" if size else "" for size in params], 5),
        _number("EMC", [estimate_text(status) for status in statuses], None),
        _number("EMC/param", [ratio_text(one, size) for one, size in sizes], 4),
        _number("bracket", [bracket_text(status.bracket) for status in statuses], 2),
        _number("probes", [str(status.probes or "") for status in statuses], 1),
        _number("cost", [f"{s.cost:,}" if s.cost else "" for s in statuses], 0),
        *(_number(f"EMC eps {name}", _at_eps(statuses, name), 8) for name in names),
        *(best if tuned(statuses) else []),
        Column(name="status", cells=[status.state for status in statuses], goes=3),
        Column(name="ended by", cells=[ending_text(status) for status in statuses], goes=7),
    ]


def _at_eps(statuses: Sequence[PointStatus], name: str) -> list[str]:
    return [eps_text(s.estimate.by_eps.get(name)) if s.estimate else "" for s in statuses]


def _number(name: str, cells: Sequence[str], goes: int | None) -> Column:
    return Column(name=name, cells=cells, right=True, goes=goes)


def make_console() -> Console:
    """Return a console that has a fixed, large width if the output is not a terminal.

    Markup is disabled, as rich would otherwise interpret ``[/]`` in names.
    """
    console = Console(markup=False)
    return console if console.is_terminal else Console(markup=False, width=_WIDE)


def print_results(
    statuses: Sequence[PointStatus], compare: Sequence[Compare] = (), *, why: bool = True
) -> None:
    """Print the results table, followed by failures, warnings and comparisons.

    Args:
        statuses: status of each point; points that failed for a common reason before any probe
            finished have no row.
        compare: comparisons requested by the spec.
        why: whether to print the reasons for which such points failed.
    """
    console = make_console()
    whole, statuses = statuses, trimmed(statuses)
    together, alone = alike(statuses)
    if alone:
        console.print(results_table(alone, console.width))
    for line in [*(reason_lines(together) if why else []), *warning_lines(statuses)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if compare:
        _print_comparisons(whole, compare, console)


def _print_comparisons(
    statuses: Sequence[PointStatus], compare: Sequence[Compare], console: Console
) -> None:
    from flexhpc.analysis.comparison import decided, effects  # takes a third of a second
    from flexhpc.analysis.comparison_table import print_effects

    if found := decided([effect for one in compare for effect in effects(statuses, one)]):
        console.print()
        print_effects(found, console)
