"""The figures of the report."""

from __future__ import annotations

from importlib import import_module

from flexhpc.analysis.figures.shown import ReportFigure

MODULES = [
    "flexhpc.analysis.figures.emc",
    "flexhpc.analysis.figures.efficiency",
    "flexhpc.analysis.figures.generalization",
]
"""In the order of the page; each has a ``FIGURE``. One more figure is one more line."""


def report_figures() -> list[ReportFigure]:
    """Return the figures of the report."""
    return [import_module(name).FIGURE for name in MODULES]
