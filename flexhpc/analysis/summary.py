"""Summary of a sweep in sentences, for the top of its report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from flexhpc.analysis.effect import Effect
from flexhpc.analysis.figures.layout import Layout, layout_of, swept_values_text, varied_keys
from flexhpc.analysis.grouping import group_by, swept_keys
from flexhpc.analysis.reasons import AT_EDGE, best_value_at_edge, exceeds_tolerance, is_censored
from flexhpc.analysis.scaling_law import PowerLaw
from flexhpc.analysis.text import emc_or_bound, emc_text
from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

_MAX_CURVES = 8
_MAX_COMPARISONS = 4
_MAX_MEANS = 6


def summarize(
    statuses: Sequence[PointStatus], effects: Sequence[Effect] = (),
    laws: Sequence[PowerLaw] = (), *, is_comparison: bool = False,
) -> list[str]:  # fmt: skip
    """Summarize a sweep in sentences: EMCs, verdicts of comparisons, and limitations of the EMCs.

    Args:
        statuses: all points.
        effects: comparisons.
        laws: power laws of the curves of EMC over parameters.
        is_comparison: whether the spec requests the comparisons. Then they come first, including
            those that are not decided.
    """
    measured = [s for s in statuses if s.estimate and s.record]
    if not measured:
        sentences = ["Nothing has been measured yet."]
    elif len(measured) == 1:
        sentences = [f"EMC {emc_text(measured[0].estimate)}."]
    else:
        layout = layout_of(measured)
        sentences = (
            _describe_rows(measured, layout)
            if layout.x_axis == "rows"
            else _describe_curves(measured, layout, laws)
        )
    verdicts = _describe_verdicts(effects, with_undecided=is_comparison)
    answers = [*verdicts, *sentences] if is_comparison else [*sentences, *verdicts]
    return [*answers, *describe_limitations(statuses)]


def _describe_curves(
    measured: Sequence[PointStatus], layout: Layout, laws: Sequence[PowerLaw]
) -> list[str]:
    """Describe the power law of each curve, and the EMCs at its smallest and at its largest x."""
    curves = group_by(
        measured, lambda s: ", ".join(filter(None, (layout.facet(s), layout.series(s))))
    )
    sentences = []
    for name, curve in list(curves.items())[:_MAX_CURVES]:
        xs = sorted({layout.x(status) for status in curve})
        ends = {x: f"{x:,.0f}" if x == int(x) else f"{x:.4g}" for x in (xs[0], xs[-1])}
        first = ends[xs[0]]
        ends[xs[0]] = f"{first} parameters" if layout.x_axis == "size" else f"{layout.key} {first}"
        parts = [
            f"{_mean_with_count([s for s in curve if layout.x(s) == x])} at {label}"
            for x, label in ends.items()
        ]
        start = f"{name}: " if name else ""
        slopes = [law.slope_text for law in laws if _is_law_of(law, curve[0])]
        law = f"scales as parameters ^ {slopes[0]}: " if slopes and layout.x_axis == "size" else ""
        sentences.append(f"{start}EMC {law}{', '.join(parts)}{_samples_per_parameter(curve)}.")
    if len(curves) > _MAX_CURVES:
        sentences.append(f"{len(curves) - _MAX_CURVES} more curves are in the figure.")
    return sentences


def _is_law_of(law: PowerLaw, status: PointStatus) -> bool:
    known = law.low is not None or law.high is not None
    values = law.within.items()
    return known and all((status.point.value_text(key) or "") == value for key, value in values)


def _mean_with_count(points: Sequence[PointStatus]) -> str:
    """Format the EMC of a single point, or the mean EMC of several points."""
    if len(points) == 1:
        return emc_text(points[0].estimate)
    noun = "seeds" if len({s.point.seed for s in points}) == len(points) else "points"
    return f"{_mean_text(points)} (mean of {len(points)} {noun})"


def _mean_text(points: Sequence[PointStatus]) -> str:
    """Format the mean EMC; it is a bound if an EMC is a bound."""
    emcs = [s.estimate for s in points if s.estimate]
    low = statistics.mean(0 if e.censored == "left" else e.emc for e in emcs)
    high = statistics.mean(math.inf if e.censored == "right" else emc_or_bound(e) for e in emcs)
    if low == high:
        return f"{low:.0f}"
    return f">= {low:.0f}" if high == math.inf else f"< {high:.0f}"


def _samples_per_parameter(curve: Sequence[PointStatus]) -> str:
    """Format the range of EMC per parameter; empty if an EMC is censored or a size is unknown."""
    ratios = [
        s.estimate.emc / s.record.header.params
        for s in curve
        if s.estimate and s.record and s.record.header.params and s.estimate.censored == "none"
    ]
    if len(ratios) < len(curve):
        return ""
    low, high = (f"{x:.0f}" if x >= 9.95 else f"{x:#.2g}" for x in (min(ratios), max(ratios)))
    values = low if low == high else f"{low} to {high}"
    return f"; {values} samples per parameter"


def _describe_rows(measured: Sequence[PointStatus], layout: Layout) -> list[str]:
    """Describe the mean EMCs over seeds or, with one seed, the largest and smallest EMC.

    If the points have groups (:attr:`Layout.colours`), there is one sentence for each group.
    """
    groups = group_by(measured, layout.series)
    if any(len(group) < 2 for group in groups.values()) or len(groups) > _MAX_CURVES:
        groups = {"": list(measured)}
    others = [key for key in swept_keys(measured) if "" in groups or key not in layout.colours]
    sentences = []
    varied = varied_keys(measured)
    for name, group in groups.items():
        rows = group_by(group, lambda s: swept_values_text(s, [k for k in others if k in varied]))
        if (seeds := max(map(len, rows.values()))) > 1:
            start = f"{name}: mean" if name else "Mean"
            sentences.append(f"{start} EMC over {seeds} seeds: {_list_means(rows)}.")
            continue
        ordered = sorted(group, key=_emc_or_zero)
        smallest, largest = ordered[0], ordered[-1]
        unset = f"the point without values of the {'other ' if name else ''}swept keys"
        names = [swept_values_text(s, others) or unset for s in (largest, smallest)]
        start = f"{name}: largest" if name else "Largest"
        sentences.append(
            f"{start} EMC at {names[0]}: {emc_text(largest.estimate)}; smallest EMC at {names[1]}: "
            f"{emc_text(smallest.estimate)}; {_describe_overlap(ordered)}."
        )
    return sentences


def _list_means(rows: Mapping[str, Sequence[PointStatus]]) -> str:
    """List the mean EMCs of rows in descending order; of many rows, only the first and the last."""
    names = sorted(rows, key=lambda name: -statistics.mean(map(_emc_or_zero, rows[name])))
    means = [f"{name} {_mean_text(rows[name])}".strip() for name in names]
    if (omitted := len(means) - _MAX_MEANS) > 1:
        means[_MAX_MEANS - 1 : -1] = [f"{omitted} more"]
    return "; ".join(means)


def _describe_overlap(ordered: Sequence[PointStatus]) -> str:
    """Describe whether the intervals of the smallest and the largest EMC overlap.

    Args:
        ordered: at least two points, sorted by ascending EMC.
    """
    smallest, *between, largest = ordered
    if not _is_interval_above(largest.estimate, smallest.estimate):
        return "their intervals overlap, so it is not decided which EMC is larger"
    if not (count := sum(map(is_censored, between))):
        return "their intervals do not overlap"
    others = "another EMC is a bound" if count == 1 else f"{count} other EMCs are bounds"
    return f"their intervals do not overlap, but {others} and may be larger or smaller than both"


def _emc_or_zero(status: PointStatus) -> int:
    return status.estimate.emc if status.estimate else 0


def _is_interval_above(a: Estimate | None, b: Estimate | None) -> bool:
    """Return whether the interval of ``a`` is entirely above the interval of ``b``."""
    if a is None or b is None or b.censored == "right":
        return False
    low = a.emc if a.censored == "right" else a.emc_lo
    high = (b.smallest_fail or 1) if b.censored == "left" else b.emc_hi
    return a.censored != "left" and high is not None and low > high


def describe_limitations(statuses: Sequence[PointStatus]) -> list[str]:
    """State how many points failed, are not finished, or have an EMC with a limitation."""
    total = len(statuses)
    failed = sum(s.state == "failed" for s in statuses)
    unfinished = sum(s.state not in ("done", "failed") for s in statuses)
    bounds = sum(map(is_censored, statuses))
    wide = sum(bool(exceeds_tolerance(s)) for s in statuses)
    edge = sum(map(best_value_at_edge, statuses))
    runs = [run for s in statuses if s.record for run in s.record.finished_runs]
    verdicts = [run.verdict for run in runs if run.verdict != "fit"]
    unconverged = verdicts.count("unconverged")
    doubled = [s.estimate for s in statuses if s.estimate and s.estimate.doubling]
    sentences = {
        f'{failed} of {total} points failed; see "Failed points" for the reasons.': failed,
        f"{unfinished} of {total} points are not finished yet.": unfinished,
        f"{_emc_subject(bounds)} only a bound; the reasons are listed below the results.": bounds,
        f"{unconverged:,} of the {len(verdicts):,} training runs that did not fit were still "
        "improving when their budget ended: a larger budget may raise the EMC of their points.": (
            unconverged > len(verdicts) / 2 and not doubled
        ),
        f"At {edge} of {total} points, {AT_EDGE}.": edge,
        f"{_emc_subject(wide)} less precise than requested: the interval exceeds the "
        "tolerance.": wide,
    }
    saturation = [_describe_saturation(doubled)] if doubled else []
    return [*(sentence for sentence, applies in sentences.items() if applies), *saturation]


def _describe_saturation(estimates: Sequence[Estimate]) -> str:
    """Describe how much the EMCs would increase if the budget were doubled, and how many points are
    saturated."""
    gains = [f"{e.doubling[1]:.1f}" for e in estimates if e.doubling]
    counts = {key: sum(e.saturated == key for e in estimates) for key in ("yes", "no", "unknown")}
    low, high = min(gains, key=float), max(gains, key=float)
    factor = low if low == high else f"{low} to {high}"
    raised = f"Twice the budget would raise the EMC by an estimated factor of {factor}"
    if counts["yes"] == len(estimates):
        return f"{raised}: all points are saturated."
    names = {
        "yes": "saturated",
        "no": "not saturated",
        "unknown": "with an interval too wide to tell",
    }
    known = ", ".join(f"{counts[key]} {name}" for key, name in names.items() if counts[key])
    limit = "The EMC of a point that is not saturated applies only to the budget of this point"
    return f"{raised} (points: {known}). {limit}."


def _emc_subject(count: int) -> str:
    """Return the start of a sentence about the EMC of ``count`` points, up to its verb."""
    return f"The EMC of {count} {'point' if count == 1 else 'points'} is"


def _describe_verdicts(effects: Sequence[Effect], *, with_undecided: bool) -> list[str]:
    """Return one sentence for each combination of group and baseline that has a verdict.

    Args:
        effects: comparisons.
        with_undecided: whether to describe comparisons without a verdict as well.
    """
    groups = group_by(effects, lambda effect: (effect.within_text, effect.baseline))
    everything = "all points" if any(within for within, _ in groups) else ""
    sentences = []
    for (within, baseline), group in list(groups.items())[:_MAX_COMPARISONS]:
        known = [e for e in group if with_undecided or e.verdict != "not decided"]
        parts = []
        for effect in known:
            start = f"{effect.value} {effect.qualified_verdict}"
            if effect.verdict in ("larger", "smaller") and effect.reversal_text:
                parts.append(f"{start} (mean ratio {effect.ratio_text}), {effect.reversal_text}")
            else:
                parts.append(f"{start} (ratio {effect.ratio_text})" if effect.ratio_text else start)
        undecided = [e.value for e in group if not with_undecided and e.verdict == "not decided"]
        if parts and undecided:
            parts.append(f"not decided: {', '.join(undecided)}")
        if parts:
            points = f" ({within or everything})" if within or everything else ""
            sentences.append(f"EMC{points} compared with {baseline}: {'; '.join(parts)}.")
    return sentences
