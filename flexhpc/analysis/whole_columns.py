"""Tables for a terminal of any width: columns that do not fit are removed as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

_BETWEEN = 2
"""Spaces between columns."""
_LOOKED_AT = 200
"""Maximum number of cells that are read to choose where to cut a column."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: header; cells: text of each row, in order.
        right: whether it is right-aligned.
        goes: rank of removal if not all columns fit, lowest first; None if it is always kept.
        least: minimum width (characters) to which cells may be cut in their middle; None if they
            may not be cut.
    """

    name: str
    cells: Sequence[str | Text]
    right: bool = False
    goes: int | None = None
    least: int | None = None

    @property
    def width(self) -> int:
        """Full width (characters)."""
        return max(len(self.name), *(len(cell) for cell in self.cells), 0)

    @property
    def needed(self) -> int:
        """Minimum width (characters)."""
        return self.width if self.least is None else min(self.width, self.least)


def table_of(columns: Sequence[Column], width: int, styles: Sequence[str] = ()) -> Table:
    """Return a table of the columns that fit; the rightmost columns are cut first.

    Args:
        columns: all columns; width: width of the terminal (characters).
        styles: style of each row; empty for none.
    """
    kept = list(columns)
    for column in sorted(_optional(columns), key=lambda column: column.goes or 0):
        if _taken([column.needed for column in kept]) <= width:
            break
        kept.remove(column)
    widths = [column.width for column in kept]
    for place in reversed(range(len(kept))):
        excess = _taken(widths) - width
        if excess > 0 and kept[place].least is not None:
            widths[place] = max(kept[place].needed, widths[place] - excess)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column, room in zip(kept, widths, strict=True):
        justify: Literal["right", "left"] = "right" if column.right else "left"
        head = column.name if len(column.name) <= room else cut(column.name, room)
        table.add_column(head, justify=justify, no_wrap=True, overflow="ellipsis")
    fitted = [_fitted(column.cells, room) for column, room in zip(kept, widths, strict=True)]
    for row, cells in enumerate(zip(*fitted, strict=True)):
        table.add_row(*cells, style=styles[row] if styles else None)
    return table


def _fitted(cells: Sequence[str | Text], room: int) -> list[Text]:
    """Cut the cells that are too long, at the position that keeps most of them distinct."""
    head = None
    if any(len(cell) > room for cell in cells):
        heads = sorted(range(1, room - 1), key=lambda head: abs(head - room // 3))
        some = {str(cell) for cell in cells[:_LOOKED_AT]}
        head = max(heads, key=lambda h: len({cut(name, room, h) for name in some}), default=None)
    return [Text(cut(str(cell), room, head)) if len(cell) > room else _text(cell) for cell in cells]


def _optional(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.goes is not None]


def _taken(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def cut(name: str, width: int, head: int | None = None) -> str:
    """Cut the middle out of a long name, as points more often differ in the ends of their names.

    Args:
        name: name of a point; width: maximum width (characters).
        head: number of characters to keep before the cut; by default a third of ``width``.
    """
    head = width // 3 if head is None else head
    return name if len(name) <= width else f"{name[:head]}…{name[head + 1 - width :]}"
