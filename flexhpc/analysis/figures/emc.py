"""Figures of EMC: against the number of parameters, against a numeric key, or in named rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from flexhpc.analysis.figures.chart import (
    ARROW_MARK,
    CURVE_LABEL,
    HORIZONTAL_ARROWS,
    INK,
    REFERENCE_LINE,
    ROW_HEIGHT,
    VALUE_FOR_ZERO,
    VERTICAL_ARROWS,
    PrintSize,
    ReportFigure,
    Spec,
    chart,
    facet_size,
    layer,
    legend_columns,
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
from flexhpc.search.history import LEVEL
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
Quantity = Literal["emc", "emc_per_param", "doubling"]
_TITLES: dict[Quantity, str] = {
    "emc": "EMC (samples)",
    "emc_per_param": "EMC / parameters",
    "doubling": "EMC at twice the budget / EMC",
}
_REFERENCES: dict[Quantity, str] = {
    "emc": "", "emc_per_param": "EMC = parameters", "doubling": "no increase",
}  # fmt: skip
"""Label of the line at which a quantity is 1; empty for a quantity without this line."""
_REFERENCE_LABEL = {"type": "text", "color": INK, "fontSize": 11, "baseline": "bottom"}
_DASHES = {
    True: "M-1.5,0 L-0.8,0 Z M-0.35,0 L0.35,0 Z M0.8,0 L1.5,0 Z",
    False: "M0,-1.5 L0,-0.8 Z M0,-0.35 L0,0.35 Z M0,0.8 L0,1.5 Z",
}
"""SVG paths of a dashed line that is horizontal, or vertical (False)."""
_MAX_TICKS = 8
"""At most this number of measured values are the ticks of the axis; numbers of parameters only if
they differ by at least 10 %."""


def emc_figure(
    statuses: Sequence[PointStatus], y: Quantity = "emc", layout: Layout | None = None,
    print_size: PrintSize | None = None,
) -> Spec | None:  # fmt: skip
    """Plot EMC with intervals, and bounds as arrows; return None without points to plot.

    Args:
        statuses: all points; those without a value of ``y`` are omitted.
        y: plotted quantity: EMC, EMC per parameter, or ``doubling`` (the EMC at twice the budget,
            divided by the EMC).
        layout: the layout; by default, it is chosen by :func:`layout_of`.
        print_size: size of a printed figure, which has a legend; None for the report, where curves
            have labels and the caption describes the marks.
    """
    measured = [
        (index, status) for index, status in enumerate(statuses) if plotted_values(status, y)
    ]
    if not measured:
        return None
    points = [status for _, status in measured]
    layout = layout or layout_of(points)
    rows = [_plotted_row(status, layout, index, y) for index, status in measured]
    plot = _plot_rows if layout.x_axis == "rows" else _plot_curves
    return plot(points, rows, layout, y, print_size)


def plotted_values(status: PointStatus, y: Quantity) -> Row | None:
    """Return the value ``y`` of a point, both ends of its interval and its censoring, if known."""
    estimate, params = status.estimate, status.record.header.params if status.record else 0
    if estimate is None or status.record is None:
        return None
    if y == "doubling":
        if estimate.doubling is None:
            return None
        low, middle, high = estimate.doubling
        return {"y": middle, "lo": low, "hi": high, "censored": "none"}
    if y == "emc_per_param" and not params:
        return None
    values = dict.fromkeys(("y", "lo", "hi"), emc_or_bound(estimate))
    if estimate.censored == "none" and estimate.emc_hi is not None:
        values |= {"lo": estimate.emc_lo, "hi": estimate.emc_hi}
    divisor = params if y == "emc_per_param" else 1
    shown = {name: max(n, VALUE_FOR_ZERO) / divisor for name, n in values.items()}
    return {**shown, "censored": estimate.censored}


def _plotted_row(status: PointStatus, layout: Layout, index: int, y: Quantity) -> Row:
    """Return the plotted values of a point; ``index`` is its index in the report."""
    estimate, record = status.estimate, status.record
    assert estimate is not None
    assert record is not None
    params = record.header.params
    return {
        "id": index,
        "point": status.point.label or status.point.id,
        "facet": layout.facet(status),
        "series": layout.series(status),
        **(plotted_values(status, y) or {}),
        "EMC": emc_text(estimate),
        "parameters": params or None,
        "EMC per parameter": ratio_text(estimate, params),
        "training runs": status.training_runs,
        "kind": "point",
    }


def _plot_curves(
    points: Sequence[PointStatus], rows: list[Row], layout: Layout, quantity: Quantity,
    print_size: PrintSize | None,
) -> Spec:  # fmt: skip
    """Plot EMCs and their medians over seeds against the number of parameters or a numeric key."""
    for row, status in zip(rows, points, strict=True):
        row["x"] = layout.x(status)
    by_facet = group_by(rows, lambda row: row["facet"])
    facets = list(by_facet)
    series = list(dict.fromkeys(row["series"] for row in rows))
    width, height = (print_size.facet_size if print_size else facet_size)(len(facets))
    with_labels = any(series) and not print_size
    low, high = min(row["x"] for row in rows), max(row["x"] for row in rows)
    logarithmic = layout.x_axis == "size" or (low > 0 and high / low >= _MIN_LOG_RATIO)
    if logarithmic:
        x_domain = log_domain([low, high], label_space=0.3 if with_labels else 0)
    else:
        margins = 0.05, 0.35 if with_labels else 0.05
        x_domain = [low - margins[0] * (high - low), high + margins[1] * (high - low)]
    y_domain = log_domain([row[end] for row in rows for end in ("lo", "y", "hi")])
    dodge = Dodge(rows, series, x_domain, width, logarithmic=logarithmic)
    x_domain = [min(x_domain[0], dodge.left_end(low)), max(x_domain[1], dodge.right_end(high))]
    labels: list[Row] = []
    for facet, in_facet in by_facet.items() if with_labels else ():
        curves = group_by(in_facet, lambda row: row["series"])
        ends = {name: max(curve, key=lambda row: row["x"]) for name, curve in curves.items()}
        end_ys = {name: row["y"] for name, row in ends.items() if name}
        for name, label_y in spread_labels(end_ys, y_domain, height).items():
            labels.append({
                "facet": facet, "series": name, "kind": "label",
                "x": dodge.right_end(ends[name]["x"]), "label_y": label_y,
            })  # fmt: skip
    lines = _median_lines(rows)
    has_seeds = len({(row["facet"], row["series"], row["x"]) for row in rows}) < len(rows)
    for line in lines:
        line["x"] = dodge.x(line["x"], line["series"])
    for row in rows:
        row["x"] = dodge.x(row["x"], row["series"], dodge.offsets[row["id"]])
    data = [*rows, *lines, *labels, *_reference_line(facets, x_domain, y_domain, layout, quantity)]
    title = "parameters" if layout.x_axis == "size" else layout.key
    values = sorted({status_x for status in points if (status_x := layout.x(status))})
    apart = layout.x_axis == "number" or all(b > 1.1 * a for a, b in pairwise(values))
    ticks = values if apart and len(values) <= _MAX_TICKS else ()
    x = log_encoding(title, x_domain, ticks) if logarithmic else {
        "type": "quantitative", "axis": {"title": title, **({"values": ticks} if ticks else {})},
        "scale": {"type": "linear", "domain": x_domain, "nice": False, "zero": False},
    }  # fmt: skip
    x["field"] = "x"
    y = {**log_encoding(_TITLES[quantity], y_domain), "field": "y"}
    colour = series_colour(series, _series_legend(series, print_size))
    label = {"x": x, "y": y, "text": {"field": "label"}}
    layers = [
        layer({"type": "line", **REFERENCE_LINE}, {"x": x, "y": y},
              where="datum.kind === 'reference'"),
        *([] if print_size else [
            layer({**_REFERENCE_LABEL, "align": "left", "baseline": "top", "dx": 5}, label,
                  where="datum.align === 'left'"),
            layer({**_REFERENCE_LABEL, "align": "right", "dx": -3, "dy": -2}, label,
                  where="datum.align === 'right'"),
        ]),
        layer({"type": "line", "strokeWidth": 1.6},
              {"x": x, "y": y, "color": colour, "detail": {"field": "piece"}},
              where="datum.kind === 'line'"),
        layer({"type": "rule", "strokeWidth": 1.4, "opacity": 1},
              {"x": x, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}, "color": colour},
              where="datum.kind === 'point'"),
        *_point_layers({"x": x, "y": y, "color": colour}, VERTICAL_ARROWS,
                 size=_SMALL_MARKER if dodge.step else _LARGE_MARKER),
        layer({**CURVE_LABEL, "dx": 9, "fontSize": 12, "limit": 230},
              {"x": x, "y": {**y, "field": "label_y"}, "text": {"field": "series"},
               "color": colour}, where="datum.kind === 'label'"),
        *_mark_legend(data, VERTICAL_ARROWS, print_size, has_seeds=has_seeds),
    ]  # fmt: skip
    columns = print_size.columns if print_size else 3
    return chart(layers, width=width, height=height, data=data, facets=facets, columns=columns)


def _reference_line(
    facets: Sequence[str], x_domain: Sequence[float], y_domain: Sequence[float], layout: Layout,
    quantity: Quantity,
) -> list[Row]:  # fmt: skip
    """Return the ends of the line at which EMC and parameters are equal, or the quantity is 1.

    The label is on the side of the line that has more space, and inside the axes, because figures
    with zoom are clipped. Return [] if the line is outside the axes.
    """
    label = _REFERENCES[quantity]
    if quantity == "emc" and layout.x_axis == "size":
        low, high = max(x_domain[0], y_domain[0]), min(x_domain[1], y_domain[1])
        if low >= high:
            return []
        label, ends = "EMC = parameters", [(low, low), (high, high)]
        middle = (low * high**4) ** 0.2
        is_left = high < math.sqrt(x_domain[0] * x_domain[1])
        at, align = (ends[1], "left") if is_left else ((middle, middle), "right")
    elif label and y_domain[0] < 1 < y_domain[1]:
        ends = [(end, 1) for end in x_domain]
        at, align = ends[1], "right"
    else:
        return []
    rows: list[Row] = [{"x": x, "y": y} for x, y in ends]
    rows.append({"x": at[0], "y": at[1], "label": label, "align": align})  # on the line
    return [{**row, "kind": "reference", "facet": facet} for facet in facets for row in rows]


def _mark_legend(
    data: Sequence[Row], arrows: Mapping[str, str], print_size: PrintSize | None, *,
    has_seeds: bool,
) -> list[Spec]:  # fmt: skip
    """Return a layer without marks that adds the legend of a printed figure.

    The legend explains intervals, bounds, medians over seeds and the reference line. ``has_seeds``
    says whether points that differ only in their seeds are drawn side by side.
    """
    if print_size is None:
        return []
    points = [row for row in data if row["kind"] == "point"]
    bounds = {row["censored"] for row in points}
    horizontal = "M-1.4,0 L1.4,0 Z"
    bar = "M0,-1.4 L0,1.4 Z" if arrows is VERTICAL_ARROWS else horizontal
    references = [row["label"] for row in data if "label" in row and row["kind"] == "reference"]
    interval = f"{100 * LEVEL:g} % interval" + " of each seed" * has_seeds
    symbols = {
        interval: (any(row["lo"] < row["hi"] for row in points), bar),
        "lower bound": ("right" in bounds, arrows["right"]),
        "upper bound": ("left" in bounds, arrows["left"]),
        "median over seeds": (has_seeds and arrows is VERTICAL_ARROWS, horizontal),
        **dict.fromkeys(references, (True, _DASHES[arrows is VERTICAL_ARROWS])),
    }
    shown = {name: path for name, (is_used, path) in symbols.items() if is_used}
    if not shown:
        return []
    scale = {"domain": list(shown), "range": list(shown.values())}
    columns = legend_columns(list(shown), print_size.width)
    legend = {"title": None, "columns": columns, "labelOffset": 7}
    shape = {"field": "mark", "type": "nominal", "scale": scale, "legend": legend}
    mark = {"type": "point", "filled": True, "color": INK, "stroke": INK, "strokeWidth": 1.4}
    return [layer(mark, {"shape": shape}, where="false")]


def _plot_rows(
    points: Sequence[PointStatus], rows: list[Row], layout: Layout, quantity: Quantity,
    print_size: PrintSize | None,
) -> Spec:  # fmt: skip
    """Plot one row per combination of swept values, with the points of all seeds.

    Rows are sorted by median EMC within their group, and groups by the largest median EMC of their
    rows, both in descending order.
    """
    names = independent_keys(points, varied_keys(points))
    keys = layout.rows or [key for key in names if key not in layout.facets]
    facets = list(dict.fromkeys(row["facet"] for row in rows))
    by_name: dict[str, list[Row]] = {}
    for row, status in zip(rows, points, strict=True):
        row["row"] = swept_values_text(status, keys) or "EMC"
        by_name.setdefault(row["row"], []).append(row)
    side_by_side = group_by(rows, lambda row: (row["facet"], row["row"])).values()
    for seeds in side_by_side:
        for number, row in enumerate(seeds):
            row["seed"] = number
    medians = {name: statistics.median(r["y"] for r in seeds) for name, seeds in by_name.items()}
    groups = group_by(rows, lambda row: row["series"])
    largest = {name: max(medians[r["row"]] for r in group) for name, group in groups.items()}
    largest_in_group = {row["row"]: 0 if layout.rows else largest[row["series"]] for row in rows}
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
    with_legend = dense or bool(layout.rows)
    legend = _series_legend(list(groups), print_size) or {"title": None}
    shared: Spec = {"y": y, "color": series_colour(list(groups), legend if with_legend else None)}
    seeds_in_row = max(map(len, side_by_side))
    with_offsets = 1 < seeds_in_row <= _MAX_SEEDS_IN_ROW and not dense
    if with_offsets:
        shared["yOffset"] = {"field": "seed", "type": "ordinal"}
    domain = log_domain([row[end] for row in rows for end in ("lo", "y", "hi")])
    x = log_encoding(_TITLES[quantity], domain)
    data, reference = list(rows), []
    if (label := _REFERENCES[quantity]) and domain[0] < 1 < domain[1]:
        line = {"y": 1, "kind": "reference", "label": label}
        data += [{**line, "facet": facet} for facet in facets]
        at = {"x": {**x, "field": "y"}}
        where = "datum.kind === 'reference'"
        reference = [layer({"type": "rule", **REFERENCE_LINE}, at, where=where)]
        if print_size is None:
            above = {**at, "y": {"value": 0}, "text": {"field": "label"}}
            reference.append(layer({**_REFERENCE_LABEL, "dy": -3}, above, where=where))
    layers = [
        *reference,
        layer({"type": "rule", "strokeWidth": 2, "opacity": 1},
              {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}, **shared},
              where="datum.kind === 'point'"),
        *_point_layers({"x": {**x, "field": "y"}, **shared}, HORIZONTAL_ARROWS, size=60),
        *_mark_legend(data, HORIZONTAL_ARROWS, print_size, has_seeds=seeds_in_row > 1),
    ]  # fmt: skip
    step = max(ROW_HEIGHT, 9 * seeds_in_row + 8) if with_offsets else ROW_HEIGHT
    height = _DENSE_HEIGHT if dense else step * len(order)
    columns = print_size.columns if print_size else 3
    return chart(layers, width=520, height=height, data=data, facets=facets, columns=columns)


def _series_legend(series: Sequence[str], print_size: PrintSize | None) -> Spec | None:
    """Return the legend of the curves of a printed figure; None for the report."""
    if print_size is None:
        return None
    return {"title": None, "columns": legend_columns(series, print_size.width)}


def _point_layers(encoding: Spec, arrows: Mapping[str, str], *, size: int) -> list[Spec]:
    """Return a layer of dots for uncensored EMCs, and a layer of arrows for each type of bound."""
    fields = ("point", "EMC", "parameters", "EMC per parameter", "training runs")
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


def _caption(spec: Spec) -> str:
    """Describe the marks that a figure of the report contains."""
    rows = spec["data"]["values"]
    points = [row for row in rows if row["kind"] == "point"]
    lines = [row for row in rows if row["kind"] == "line"]
    references = [row["label"] for row in rows if row["kind"] == "reference" and "label" in row]
    seeds = len(points) > len({(row["facet"], row.get("row", row["point"])) for row in points})
    sentences = {
        "Bars are intervals.": any(row["lo"] < row["hi"] for row in points),
        "An arrow marks a bound and points towards the unknown value.": (
            any(row["censored"] != "none" for row in points)
        ),
        "Curves connect medians over seeds; a curve is interrupted where the median is unknown "
        "because of bounds.": bool(lines),
        f"Dashed line: {references[0] if references else ''}.": bool(references),
        "Points with the same x, such as seeds, are drawn side by side.": bool(lines),
        "The points of a row have different seeds.": seeds and not lines,
        "Click on a point to show its training runs.": True,
    }
    return " ".join(sentence for sentence, applies in sentences.items() if applies)


FIGURES = (
    ReportFigure(name="emc", title="EMC", caption=_caption, draw=emc_figure),
    ReportFigure(
        name="emc_per_parameter",
        title="EMC per parameter",
        caption=lambda spec: f"EMC divided by the number of parameters. {_caption(spec)}",
        draw=partial(emc_figure, y="emc_per_param"),
    ),
)
