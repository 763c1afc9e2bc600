"""Summary of a sweep in sentences, generated from its measured points."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.analysis.endings import wider
from flexhpc.analysis.figures.layout import Layout, layout_of, name_of
from flexhpc.analysis.text import emc_text
from flexhpc.analysis.tuning import AT_EDGE, at_edge
from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

_MOST_SERIES = 8


def answer(statuses: Sequence[PointStatus]) -> list[str]:
    """Summarize a sweep in sentences: ranges of EMC first, then their limitations."""
    measured = [s for s in statuses if s.estimate and s.record]
    if not measured:
        return ["Nothing was measured yet.", *_caution(statuses)]
    layout = layout_of(measured)
    if len(measured) == 1:
        said = [f"EMC {emc_text(measured[0].estimate)}."]
    elif layout.along == "rows":
        said = _extremes(measured, layout)
    else:
        said = _ranges(measured, layout)
    return [*said, *_caution(statuses)]


def _ranges(measured: Sequence[PointStatus], layout: Layout) -> list[str]:
    """Describe the EMC of each curve at its first and at its last x value."""
    groups: dict[str, list[PointStatus]] = {}
    for status in measured:
        name = ", ".join(filter(None, (layout.facet(status), layout.series(status))))
        groups.setdefault(name, []).append(status)
    along_size = layout.along == "size"
    said = []
    for name, some in list(groups.items())[:_MOST_SERIES]:
        places = sorted({layout.x(status) for status in some})
        ends = {place: _number(place) for place in (places[0], places[-1])}
        first = ends[places[0]]
        ends[places[0]] = f"{first} parameters" if along_size else f"{layout.key} {first}"
        parts = [
            f"{_at([s for s in some if layout.x(s) == place])} at {where}"
            for place, where in ends.items()
        ]
        start = f"{name}: " if name else ""
        said.append(f"{start}EMC {', '.join(parts)}{_per_parameter(some)}.")
    if len(groups) > _MOST_SERIES:
        said.append(f"{len(groups) - _MOST_SERIES} more curves are in the figure.")
    return said


def _at(some: Sequence[PointStatus]) -> str:
    """Format the EMC of one point, or the range of the EMCs of several."""
    if len(some) == 1:
        return emc_text(some[0].estimate)
    ordered = sorted(some, key=_emc)
    ends = [emc_text(s.estimate).split(" [")[0] for s in (ordered[0], ordered[-1])]
    return f"{ends[0]} to {ends[1]} ({len(some)} points)"


def _number(place: float) -> str:
    return f"{place:,.0f}" if place == int(place) else f"{place:.4g}"


def _per_parameter(some: Sequence[PointStatus]) -> str:
    """Format the range of EMC per parameter; empty if an EMC is a bound or a size is unknown."""
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
    """Describe the largest and the smallest EMC of each group, and whether intervals overlap."""
    keys = list(dict.fromkeys(key for s in measured for key in s.point.swept))
    groups: dict[str, list[PointStatus]] = {}
    for status in measured:
        groups.setdefault(layout.series(status), []).append(status)
    if any(len(some) < 2 for some in groups.values()) or len(groups) > _MOST_SERIES:
        groups = {"": list(measured)}
    rest = [key for key in keys if "" in groups or key not in layout.colours]
    said = []
    for name, some in groups.items():
        ordered = sorted(some, key=_emc)
        least, most = ordered[0], ordered[-1]
        plain = f"plain {name}" if name else "the plain point"
        names = [name_of(s, rest) or plain for s in (most, least)]
        start = f"{name}: most" if name else "Most"
        said.append(
            f"{start} at {names[0]}, EMC {emc_text(most.estimate)}; least at {names[1]}, "
            f"EMC {emc_text(least.estimate)}; {_certainty(ordered)}."
        )
    return said


def _certainty(ordered: Sequence[PointStatus]) -> str:
    """Describe how certain it is which point has the smallest and which the largest EMC.

    Args:
        ordered: at least two points, by ascending EMC.
    """
    least, *between, most = ordered
    if not _above(most.estimate, least.estimate):
        return "their intervals overlap, so these measurements do not tell which fits more"
    may_be_more = [s for s in between if s.estimate and s.estimate.censored == "right"]
    may_be_less = [s for s in between if s.estimate and s.estimate.censored == "left"]
    if may_be_more or may_be_less:
        count = len(may_be_more) + len(may_be_less)
        return (
            "their intervals do not overlap, but "
            f"{'another, a bound,' if count == 1 else f'{count} others, bounds,'} may lie beyond"
        )
    return "their intervals do not overlap"


def _emc(status: PointStatus) -> int:
    return status.estimate.emc if status.estimate else 0


def _caution(statuses: Sequence[PointStatus]) -> list[str]:
    """Count the points that failed, are unfinished, are bounds, or exceed the tolerance."""
    dead = sum(s.state == "failed" for s in statuses)
    open_ = sum(s.state not in ("done", "failed") for s in statuses)
    bounds = sum(s.estimate is not None and s.estimate.censored != "none" for s in statuses)
    wide = sum(bool(s.estimate and wider(s.point.search, s.estimate)) for s in statuses)
    said = []
    if dead:
        where = "the reasons stand under Failed points"
        said.append(f"{dead} of {len(statuses)} points failed; {where}.")
    if open_:
        said.append(f"{open_} of {len(statuses)} points not measured to the end yet.")
    if bounds:
        said.append(f"{_points(bounds)} a bound only; the reasons stand below the table.")
    failed = [p for s in statuses if s.record for p in s.record.probes if p.verdict != "fit"]
    cut_off = sum(probe.verdict == "unconverged" for probe in failed)
    if failed and cut_off > len(failed) / 2:
        said.append(
            f"{cut_off:,} of the {len(failed):,} trainings that failed were still improving when "
            "their budget ended: a larger one may raise these EMCs."
        )
    edge = sum(map(at_edge, statuses))
    if edge:
        said.append(f"In {edge} of {len(statuses)} points {AT_EDGE}.")
    if wide:
        said.append(f"{_points(wide)} less certain than was asked for: the interval is wider.")
    return said


def _points(count: int) -> str:
    return "1 point is" if count == 1 else f"{count} points are"


def _above(a: Estimate | None, b: Estimate | None) -> bool:
    """Return whether the interval of ``a`` lies entirely above that of ``b``."""
    if a is None or b is None or b.censored == "right":
        return False
    low = a.emc if a.censored == "right" else a.emc_lo
    high = (b.smallest_fail or 1) if b.censored == "left" else b.emc_hi
    return a.censored != "left" and high is not None and low > high
