"""EMC against parameters, against another swept number, or one row per swept combination."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from flexhpc.analysis.figures.beside import Beside
from flexhpc.analysis.figures.chart import (
    ARROWS,
    COLOURS,
    LEAST,
    Spec,
    chart,
    faceted,
    log_axis,
    log_domain,
    spread,
)  # fmt: skip
from flexhpc.analysis.figures.curves import medians_of
from flexhpc.analysis.figures.layout import Layout, kinds_of, layout_of, name_of, telling
from flexhpc.analysis.figures.shown import ReportFigure
from flexhpc.analysis.text import emc_text, ratio_text
from flexhpc.store.status import PointStatus

_WIDTH, _HEIGHT, _FACET = 640, 380, (300, 260)
_ONE_OF_TWO = (440, 320)
_ROW = 26
_MOST_ROWS, _MOST_BESIDE, _DENSE = 150, 12, 900
"""Maximum number of named rows, maximum number of seeds side by side in a row, and the height
(pixels) of a figure with more rows."""
_SMALL, _LARGE = 26, 55
"""Areas of markers (square pixels): where points are side by side, and otherwise."""
_LOG_FROM = 8.0
"""Minimum ratio of the largest to the smallest swept number for a logarithmic axis."""

Row = dict[str, Any]


def emc_figure(statuses: Sequence[PointStatus]) -> Spec | None:
    """Plot EMC with intervals, and arrows for bounds; None if no point has an estimate."""
    return _figure(_measured(statuses), per_parameter=False)


def efficiency_figure(statuses: Sequence[PointStatus]) -> Spec | None:
    """Plot EMC per parameter in the layout of the EMC figure; None if no point has parameters."""
    some = [one for one in _measured(statuses) if one[1].record and one[1].record.header.params]
    return _figure(some, per_parameter=True)


Numbered = Sequence[tuple[int, PointStatus]]
"""Pairs of the index of a point in the report and the point."""


def _figure(numbered: Numbered, *, per_parameter: bool) -> Spec | None:
    if not numbered:
        return None
    layout = layout_of([status for _, status in numbered])
    draw = _rows if layout.along == "rows" else _curves
    return draw(numbered, layout, per_parameter=per_parameter)


def row_of_point(
    status: PointStatus, layout: Layout, number: int, *, per_parameter: bool = False
) -> Row:
    """Return the data of a point for a figure.

    Args:
        status: the point; layout: layout of the figure; number: index of the point in the report.
        per_parameter: whether to divide EMC by the number of parameters.
    """
    estimate, record = status.estimate, status.record
    assert estimate is not None
    assert record is not None
    params = record.header.params
    size = params if per_parameter else 1
    bound = estimate.censored != "none"
    samples = (estimate.smallest_fail or 1) if estimate.censored == "left" else estimate.emc
    high = estimate.emc_hi if estimate.emc_hi is not None else estimate.emc
    return {
        "id": number,
        "point": status.point.label or status.point.id,
        "facet": layout.facet(status),
        "series": layout.series(status),
        "y": max(samples, LEAST) / size,
        "lo": max(samples if bound else estimate.emc_lo, LEAST) / size,
        "hi": max(samples if bound else high, LEAST) / size,
        "censored": estimate.censored,
        "EMC": emc_text(estimate),
        "parameters": params or None,
        "EMC per parameter": ratio_text(estimate, params),
        "trainings": status.probes,
    }


def _measured(statuses: Sequence[PointStatus]) -> Numbered:
    return [(i, s) for i, s in enumerate(statuses) if s.estimate and s.record]


def _curves(numbered: Numbered, layout: Layout, *, per_parameter: bool) -> Spec:
    """Plot curves over parameters or another number, through the medians over seeds."""
    measured = [status for _, status in numbered]
    rows = [
        {**row_of_point(s, layout, i, per_parameter=per_parameter), "x": layout.place(s)}
        for i, s in numbered
    ]
    facets = list(dict.fromkeys(row["facet"] for row in rows))
    series = list(dict.fromkeys(row["series"] for row in rows))
    width, height = {1: (_WIDTH, _HEIGHT), 2: _ONE_OF_TWO}.get(len(facets), _FACET)
    places = [row["x"] for row in rows]
    logarithmic = (
        min(places) > 0 and max(places) / min(places) >= _LOG_FROM
    ) or layout.along == "size"
    x_domain = log_domain(places, beyond=0.3 if len(series) > 1 or series[0] else 0.05)
    if not logarithmic:
        reach = max(places) - min(places)
        x_domain = [min(places) - 0.05 * reach, max(places) + 0.35 * reach]
    y_domain = log_domain([end for row in rows for end in (row["lo"], row["y"], row["hi"])])
    beside = Beside.of(rows, series, x_domain, width, logarithmic=logarithmic)
    x_domain = [
        min(x_domain[0], beside.before(min(places))), max(x_domain[1], beside.after(max(places))),
    ]  # fmt: skip
    lines, ends = _lines(measured, layout, per_parameter=per_parameter)
    for line in lines:
        line["x"] = beside.moved(line["x"], line["series"])
    for row in rows:
        row["x"] = beside.moved(row["x"], row["series"], beside.turns[row["id"]])
    labels = []
    for facet in facets:
        own = {name: end for (part, name), end in ends.items() if part == facet and name}
        moved = spread({name: y for name, (_, y) in own.items()}, y_domain, height)
        labels += [
            {
                "facet": facet,
                "series": name,
                "x": beside.after(own[name][0]),
                "label_y": y,
                "kind": "label",
            }
            for name, y in moved.items()
        ]
    data = [*({**row, "kind": "point"} for row in rows), *lines, *labels]
    if layout.along == "size" and not per_parameter:
        ends_of_axis = [max(x_domain[0], y_domain[0]), min(x_domain[1], y_domain[1])]
        if ends_of_axis[0] < ends_of_axis[1]:
            data += [
                {"facet": facet, "x": end, "y": end, "kind": "diagonal"}
                for facet in facets for end in ends_of_axis
            ]  # fmt: skip
    title = "parameters" if layout.along == "size" else layout.key
    x = {
        "field": "x", "type": "quantitative",
        "axis": log_axis(title, x_domain) if logarithmic else {"title": title},
        "scale": {
            "domain": x_domain, "nice": False,
            **({"type": "log"} if logarithmic else {"type": "linear", "zero": False}),
        },
    }  # fmt: skip
    what = "EMC / parameters" if per_parameter else "EMC (samples)"
    y_axis = log_axis(what, y_domain)
    y_scale = {"type": "log", "domain": y_domain, "nice": False}
    colour = _colour(series)
    layers = [
        _only("diagonal", {"type": "line", "strokeDash": [5, 4], "color": "#888"}, x=x,
              y=_y("y", y_axis, y_scale)),
        _only("line", {"type": "line", "strokeWidth": 1.6}, x=x, y=_y("y", y_axis, y_scale),
              color=colour, detail={"field": "piece"}),
        *_marks(x, "y", y_axis, y_scale, colour, size=_SMALL if beside.step else _LARGE),
        _only("label", {"type": "text", "align": "left", "dx": 9, "fontSize": 12, "limit": 230},
              x=x, y=_y("label_y", y_axis, y_scale), text={"field": "series"}, color=colour),
    ]  # fmt: skip
    if len(facets) == 1:
        return chart(layers, width=width, height=height, data={"values": data})
    return faceted(layers, data, "facet", facets, width=width, height=height)


def _rows(numbered: Numbered, layout: Layout, *, per_parameter: bool) -> Spec:
    """Plot one row per combination of swept values, by group, the largest median first.

    The seeds of a combination share its row.
    """
    measured = [status for _, status in numbered]
    kinds = telling(measured, kinds_of(measured))
    rows = []
    for number, status in numbered:
        name = name_of(status, kinds) or "EMC"
        shown = row_of_point(status, layout, number, per_parameter=per_parameter)
        rows.append({**shown, "row": name})
    by_row: dict[str, list[Row]] = {}
    for row in rows:
        by_row.setdefault(row["row"], []).append(row)
    medians = {name: statistics.median(row["y"] for row in some) for name, some in by_row.items()}
    groups: dict[str, float] = {}
    for row in rows:
        groups[row["series"]] = max(groups.get(row["series"], 0.0), medians[row["row"]])
    of = {row["row"]: groups[row["series"]] for row in rows}
    order = sorted(medians, key=lambda name: (of[name], medians[name]), reverse=True)
    for some in by_row.values():
        for place_in_row, row in enumerate(some):
            row["seed"] = place_in_row
    most = max(len(some) for some in by_row.values())
    values = [end for row in rows for end in (row["lo"], row["y"], row["hi"])]
    domain = log_domain(values)
    what = "EMC / parameters" if per_parameter else "EMC (samples)"
    axis = log_axis(what, domain)
    scale = {"type": "log", "domain": domain, "nice": False}
    dense = len(order) > _MOST_ROWS
    if dense:
        ranks = {name: rank for rank, name in enumerate(order, 1)}
        for row in rows:
            row["rank"] = ranks[row["row"]]
    place: Spec = (
        {"field": "rank", "type": "quantitative", "scale": {"reverse": True},
         "axis": {"title": "points, by EMC", "grid": False}}
        if dense
        else {"field": "row", "type": "nominal", "sort": order,
              "axis": {"title": None, "grid": True, "labelLimit": 460}}
    )  # fmt: skip
    beside = 1 < most <= _MOST_BESIDE and not dense
    offset = {"yOffset": {"field": "seed", "type": "ordinal"}} if beside else {}
    series = list(dict.fromkeys(row["series"] for row in rows))
    colour = _colour(series if 1 < len(series) <= len(COLOURS) else ["EMC"], key=dense)
    shared = {"y": place, **offset, "color": colour}
    value = {"type": "quantitative", "axis": axis, "scale": scale}
    data = [{**row, "kind": "point"} for row in rows]
    arrows = {
        "right": "M1.6,0 L0.5,0.6 L0.5,0.2 L-0.6,0.2 L-0.6,-0.2 L0.5,-0.2 L0.5,-0.6 Z",
        "left": "M-1.6,0 L-0.5,0.6 L-0.5,0.2 L0.6,0.2 L0.6,-0.2 L-0.5,-0.2 L-0.5,-0.6 Z",
    }
    layers = [
        _only("point", {"type": "rule", "strokeWidth": 2, "opacity": 1},
              x={"field": "lo", **value}, x2={"field": "hi"}, **shared),
        _exact({"type": "point", "filled": True, "size": 60, "opacity": 1},
               x={"field": "y", **value}, tooltip=_TOOLTIP, **shared),
        *(_bound(side, shape, x={"field": "y", **value}, tooltip=_TOOLTIP, **shared)
          for side, shape in arrows.items()),
    ]  # fmt: skip
    step = max(_ROW, 9 * most + 8) if beside else _ROW
    height = _DENSE if dense else step * len(order)
    return chart(layers, width=520, height=height, data={"values": data})


_TOOLTIP = [
    {"field": field, "type": "nominal"}
    for field in ("point", "EMC", "parameters", "EMC per parameter", "trainings")
]


def _y(field: str, axis: Spec, scale: Spec) -> Spec:
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def _colour(series: Sequence[str], *, key: bool = False) -> Spec:
    if len(series) < 2:
        return {"value": COLOURS[0]}
    legend = {"title": None} if key else None
    return {"field": "series", "type": "nominal", "legend": legend,
            "scale": {"domain": list(series), "range": list(COLOURS[: len(series)])}}  # fmt: skip


def _only(kind: str, mark: Spec, **encoding: Any) -> Spec:
    """Return a layer that shows the data rows of one kind only."""
    where = [{"filter": f"datum.kind === '{kind}'"}]
    return {"transform": where, "mark": mark, "encoding": encoding}


def _exact(mark: Spec, **encoding: Any) -> Spec:
    where = [{"filter": "datum.kind === 'point' && datum.censored === 'none'"}]
    return {"transform": where, "mark": mark, "encoding": encoding}


def _bound(side: str, shape: str, **encoding: Any) -> Spec:
    where = [{"filter": f"datum.kind === 'point' && datum.censored === '{side}'"}]
    mark = {
        "type": "point",
        "shape": shape,
        "filled": False,
        "size": 120,
        "strokeWidth": 1.4,
        "opacity": 1,
    }
    return {"transform": where, "mark": mark, "encoding": encoding}


def _marks(x: Spec, field: str, axis: Spec, scale: Spec, colour: Spec, *, size: int) -> list[Spec]:
    """Return layers of intervals, measured points and arrows at bounds."""
    return [
        _only("point", {"type": "rule", "strokeWidth": 1.4, "opacity": 1}, x=x,
              y=_y("lo", axis, scale), y2={"field": "hi"}, color=colour),
        _exact({"type": "point", "filled": True, "size": size, "opacity": 1}, x=x,
               y=_y(field, axis, scale), color=colour, tooltip=_TOOLTIP),
        *(_bound(side, shape, x=x, y=_y(field, axis, scale), color=colour, tooltip=_TOOLTIP)
          for side, shape in ARROWS.items()),
    ]  # fmt: skip


def _lines(
    measured: Sequence[PointStatus], layout: Layout, *, per_parameter: bool
) -> tuple[list[Row], dict[tuple[str, str], tuple[float, float]]]:
    """Return the medians over seeds, in uninterrupted pieces, and the end (x, y) of each curve."""
    groups: dict[tuple[str, str], list[PointStatus]] = {}
    for status in measured:
        groups.setdefault((layout.facet(status), layout.series(status)), []).append(status)
    lines: list[Row] = []
    ends: dict[tuple[str, str], tuple[float, float]] = {}
    for (facet, name), group in groups.items():
        piece = 0
        for place, median, size in medians_of(group, layout.place):
            if median is None:
                piece += 1
                continue
            y = max(median, LEAST) / (size if per_parameter else 1)
            lines.append({
                "facet": facet, "series": name, "x": place, "y": y, "kind": "line",
                "piece": f"{name} {piece}",
            })  # fmt: skip
        last = max(group, key=layout.place)
        ends[facet, name] = (
            layout.place(last), row_of_point(last, layout, 0, per_parameter=per_parameter)["y"],
        )  # fmt: skip
    return lines, ends


FIGURE = ReportFigure(
    name="emc",
    title="EMC",
    caption="Bars are intervals. An arrow is the bound of a censored EMC, which lies above (or "
    "below) it; curves join the medians over seeds, where these are no bounds. On the dashed line, "
    "where it is shown, a network fits as many samples as it has parameters. Points of one place, "
    "as of several seeds, stand side by side around it. A click on a point shows its trainings.",
    draw=emc_figure,
)
