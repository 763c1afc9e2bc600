"""Figures, with matplotlib's objects only: no pyplot, no display, no global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flexhpc.analysis.censoring import why_bound
from flexhpc.analysis.generalization import Pair
from flexhpc.analysis.text import emc_text, plain_text
from flexhpc.search import Estimate
from flexhpc.search.fit_curve import posterior
from flexhpc.store.status import PointStatus

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_VERDICTS = {
    "fit": ("o", COLOURS[2]),
    "not_fit": ("x", COLOURS[1]),
    "unconverged": ("+", COLOURS[3]),
    "unstable": ("2", COLOURS[5]),
    "hopeless": ("x", "0.6"),
    "saddle": ("1", COLOURS[4]),
    "diverged": ("|", COLOURS[6]),
}
_MOST_PANELS = 24
_LEAST = 0.7
"""What stands for an EMC of 0 on a logarithmic axis (samples)."""
_ARROW = 18
"""Length of the arrow at a bound (points)."""
_SIDES = {"lower": 1, "upper": -1}
"""Where the value lies that a ratio is a bound of: to its right, or to its left."""
_TITLE_WIDTH = 40
_SIZES = ("width", "depth", "scale", "match_params", "dims", "seed")
"""Keys that make a network larger, or repeat it: they run along a curve."""


def series_of(statuses: Sequence[PointStatus]) -> dict[str, list[PointStatus]]:
    """Group points into curves: by all swept keys but those that set the size, and the seed."""
    groups: dict[str, list[PointStatus]] = {}
    for status in statuses:
        swept = status.point.swept
        rest = {k: _without_size(v) for k, v in swept.items() if k.split(".")[-1] not in _SIZES}
        name = ", ".join(
            f"{key.split('.')[-1]}: {plain_text(value)}"
            for key, value in rest.items()
            if value is not None
        )
        groups.setdefault(name, []).append(status)
    return groups


def _without_size(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_size(v) for k, v in value.items() if k not in _SIZES}
    return value


def emc_figure(statuses: Sequence[PointStatus]) -> Figure:
    """EMC against parameters, log-log, with intervals, censoring arrows and the line y = x."""
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots()
    measured = [s for s in statuses if s.estimate is not None and s.record is not None]
    for number, (name, group) in enumerate(series_of(measured).items()):
        _series(axes, group, number, name)
    if measured:
        axes.margins(y=0.1)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="EMC (samples)")
    _log_scale(axes.xaxis)
    _log_scale(axes.yaxis)
    if measured:
        params = [s.record.header.params for s in measured if s.record]
        ends = np.array([min(params) / 1.5, max(params) * 1.5])
        axes.plot(ends, ends, color="0.6", linestyle="--", linewidth=1, label="y = x", zorder=0)
        totals = {s.record.header.n_limit for s in measured if s.record}
        for total in totals if len(totals) == 1 else ():
            axes.axhline(total, color="0.8", linewidth=1, zorder=0)
            axes.annotate(
                "largest n there is", (ends[0], total), color="0.5", fontsize=8, va="bottom"
            )
        axes.legend(fontsize=8, frameon=False)
    axes.grid(True, which="major", color="0.92")
    return figure


def _series(
    axes: Axes, group: Sequence[PointStatus], number: int, name: str, *, per_parameter: bool = False
) -> None:
    """One curve: filled markers with intervals; open ones with an arrow where censored."""
    colour, marker = COLOURS[number % 7], _MARKERS[number % 7]
    for status in group:
        estimate, record = status.estimate, status.record
        if estimate is None or record is None:
            continue
        x = record.header.params
        size = x if per_parameter else 1
        if estimate.censored == "none" and estimate.emc_hi is not None:
            low, high = max(estimate.emc_lo, _LEAST), estimate.emc_hi
            axes.plot([x, x], [low / size, high / size], color=colour, linewidth=1, alpha=0.7)
            axes.plot([x], [max(estimate.emc, _LEAST) / size], marker, color=colour, markersize=5)
        else:
            up = estimate.censored == "right"
            y = (estimate.emc if up else estimate.smallest_fail or _LEAST) / size
            axes.plot([x], [y], marker, color=colour, markersize=6, markerfacecolor="white")
            _arrow(axes, (x, y), (0, 1 if up else -1), colour)
    sizes, medians = _medians(group)
    ys = [
        median / size if per_parameter else median
        for size, median in zip(sizes, medians, strict=True)
    ]
    axes.plot(
        sizes, ys, color=colour, linewidth=1.2, marker=marker, markersize=0.1, label=name or "EMC"
    )


def _arrow(axes: Axes, start: tuple[float, float], towards: tuple[int, int], colour: str) -> None:
    """Draw an arrow from a bound to where the value lies."""
    axes.annotate(
        "", start, (_ARROW * towards[0], _ARROW * towards[1]), textcoords="offset points",
        arrowprops={"arrowstyle": "<-", "color": colour},
    )  # fmt: skip


def _medians(group: Sequence[PointStatus]) -> tuple[list[int], list[float]]:
    """Return ascending sizes and the median EMC over the seeds of each.

    NaN, so that a curve is broken there, where the median depends on what lies beyond the bound of
    a censored EMC.
    """
    by_size: dict[int, list[tuple[float, float]]] = {}
    for status in group:
        if status.record and status.estimate:
            by_size.setdefault(status.record.header.params, []).append(_reach(status.estimate))
    sizes = sorted(by_size)
    ends = [np.median(by_size[size], axis=0) for size in sizes]
    return sizes, [max(float(low), _LEAST) if low == high else math.nan for low, high in ends]


def _reach(estimate: Estimate) -> tuple[float, float]:
    """Return the least and the most that a point's EMC can be."""
    if estimate.censored == "left":
        return 0.0, float(estimate.smallest_fail or 1)
    return float(estimate.emc), math.inf if estimate.censored == "right" else float(estimate.emc)


