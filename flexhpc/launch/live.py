"""Show the progress of a sweep on the console."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flexhpc.analysis.reasons import failures_by_message, points_text
from flexhpc.analysis.tables import status_view
from flexhpc.analysis.text import duration_text, emc_text
from flexhpc.launch.time_left import seconds_left
from flexhpc.store.status import PointStatus

_WIDEST_BAR = 32


class View:
    """Display of a sweep: a live table in a terminal, one line per finished point otherwise."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.started = time.monotonic()
        self._last_states: dict[str, str] | None = None
        self._reported: set[str] = set()
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
        """Show the current status of all points and a note."""
        if self._last_states is None:
            self._last_states = {s.point.id: s.state for s in statuses if s.state == "done"}
        if self.console.is_terminal:
            self._live.update(self.render(statuses, note))
        else:
            self._print_changes(statuses, self._last_states)
            if note and note != self._last_note:
                self._print(note)
            self._last_note = note

    def render(self, statuses: Sequence[PointStatus], note: str) -> RenderableType:
        """Return the terminal view: progress, remaining time and the table of points."""
        width = min(_WIDEST_BAR, max(8, self.console.width // 5))
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self.name, style="bold", overflow="ellipsis", no_wrap=True),
            ProgressBar(total=len(statuses), completed=_finished(statuses), width=width),
            Text(f"{_finished(statuses)}/{len(statuses)} points", no_wrap=True),
            Text(self._elapsed_and_left(statuses), no_wrap=True),
        )
        header = [Text(note, style="yellow")] if note else []
        rows = max(4, self.console.height - 4 - len(header))
        return Group(head, *header, status_view(statuses, self.console.width, rows))

    def _elapsed_and_left(self, statuses: Sequence[PointStatus]) -> str:
        """Format the elapsed time, and a range for the remaining time once it can be estimated."""
        elapsed = duration_text(time.monotonic() - self.started)
        remaining = seconds_left(statuses)
        if remaining is None or remaining[1] == 0:
            return elapsed
        low, high = map(duration_text, remaining)
        number, unit = low.split(" ")
        start = number if high.endswith(unit) else low
        return f"{elapsed}, {start} to {high} left"

    def _print_changes(self, statuses: Sequence[PointStatus], states: dict[str, str]) -> None:
        """Print one line for each newly measured point and for each failure message."""
        count = f"[{_finished(statuses)}/{len(statuses)}]"
        changed = [s for s in statuses if s.state != states.get(s.point.id)]
        states.update((s.point.id, s.state) for s in changed)
        for status in changed:
            if status.state == "done":
                self._print(f"{count} {_label(status)}: done {emc_text(status.estimate)}")
        for message, points in failures_by_message(changed).items():
            reason = "for the same reason as before" if message in self._reported else message
            self._reported.add(message)
            self._print(f"{count} {points_text(points)}: failed {reason}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _label(status: PointStatus) -> str:
    return status.point.label or status.point.id


def _finished(statuses: Sequence[PointStatus]) -> int:
    return sum(status.state in ("done", "failed") for status in statuses)
