"""Layout of a run folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class RunFolder:
    """Paths of the files in a run folder, which contains the results of one sweep.

    Attributes:
        path: the run folder.
        name: name of the sweep.
        spec: frozen copy of the spec.
        metadata: JSON file with the launches of the run and the software versions.
        jobs: folder with the task files, the logs and the folders that submitit creates.
        lock: lock file for all claims of the run; the lock is held for milliseconds at a time.
        index: cache of the content of all point files; see :mod:`flexhpc.store.index`.
        database: MLflow database, which is used unless results are logged to an MLflow server.
        artifacts: folder with the MLflow artifacts, next to the MLflow database.
        report: folder with the HTML report.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.spec = path / "sweep.yaml"
        self.metadata = path / "run.json"
        self.jobs = path / "jobs"
        self.lock = path / "points" / ".lock"
        self.index = path / ".index.gz"
        self.database = path / "mlflow.db"
        self.artifacts = path / "mlartifacts"
        self.report = path / "report"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def point_file(self, point_id: str) -> Path:
        """Return the path of a point's HDF5 file."""
        return self._point_path(point_id, "h5")

    def claim_file(self, point_id: str) -> Path:
        """Return the path of a point's claim file."""
        return self._point_path(point_id, "claim.json")

    def started_points(self) -> set[str]:
        """Return the ids of all points that have a point file, a claim or a checkpoint.

        This lists each folder of point files once, which is faster than two ``stat`` calls per
        point.
        """
        started: set[str] = set()
        with contextlib.suppress(OSError):
            for folder in os.scandir(self.path / "points"):
                with contextlib.suppress(OSError):  # not a folder, removed, or not readable
                    started.update(name.split(".")[0] for name in os.listdir(folder))
        return started

    def checkpoint(self, point_id: str, training: str) -> Path:
        """Return the path of the checkpoint of a training run.

        Args:
            point_id: id of the point to which the training run belongs.
            training: name of the training run, unique within the point.
        """
        return self._point_path(point_id, f"{training}.ckpt")

    def checkpoints(self, point_id: str) -> list[Path]:
        """Return the existing checkpoints of a point, sorted by path."""
        return sorted(self._point_path(point_id, "h5").parent.glob(f"{point_id}.*.ckpt"))

    def temporary_files(self, point_id: str) -> list[Path]:
        """Return the partly written HDF5 files and checkpoints that killed processes left behind.

        Temporary files of claims are excluded, because another process that holds the run's lock
        might be writing one; see :meth:`temporary_claim_files`.
        """
        parts = self._point_path(point_id, "h5").parent.glob(f".{point_id}.*.part")
        return [path for path in parts if not path.name.startswith(f".{point_id}.claim.")]

    def temporary_claim_files(self) -> Iterator[Path]:
        """Yield the partly written claim files that killed processes left behind.

        The caller must hold the run's lock.
        """
        return (self.path / "points").glob("*/.*.claim.json.*.part")

    def _point_path(self, point_id: str, suffix: str) -> Path:
        # Joining one path is faster than joining three.
        return self.path / f"points/{point_id[:2]}/{point_id}.{suffix}"
