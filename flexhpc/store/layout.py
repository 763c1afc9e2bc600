"""Where everything of a run lies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one sweep's results; paths only, nothing is created here."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.path.name

    @property
    def spec(self) -> Path:
        """The frozen spec."""
        return self.path / "sweep.yaml"

    @property
    def record(self) -> Path:
        """Versions, hashes and launches."""
        return self.path / "run.json"

    @property
    def jobs(self) -> Path:
        """Folders of submitit, tasks and logs."""
        return self.path / "jobs"

    @property
    def lock(self) -> Path:
        """Guards claims; held for milliseconds."""
        return self.path / "points" / ".lock"

    @property
    def database(self) -> Path:
        """MLflow's database of a local run."""
        return self.path / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts of a local run."""
        return self.path / "mlartifacts"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    def point(self, point_id: str) -> Path:
        """The record of a point."""
        return self._beside(point_id, "h5")

    def claim(self, point_id: str) -> Path:
        """Who measures a point, and how far they are."""
        return self._beside(point_id, "claim.json")

    def begun(self) -> set[str]:
        """Return the ids of points that have a file: a record, a claim, a checkpoint.

        One listing per folder instead of two questions per point.
        """
        begun: set[str] = set()
        with contextlib.suppress(OSError):
            for folder in os.scandir(self.path / "points"):
                with contextlib.suppress(OSError):  # a file; gone, or shut, as a file would be
                    begun.update(name.split(".")[0] for name in os.listdir(folder))
        return begun

    def checkpoint(self, point_id: str, training: str) -> Path:
        """The state of one training in progress of a point, whatever it is called."""
        return self._beside(point_id, f"{training}.ckpt")

    def checkpoints(self, point_id: str) -> list[Path]:
        """Return all of a point that there are."""
        return sorted(self._beside(point_id, "h5").parent.glob(f"{point_id}.*.ckpt"))

    def unfinished(self, point_id: str) -> list[Path]:
        """Return what writers of a point's record and checkpoints left when they were killed.

        Claims are others' business, too: who takes one writes it before it is theirs, with the lock
        of the run in hand. See :meth:`unfinished_claims`.
        """
        parts = self._beside(point_id, "h5").parent.glob(f".{point_id}.*.part")
        return [path for path in parts if not path.name.startswith(f".{point_id}.claim.")]

    def unfinished_claims(self) -> Iterator[Path]:
        """Return what writers of claims left when they were killed; whoever asks holds the lock."""
        return (self.path / "points").glob("*/.*.claim.json.*.part")

    def _beside(self, point_id: str, ending: str) -> Path:
        return self.path / "points" / point_id[:2] / f"{point_id}.{ending}"
