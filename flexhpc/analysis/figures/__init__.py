"""Figures of the report."""

from __future__ import annotations

from importlib import import_module

from flexhpc.analysis.figures.chart import ReportFigure

MODULES = [
    "flexhpc.analysis.figures.emc",
    "flexhpc.analysis.figures.budget",
    "flexhpc.analysis.figures.generalization",
]
"""Modules whose ``FIGURES`` are the figures of the report, in page order. To add figures, add a
module."""


def figures_of_report() -> list[ReportFigure]:
    """Return the figures of the report, in page order."""
    return [figure for name in MODULES for figure in import_module(name).FIGURES]
