"""Colours, markers, arrows and axes shared by the matplotlib figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Palette of Okabe and Ito, distinguishable with colour blindness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ARROW = 18
"""Length of the arrow at a bound (points)."""


def arrow(axes: Axes, start: tuple[float, float], towards: tuple[int, int], colour: str) -> None:
    """Draw an arrow from a bound in the direction of the true value.

    Args:
        axes: axes to draw on; start: the bound, in data coordinates.
        towards: direction (x, y), each -1, 0 or 1; colour: colour of the arrow.
    """
    axes.annotate(
        "", start, (_ARROW * towards[0], _ARROW * towards[1]), textcoords="offset points",
        arrowprops={"arrowstyle": "<-", "color": colour},
    )  # fmt: skip


def verbatim(text: str) -> str:
    """Escape text so that matplotlib does not interpret parts of it as a formula."""
    return text.replace("$", r"\$")


def log_scale(axis: Axis) -> None:
    """Place short tick labels at 1, 2 and 5 times powers of ten on a logarithmic axis."""
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axis.set_minor_formatter(NullFormatter())


def _short(x: float) -> str:
    for size, ending in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if x >= size:
            return f"{x / (1e3 if ending == 'k' else size):g}{ending}"
    return f"{x:g}"
