"""Figure of EMC against the training budget.

EMCs at budgets other than the budget of a point are estimated from the times at which training runs
fitted their samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from flexhpc.analysis.figures.chart import (
    COLOURS,
    CURVE_LABEL,
    ReportFigure,
    Spec,
    chart,
    facet_size,
    layer,
    log_domain,
    log_encoding,
    series_colour,
    spread_labels,
    tooltip,
)
from flexhpc.analysis.figures.layout import Layout, layout_of, swept_values_text, varied_keys
from flexhpc.analysis.grouping import group_by
from flexhpc.analysis.results import budget_value, emc_at_budget
from flexhpc.config.sections.training import BUDGETS
from flexhpc.store.status import PointStatus

FACTORS = tuple(2.0**power for power in (-4, -3, -2, -1, 0, 1))
"""Multiples of the budget at which EMC is plotted; for a multiple above 1, EMC is a prediction."""
_MAX_POINTS = 200
_LABEL_WIDTH = 120


def budget_figure(statuses: Sequence[PointStatus]) -> Spec | None:
    """Plot the EMC (median over seeds) against the budget.

    Points that differ only in the seed share a line.

    Args:
        statuses: all points.

    Returns:
        The Vega-Lite spec. None if no point has an EMC at a budget other than its own, if more than
        200 points have one, or if the points have budgets in different units.
    """
    known = [s for s in statuses if s.estimate and s.estimate.doubling]
    units = {s.point.training.budget[0] for s in known if s.point.training.budget}
    if len(units) != 1 or len(known) > _MAX_POINTS:
        return None
    (unit,) = units
    layout = layout_of(known)
    lines = group_by(
        known,
        lambda s: (layout.facet(s), layout.series(s), _line_label(s, layout), budget_value(s)),
    )
    line_data = [_line_data(key, points) for key, points in lines.items()]
    rows = [row for line in line_data for row in line]
    facets = list(dict.fromkeys(row["facet"] for row in rows))
    series = list(dict.fromkeys(row["series"] for row in rows))
    names = list(dict.fromkeys(row["size"] for row in rows))
    has_named_lines = layout.x_axis == "rows" and len(series) == 1 and len(names) <= len(COLOURS)
    if has_named_lines:  # each has its own colour and a label, so that no legend is needed
        series = names
        for row in rows:
            row["series"] = row["size"]
    width, height = facet_size(len(facets))
    # Facets need space for labels inside their axes; next to other axes, there is space.
    label_space = _LABEL_WIDTH / width if len(facets) > 1 else 0
    y_domain = log_domain([row[end] for row in rows for end in ("lo", "y", "hi")])
    for in_facet in group_by(filter(None, line_data), lambda line: line[0]["facet"]).values():
        ends = [line[-1] for line in in_facet]
        label_y = spread_labels({row["line"]: row["y"] for row in ends}, y_domain, height)
        for row in ends:
            row["label_y"] = label_y[row["line"]]
        # Without an offset, intervals at the same budget would overlap.
        step = min(1.03, 2 ** (0.45 / len(in_facet)))
        for number, of_line in enumerate(in_facet):
            for row in of_line:
                row["x"] *= step ** (number - (len(in_facet) - 1) / 2)
    x_domain = log_domain([row["x"] for row in rows], label_space=label_space)
    x = {"field": "x", **log_encoding(f"budget ({unit.replace('_', ' ')})", x_domain)}
    y = {"field": "y", **log_encoding("EMC (samples)", y_domain)}
    legend = None if has_named_lines else {"title": None}
    shared = {"x": x, "y": y, "color": series_colour(series, legend)}
    line = {**shared, "detail": {"field": "line"}}
    layers = [
        layer({"type": "rule", "strokeWidth": 1.3, "opacity": 0.4},
              {**shared, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}}),
        layer({"type": "line", "strokeWidth": 1.6}, line, where="!datum.predicted"),
        layer({"type": "line", "strokeWidth": 1.6, "strokeDash": [4, 3]}, line,
              where="datum.last || datum.predicted"),
        layer({"type": "point", "filled": True, "size": 30, "opacity": 1},
              {**shared, "tooltip": tooltip("point", "budget", "EMC")},
              where="!datum.predicted"),
        layer({**CURVE_LABEL, "dx": 6, "fontSize": 11, "limit": _LABEL_WIDTH},
              {**shared, "y": {**y, "field": "label_y"}, "text": {"field": "size"}},
              where="isValid(datum.label_y)"),
    ]  # fmt: skip
    return chart(layers, width=width, height=height, data=rows, facets=facets)


def _line_label(status: PointStatus, layout: Layout) -> str:
    """Return the label of a line: ``1,210 parameters`` or ``model.low_rank.rank 8``.

    If ``layout.x_axis`` is ``rows``, the label contains all swept values. If the budget is swept,
    the label is empty, because the position of the last dot shows the budget of a line.
    """
    if layout.key in {f"training.{key}" for key in BUDGETS}:
        return ""
    if layout.x_axis == "rows":
        return swept_values_text(status, varied_keys([status]))
    value = f"{layout.x(status):,.10g}"
    return f"{value} parameters" if layout.x_axis == "size" else f"{layout.key} {value}"


def _line_data(
    key: tuple[str, str, str, int], points: Sequence[PointStatus]
) -> list[dict[str, Any]]:
    """Return one row for each budget at which the EMCs of all points of a line are known.

    A row contains the medians over seeds of the EMC and of both ends of its interval.

    Args:
        key: facet, series, label and budget of the line.
        points: points of the line, one per seed.
    """
    facet, series, size, point_budget = key
    rows = []
    for factor in FACTORS:
        budget = factor * point_budget
        known = [e for s in points if (e := emc_at_budget(s, budget)) and e.censored == "none"]
        if budget < 1 or len(known) < len(points):
            continue
        emc, low, high = (
            statistics.median(getattr(e, name) for e in known)
            for name in ("emc", "emc_lo", "emc_hi")
        )
        rows.append({
            "facet": facet, "series": series, "size": size, "line": " ".join(map(str, key)),
            "x": budget, "y": emc,
            "lo": max(low, 1), "hi": high, "predicted": factor > 1, "last": factor == 1,
            "point": points[0].point.label or points[0].point.id, "budget": f"{budget:,.0f}",
            "EMC": f"{emc:.0f} [{low:.0f}, {high:.0f}]",
        })  # fmt: skip
    return rows


FIGURES = (
    ReportFigure(
        name="emc_over_budget",
        title="EMC over budget",
        caption="Median EMC over seeds with its interval. Points of the same line differ only in "
        "the seed. At smaller budgets, the EMC is estimated from the times at which training runs "
        "fitted their samples. The last dot of a line is at the budget of its points; if the spec "
        "sets until: saturation, this is their last budget. The dashed part predicts the EMC at "
        "twice this budget. A line that is flat at its end suggests that its points are saturated. "
        "Budgets at which the EMC of a point of the line is unknown or only a bound are omitted, "
        "also in the dashed part. Points at the same budget are drawn side by side.",
        draw=budget_figure,
    ),
)
