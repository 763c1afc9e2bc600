"""Figures of the report."""

from __future__ import annotations

from importlib import import_module

from flexhpc.analysis.figures.shown import ReportFigure

MODULES = [
    "flexhpc.analysis.figures.emc",
    "flexhpc.analysis.figures.efficiency",
    "flexhpc.analysis.figures.generalization",
]
"""Modules of the figures in page order, each with a ``FIGURE``. Add a line to add a figure."""


def report_figures() -> list[ReportFigure]:
    """Return the figures of the report, in page order."""
    return [import_module(name).FIGURE for name in MODULES]
