"""Which points free workers of one machine take next: a small file of the sweep, which knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from flexhpc.atomic import write_json
from flexhpc.spec import Point
from flexhpc.state_file import read_as


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Advice for whoever has nothing to do; without it points come in the order of the spec.

    Attributes:
        points: ids, the next one first; others come after them.
    """

    points: list[str]

    @staticmethod
    def path(launch: Path) -> Path:
        """Return where it is in the folder of a launch."""
        return launch / "turns.json"

    def write(self, launch: Path) -> None:
        """Write it for the workers of a launch.

        Raises:
            OSError: the folder is gone, or nothing can be written there.
        """
        write_json(self.path(launch), asdict(self), durable=False, makes_folder=False)


def next_of(points: Sequence[Point], launch: Path) -> int:
    """Return the place of the point whose turn it is, among some that are left."""
    turns = read_as(Turns, Turns.path(launch))
    if turns is None:
        return 0
    places = {point.id: place for place, point in enumerate(points)}
    return next((places[one] for one in turns.points if one in places), 0)
