"""Definition of a figure of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flexhpc.store.status import PointStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """A figure of the report.

    Attributes:
        name: file name without its extension; title, caption: text on the page.
        draw: function from all points to the figure, or None if there is nothing to show. The
            figure is a Vega-Lite spec, which is interactive on the page, or a matplotlib figure.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[PointStatus]], Figure | dict[str, Any] | None]
