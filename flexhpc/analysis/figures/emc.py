"""EMC against parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from flexhpc.analysis.figures.curves import draw_series, series_of, with_size
from flexhpc.analysis.figures.marks import log_scale
from flexhpc.analysis.figures.shown import ReportFigure
from flexhpc.store.status import PointStatus


def emc_figure(statuses: Sequence[PointStatus]) -> Figure | None:
    """EMC against parameters, log-log, with intervals, censoring arrows and the line y = x.

    None where there are no parameters to show it against.
    """
    if (measured := with_size(statuses)) is None:
        return None
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, group) in enumerate(series_of(measured).items()):
        draw_series(axes, group, number, name)
    if measured:
        axes.margins(y=0.1)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="EMC (samples)")
    log_scale(axes.xaxis)
    log_scale(axes.yaxis)
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


FIGURE = ReportFigure(
    name="emc_vs_parameters",
    title="EMC against parameters",
    caption="Bars are intervals. Open markers with an arrow are bounds of censored points, not "
    "measurements; curves join the medians over seeds, where these are no bounds. "
    "On the dashed line a network fits as many samples as it has parameters.",
    draw=emc_figure,
)
