"""Figures of the ratios of EMCs at two values of a key: one row per comparison, or over budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flexhpc.analysis.effect import Effect
from flexhpc.analysis.figures.chart import (
    COLOURS,
    REFERENCE_LINE,
    ROW_HEIGHT,
    Spec,
    chart,
    colour_encoding,
    facet_size,
    layer,
    log_domain,
    log_encoding,
    row_encoding,
    series_colour,
    tooltip,
)

RATIO_CAPTION = (
    "Each ratio compares points that differ only in the compared key. It is the geometric mean "
    "over the measured sizes. Bars are intervals; with several pairs, they include the variation "
    "between seeds. An arrow marks an end of an interval that is open because an EMC is a bound. "
    "The grey band contains the ratios at which two EMCs count as the same, for the largest margin "
    "of the comparisons (by default 10 %)."
)
_OPEN_FACTOR = 1.5
"""If an end of an interval is open, the upper end is drawn at this multiple of the lower end."""
RATIO_BUDGET_CAPTION = (
    "The same ratios at equal budgets, down to 1/64 of the largest budget B of the points. At "
    "smaller budgets, EMCs are estimated from the times at which training runs fitted their "
    "samples; with tuned keys, from the training runs at the values that are best at the budget of "
    "the point. A saturated point has the same EMC at all larger budgets. Ratios whose interval is "
    "wider than a factor of 4 are omitted, and comparisons whose ratio at B is a bound."
)
MAX_INTERVAL = 4.0
"""Largest ratio of the ends of an interval in the figure of ratios over the budget."""
_COLOUR = {
    "larger": COLOURS[0], "smaller": COLOURS[1], "not decided": COLOURS[6],
}  # fmt: skip
_SAME_COLOUR = COLOURS[2]


def ratio_figure(effects: Sequence[Effect]) -> Spec | None:
    """Return a forest plot of the comparisons; None if no comparison has a ratio."""
    groups = _group_names(effects)
    rows = [
        _plotted_row(effect, groups[effect.within_text]) for effect in effects if effect.ratio_text
    ]
    if not rows:
        return None
    same = 1 + max(effect.margin for effect in effects)
    band = {"from": 1 / same, "to": same, "one": 1}
    ends = [end for row in rows for end in (row["lo"], row["hi"])]
    domain = log_domain([*ends, band["from"], band["to"]])
    baselines = {f"at {effect.baseline}" for effect in effects}
    baseline = baselines.pop() if len(baselines) == 1 else "at the baseline"
    x = log_encoding(f"EMC / EMC {baseline}", domain)
    colours = {row["verdict"]: _COLOUR.get(row["verdict"], _SAME_COLOUR) for row in rows}
    shared = {
        "y": row_encoding([row["row"] for row in rows]),
        "color": colour_encoding("verdict", colours, {"title": None}),
    }
    point = {**shared, "tooltip": tooltip("row", "ratio", "pairs", "detail")}
    mark = {"type": "point", "filled": True, "opacity": 1}
    layers: list[Spec] = [
        {"data": {"values": [band]},
         "mark": {"type": "rect", "opacity": 0.12, "color": "#888"},
         "encoding": {"x": {"field": "from", **x}, "x2": {"field": "to"}}},
        {"data": {"values": [band]},
         "mark": {"type": "rule", **REFERENCE_LINE},
         "encoding": {"x": {"field": "one", **x}}},
        layer({"type": "rule", "strokeWidth": 2},
              {"x": {"field": "lo", **x}, "x2": {"field": "hi"}, **shared}),
        layer({**mark, "size": 70, "shape": "triangle-left"},
              {"x": {"field": "lo", **x}, **point}, where="datum.open === 'lo'"),
        layer({**mark, "size": 70, "shape": "triangle-right"},
              {"x": {"field": "hi", **x}, **point}, where="datum.open === 'hi'"),
        layer({**mark, "size": 60}, {"x": {"field": "y", **x}, **point},
              where="datum.open === ''"),
    ]  # fmt: skip
    return chart(layers, width=520, height=ROW_HEIGHT * len(rows), data=rows)


def ratio_budget_figure(by_budget: Mapping[float, Sequence[Effect]]) -> Spec | None:
    """Plot the ratio of EMCs against the budget, with one facet per combination of grouping values.

    Args:
        by_budget: for each fraction of the largest budget, the comparisons at this budget.
            Comparisons whose ratio at the largest budget is a bound are omitted.

    Returns:
        The Vega-Lite spec. None without comparisons at more than one budget.
    """
    effects = [
        (fraction, effect)
        for fraction, at_budget in by_budget.items()
        for effect in at_budget
        if effect.low and effect.high and effect.high / effect.low <= MAX_INTERVAL
    ]
    known = {effect.key for fraction, effect in effects if fraction == 1}
    effects = [(fraction, effect) for fraction, effect in effects if effect.key in known]
    if len({fraction for fraction, _ in effects}) < 2:
        return None
    groups = _group_names([effect for _, effect in effects])
    rows = [
        {
            "facet": groups[effect.within_text], "series": _comparison_name(effect),
            "x": fraction, "y": effect.ratio, "lo": effect.low, "hi": effect.high,
            "ratio": effect.ratio_text, "budget": f"B/{1 / fraction:g}" if fraction < 1 else "B",
            "verdict": effect.verdict,
        }
        for fraction, effect in effects
    ]  # fmt: skip
    baselines = {effect.baseline for _, effect in effects}
    baseline = baselines.pop() if len(baselines) == 1 else "the baseline"
    return chart_over_budget(
        rows, x_title="budget / largest budget B", y_title=f"EMC / EMC at {baseline}",
        same=1 + max(effect.margin for _, effect in effects),
    )  # fmt: skip


def chart_over_budget(
    rows: Sequence[Mapping[str, Any]], *, x_title: str, y_title: str, same: float
) -> Spec:
    """Plot values with intervals against the budget, one line per series, next to a line at 1.

    Args:
        rows: data rows with the fields ``facet``, ``series``, ``x`` (the budget; at most 1 if it is
            a fraction of the largest budget), ``y``, ``lo`` and ``hi`` (the value and the ends of
            its interval). The tooltip also shows the fields ``budget``, ``ratio`` and ``verdict``.
        x_title: title of the axis of the budget.
        y_title: title of the axis of the values.
        same: the grey band is drawn from 1 / ``same`` to ``same``.
    """
    names = list(dict.fromkeys(row["series"] for row in rows))
    facets = list(dict.fromkeys(row["facet"] for row in rows))
    ticks = sorted({row["x"] for row in rows})
    rows = [  # Without an offset, intervals at the same budget would overlap.
        {**row, "x": row["x"] * 1.05 ** (names.index(row["series"]) - (len(names) - 1) / 2)}
        for row in rows
    ]
    width, height = facet_size(len(facets))
    x_domain = log_domain([row["x"] for row in rows])
    band = {"from": 1 / same, "to": same, "one": 1}
    y_domain = log_domain([*band.values(), *(row[end] for row in rows for end in ("lo", "hi"))])
    x = {"field": "x", **log_encoding(x_title, x_domain, ticks)}
    if max(ticks) <= 1:
        x["axis"]["labelExpr"] = "datum.value < 1 ? 'B/' + format(1 / datum.value, 'd') : 'B'"
    y = {"field": "y", **log_encoding(y_title, y_domain)}
    shared = {"x": x, "y": y, "color": series_colour(names, {"title": None})}
    bands = {"values": [band]}  # a layer with its own data draws all of it in each facet
    y_of = {key: {"field": key, **log_encoding("", y_domain)} for key in band}
    point = {**shared, "tooltip": tooltip("series", "budget", "ratio", "verdict")}
    layers: list[Spec] = [
        {"data": bands,
         "mark": {"type": "rect", "opacity": 0.12, "color": "#888"},
         "encoding": {"y": y_of["from"], "y2": {"field": "to"}}},
        {"data": bands,
         "mark": {"type": "rule", **REFERENCE_LINE}, "encoding": {"y": y_of["one"]}},
        layer({"type": "rule", "strokeWidth": 1.3, "opacity": 0.5},
              {**shared, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}}),
        layer({"type": "line", "strokeWidth": 1.6}, shared),
        layer({"type": "point", "filled": True, "size": 40, "opacity": 1}, point),
    ]  # fmt: skip
    return chart(layers, width=width, height=height, data=rows, facets=facets)


def _comparison_name(effect: Effect) -> str:
    return f"{effect.value} / {effect.baseline}"


def _group_names(effects: Sequence[Effect]) -> dict[str, str]:
    """Map the values of the grouping keys of each comparison to the name of its group.

    A comparison of all points has no grouping keys. It is named only if others have some.
    """
    groups = dict.fromkeys(effect.within_text for effect in effects)
    return {text: text or ("all points" if len(groups) > 1 else "") for text in groups}


def _plotted_row(effect: Effect, group: str) -> dict[str, Any]:
    low, high, open_end = effect.low, effect.high, ""
    if high is None:
        assert low is not None
        high, open_end = low * _OPEN_FACTOR, "hi"
    elif low is None:
        low, open_end = high / _OPEN_FACTOR, "lo"
    name = _comparison_name(effect)
    return {
        "row": f"{group}: {name}" if group else name,
        "lo": low, "hi": high, "open": open_end, "y": None if open_end else effect.ratio,
        "ratio": effect.ratio_text, "pairs": effect.pairs, "verdict": effect.verdict,
        "detail": effect.verdict_text,
    }  # fmt: skip
