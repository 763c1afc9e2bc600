"""Plot the results of bench.search: RMSE against cost, a panel per world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)

from bench.search.report import Results, mark
from flexhpc.analysis.figures.marks import COLOURS

DRAWN = dict(zip(("bayes", "verdicts only", "to the end"), COLOURS, strict=False))
_COLUMNS = 4


def plot(results: Results, path: Path) -> None:
    """Draw all worlds."""
    rows = -(-len(results) // _COLUMNS)
    figure = Figure(figsize=(13, 2.6 * rows), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(rows, _COLUMNS))).ravel()
    for panel, (name, world) in zip(panels, results.items(), strict=False):
        for variant, colour in DRAWN.items():
            if variant in world["variants"]:
                cost, rmse = zip(*world["variants"][variant]["curve"], strict=True)
                panel.plot(cost, rmse, color=colour, marker=".", label=variant)
        medians = world["bisection"].values()
        price = world["bisection"]["1"]["cost"]
        panel.plot(
            [m["cost"] / price for m in medians], [m["rmse"] for m in medians], color="0.5",
            linestyle="--", marker="s", markersize=4, label="median of bisections",
        )  # fmt: skip
        panel.set_title(mark(name), fontsize=9)
        _scales(panel)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=100)


def _scales(panel: Axes) -> None:
    panel.set(xscale="log", yscale="log")
    panel.set_xlabel("cost, in bisections", fontsize=8)
    panel.set_ylabel("RMSE of log EMC", fontsize=8)
    panel.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_minor_formatter(NullFormatter())
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.tick_params(labelsize=8)
    panel.grid(True, which="major", color="0.92")
