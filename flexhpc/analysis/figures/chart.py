"""Charts as Vega-Lite specs, for the report, files and notebooks."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import vl_convert
from PIL import Image

from flexhpc.atomic import write_atomic
from flexhpc.store.status import PointStatus

Spec = dict[str, Any]
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8A8A8A", "#7B4FB5",
)  # fmt: skip
"""Colours based on the palette of Okabe and Ito, which colour-blind readers can distinguish."""
INK = "#333"
"""Colour of text and of the symbols of legends."""
DARK_COLOURS = {
    INK: "#d0d0d0",
    **dict(zip(COLOURS, (
        "#56B4E9", "#F08A3C", "#2FC99A", "#F0A3CC", "#F0E442", "#B8DEF7", "#BDBDBD", "#B79CF5",
    ), strict=True)),
}  # fmt: skip
"""Colour of a chart on a light background -> its colour on a dark background."""
Style = Literal["light", "dark"]
_BACKGROUNDS: dict[Style, str] = {"light": "#fff", "dark": "#16181b"}
ROW_HEIGHT = 26
"""Height (pixels) of a row of a chart with named rows."""
VALUE_FOR_ZERO = 0.7
"""Value (samples) at which an EMC of 0 is shown on a logarithmic axis."""
VERTICAL_ARROWS = {
    "right": "M0,-1.6 L0.6,-0.5 L0.2,-0.5 L0.2,0.6 L-0.2,0.6 L-0.2,-0.5 L-0.6,-0.5 Z",
    "left": "M0,1.6 L0.6,0.5 L0.2,0.5 L0.2,-0.6 L-0.2,-0.6 L-0.2,0.5 L-0.6,0.5 Z",
}
HORIZONTAL_ARROWS = {
    "right": "M1.6,0 L0.5,0.6 L0.5,0.2 L-0.6,0.2 L-0.6,-0.2 L0.5,-0.2 L0.5,-0.6 Z",
    "left": "M-1.6,0 L-0.5,0.6 L-0.5,0.2 L0.6,0.2 L0.6,-0.2 L-0.5,-0.2 L-0.5,-0.6 Z",
}
"""SVG paths of the arrows that mark bounds on a vertical or on a horizontal axis, by the side on
which the value is censored. An arrow points towards the unknown value."""
ARROW_MARK = {"type": "point", "filled": True, "size": 120, "opacity": 1}
"""Vega-Lite mark of an arrow; the caller adds its SVG path as the key ``shape``."""
CURVE_LABEL = {"type": "text", "align": "left", "clip": False}
"""Vega-Lite mark of the label at the right end of a curve. It is not clipped, because on a narrow
page it extends beyond the axes."""
REFERENCE_LINE = {"strokeDash": [5, 4], "color": "#888"}
"""Properties of the Vega-Lite mark of a reference line."""
_TICKS = (
    (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 1.2, 1.5, *range(2, 10)),
    (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, *range(5, 10)),
    tuple(i / 10 for i in range(10, 100)),
)  # fmt: skip
"""Leading digits of ticks on a logarithmic axis; the first set that gives enough ticks is used."""
_MIN_TICKS = 4
_LABEL_HEIGHT = 15
_CHARACTER_WIDTH, _LEGEND_SYMBOL_WIDTH = 6, 30
_MARGIN, _MIN_LOG_RANGE = 0.06, 1.6
"""Margin at each end of a logarithmic axis, as a fraction of the range of the values, and minimum
ratio of the two ends."""
_VEGA_LITE = "6.4"
_SCHEMA = f"https://vega.github.io/schema/vega-lite/v{_VEGA_LITE.split('.')[0]}.json"
_FONT = "system-ui, 'DejaVu Sans', sans-serif"
_PNG_DPI = 300
SUFFIXES = (".svg", ".png", ".pdf")
UNKNOWN_FORMAT = "unknown format; use .svg, .png or .pdf"
_SVG_SIZE = re.compile(r'(?<=^<svg )([^>]*)width="([\d.]+)" height="([\d.]+)"')
"""Size in pixels in the first tag of an SVG image; a size in inches does not match."""
_INCHES = re.compile(r'"([\d.]+)in"')
_TEXT_COLOURS = {"labelColor": INK, "titleColor": INK}
_CONFIG: Spec = {
    "font": _FONT,
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
        "gridColor": "#8883", "domainColor": "#888", "tickColor": "#888", "labelLimit": 260,
        **_TEXT_COLOURS,
    },
    "legend": {
        "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 300, "symbolOpacity": 1,
        "orient": "top", "layout": {"top": {"direction": "vertical", "anchor": "start"}},
        **_TEXT_COLOURS,
    },
    "header": {"labelFontSize": 13, "titleFontSize": 12, **_TEXT_COLOURS},
    "title": {"color": INK, "subtitleColor": INK},
    "range": {"category": list(COLOURS)},
}  # fmt: skip


def chart(
    layers: Sequence[Spec], *, width: int, height: int,
    data: Sequence[Mapping[str, Any]] | None = None, facets: Sequence[str] = (), columns: int = 3,
) -> Spec:  # fmt: skip
    """Return the Vega-Lite spec of a chart of superimposed layers.

    The chart is repeated for each facet, with shared axes.

    Args:
        layers: Vega-Lite specs of the layers.
        width: width of each facet (pixels).
        height: height of each facet (pixels).
        data: data rows for all layers that do not specify their own data.
        facets: values of the field ``facet`` of the data, in the order of display. The chart has
            facets only if there are at least two values.
        columns: maximum number of facets next to each other.
    """
    spec: Spec = {"layer": list(layers), "width": width, "height": height}
    if len(facets) > 1:
        facet = {"field": "facet", "type": "nominal", "title": None, "sort": list(facets)}
        rows = math.ceil(len(facets) / columns)
        spec = {"facet": facet, "columns": math.ceil(len(facets) / rows), "spec": spec}
    if data is not None:
        spec["data"] = {"values": list(data)}
    return {"$schema": _SCHEMA, "config": _CONFIG, **spec}


@dataclass(frozen=True, kw_only=True)
class PrintSize:
    """Size and legend of a printed figure.

    Attributes:
        width, height: size of the figure, including axes and legend (pixels).
        columns: maximum number of facets next to each other.
    """

    width: float
    height: float
    columns: int

    def facet_size(self, count: int) -> tuple[int, int]:
        """Return the approximate width and height of each facet (pixels)."""
        columns = min(self.columns, count)
        rows = math.ceil(count / columns)
        return round(0.8 * self.width / columns), round(0.7 * self.height / rows)


def facet_size(facet_count: int) -> tuple[int, int]:
    """Return the width and the height (pixels) of each facet of a chart."""
    return {1: (640, 380), 2: (440, 320)}.get(facet_count, (300, 260))


def log_encoding(title: str, domain: Sequence[float], ticks: Sequence[float] = ()) -> Spec:
    """Return the Vega-Lite encoding of a logarithmic axis; the caller adds the key ``field``.

    Args:
        title: title of the axis.
        domain: both ends of the axis.
        ticks: values with a tick; by default round numbers.
    """
    shown = list(ticks) or _round_numbers(domain)
    short = "format(datum.value, datum.value < 1000 ? '~g' : '.3~s')"  # 0.2 and 2k, not 200m
    return {
        "type": "quantitative",
        "axis": {"title": title, "labelExpr": short, "values": shown, "labelOverlap": "greedy"},
        "scale": {"type": "log", "domain": domain, "nice": False},
    }


def _round_numbers(domain: Sequence[float]) -> list[float]:
    decades = range(math.floor(math.log10(domain[0])), math.ceil(math.log10(domain[1])) + 1)
    shown: list[float] = []
    for steps in _TICKS if len(decades) < 6 else ((1.0,),):
        numbers = [step * 10.0**decade for decade in decades for step in steps]
        shown = [number for number in numbers if domain[0] <= number <= domain[1]]
        if len(shown) >= _MIN_TICKS:
            break
    return shown


def legend_columns(names: Sequence[str], width: float) -> int:
    """Return the number of columns of a legend that is at most ``width`` pixels wide."""
    return max(1, int(width / (_CHARACTER_WIDTH * max(map(len, names)) + _LEGEND_SYMBOL_WIDTH)))


def series_colour(series: Sequence[str], legend: Spec | None) -> Spec:
    """Return the Vega-Lite encoding that gives each series a colour.

    The colour is constant if there is only one series, or if there are more than eight.

    Args:
        series: names of the series.
        legend: Vega-Lite definition of the legend; None for no legend.
    """
    if not 1 < len(series) <= len(COLOURS):
        return {"value": COLOURS[0]}
    colours = dict(zip(series, COLOURS, strict=False))
    return colour_encoding("series", colours, legend)


def colour_encoding(field: str, colours: Mapping[str, str], legend: Spec | None) -> Spec:
    """Return the Vega-Lite encoding that gives each value of a data field its colour.

    Args:
        colours: the colour of each value, in the order of the legend.
        legend: Vega-Lite definition of the legend; None for no legend.
    """
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": field, "type": "nominal", "legend": legend, "scale": scale}


def row_encoding(names: Sequence[str]) -> Spec:
    """Return the Vega-Lite encoding of a y axis with named rows.

    Args:
        names: values of the field ``row`` of the data, from top to bottom.
    """
    return {
        "field": "row", "type": "nominal", "sort": list(names),
        "axis": {"title": None, "grid": True, "labelLimit": 460},
    }  # fmt: skip


def tooltip(*fields: str) -> list[Spec]:
    """Return the Vega-Lite encoding of a tooltip that shows the data fields ``fields``."""
    return [{"field": field, "type": "nominal"} for field in fields]


def layer(mark: Spec, encoding: Spec, *, where: str = "") -> Spec:
    """Return a chart layer that shows the data rows for which the expression ``where`` is true.

    An empty ``where`` selects all rows.
    """
    return {
        "transform": [{"filter": where}] if where else [], "mark": mark, "encoding": encoding,
    }  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A chart that notebooks display, and that can be saved as SVG, PNG or PDF.

    Attributes:
        spec: Vega-Lite spec of the chart, for example for ``altair.Chart.from_dict``.
        inches: width and height of the chart on paper; by default, one pixel is one point (1/72
            inch).
    """

    spec: Spec = field(repr=False)
    inches: tuple[float, float] | None = None

    def svg(self) -> str:
        """Render the chart as SVG text."""
        svg = str(vl_convert.vegalite_to_svg(self.spec, vl_version=_VEGA_LITE))
        if self.inches is None:
            return svg
        width, height = self.inches
        return _SVG_SIZE.sub(rf'\1width="{width:g}in" height="{height:g}in"', svg)

    def png(self) -> bytes:
        """Render the chart as PNG, with 300 pixels per inch or, without ``inches``, in twice its
        size."""
        return svg_to_png(self.svg())

    def save(self, path: str | Path) -> None:
        """Write the chart to a file.

        Args:
            path: path that ends in ``.svg``, ``.png`` or ``.pdf``, which sets the file format.

        Raises:
            ValueError: the path has another extension.
        """
        converters: dict[str, Callable[[str], str | bytes]] = {
            ".svg": str, ".png": svg_to_png, ".pdf": svg_to_pdf,
        }  # fmt: skip
        path = Path(path)
        if path.suffix not in converters:
            raise ValueError(f"{path}: {UNKNOWN_FORMAT}")
        write_atomic(path, converters[path.suffix](self.svg()))

    def html(self) -> str:
        """Return an HTML image of the chart."""
        svg = base64.b64encode(self.svg().encode()).decode()
        return f'<img alt="chart" src="data:image/svg+xml;base64,{svg}">'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the chart for IPython, as SVG and PNG."""
        svg = self.svg()
        return {"image/svg+xml": svg, "image/png": base64.b64encode(svg_to_png(svg)).decode()}


def svg_size(svg: str) -> tuple[float, float]:
    """Return the width and the height (pixels) of an SVG image that Vega rendered."""
    size = _SVG_SIZE.search(svg)
    assert size is not None
    return float(size[2]), float(size[3])


def svg_to_png(svg: str) -> bytes:
    """Convert an SVG image to PNG, with 300 pixels per inch or in twice its size in pixels."""
    in_pixels = _SVG_SIZE.search(svg) is not None
    png = vl_convert.svg_to_png(svg, scale=2 if in_pixels else _PNG_DPI / 96)
    out = io.BytesIO()
    dpi = {} if in_pixels else {"dpi": (_PNG_DPI, _PNG_DPI)}
    Image.open(io.BytesIO(png)).save(out, "PNG", optimize=True, **dpi)  # a quarter of the size
    return out.getvalue()


def svg_to_pdf(svg: str) -> bytes:
    """Convert an SVG image to PDF; a pixel becomes a point, and a size in inches is kept."""
    in_points = _INCHES.sub(lambda match: f'"{72 * float(match[1]):g}"', svg, count=2)
    return bytes(vl_convert.svg_to_pdf(in_points))


def with_style(spec: Spec, style: Style) -> Spec:
    """Return a chart with the colours and the background of a style."""
    text = json.dumps(spec)
    if style == "dark":
        pattern = "|".join(DARK_COLOURS)  # one pass, because a dark colour may also be a light one
        text = re.sub(f'"({pattern})"', lambda match: f'"{DARK_COLOURS[match[1]]}"', text)
    return {**json.loads(text), "background": _BACKGROUNDS[style]}


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """A figure of the report.

    Attributes:
        name: file name without its extension.
        title: heading on the report page.
        caption: text below the figure, or a function that takes the Vega-Lite spec and returns it.
        draw: function that takes all points and returns a Vega-Lite spec, or None if there is
            nothing to show.
    """

    name: str
    title: str
    caption: str | Callable[[Spec], str]
    draw: Callable[[Sequence[PointStatus]], Spec | None]


def vega_script() -> str:
    """Return the JavaScript that renders charts in a page (Vega, BSD licence; about 900 kB).

    Bundling takes seconds, so the result is cached in the user's cache folder if it is writable.
    """
    name = f"vega-{vl_convert.get_vega_version()}-lite-{_VEGA_LITE}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError, RuntimeError):  # RuntimeError: no home
        if cached := (_cache_folder() / name).read_text(encoding="utf-8"):
            return cached
    code = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version=_VEGA_LITE))
    code = code.replace("</script", "<\\/script")
    with contextlib.suppress(OSError, RuntimeError):
        write_atomic(_cache_folder() / name, code, durable=False)
    return code


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexhpc"


def log_domain(values: Iterable[float], *, label_space: float = 0.0) -> list[float]:
    """Return the ends of a logarithmic axis that contains all values.

    Args:
        values: values to show; those that are not positive or not finite are ignored.
        label_space: additional space for labels at the upper end, as a fraction of the length of
            the axis without this space.
    """
    shown = [value for value in values if value > 0 and math.isfinite(value)]
    if not shown:
        return [1.0, 10.0]
    low, high = min(shown), max(shown)
    margin = max((high / low) ** _MARGIN, math.sqrt(_MIN_LOG_RANGE / (high / low)))
    low, high = low / margin, high * margin
    return [low, high * (high / low) ** label_space]


def spread_labels(
    values: Mapping[str, float], domain: Sequence[float], height: float
) -> dict[str, float]:
    """Move labels on a logarithmic axis apart until they do not overlap.

    Args:
        values: dict from the name of each label to the value that the label belongs to.
        domain: both ends of the axis.
        height: height of the axis (pixels).

    Returns:
        A dict from the name of each label to the value at which to draw it.
    """
    min_distance = _LABEL_HEIGHT * math.log(domain[1] / domain[0]) / height
    names = sorted(values, key=values.__getitem__)
    logs = [math.log(values[name]) for name in names]
    for _ in range(200):
        close = [i for i in range(len(logs) - 1) if logs[i + 1] - logs[i] < min_distance * 0.999]
        if not close:
            break
        for i in close:
            push = (min_distance - (logs[i + 1] - logs[i])) / 2
            logs[i], logs[i + 1] = logs[i] - push, logs[i + 1] + push
    return {name: math.exp(log) for name, log in zip(names, logs, strict=True)}
