"""Show the progress of a sweep on the console."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flexhpc.analysis.reasons import failures_by_message, points_text
from flexhpc.analysis.tables import decision_view, status_view
from flexhpc.analysis.text import duration_text, emc_text
from flexhpc.launch.remaining_time import estimate_remaining_seconds
from flexhpc.store.status import PointStatus

if TYPE_CHECKING:
    from flexhpc.analysis.decision import Decision

_MAX_BAR_WIDTH = 32


class ProgressView:
    """Progress display: a live table in a terminal, otherwise one line per finished point."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.started = time.monotonic()
        self._last_states: dict[str, str] | None = None
        self._reported: set[str] = set()
        self._last_note = ""
        self._decided: set[tuple[str, ...]] = set()
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> ProgressView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def update(
        self, statuses: Sequence[PointStatus], note: str = "", decisions: Sequence[Decision] = ()
    ) -> None:
        """Show all points, a note, and the comparisons that have the key ``decide``."""
        if self._last_states is None:
            self._last_states = {s.point.id: s.state for s in statuses if s.state == "done"}
        if self.console.is_terminal:
            self._live.update(self.render(statuses, note, decisions))
        else:
            self._print_changes(statuses, self._last_states)
            self._print_verdicts(decisions)
            if note and note != self._last_note:
                self._print(note)
            self._last_note = note

    def render(
        self, statuses: Sequence[PointStatus], note: str, decisions: Sequence[Decision] = ()
    ) -> RenderableType:
        """Return the terminal view: progress, remaining time, comparisons and table of points."""
        width = min(_MAX_BAR_WIDTH, max(8, self.console.width // 5))
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self.name, style="bold", overflow="ellipsis", no_wrap=True),
            ProgressBar(total=len(statuses), completed=_finished_count(statuses), width=width),
            Text(f"{_finished_count(statuses)}/{len(statuses)} points", no_wrap=True),
            Text(self._elapsed_and_remaining(statuses), no_wrap=True),
        )
        header: list[RenderableType] = [Text(note, style="yellow")] if note else []
        header += [decision_view(decision, self.console.width) for decision in decisions]
        used = len(header) + sum(2 + len(decision.effects) for decision in decisions)
        rows = max(4, self.console.height - 4 - used)
        return Group(head, *header, status_view(statuses, self.console.width, rows))

    def _elapsed_and_remaining(self, statuses: Sequence[PointStatus]) -> str:
        """Format the elapsed time, and a range for the remaining time once it can be estimated."""
        elapsed = duration_text(time.monotonic() - self.started)
        remaining = estimate_remaining_seconds(statuses)
        if remaining is None or remaining[1] == 0:
            return elapsed
        low, high = map(duration_text, remaining)
        if low == high:
            return f"{elapsed}, {high} left"
        number, unit = low.split(" ")
        start = number if high.endswith(unit) else low
        return f"{elapsed}, {start} to {high} left"

    def _print_changes(self, statuses: Sequence[PointStatus], last_states: dict[str, str]) -> None:
        """Print a line for each newly measured point, and for each group of newly failed points.

        Points that failed with the same message form a group. ``last_states`` is updated.
        """
        changed = [s for s in statuses if s.state != last_states.get(s.point.id)]
        last_states.update((s.point.id, s.state) for s in changed)
        finished = _finished_count(statuses) - _finished_count(changed)
        for status in changed:
            if status.state == "done":
                finished += 1
                text = f"{points_text([status])}: done, EMC {emc_text(status.estimate)}"
                self._print(f"[{finished}/{len(statuses)}] {text}")
        for message, points in failures_by_message(changed).items():
            reason = " for a reason printed above" if message in self._reported else f": {message}"
            self._reported.add(message)
            finished += len(points)
            text = f"{points_text(points)}: failed{reason}"
            self._print(f"[{finished}/{len(statuses)}] {text}")

    def _print_verdicts(self, decisions: Sequence[Decision]) -> None:
        """Print a line for each new verdict of a comparison."""
        for effect in (effect for decision in decisions for effect in decision.effects):
            if effect.verdict != "not decided" and effect.key not in self._decided:
                self._decided.add(effect.key)
                self._print(effect.text)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _finished_count(statuses: Sequence[PointStatus]) -> int:
    return sum(status.state in ("done", "failed") for status in statuses)
