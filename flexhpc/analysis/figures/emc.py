"""Figures of EMC: against the number of parameters, against a numeric key, or in named rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flexhpc.analysis.figures.chart import (
    ARROW_MARK,
    HORIZONTAL_ARROWS,
    ROW_HEIGHT,
    VALUE_FOR_ZERO,
    VERTICAL_ARROWS,
    ReportFigure,
    Spec,
    chart,
    facet_size,
    layer,
    log_domain,
    log_encoding,
    row_encoding,
    series_colour,
    spread_labels,
    tooltip,
)
from flexhpc.analysis.figures.dodge import Dodge
from flexhpc.analysis.figures.layout import (
    Layout,
    independent_keys,
    layout_of,
    swept_values_text,
    varied_keys,
)
from flexhpc.analysis.grouping import group_by
from flexhpc.analysis.text import emc_or_bound, emc_text, ratio_text
from flexhpc.store.status import PointStatus

_MAX_ROWS, _MAX_SEEDS_IN_ROW, _DENSE_HEIGHT = 150, 12, 900
"""Maximum number of labelled rows, maximum number of seeds drawn side by side in a row, and height
(pixels) of a figure with more than ``_MAX_ROWS`` rows."""
_SMALL_MARKER, _LARGE_MARKER = 26, 55
"""Areas of markers (square pixels), in figures with points side by side and in other figures."""
_MIN_LOG_RATIO = 8.0
"""The x axis of a numeric key is logarithmic if its largest value is at least this multiple of its
smallest value."""
Row = dict[str, Any]


def emc_figure(statuses: Sequence[PointStatus], *, per_parameter: bool = False) -> Spec | None:
    """Plot EMC with intervals, and bounds as arrows; return None without points to plot.

    Args:
        statuses: all points; those without an estimate are omitted.
        per_parameter: whether to plot EMC divided by the number of parameters; points with 0
            parameters are then omitted.
    """
    measured = [
        (index, status)
        for index, status in enumerate(statuses)
        if status.estimate and status.record
        and (status.record.header.params or not per_parameter)
    ]  # fmt: skip
    if not measured:
        return None
    points = [status for _, status in measured]
    layout = layout_of(points)
    rows = [
        _plotted_row(status, layout, index, per_parameter=per_parameter)
        for index, status in measured
    ]
    if layout.x_axis == "rows":
        return _plot_rows(points, rows, per_parameter=per_parameter)
    return _plot_curves(points, rows, layout, per_parameter=per_parameter)


def _plotted_row(status: PointStatus, layout: Layout, index: int, *, per_parameter: bool) -> Row:
    """Return the plotted values of a point; ``index`` is its index in the report."""
    estimate, record = status.estimate, status.record
    assert estimate is not None
    assert record is not None
    params = record.header.params
    divisor = params if per_parameter else 1
    low = high = emc_or_bound(estimate)
    if estimate.censored == "none" and estimate.emc_hi is not None:
        low, high = estimate.emc_lo, estimate.emc_hi
    values = {"y": emc_or_bound(estimate), "lo": low, "hi": high}
    return {
        "id": index,
        "point": status.point.label or status.point.id,
        "facet": layout.facet(status),
        "series": layout.series(status),
        **{name: max(n, VALUE_FOR_ZERO) / divisor for name, n in values.items()},
        "censored": estimate.censored,
        "EMC": emc_text(estimate),
        "parameters": params or None,
        "EMC per parameter": ratio_text(estimate, params),
        "trainings": status.training_runs,
        "kind": "point",
    }


def _plot_curves(
    points: Sequence[PointStatus], rows: list[Row], layout: Layout, *, per_parameter: bool
) -> Spec:
    """Plot EMCs and their medians over seeds against the number of parameters or a numeric key."""
    for row, status in zip(rows, points, strict=True):
        row["x"] = layout.x(status)
    by_facet = group_by(rows, lambda row: row["facet"])
    facets = list(by_facet)
    series = list(dict.fromkeys(row["series"] for row in rows))
    width, height = facet_size(len(facets))
    low, high = min(row["x"] for row in rows), max(row["x"] for row in rows)
    logarithmic = layout.x_axis == "size" or (low > 0 and high / low >= _MIN_LOG_RATIO)
    if logarithmic:
        x_domain = log_domain([low, high], label_space=0.3 if any(series) else 0.05)
    else:
        x_domain = [low - 0.05 * (high - low), high + 0.35 * (high - low)]
    y_domain = log_domain([row[end] for row in rows for end in ("lo", "y", "hi")])
    dodge = Dodge(rows, series, x_domain, width, logarithmic=logarithmic)
    x_domain = [min(x_domain[0], dodge.left_end(low)), max(x_domain[1], dodge.right_end(high))]
    labels: list[Row] = []
    for facet, in_facet in by_facet.items():
        curves = group_by(in_facet, lambda row: row["series"])
        ends = {name: max(curve, key=lambda row: row["x"]) for name, curve in curves.items()}
        end_ys = {name: row["y"] for name, row in ends.items() if name}
        for name, label_y in spread_labels(end_ys, y_domain, height).items():
            labels.append({
                "facet": facet, "series": name, "kind": "label",
                "x": dodge.right_end(ends[name]["x"]), "label_y": label_y,
            })  # fmt: skip
    lines = _median_lines(rows)
    for line in lines:
        line["x"] = dodge.x(line["x"], line["series"])
    for row in rows:
        row["x"] = dodge.x(row["x"], row["series"], dodge.offsets[row["id"]])
    data = [*rows, *lines, *labels]
    if layout.x_axis == "size" and not per_parameter:
        diagonal = [max(x_domain[0], y_domain[0]), min(x_domain[1], y_domain[1])]
        if diagonal[0] < diagonal[1]:
            data += [
                {"facet": facet, "x": end, "y": end, "kind": "diagonal"}
                for facet in facets for end in diagonal
            ]  # fmt: skip
    title = "parameters" if layout.x_axis == "size" else layout.key
    x = log_encoding(title, x_domain) if logarithmic else {
        "type": "quantitative", "axis": {"title": title},
        "scale": {"type": "linear", "domain": x_domain, "nice": False, "zero": False},
    }  # fmt: skip
    x["field"] = "x"
    y = {**_emc_axis(y_domain, per_parameter=per_parameter), "field": "y"}
    colour = series_colour(series, legend=False)
    layers = [
        layer({"type": "line", "strokeDash": [5, 4], "color": "#888"}, {"x": x, "y": y},
              where="datum.kind === 'diagonal'"),
        layer({"type": "line", "strokeWidth": 1.6},
              {"x": x, "y": y, "color": colour, "detail": {"field": "piece"}},
              where="datum.kind === 'line'"),
        layer({"type": "rule", "strokeWidth": 1.4, "opacity": 1},
              {"x": x, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}, "color": colour},
              where="datum.kind === 'point'"),
        *_point_layers({"x": x, "y": y, "color": colour}, VERTICAL_ARROWS,
                 size=_SMALL_MARKER if dodge.step else _LARGE_MARKER),
        layer({"type": "text", "align": "left", "dx": 9, "fontSize": 12, "limit": 230},
              {"x": x, "y": {**y, "field": "label_y"}, "text": {"field": "series"},
               "color": colour}, where="datum.kind === 'label'"),
    ]  # fmt: skip
    return chart(layers, width=width, height=height, data=data, facets=facets)


def _plot_rows(points: Sequence[PointStatus], rows: list[Row], *, per_parameter: bool) -> Spec:
    """Plot one row per combination of swept values, with the points of all seeds.

    Rows are sorted by median EMC within their group, and groups by the largest median EMC of their
    rows, both in descending order.
    """
    keys = independent_keys(points, varied_keys(points))
    by_name: dict[str, list[Row]] = {}
    for row, status in zip(rows, points, strict=True):
        row["row"] = swept_values_text(status, keys) or "EMC"
        seeds = by_name.setdefault(row["row"], [])
        row["seed"] = len(seeds)
        seeds.append(row)
    medians = {name: statistics.median(r["y"] for r in seeds) for name, seeds in by_name.items()}
    groups = group_by(rows, lambda row: row["series"])
    largest = {name: max(medians[r["row"]] for r in group) for name, group in groups.items()}
    largest_in_group = {row["row"]: largest[row["series"]] for row in rows}
    order = sorted(medians, key=lambda name: (largest_in_group[name], medians[name]), reverse=True)
    dense = len(order) > _MAX_ROWS
    if dense:
        for rank, name in enumerate(order, 1):
            for row in by_name[name]:
                row["rank"] = rank
        y: Spec = {
            "field": "rank", "type": "quantitative", "scale": {"reverse": True},
            "axis": {"title": "points, sorted by EMC", "grid": False},
        }  # fmt: skip
    else:
        y = row_encoding(order)
    shared: Spec = {"y": y, "color": series_colour(list(groups), legend=dense)}
    seeds_in_row = max(map(len, by_name.values()))
    side_by_side = 1 < seeds_in_row <= _MAX_SEEDS_IN_ROW and not dense
    if side_by_side:
        shared["yOffset"] = {"field": "seed", "type": "ordinal"}
    domain = log_domain([row[end] for row in rows for end in ("lo", "y", "hi")])
    x = _emc_axis(domain, per_parameter=per_parameter)
    layers = [
        layer({"type": "rule", "strokeWidth": 2, "opacity": 1},
              {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}, **shared},
              where="datum.kind === 'point'"),
        *_point_layers({"x": {**x, "field": "y"}, **shared}, HORIZONTAL_ARROWS, size=60),
    ]  # fmt: skip
    step = max(ROW_HEIGHT, 9 * seeds_in_row + 8) if side_by_side else ROW_HEIGHT
    height = _DENSE_HEIGHT if dense else step * len(order)
    return chart(layers, width=520, height=height, data=rows)


def _emc_axis(domain: Sequence[float], *, per_parameter: bool) -> Spec:
    return log_encoding("EMC / parameters" if per_parameter else "EMC (samples)", domain)


def _point_layers(encoding: Spec, arrows: Mapping[str, str], *, size: int) -> list[Spec]:
    """Return a layer of dots for uncensored EMCs, and a layer of arrows for each type of bound."""
    fields = ("point", "EMC", "parameters", "EMC per parameter", "trainings")
    encoding = {**encoding, "tooltip": tooltip(*fields)}
    exact = {"type": "point", "filled": True, "size": size, "opacity": 1}
    bounds = {side: {**ARROW_MARK, "shape": shape} for side, shape in arrows.items()}
    return [
        layer(mark, encoding, where=f"datum.kind === 'point' && datum.censored === '{side}'")
        for side, mark in {"none": exact, **bounds}.items()
    ]


def _median_lines(rows: Sequence[Row]) -> list[Row]:
    """Return the data rows of lines through the medians over seeds.

    A line has a gap where the median depends on the unknown value of a censored EMC.
    """
    lines: list[Row] = []
    for (facet, name), curve in group_by(rows, lambda row: (row["facet"], row["series"])).items():
        piece = 0
        for x, seeds in sorted(group_by(curve, lambda row: row["x"]).items()):
            smallest = [0.0 if row["censored"] == "left" else row["y"] for row in seeds]
            largest = [math.inf if row["censored"] == "right" else row["y"] for row in seeds]
            median = statistics.median(smallest)
            if median == statistics.median(largest):
                lines.append({
                    "facet": facet, "series": name, "x": x, "kind": "line",
                    "y": median, "piece": f"{name} {piece}",
                })  # fmt: skip
            else:
                piece += 1
    return lines


FIGURES = (
    ReportFigure(
        name="emc",
        title="EMC",
        caption="Bars are intervals. An arrow marks a bound and points towards the unknown EMC. "
        "Curves connect medians over seeds; a curve is interrupted where the median is unknown "
        "because of bounds. On the dashed line, the EMC is equal to the number of parameters. "
        "Points with the same x, such as seeds, are drawn side by side. Click on a point to show "
        "its training runs.",
        draw=emc_figure,
    ),
    ReportFigure(
        name="emc_per_parameter",
        title="EMC per parameter",
        caption="EMC divided by the number of parameters. Arrows mark bounds.",
        draw=partial(emc_figure, per_parameter=True),
    ),
)
