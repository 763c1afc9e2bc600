"""Ratios of EMCs to the EMC at a baseline, with intervals, one row per comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flexhpc.analysis.comparison import Effect
from flexhpc.analysis.figures.chart import COLOURS, Spec, chart, log_axis, log_domain
from flexhpc.analysis.mean_ratio import SAME

RATIOS = (
    "Of EMCs that are equal in all that was swept but the value compared: their geometric mean "
    "over the sizes measured here. Bars are its intervals for any seeds; where there is a single "
    "pair, of this one ratio. An arrow is an open end, where EMCs are bounds. Within the grey band "
    "two EMCs are the same to 10 %."
)
_ROW = 26
_BEYOND = 1.5
"""Length of a half-open interval in the figure, as a factor of its closed end."""
_COLOUR = {
    "larger": COLOURS[0], "smaller": COLOURS[1], "the same within 10 %": COLOURS[2],
    "not decided": COLOURS[6],
}  # fmt: skip


def ratio_figure(found: Sequence[Effect]) -> Spec | None:
    """Return a forest plot of comparisons; None if no comparison has a ratio."""
    rows = [_row(effect) for effect in found if effect.ratio_text]
    if not rows:
        return None
    order = [row["row"] for row in rows]
    ends = [end for row in rows for end in (row["lo"], row["hi"])]
    domain = log_domain([*ends, 1 / (1 + SAME), 1 + SAME])
    scale = {"type": "log", "domain": domain, "nice": False}
    baselines = {f"at {effect.baseline}" for effect in found}
    against = baselines.pop() if len(baselines) == 1 else "at the baseline"
    axis = log_axis(f"EMC / EMC {against}", domain)
    value: dict[str, Any] = {"type": "quantitative", "axis": axis, "scale": scale}
    place = {
        "field": "row", "type": "nominal", "sort": order,
        "axis": {"title": None, "grid": True, "labelLimit": 460},
    }  # fmt: skip
    used = list(dict.fromkeys(row["verdict"] for row in rows))
    colour = {
        "field": "verdict", "type": "nominal", "legend": {"title": None},
        "scale": {"domain": used, "range": [_COLOUR[name] for name in used]},
    }  # fmt: skip
    tooltip = [{"field": name, "type": "nominal"} for name in ("row", "ratio", "pairs", "said")]
    layers: list[Spec] = [
        {"data": {"values": [{"from": 1 / (1 + SAME), "to": 1 + SAME}]},
         "mark": {"type": "rect", "opacity": 0.12, "color": "#888"},
         "encoding": {"x": {"field": "from", **value}, "x2": {"field": "to"}}},
        {"data": {"values": [{"one": 1}]},
         "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#888"},
         "encoding": {"x": {"field": "one", **value}}},
        {"mark": {"type": "rule", "strokeWidth": 2},
         "encoding": {"x": {"field": "lo", **value}, "x2": {"field": "hi"}, "y": place,
                      "color": colour}},
        *(_end(side, value, place, colour, tooltip) for side in ("lo", "hi")),
        {"transform": [{"filter": "datum.open === ''"}],
         "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
         "encoding": {"x": {"field": "y", **value}, "y": place, "color": colour,
                      "tooltip": tooltip}},
    ]  # fmt: skip
    return chart(layers, width=520, height=_ROW * len(order), data={"values": rows})


def _end(side: str, value: Spec, place: Spec, colour: Spec, tooltip: list[Spec]) -> Spec:
    """Return a layer of arrows at the open ends of intervals, at side ``lo`` or ``hi``."""
    shape = "triangle-left" if side == "lo" else "triangle-right"
    return {
        "transform": [{"filter": f"datum.open === '{side}'"}],
        "mark": {"type": "point", "shape": shape, "filled": True, "size": 70, "opacity": 1},
        "encoding": {"x": {"field": side, **value}, "y": place, "color": colour,
                     "tooltip": tooltip},
    }  # fmt: skip


def _row(effect: Effect) -> dict[str, Any]:
    low, high, opened = effect.low, effect.high, ""
    if high is None:
        assert low is not None
        high, opened = low * _BEYOND, "hi"
    elif low is None:
        low, opened = high / _BEYOND, "lo"
    return {
        "row": name_of_effect(effect), "lo": low, "hi": high, "open": opened,
        "y": None if opened else effect.ratio,
        "ratio": effect.ratio_text, "pairs": effect.pairs, "verdict": effect.verdict,
        "said": effect.said,
    }  # fmt: skip


def name_of_effect(effect: Effect) -> str:
    """Return the name of a comparison, such as ``random: tanh / relu``.

    Numbers among the grouping values are given with their key.
    """
    compared = f"{effect.value} / {effect.baseline}"
    return f"{effect.within_text}: {compared}" if effect.within_text else compared
