"""The answer of a sweep in sentences, made from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.analysis.endings import wider
from flexhpc.analysis.figures.layout import Layout, layout_of, name_of
from flexhpc.analysis.text import emc_text, number_text
from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

_MOST_SERIES = 8


def answer(statuses: Sequence[PointStatus]) -> list[str]:
    """Return what a reader should know first: ranges of EMC, and how far to trust them."""
    measured = [s for s in statuses if s.estimate and s.record]
    if not measured:
        return ["Nothing was measured yet."]
    layout = layout_of(measured)
    if len(measured) == 1:
        said = [f"EMC {emc_text(measured[0].estimate)}."]
    elif layout.along == "rows":
        said = _extremes(measured, layout)
    else:
        said = _ranges(measured, layout)
    return [*said, *_caution(statuses)]


def _ranges(measured: Sequence[PointStatus], layout: Layout) -> list[str]:
    """Say for each curve from where to where EMC goes."""
    groups: dict[str, list[PointStatus]] = {}
    for status in measured:
        name = ", ".join(filter(None, (layout.facet(status), layout.series(status))))
        groups.setdefault(name, []).append(status)
    said = []
    for name, some in list(groups.items())[:_MOST_SERIES]:
        first, last = min(some, key=layout.place), max(some, key=layout.place)
        unit = " parameters" if layout.along == "size" else f" {layout.key}"
        start, end = (number_text(layout.place(s)).removesuffix(".0") for s in (first, last))
        said.append(
            f"{name + ': ' if name else ''}EMC {emc_text(first.estimate)} at {start}{unit}, "
            f"{emc_text(last.estimate)} at {end}{_per_parameter(some)}."
        )
    if len(groups) > _MOST_SERIES:
        said.append(f"{len(groups) - _MOST_SERIES} more curves are in the figure.")
    return said


def _per_parameter(some: Sequence[PointStatus]) -> str:
    """Say how many samples were fitted per parameter, where that is no bound."""
    ratios = [
        s.estimate.emc / s.record.header.params
        for s in some
        if s.estimate and s.record and s.record.header.params and s.estimate.censored == "none"
    ]
    if len(ratios) < len(some):
        return ""
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    return f"; per parameter {low}" + (f" to {high}" if low != high else "")


def _extremes(measured: Sequence[PointStatus], layout: Layout) -> list[str]:
    """Say of each group what fits most and least, and whether that lies beyond the intervals."""
    keys = list(dict.fromkeys(key for s in measured for key in s.point.swept))
    groups: dict[str, list[PointStatus]] = {}
    for status in measured:
        groups.setdefault(layout.series(status), []).append(status)
    if any(len(some) < 2 for some in groups.values()) or len(groups) > _MOST_SERIES:
        groups = {"": list(measured)}
    rest = [key for key in keys if "" in groups or key not in layout.colours]
    said = []
    for name, some in groups.items():
        ordered = sorted(some, key=lambda s: s.estimate.emc if s.estimate else 0)
        least, most = ordered[0], ordered[-1]
        names = [name_of(s, rest) or s.point.id for s in (most, least)]
        apart = _above(most.estimate, least.estimate)
        certain = (
            "their intervals do not overlap"
            if apart
            else "their intervals overlap, so these measurements do not tell which fits more"
        )
        said.append(
            f"{name + ': most ' if name else 'Most '}at {names[0]}, EMC {emc_text(most.estimate)}; "
            f"least at {names[1]}, EMC {emc_text(least.estimate)}; {certain}."
        )
    return said


def _caution(statuses: Sequence[PointStatus]) -> list[str]:
    """Say how many points are open, bounds only, or wider than was asked."""
    open_ = sum(s.state != "done" for s in statuses)
    bounds = sum(s.estimate is not None and s.estimate.censored != "none" for s in statuses)
    wide = sum(bool(s.estimate and wider(s.point.search, s.estimate)) for s in statuses)
    said = []
    if open_:
        said.append(f"{_points(open_)} of {len(statuses)} not measured to the end.")
    if bounds:
        said.append(f"{_points(bounds)} a bound only; why is said below the table.")
    if wide:
        said.append(f"{_points(wide)} less certain than was asked for: the interval is wider.")
    return said


def _points(count: int) -> str:
    return "1 point is" if count == 1 else f"{count} points are"


def _above(a: Estimate | None, b: Estimate | None) -> bool:
    """Return whether one interval lies wholly above another."""
    if a is None or b is None or b.censored == "right":
        return False
    low = a.emc if a.censored == "right" else a.emc_lo
    high = (b.smallest_fail or 1) if b.censored == "left" else b.emc_hi
    return a.censored != "left" and high is not None and low > high
