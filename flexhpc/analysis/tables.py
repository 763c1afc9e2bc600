"""Tables of results, status and comparisons, fitted to the width of the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from flexhpc.analysis.grouping import swept_keys
from flexhpc.analysis.reasons import (
    best_values_text,
    common_failure_lines,
    common_failures,
    ending_text,
    has_tuned_keys,
    warning_lines,
)
from flexhpc.analysis.results import budget_value
from flexhpc.analysis.text import (
    bracket_text,
    doubling_text,
    duration_text,
    estimate_text,
    interval_text,
    ratio_text,
    without_shared_entries,
)
from flexhpc.config.point import swept_value_text
from flexhpc.config.sections.compare import Compare
from flexhpc.search.history import LEVEL
from flexhpc.store.status import PointStatus

if TYPE_CHECKING:
    from flexhpc.analysis.decision import Decision
    from flexhpc.analysis.effect import Effect
    from flexhpc.analysis.scaling_law import PowerLaw

_DEFAULT_WIDTH = 200
"""Width (characters) of tables that are not printed to a terminal."""
_MAX_HTML_ROWS = 60
_GAP = 2
"""Spaces between columns."""
_SAMPLED_CELLS = 200
"""Number of cells (from the top of a column) that are compared to choose where cells are cut."""
_BAR_LENGTH = 10
"""Length (characters) of the progress bar of a comparison that is not decided."""
_MIN_NAME = 16
_MAX_CELL = 16
"""Length (characters) up to which the values of a swept key are not cut."""
_SEARCH_COLUMNS = ("bracket", "probes", "cost", "status", "ended by")
"""Columns that describe the search for the EMC; the LaTeX table omits them."""
_DOUBLING = "2x budget"
"""Header of the column of factors by which EMCs would increase if the budgets were doubled."""
_TIMES = "\N{MULTIPLICATION SIGN}"
_LATEX = {
    ">=": r"$\geq$", "\\": r"\textbackslash{}", "~": r"$\sim$", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": r"\textbar{}", _TIMES: r"$\times$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
_STATES = {
    "running": "cyan", "failed": "red", "stopped": "yellow", "done": "green",
    "queued": "magenta", "waiting": "dim",
}  # fmt: skip
"""State of a point -> style. If not all points fit on the screen, those whose states come first in
this dict are shown."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: header.
        cells: text in each row, in order.
        align_right: whether the column is right-aligned.
        priority: if not all columns fit, the columns of lowest priority are removed first; a column
            with priority None is never removed.
        min_width: minimum width (characters) to which cells can be cut; None if they are never cut.
        styles: style of each cell, in addition to the style of its row; empty for no styles.
        short_name: header that replaces ``name`` in a column that is narrower than ``name``.
    """

    name: str
    cells: Sequence[str]
    align_right: bool = False
    priority: int | None = None
    min_width: int | None = None
    styles: Sequence[str] = ()
    short_name: str | None = None

    @cached_property
    def width(self) -> int:
        """Width (characters) at which no cell is cut."""
        return max(cell_len(text) for text in (self.name, *self.cells))

    @property
    def required_width(self) -> int:
        """Smallest width (characters) to which the column can be cut."""
        return self.width if self.min_width is None else min(self.width, self.min_width)


def fitted_table(columns: Sequence[Column], width: int, styles: Sequence[str] = ()) -> Segments:
    """Return a table; cut cells and remove columns so that it fits the terminal.

    While the table is too wide, the column with the lowest ``priority`` is removed. Cells that are
    still too long are shortened, in the rightmost columns first.

    Args:
        columns: all columns, including those that can be removed.
        width: width of the terminal (characters).
        styles: style of each row; empty for rows without a style.
    """
    fitting = list(columns)
    optional = [column for column in columns if column.priority is not None]
    for column in sorted(optional, key=lambda column: column.priority or 0):
        if _total_width([column.required_width for column in fitting]) <= width:
            break
        fitting.remove(column)
    widths = [column.width for column in fitting]
    for index in reversed(range(len(fitting))):
        excess = _total_width(widths) - width
        if excess > 0:
            widths[index] = max(fitting[index].required_width, widths[index] - excess)
    names = [
        shorten_name(c.name if cell_len(c.name) <= limit else c.short_name or c.name, limit)
        for c, limit in zip(fitting, widths, strict=True)
    ]
    rows = [names, *zip(*map(_shorten_cells, fitting, widths), strict=True)]
    # Segments are rendered about ten times as fast as rich.table.Table, which needs 1 ms per row.
    segments = []
    for number, row in enumerate(rows):
        row_style = "bold" if number == 0 else styles[number - 1] if styles else ""
        for index, (column, cell, limit) in enumerate(zip(fitting, row, widths, strict=True)):
            padding = " " * (limit - cell_len(cell))
            text = padding + cell if column.align_right else cell + padding
            cell_style = column.styles[number - 1] if number and column.styles else ""
            style = Style.parse(f"{row_style} {cell_style}")
            segments.append(Segment(" " * _GAP * (index > 0) + text, style))
        segments.append(Segment.line())
    return Segments(segments)


def _total_width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _shorten_cells(column: Column, limit: int) -> list[str]:
    """Cut cells longer than ``limit`` at the position that keeps the most cells distinct."""
    if column.width <= limit:
        return list(column.cells)
    heads = sorted(range(1, limit - 1), key=lambda head: abs(head - limit // 3))
    names = set(column.cells[:_SAMPLED_CELLS])
    head = max(
        heads, key=lambda h: len({shorten_name(name, limit, h) for name in names}), default=None
    )
    return [shorten_name(cell, limit, head) for cell in column.cells]


def shorten_name(name: str, width: int, head: int | None = None) -> str:
    """Cut a long name in its middle, because names of points often differ at their ends.

    Args:
        name: name of a point.
        width: maximum width in the terminal, where some characters take two cells.
        head: width before the cut; by default a third of ``width``.
    """
    head = width // 3 if head is None else head
    if cell_len(name) <= width:
        return name
    tail = set_cell_size(name[::-1], width - head - 1)[::-1]
    return f"{set_cell_size(name, head)}…{tail}"


def make_console() -> Console:
    """Return a console that has a fixed, large width if the output is not a terminal.

    Markup is disabled, because rich would interpret ``[/]`` in names.
    """
    console = Console(markup=False)
    return console if console.is_terminal else Console(markup=False, width=_DEFAULT_WIDTH)


def _key_column(key: str, cells: Sequence[str]) -> Column:
    """Return the column of a swept key; if it is narrow, its header is the last part of the key."""
    last = key.split(".")[-1]
    longest = max(map(cell_len, cells), default=0)
    return Column(key, cells, min_width=max(len(last), min(longest, _MAX_CELL)), short_name=last)


def _numeric_column(name: str, cells: Sequence[str], priority: int | None = None) -> Column:
    return Column(name, cells, align_right=True, priority=priority)


def results_table(statuses: Sequence[PointStatus], width: int = _DEFAULT_WIDTH) -> Segments:
    """Return the results as a table of swept keys, parameters, EMC, cost and status.

    Args:
        statuses: status of each point.
        width: width of the terminal (characters).
    """
    return fitted_table(_results_columns(statuses), width)


def latex_table(statuses: Sequence[PointStatus]) -> str:
    """Return the results as a LaTeX table, without the columns on the search; one row per point."""
    short = without_shared_entries(statuses)
    columns = [c for c in _results_columns(short) if c.name not in _SEARCH_COLUMNS and any(c.cells)]
    alignment = "".join("r" if column.align_right else "l" for column in columns)
    texts = (
        [text.replace("x", _TIMES) if c.name == _DOUBLING else text for text in (c.name, *c.cells)]
        for c in columns
    )
    head, *rows = (" & ".join(map(_latex_text, line)) + r" \\" for line in zip(*texts, strict=True))
    return "\n".join([
        rf"% \usepackage{{booktabs}}; intervals contain the EMC with probability {LEVEL}",
        rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", head, r"\midrule", *rows,
        r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip


def _latex_text(text: str) -> str:
    """Escape text for LaTeX; ``>=``, ``<``, ``~`` and the multiplication sign become symbols."""
    symbols = "|".join(map(re.escape, _LATEX))
    escaped = re.sub(symbols, lambda match: _LATEX[match[0]], text)
    # Otherwise the cell would be an argument of \\ in the previous line.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _results_columns(statuses: Sequence[PointStatus]) -> list[Column]:
    columns = []
    for key in swept_keys(statuses):
        cells = [swept_value_text(status.point.swept.get(key)) for status in statuses]
        columns.append(_key_column(key, cells))
    if not columns:
        columns = [Column("point", [status.point.id for status in statuses])]
    params = [s.record.header.params if s.record else 0 for s in statuses]
    estimates = [status.estimate for status in statuses]
    ratios = [ratio_text(e, size) for e, size in zip(estimates, params, strict=True)]
    columns += [
        _numeric_column("params", [f"{size:,}" if size else "" for size in params], 5),
        _numeric_column("EMC", [estimate_text(status) for status in statuses]),
        _numeric_column(_DOUBLING, [doubling_text(e) for e in estimates], 8),
        _numeric_column("EMC/param", ratios, 4),
        _numeric_column("bracket", [bracket_text(status.bracket) for status in statuses], 2),
        _numeric_column("probes", [str(status.training_runs or "") for status in statuses], 1),
        _numeric_column("cost", [f"{s.cost:,}" if s.cost else "" for s in statuses], 0),
    ]
    for eps in dict.fromkeys(eps for e in estimates if e for eps in e.by_eps):
        cells = [interval_text(e.by_eps.get(eps)) if e else "" for e in estimates]
        columns.append(_numeric_column(f"EMC eps {eps}", cells, 9))
    for budget in dict.fromkeys(budget for e in estimates if e for budget in e.by_budget):
        cells = [interval_text(e.by_budget.get(budget)) if e else "" for e in estimates]
        predicted = all(
            float(budget) > budget_value(s) for s, c in zip(statuses, cells, strict=True) if c
        )
        name = f"EMC at {budget}{' (predicted)' if predicted else ''}"
        columns.append(_numeric_column(name, cells, 9))
    if has_tuned_keys(statuses):
        columns.append(Column("best at", [best_values_text(s) for s in statuses], priority=6))
    columns += [
        Column("status", [status.state for status in statuses], priority=3),
        Column("ended by", [ending_text(status) for status in statuses], priority=7),
    ]
    return columns


def print_results(
    statuses: Sequence[PointStatus], compare: Sequence[Compare] = (), *, show_reasons: bool = True
) -> None:
    """Print the results table, followed by failures, warnings and comparisons.

    Args:
        statuses: status of each point. A point has no row if it failed before any probe finished,
            with an error message that several such points have in common.
        compare: comparisons requested by the spec.
        show_reasons: whether to print the error messages of the points without a row.
    """
    console = make_console()
    short = without_shared_entries(statuses)
    common, others = common_failures(short)
    if others:
        console.print(results_table(others, console.width))
    lines = [*(common_failure_lines(common) if show_reasons else []), *warning_lines(short)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if compare:
        from flexhpc.analysis.comparison import compare_points  # importing it takes 0.3 s

        if effects := compare_points(statuses, compare).effects:
            console.print()
            print_effects(effects, console)


def results_html(statuses: Sequence[PointStatus]) -> str:
    """Return the results table, failures and warnings as HTML, for notebooks."""
    short = without_shared_entries(statuses)
    common, others = common_failures(short)
    lines = [*common_failure_lines(common), *warning_lines(short)]
    if len(others) > _MAX_HTML_ROWS:
        lines.insert(0, f"The table shows {_MAX_HTML_ROWS} of {len(others)} points.")
    table = columns_html(_results_columns(others[:_MAX_HTML_ROWS])) if others else ""
    return table + "".join(f"<div>{escape(line)}</div>" for line in lines)


def columns_html(columns: Sequence[Column]) -> str:
    """Return columns as an HTML table."""
    head = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in zip(*(column.cells for column in columns), strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def print_effects(effects: Sequence[Effect], console: Console) -> None:
    """Print comparisons, one table per compared key."""
    from flexhpc.analysis.effect import SMALLER_BUDGETS

    for by in dict.fromkeys(effect.by for effect in effects):
        shown = [effect for effect in effects if effect.by == by]
        columns = [
            *_grouping_columns(shown),
            _key_column(by, [e.value for e in shown]),
            Column("against", [e.baseline for e in shown], priority=2, min_width=10),
            *(
                _numeric_column(
                    f"at {name}", [e.at_smaller_budgets[name].ratio_text for e in shown], i - 2
                )
                for i, name in enumerate(SMALLER_BUDGETS)
                if all(name in e.at_smaller_budgets for e in shown)
            ),
            _numeric_column("EMC ratio", [e.ratio_text for e in shown]),
            _numeric_column("by size", [e.sizes_text for e in shown], 1),
            _numeric_column("P(larger)", [e.chance_text for e in shown], 3),
            _numeric_column("pairs", [e.pairs_text for e in shown], 0),
            Column("verdict", [e.verdict_text for e in shown], min_width=14),
        ]
        console.print(fitted_table(columns, console.width))


def _grouping_columns(items: Sequence[Effect | PowerLaw]) -> list[Column]:
    """Return one column for each grouping key of comparisons or power laws."""
    keys = dict.fromkeys(key for item in items for key in item.within)
    return [_key_column(key, [item.within.get(key, "all") for item in items]) for key in keys]


def decision_view(decision: Decision, width: int) -> RenderableType:
    """Return a table of the comparisons of a running sweep: ratios and verdicts so far."""
    effects = decision.effects
    columns = [
        Column("compared", [f"{e.value} {e.within_text}" for e in effects]),
        Column("against", [e.baseline for e in effects], priority=2),
        _numeric_column("EMC ratio", [e.ratio_text for e in effects]),
        _numeric_column("P(larger)", [e.chance_text for e in effects], 3),
        _numeric_column("P(same)", [f"{e.chance_same:.2g}" for e in effects], 1),
        Column("verdict", [_verdict_or_bar(e) for e in effects], min_width=14),
    ]
    return Group(Text(decision.text, style="bold"), fitted_table(columns, width))


def _verdict_or_bar(effect: Effect) -> str:
    """Return the verdict, or a progress bar before the verdict.

    The full bar represents the number of pairs of points that a verdict is predicted to need. Its
    filled part represents the pairs so far.
    """
    if effect.verdict != "not decided":
        return effect.verdict
    more_pairs = math.inf if effect.more_pairs is None else effect.more_pairs
    length = round(_BAR_LENGTH * effect.pairs / (effect.pairs + more_pairs))
    return "#" * length + "." * (_BAR_LENGTH - length)


def print_laws(laws: Sequence[PowerLaw], console: Console, emc: float | None = None) -> None:
    """Print power laws as a table, one law per row.

    Args:
        laws: the power laws.
        console: where the table is printed.
        emc: EMC (samples). If set, a column shows the number of parameters that it requires.
    """
    points = [f"{law.points}{f' ({law.bounds} bounds)' if law.bounds else ''}" for law in laws]
    columns = [
        *_grouping_columns(laws),
        _numeric_column("EMC ~ parameters ^", [law.slope_text for law in laws]),
        _numeric_column("points", points, 0),
    ]
    if emc:
        needed = [law.parameters_for(emc) for law in laws]
        texts = [f"{n[1]:,.0f} [{n[0]:,.0f}, {n[2]:,.0f}]" if n else "not known" for n in needed]
        columns.append(_numeric_column(f"parameters for {emc:g}", texts))
    console.print(fitted_table(columns, console.width))


def status_view(
    statuses: Sequence[PointStatus],
    width: int,
    rows: int | None = None,
    *,
    show_reasons: bool = True,
) -> RenderableType:
    """Return the status table, followed by one line per common error message.

    If points are omitted, the last row of the table shows their number.

    Args:
        statuses: status of each point.
        width: width of the terminal (characters).
        rows: maximum number of lines; None for no limit.
        show_reasons: whether to add the lines with common error messages.
    """
    common, others = common_failures(without_shared_entries(statuses))
    lines = [Text(x, style="red") for x in common_failure_lines(common)] if show_reasons else []
    if not others:
        return Group(*lines)
    max_rows = len(others) if rows is None else rows - len(lines)
    shown = others
    if len(others) > max_rows:
        states = list(_STATES)
        first = sorted(range(len(others)), key=lambda i: (states.index(others[i].state), i))
        shown = [others[i] for i in sorted(first[: max(max_rows - 1, 1)])]
    states = [f"queued: {s.message}" if s.state == "queued" else s.state for s in shown]
    progress = [_progress_cells(s) for s in shown]
    preliminary = ["" if s.state == "done" else "dim italic" for s in shown]
    columns = [
        Column("point", [_short_label(s) for s in shown], min_width=max(_MIN_NAME, width // 3)),
        Column("state", states),
        *(
            Column(name, [cells.get(name, "") for cells in progress], priority=priority)
            for name, priority in (("n", 9), ("epoch", 5), ("train acc", 4), ("probe left", 3))
        ),
        Column("bracket", [bracket_text(s.bracket) for s in shown], priority=7),
        Column("EMC", [estimate_text(s) for s in shown], styles=preliminary),
        _numeric_column(_DOUBLING, [doubling_text(s.estimate) for s in shown], 8),
        _numeric_column("probes", [str(s.training_runs or "") for s in shown], 10),
        _numeric_column("cost", [f"{s.cost:,}" if s.cost else "" for s in shown], 2),
        _numeric_column("tries", [str(s.attempts or "") for s in shown], 0),
        Column("host", [s.host for s in shown], priority=1),
        Column("ended by", [ending_text(s) for s in shown], priority=6),
    ]
    if (omitted := len(others) - len(shown)) > 0:
        lines.insert(0, Text(f"... {omitted} more", style="dim"))
    return Group(fitted_table(columns, width, [_STATES[s.state] for s in shown]), *lines)


def _progress_cells(status: PointStatus) -> dict[str, str]:
    """Return the cells that describe the current probe; an empty dict if no probe is running."""
    if not (progress := status.progress):
        return {}
    epoch, epochs = progress["epoch"], progress["epochs"]
    left = progress["elapsed"] / epoch * (epochs - epoch) if epochs else 0
    return {
        "n": str(progress["n"]),
        "epoch": f"{epoch}/{epochs}" if epochs else str(epoch),
        "train acc": f"{1 - progress['n_errors'] / progress['n']:.1%}",
        "probe left": f"<= {duration_text(left)}" if epochs else "",
    }


def _short_label(status: PointStatus) -> str:
    """Return the label of a point, without the keys whose value is None."""
    words = [word for word in status.point.label.split() if not word.endswith("=None")]
    return " ".join(words) or status.point.id


def status_row(status: PointStatus) -> dict[str, Any]:
    """Return the status of a point as a dict that JSON can represent, for ``status --json``."""
    estimate = status.estimate
    return {
        "point_id": status.point.id, "swept": status.point.swept, "state": status.state,
        "bracket": [status.bracket.largest_fit, status.bracket.smallest_fail],
        "probes": status.training_runs, "cost": status.cost,
        "estimate": asdict(estimate) if estimate else None,
        "progress": {k: None if v != v else v for k, v in status.progress.items()},  # no NaN
        "attempts": status.attempts, "deaths": status.deaths, "host": status.host,
        "job": status.job, "message": status.message, "log": status.log,
    }  # fmt: skip
