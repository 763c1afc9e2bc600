"""EMC per parameter."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from flexhpc.analysis.figures.curves import draw_series, series_of, with_size
from flexhpc.analysis.figures.marks import log_scale
from flexhpc.analysis.figures.shown import ReportFigure
from flexhpc.store.status import PointStatus


def efficiency_figure(statuses: Sequence[PointStatus]) -> Figure | None:
    """EMC per parameter against parameters, with intervals and censoring arrows.

    None where there are no parameters to show it against.
    """
    if (measured := with_size(statuses)) is None:
        return None
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, group) in enumerate(series_of(measured).items()):
        draw_series(axes, group, number, name, per_parameter=True)
    if measured:
        axes.margins(y=0.1)
    axes.set(xscale="log", xlabel="parameters", ylabel="EMC / parameters", ylim=(0, None))
    log_scale(axes.xaxis)
    if measured:
        axes.legend(fontsize=8, frameon=False)
    axes.grid(True, which="major", color="0.92")
    return figure


FIGURE = ReportFigure(
    name="emc_per_parameter",
    title="EMC per parameter",
    caption="Open markers with an arrow are bounds of censored points, not measurements.",
    draw=efficiency_figure,
)
