"""EMC and generalization."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from flexhpc.analysis.figures.marks import COLOURS, MARKERS, arrow, log_scale, verbatim
from flexhpc.analysis.figures.shown import ReportFigure
from flexhpc.analysis.generalization import Pair, pairs
from flexhpc.store.status import PointStatus

_SIDES = {"lower": 1, "upper": -1}
"""Direction of the true value relative to a bound: right (1) or left (-1)."""


def generalization_figure(model_pairs: Sequence[Pair]) -> Figure:
    """Plot test accuracy against the ratio of EMC with original labels to EMC with random labels.

    Each model family has a marker.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, family in enumerate(dict.fromkeys(pair.family for pair in model_pairs)):
        for censored in (False, True):
            shown = [p for p in model_pairs if p.family == family and p.censored == censored]
            colour = COLOURS[number % 7]
            axes.plot(
                [math.exp(p.excess) for p in shown],
                [p.test_accuracy for p in shown],
                MARKERS[number % 7],
                color=colour,
                markerfacecolor="white" if censored else colour,
                label=None if censored else verbatim(family),
            )
            for pair in shown:
                if pair.bound in _SIDES:
                    at = (math.exp(pair.excess), pair.test_accuracy)
                    arrow(axes, at, (_SIDES[pair.bound], 0), colour)
    axes.set(xscale="log", xlabel="EMC true labels / EMC random labels", ylabel="test accuracy")
    log_scale(axes.xaxis)
    if any(not pair.censored for pair in model_pairs):
        axes.legend(fontsize=8, frameon=False)
    axes.grid(True, which="major", color="0.92")
    return figure


def _of_pairs(statuses: Sequence[PointStatus]) -> Figure | None:
    model_pairs = pairs(statuses)
    return generalization_figure(model_pairs) if model_pairs else None


FIGURE = ReportFigure(
    name="generalization",
    title="EMC and generalization",
    caption="Each model that interpolated when it was trained with original labels. Open markers: "
    "an EMC is a bound only; the arrow points to where their ratio lies.",
    draw=_of_pairs,
)
