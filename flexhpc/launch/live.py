"""The live view of a sweep: a table in a terminal, one line per finished point elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flexhpc.analysis.tables import status_table
from flexhpc.analysis.text import emc_text, span
from flexhpc.store.status import PointStatus


class View:
    """Follows a sweep: a live table in a terminal, one line per finished point elsewhere."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.started = time.monotonic()
        self.first_done: int | None = None
        self._last_states: dict[str, str] = {}
        self._said: set[str] = set()
        self._last_note = ""
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def update(self, statuses: Sequence[PointStatus], note: str = "") -> None:
        """Show where everything stands."""
        if self.first_done is None:
            self.first_done = _finished(statuses)
            self._last_states = {s.point.id: s.state for s in statuses if s.state == "done"}
        if self.console.is_terminal:
            self._live.update(self._picture(statuses, note))
        else:
            self._lines(statuses)
            if note and note != self._last_note:
                self.console.print(note, markup=False, highlight=False, soft_wrap=True)
            self._last_note = note

    def _picture(self, statuses: Sequence[PointStatus], note: str) -> RenderableType:
        done, total = _finished(statuses), len(statuses)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self.name, style="bold"),
            ProgressBar(total=max(total, 1), completed=done, width=32),
            f"{done}/{total} points",
            self._left(done, statuses),
            Text(note, style="yellow"),
        )
        rows = max(4, self.console.height - 4)
        return Group(head, status_table(statuses, self.console.width, rows))

    def _left(self, done: int, statuses: Sequence[PointStatus]) -> str:
        """Time left, if the points to come take as long as those finished since the start."""
        elapsed = time.monotonic() - self.started
        fresh = done - (self.first_done or 0)
        if fresh <= 0:
            return f"{span(elapsed)}"
        return f"{span(elapsed)}, about {span(elapsed / fresh * (len(statuses) - done))} left"

    def _lines(self, statuses: Sequence[PointStatus]) -> None:
        done = _finished(statuses)
        for status in statuses:
            before = self._last_states.get(status.point.id)
            self._last_states[status.point.id] = status.state
            if status.state in ("done", "failed") and status.state != before:
                what = self._why(status) if status.state == "failed" else emc_text(status.estimate)
                label = status.point.label or status.point.id
                line = f"[{done}/{len(statuses)}] {label}: {status.state} {what}"
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _why(self, status: PointStatus) -> str:
        """Return why a point failed, in full once only: many may fail for one reason."""
        again = status.message in self._said
        self._said.add(status.message)
        return "for the same reason as one before" if again else status.message


def _finished(statuses: Sequence[PointStatus]) -> int:
    return sum(status.state in ("done", "failed") for status in statuses)
