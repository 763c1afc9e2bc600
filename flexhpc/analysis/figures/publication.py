"""Figure of a run for a publication: requested axes, an exact size on paper and a legend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from flexhpc.analysis.figures.chart import Chart, PrintSize, Spec, Style, svg_size, with_style
from flexhpc.analysis.figures.emc import Quantity, emc_figure, plotted_values
from flexhpc.analysis.figures.layout import requested_layout
from flexhpc.analysis.text import without_shared_entries
from flexhpc.errors import InputError, PointError
from flexhpc.store.status import PointStatus

_PIXELS_PER_INCH = 72 * 12 / 8
"""Scale at which the text of a chart (12 pixels) has a size of 8 points."""
_FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
_FACET_WIDTH = 130
"""Minimum width of a facet (pixels); narrower facets are placed below each other."""
_MIN_AXIS, _MAX_INCHES = 40, 20.0
_MAX_RENDERINGS = 5
"""Maximum number of renderings that determine the size of the facets; a different size may change
the labels of the axes, and so the space that they need."""


def publication_figure(
    statuses: Sequence[PointStatus], *, x: str | None = None, y: Quantity = "emc",
    facet: str | None = None, size: tuple[float, float] = (3.3, 2.5), style: Style = "light",
) -> Chart:  # fmt: skip
    """Plot the points of a run; text has a size of 8 points, and the legend explains the marks.

    Args:
        statuses: all points; those without a value of ``y`` are omitted.
        x: swept key on the x axis, or ``params`` (the number of parameters). If the values of the
            key are not numbers, each value is a row. By default, as in the report.
        y: ``emc``, ``emc_per_param`` or ``doubling`` (the EMC at twice the budget, divided by the
            EMC).
        facet: swept key; each of its values has its own facet. By default, as in the report.
        size: width and height, including axes and legend (inches).
        style: ``light`` or ``dark``.

    Raises:
        InputError: an argument is invalid.
        PointError: no point has a value of ``y``.
    """
    problems = [
        f"{name}: must be {' or '.join(values)} ({value})"
        for name, value, values in (
            ("y", y, get_args(Quantity)), ("style", style, get_args(Style)),
        )
        if value not in values
    ]  # fmt: skip
    if not (len(size) == 2 and all(0 < side <= _MAX_INCHES for side in size)):
        problems.append(f"size: must be a width and a height up to {_MAX_INCHES:g} inches ({size})")
    statuses = without_shared_entries(statuses)
    measured = [status for status in statuses if status.estimate and status.record]
    try:
        layout = requested_layout(measured or statuses, x, facet)
    except InputError as error:
        problems += error.lines
    if problems:
        raise InputError(problems)
    width, height = (_PIXELS_PER_INCH * side for side in size)
    columns = max(1, int(width // _FACET_WIDTH))
    spec = emc_figure(measured, y, layout, PrintSize(width=width, height=height, columns=columns))
    if spec is None:
        raise PointError(f"{y}: is not known at any point yet")
    spec = with_style({**spec, "config": {**spec["config"], "font": _FONT}, "padding": 4}, style)
    return Chart(_fit_to_size(spec, width, height), inches=size)


def omitted_points_text(statuses: Sequence[PointStatus], y: Quantity) -> str:
    """Return how many points a figure of ``y`` omits and why; empty if it shows all points."""
    omitted = Counter(
        f"without a value of {y}" if s.estimate
        else "failed" if s.state == "failed" else "not measured yet"
        for s in statuses
        if not plotted_values(s, y)
    )  # fmt: skip
    if not omitted:
        return ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in omitted.items())
    return f"{omitted.total()} of {len(statuses)} points are not in the figure: {reasons}"


def _fit_to_size(spec: Spec, width: float, height: float) -> Spec:
    """Return a chart whose facets are so large that the whole chart has a size in pixels.

    Raises:
        InputError: the axes would be too short.
    """
    view = dict(spec.get("spec", spec))
    columns = spec.get("columns", 1)
    rows = math.ceil(len(spec["facet"]["sort"]) / columns) if "facet" in spec else 1
    for _ in range(_MAX_RENDERINGS):
        drawn = svg_size(Chart(spec).svg())
        if abs(drawn[0] - width) <= 1 and abs(drawn[1] - height) <= 1:
            break
        rest = drawn[0] - columns * view["width"], drawn[1] - rows * view["height"]
        view |= {"width": (width - rest[0]) / columns, "height": (height - rest[1]) / rows}
        if min(view["width"], view["height"]) < _MIN_AXIS:
            needed = rest[0] + columns * _MIN_AXIS, rest[1] + rows * _MIN_AXIS
            text = "x".join(f"{math.ceil(10 * s / _PIXELS_PER_INCH) / 10:g}" for s in needed)
            raise InputError(f"size: is too small for axes and legend; use at least {text} inches")
        spec = {**spec, "spec": view} if "facet" in spec else {**spec, **view}
    return spec
