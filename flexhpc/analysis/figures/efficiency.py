"""EMC per parameter."""

from __future__ import annotations

from flexhpc.analysis.figures.emc import efficiency_figure
from flexhpc.analysis.figures.shown import ReportFigure

FIGURE = ReportFigure(
    name="emc_per_parameter",
    title="EMC per parameter",
    caption="The same, over the number of parameters. Arrows are bounds, not measurements.",
    draw=efficiency_figure,
)
