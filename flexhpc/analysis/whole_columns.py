"""Tables for a terminal of any width: a column is shown whole, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

_BETWEEN = 2
"""Spaces between columns."""
_LOOKED_AT = 200
"""Cells by which it is found where to cut."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: its head; cells: its texts, in the order of the rows.
        right: whether it is set to the right.
        goes: the smaller, the sooner it goes where not all have room; None for one that stays.
        least: characters that a cell may be cut to, in its middle; None for not at all.
    """

    name: str
    cells: Sequence[str | Text]
    right: bool = False
    goes: int | None = None
    least: int | None = None

    @property
    def width(self) -> int:
        """Characters that it takes."""
        return max(len(self.name), *(len(cell) for cell in self.cells), 0)

    @property
    def needed(self) -> int:
        """Characters that it takes at least."""
        return self.width if self.least is None else min(self.width, self.least)


def table_of(columns: Sequence[Column], width: int, styles: Sequence[str] = ()) -> Table:
    """Return a table of the columns that fit, the last of those that may be cut first.

    Args:
        columns: all; width: of the terminal, in characters.
        styles: of the rows.
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
    """Return a column's cells, those that are too long cut where that leaves most of them apart."""
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
    """Cut the middle out of a long name: its ends tell points apart more often.

    Args:
        name: of a point; width: characters that it may have.
        head: how many of them stand before what is cut out; by default a third.
    """
    head = width // 3 if head is None else head
    return name if len(name) <= width else f"{name[:head]}…{name[head + 1 - width :]}"
