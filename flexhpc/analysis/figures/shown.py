"""What the report shows of a figure."""

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
        name: of its file, without the ending; title, caption: on the page.
        draw: from all points to the figure, None where it has nothing to show: a Vega-Lite spec,
            which can be asked on the page, or a figure of matplotlib.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[PointStatus]], Figure | dict[str, Any] | None]