def fit_figure(statuses: Sequence[PointStatus]) -> Figure:
    """Training accuracy and P(fit) against n, a panel per point."""
    shown = [s for s in statuses if s.probes][:_MOST_PANELS]
    columns = min(4, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    size = (5.2, 3.6) if columns == 1 else (3.3 * columns, 2.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(rows, columns))).ravel()
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, status in zip(panels, shown, strict=False):
        _fit_panel(panel, status)
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8,
            frameon=False,
        )  # fmt: skip
    return figure


def _fit_panel(axes: Axes, status: PointStatus) -> None:
    record = status.record
    assert record is not None
    history = status.history
    ns = np.geomspace(min(r.n for r in history) / 1.2, max(r.n for r in history) * 1.2, 120)
    curve = posterior(history, record.header.n_limit)
    axes.plot(ns, curve.mean_chance(ns), color=COLOURS[0], linewidth=1.2, label="P(fit | n)")
    estimate = status.estimate
    best = estimate.arm if estimate else 0
    others = [p for p in record.probes if p.arm != best]
    if others:
        axes.plot(
            [p.n for p in others], [p.train_accuracy for p in others], ".", color="0.8",
            markersize=4, label="other values of tuned keys", zorder=0,
        )  # fmt: skip
    for verdict, (marker, colour) in _VERDICTS.items():
        some = [p for p in record.probes if p.verdict == verdict and p.arm == best]
        if some:
            xs, ys = [p.n for p in some], [p.train_accuracy for p in some]
            axes.plot(xs, ys, marker, color=colour, markersize=5, label=verdict)
    if estimate is not None and estimate.censored == "none" and estimate.emc_hi is not None:
        axes.axvspan(estimate.emc_lo, estimate.emc_hi, color="0.92", zorder=0)
        axes.axvline(estimate.emc, color="0.6", linewidth=1, linestyle="--", zorder=0)
    axes.set(
        xscale="log", ylim=(-0.03, 1.06), xlabel="n (samples)", ylabel="train accuracy, P(fit)"
    )
    _log_scale(axes.xaxis)
    label = textwrap.fill(status.point.label or status.point.id, _TITLE_WIDTH)
    why = why_bound(status)
    title = f"{label}\nEMC {emc_text(estimate)}" + (f" ({why})" if why else "")
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def efficiency_figure(statuses: Sequence[PointStatus]) -> Figure:
    """EMC per parameter against parameters, with intervals and censoring arrows."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    measured = [s for s in statuses if s.estimate is not None and s.record is not None]
    for number, (name, group) in enumerate(series_of(measured).items()):
        _series(axes, group, number, name, per_parameter=True)
    if measured:
        axes.margins(y=0.1)
    axes.set(xscale="log", xlabel="parameters", ylabel="EMC / parameters", ylim=(0, None))
    _log_scale(axes.xaxis)
    if measured:
        axes.legend(fontsize=8, frameon=False)
    axes.grid(True, which="major", color="0.92")
    return figure


def generalization_figure(found: Sequence[Pair]) -> Figure:
    """Test accuracy against EMC with true labels over EMC with random ones, a marker per family."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, family in enumerate(dict.fromkeys(pair.family for pair in found)):
        for censored in (False, True):
            shown = [p for p in found if p.family == family and p.censored == censored]
            colour = COLOURS[number % 7]
            axes.plot(
                [math.exp(p.excess) for p in shown],
                [p.test_accuracy for p in shown],
                _MARKERS[number % 7],
                color=colour,
                markerfacecolor="white" if censored else colour,
                label=None if censored else family,
            )
            for pair in shown:
                if pair.bound in _SIDES:
                    at = (math.exp(pair.excess), pair.test_accuracy)
                    _arrow(axes, at, (_SIDES[pair.bound], 0), colour)
    axes.set(xscale="log", xlabel="EMC true labels / EMC random labels", ylabel="test accuracy")
    _log_scale(axes.xaxis)
    if any(not pair.censored for pair in found):
        axes.legend(fontsize=8, frameon=False)
    axes.grid(True, which="major", color="0.92")
    return figure


def _log_scale(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times powers of ten, with short numbers."""
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axis.set_minor_formatter(NullFormatter())


def _short(x: float) -> str:
    for size, ending in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if x >= size:
            return f"{x / (1e3 if ending == 'k' else size):g}{ending}"
    return f"{x:g}"
