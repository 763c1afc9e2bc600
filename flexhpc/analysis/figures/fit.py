"""Probes and fit curve, one panel per point."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flexhpc.analysis.censoring import why_bound
from flexhpc.analysis.figures.marks import COLOURS, log_scale, verbatim
from flexhpc.analysis.text import emc_text
from flexhpc.search.fit_curve import posterior
from flexhpc.store.status import PointStatus

_VERDICTS = {
    "fit": ("o", COLOURS[2]),
    "not_fit": ("x", COLOURS[1]),
    "unconverged": ("+", COLOURS[3]),
    "unstable": ("2", COLOURS[5]),
    "saddle": ("1", COLOURS[4]),
    "diverged": ("|", COLOURS[6]),
}
_MOST_PANELS = 24
_TITLE_WIDTH = 40
_ALONE = (5.2, 3.6)
_IN_A_ROW = 6


def fit_figure(statuses: Sequence[PointStatus]) -> Figure:
    """Plot training accuracy and P(fit) against n, one panel per point.

    Only the first 24 points with a finished probe are shown.
    """
    shown = [s for s in statuses if s.probes][:_MOST_PANELS]
    columns = min(4, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    alone = columns == 1
    size = _ALONE if alone else (3.3 * columns, 2.6 * rows)
    figure = Figure(figsize=size, layout=None if alone else "constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(rows, columns))).ravel()
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, status in zip(panels, shown, strict=False):
        _fit_panel(panel, status)
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if alone:
        # Set margins explicitly: a constrained layout draws everything twice.
        lines = panels[0].get_title().count("\n") + 1
        top = 1 - (0.1 + 0.15 * lines) / _ALONE[1]
        bottom = 0.14 + 0.06 * -(-len(handles) // _IN_A_ROW)
        figure.subplots_adjust(left=0.11, right=0.98, bottom=bottom, top=top)
    if handles:
        figure.legend(
            handles.values(), handles.keys(), fontsize=8, frameon=False, ncols=_IN_A_ROW,
            loc="lower center" if alone else "outside lower center",
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
    log_scale(axes.xaxis)
    label = textwrap.fill(status.point.label or status.point.id, _TITLE_WIDTH)
    why = why_bound(status)
    title = f"{label}\nEMC {emc_text(estimate)}" + (f" ({why})" if why else "")
    axes.set_title(verbatim(title), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
