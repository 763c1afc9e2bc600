"""Figure of the ratios between the EMCs at two values of a key, with one row per comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flexhpc.analysis.effect import Effect
from flexhpc.analysis.figures.chart import (
    COLOURS,
    ROW_HEIGHT,
    Spec,
    chart,
    colour_encoding,
    layer,
    log_domain,
    log_encoding,
    row_encoding,
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
_COLOUR = {
    "larger": COLOURS[0], "smaller": COLOURS[1], "not decided": COLOURS[6],
}  # fmt: skip
_SAME_COLOUR = COLOURS[2]


def ratio_figure(effects: Sequence[Effect]) -> Spec | None:
    """Return a forest plot of the comparisons; None if no comparison has a ratio."""
    rows = [_plotted_row(effect) for effect in effects if effect.ratio_text]
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
         "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#888"},
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


def _plotted_row(effect: Effect) -> dict[str, Any]:
    low, high, open_end = effect.low, effect.high, ""
    if high is None:
        assert low is not None
        high, open_end = low * _OPEN_FACTOR, "hi"
    elif low is None:
        low, open_end = high / _OPEN_FACTOR, "lo"
    name = f"{effect.value} / {effect.baseline}"
    return {
        "row": f"{effect.within_text}: {name}" if effect.within_text else name,
        "lo": low, "hi": high, "open": open_end, "y": None if open_end else effect.ratio,
        "ratio": effect.ratio_text, "pairs": effect.pairs, "verdict": effect.verdict,
        "detail": effect.verdict_text,
    }  # fmt: skip
