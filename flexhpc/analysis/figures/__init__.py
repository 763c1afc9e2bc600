"""The figures of the report, with matplotlib's objects only: no pyplot, no global state."""

from flexhpc.analysis.figures import efficiency, emc, fit, generalization

FIGURES = (
    emc.FIGURE,
    efficiency.FIGURE,
    fit.FIGURE,
    generalization.FIGURE,
)
"""In the order of the page. One more figure is one more line."""
