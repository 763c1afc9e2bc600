"""Charts as Vega-Lite specs, with one style for interactive charts on the page and for files."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from flexhpc.atomic import write_atomic

Spec = dict[str, Any]
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8A8A8A", "#7B4FB5",
)  # fmt: skip
"""Palette after Okabe and Ito: distinguishable with colour blindness, on white and on black."""
LEAST = 0.7
"""Value (samples) at which an EMC of 0 is shown on a logarithmic axis."""
ARROWS = {
    "right": "M0,-1.6 L0.6,-0.5 L0.2,-0.5 L0.2,0.6 L-0.2,0.6 L-0.2,-0.5 L-0.6,-0.5 Z",
    "left": "M0,1.6 L0.6,0.5 L0.2,0.5 L0.2,-0.6 L-0.2,-0.6 L-0.2,0.5 L-0.6,0.5 Z",
}
"""Arrow shapes for the bound of a censored EMC, which point to where the EMC lies."""
_TICKS = (
    (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 1.2, 1.5, *range(2, 10)),
    tuple(i / 10 for i in range(10, 100)),
)  # fmt: skip
"""Leading digits of the ticks on a logarithmic axis; the first set with enough ticks is used."""
_FEWEST_TICKS = 4
_VEGA_LITE = "6.4"
_SCHEMA = f"https://vega.github.io/schema/vega-lite/v{_VEGA_LITE.split('.')[0]}.json"
_FONT = "system-ui, 'DejaVu Sans', sans-serif"
_CONFIG: Spec = {
    "font": _FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
        "gridColor": "#8883", "domainColor": "#888", "tickColor": "#888", "labelLimit": 260,
    },
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 300},
    "header": {"labelFontSize": 13, "titleFontSize": 12},
    "range": {"category": list(COLOURS)},
}  # fmt: skip


def chart(layers: Sequence[Spec], *, width: int, height: int, **more: Any) -> Spec:
    """Return a chart of superimposed layers."""
    whole = {"layer": list(layers), "width": width, "height": height, **more}
    return {"$schema": _SCHEMA, "config": _CONFIG, **whole}


def faceted(
    layers: Sequence[Spec], data: Sequence[Mapping[str, Any]], field: str, names: Sequence[str], *,
    width: int, height: int,
) -> Spec:  # fmt: skip
    """Return charts side by side, one per value of a field, with shared axes."""
    return {
        "$schema": _SCHEMA,
        "config": _CONFIG,
        "data": {"values": list(data)},
        "facet": {"field": field, "type": "nominal", "title": None, "sort": list(names)},
        "columns": 3,
        "spec": {"layer": list(layers), "width": width, "height": height},
    }


def start() -> None:
    """Start the renderer in advance, which takes as long as rendering ten charts."""
    svg(chart([], width=1, height=1))


def svg(spec: Spec) -> str:
    """Render a chart as SVG text."""
    return str(vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE))


def png(spec: Spec) -> bytes:
    """Render a chart as PNG, at two pixels per screen pixel."""
    return bytes(vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, scale=2))


def pdf(spec: Spec) -> bytes:
    """Render a chart as PDF."""
    return bytes(vl_convert.vegalite_to_pdf(spec, vl_version=_VEGA_LITE))


def library() -> str:
    """Return the JavaScript that renders charts in a page (Vega, BSD licence; about 900 kB).

    Bundling takes seconds, so the result is stored in the user's cache folder if it is writable.
    """
    name = f"vega-{vl_convert.get_vega_version()}-lite-{_VEGA_LITE}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError):  # no home folder
        if kept := (_cache() / name).read_text(encoding="utf-8"):
            return kept
    made = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version=_VEGA_LITE))
    made = made.replace("</script", "<\\/script")
    with contextlib.suppress(OSError, RuntimeError):
        write_atomic(_cache() / name, made, durable=False)
    return made


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexhpc"


def log_domain(values: Iterable[float], *, beyond: float = 0.0) -> list[float]:
    """Return both ends of a logarithmic axis that contains all values.

    Args:
        values: values to show; those that are not positive and finite are ignored.
        beyond: space for labels at the upper end, as a fraction of the length of the axis.
    """
    shown = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = (min(shown) / 1.25, max(shown) * 1.25) if shown else (1.0, 10.0)
    return [low, high * (high / low) ** beyond]


def log_axis(title: str, domain: Sequence[float]) -> Spec:
    """Return a logarithmic axis with short, round tick labels, suited to its range."""
    decades = range(math.floor(math.log10(domain[0])), math.ceil(math.log10(domain[1])) + 1)
    shown: list[float] = []
    for steps in _TICKS if len(decades) < 6 else ((1.0,),):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        shown = [tick for tick in ticks if domain[0] <= tick <= domain[1]]
        if len(shown) >= _FEWEST_TICKS:
            break
    short = "format(datum.value, datum.value < 1000 ? '~g' : '~s')"  # 0.2 and 2k, not 200m
    return {"title": title, "labelExpr": short, "values": shown, "labelOverlap": "greedy"}


def spread(places: Mapping[str, float], domain: Sequence[float], height: float) -> dict[str, float]:
    """Move values on a logarithmic axis apart until their labels do not overlap.

    Args:
        places: values by name; domain: both ends of the axis; height: height of the axis (pixels).

    Returns:
        The moved values by name.
    """
    low, high = math.log(domain[0]), math.log(domain[1])
    least = 15 * (high - low) / height
    names = sorted(places, key=places.__getitem__)
    at = [math.log(places[name]) for name in names]
    for _ in range(200):
        pairs = [i for i in range(len(at) - 1) if at[i + 1] - at[i] < least * 0.999]
        if not pairs:
            break
        for i in pairs:
            push = (least - (at[i + 1] - at[i])) / 2
            at[i], at[i + 1] = at[i] - push, at[i + 1] + push
    return {name: math.exp(place) for name, place in zip(names, at, strict=True)}
