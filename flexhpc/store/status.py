"""Status of every point of a run, read from the run folder only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from flexhpc.config import Point, Sweep, load_points
from flexhpc.errors import InputError, PointError
from flexhpc.search import Bracket, Estimate, ProbeResult, estimate_so_far, is_precise
from flexhpc.search.stages import results_at_stage
from flexhpc.store import PointRecord, RunFolder, read_claim, read_point_file, to_history
from flexhpc.store.index import FileVersion, file_version, read_index, write_index

_MIN_UNSAVED = 50
"""Minimum number of new records for which the index is written."""

PointState = Literal["done", "running", "stopped", "queued", "waiting", "failed"]


@dataclass(frozen=True, kw_only=True)
class PointStatus:
    """Status of one point.

    Attributes:
        point: definition of the point.
        state: ``done``, ``failed``, ``running`` (a live process measures the point), ``stopped``
            (started, but no process measures it now), ``queued`` (assigned to a pending job of the
            cluster) or ``waiting`` (not started).
        record: content of its point file; None before the first probe.
        estimate: final or current estimate; None before the first probe.
        progress: progress of the current probe; its keys include n, epoch, epochs and n_errors.
        host: host of the last claim.
        launch: id of the launch of the last claim.
        token: token of the last claim.
        attempts: number of times the point was started or resumed.
        deaths: number of consecutive deaths of workers of ``launch`` on the point, with no progress
            saved between the deaths.
        job: job id of the last claim.
        message: why the point failed, or why its job is pending.
        log: path of the log of the last claim.
    """

    point: Point
    state: PointState
    record: PointRecord | None = None
    estimate: Estimate | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    host: str = ""
    launch: str = ""
    token: str = ""
    attempts: int = 0
    deaths: int = 0
    job: str = ""
    message: str = ""
    log: str = ""

    @property
    def bracket(self) -> Bracket:
        """Largest n that fitted and smallest n that failed so far."""
        return self.estimate.bracket if self.estimate else Bracket()

    @property
    def probes(self) -> int:
        """Number of finished probes."""
        return len(self.record.probes) if self.record else 0

    @property
    def training_runs(self) -> int:
        """Number of training runs. A training run that was continued has several probes."""
        return len(self.record.training_runs) if self.record else 0

    @property
    def lacks_evaluation(self) -> bool:
        """Whether the estimate is final, but the requested evaluation is not stored."""
        record = self.record
        return (
            record is not None
            and record.estimate is not None
            and not record.has_evaluation(self.point.evaluation)
        )

    @property
    def history(self) -> list[ProbeResult]:
        """Results of the best arm's training runs at the largest budget so far.

        The estimate is based on these results. Before the first estimate, the list contains the
        results of all arms.
        """
        if self.record is None:
            return []
        probes = self.record.probes
        stage = max((probe.stage for probe in probes), default=0)
        stage = max(stage, self.estimate.stage if self.estimate else 0)
        history = results_at_stage(to_history(probes, self.point.training), stage)
        best = None if self.estimate is None else self.estimate.arm
        return [result for result in history if best is None or result.arm == best]

    @property
    def cost(self) -> int:
        """Number of sample passes of all training runs."""
        return sum(run.cost for run in self.record.training_runs) if self.record else 0


class StatusReader:
    """Reads the status of a run's points; a repeated read skips unchanged point files.

    The first read skips the point files that have not changed since :meth:`save_index`.

    Attributes:
        selection: argument of the last call of :meth:`select_points`; empty before the first call.
    """

    def __init__(self, run: RunFolder, points: Sequence[Point]) -> None:
        self.run, self.points, self._unselected = run, list(points), list(points)
        self.selection: Mapping[str, bool] = {}
        self._cache: dict[str, tuple[FileVersion, PointStatus]] = {}
        self._records = read_index(run)
        self._unsaved = 0  # number of records that were read after the index

    def read(self) -> list[PointStatus]:
        """Read the status of every point except the optional points that were not started.

        The statuses are in the order of the points in the sweep.
        """
        return [s for s in self.read_all() if s.state != "waiting" or not s.point.optional]

    def read_all(self) -> list[PointStatus]:
        """Read the status of every point, including all optional points."""
        started = self.run.started_points()
        return [
            self._current_status(point)
            if point.id in started
            else PointStatus(point=point, state="waiting")
            for point in self.points
        ]

    def select_points(self, selection: Mapping[str, bool]) -> None:
        """Choose the points that comparisons need now; any previous selection is replaced.

        Args:
            selection: id of a selected point -> whether the point is measured to the tolerance of
                the spec; False permits a coarser estimate. Selected points are no longer optional.
        """
        points = [
            replace(p, optional=p.optional and p.id not in selection) for p in self._unselected
        ]
        self.points = [
            point.with_precise_search() if selection.get(point.id) else point for point in points
        ]
        self.selection, self._cache = selection, {}

    def save_index(self) -> None:
        """Save the records of all points for later readers, unless nearly all are saved."""
        if self._unsaved >= _MIN_UNSAVED:
            write_index(self.run, self._records)
            self._unsaved = 0

    def _current_status(self, point: Point) -> PointStatus:
        stored = self._stored_status(point)
        if stored.state == "done" and point.precise_search is None:
            return stored
        path = self.run.claim_file(point.id)
        if (claim := read_claim(path)) is None:
            return stored
        state: PointState = stored.state
        if claim.holder_is_alive(path):
            state = "running"
        elif claim.state == "failed":
            state = "failed"
        elif claim.state in ("running", "stopped"):
            state = "stopped"
        return replace(
            stored,
            state=state,
            progress=claim.progress if state == "running" else {},
            host=claim.host.split(":")[0],
            launch=claim.launch,
            token=claim.token,
            attempts=claim.attempts,
            deaths=claim.deaths,
            job=claim.job,
            message=(claim.message or stored.message) if state == "failed" else "",
            log=claim.log,
        )

    def _stored_status(self, point: Point) -> PointStatus:
        """Return the status according to the point file; a claim does not change the state."""
        path = self.run.point_file(point.id)
        try:
            version = file_version(path.stat())
        except OSError:
            return PointStatus(point=point, state="waiting")
        cached_version, cached = self._cache.get(point.id, (None, None))
        if cached is not None and cached_version == version:
            return cached
        try:
            record = self._read_record(point.id, path, version)
        except PointError as error:
            status = PointStatus(point=point, state="failed", message=str(error))
        else:
            status = _status_from_record(point, record)
        if status.state == "done" and (claim := read_claim(self.run.claim_file(point.id))):
            status = replace(
                status, attempts=claim.attempts, job=claim.job, host=claim.host.split(":")[0]
            )
        self._cache[point.id] = (version, status)
        return status

    def _read_record(self, point_id: str, path: Path, version: FileVersion) -> PointRecord | None:
        known_version, known = self._records.get(point_id, (None, None))
        if known_version == version:
            return known
        record = read_point_file(path, known)
        if record is not None:
            self._records[point_id] = version, record
            self._unsaved += 1
        return record


def is_done(point: Point, record: PointRecord) -> bool:
    """Return whether a record has the evaluation and the precise estimate that a point requests."""
    return has_precise_estimate(point, record) and record.has_evaluation(point.evaluation)


def has_precise_estimate(point: Point, record: PointRecord) -> bool:
    """Return whether a record has a final estimate as precise as the point requests."""
    return record.estimate is not None and is_precise(
        point.search,
        record.header.n_limit,
        partial(to_history, record.probes, point.training),
        point.arm_coordinates,
        record.estimate,
        point.training.doubling_settings,
    )


def _status_from_record(point: Point, record: PointRecord | None) -> PointStatus:
    if record is None:
        return PointStatus(point=point, state="waiting")
    if not record.has_evaluation(point.evaluation):
        record = replace(record, evaluation=None)  # it is outdated
    estimate = record.estimate
    if estimate is not None:
        state: PointState = "done" if is_done(point, record) else "stopped"
    else:
        state = "stopped" if record.probes else "waiting"
        history = to_history(record.probes, point.training)
        n_limit = record.header.n_limit
        estimate = estimate_so_far(point.search, n_limit, history, point.arm_coordinates)
    return PointStatus(point=point, state=state, record=record, estimate=estimate)


def read_runs(paths: Sequence[Path]) -> list[tuple[RunFolder, Sweep, list[PointStatus]]]:
    """Read the statuses of the points of one or more runs; see :meth:`StatusReader.read`.

    With several runs, each point gets the additional swept key ``run``. Its value is the name of
    the run, or the path of the run folder if several runs have the same name.

    Returns:
        For each path: run folder, sweep and statuses of the points.

    Raises:
        InputError: a path is not a run folder, or its frozen spec is invalid.
    """
    opened = [open_run(path) for path in paths]
    names = [folder.name for folder, _, _ in opened]
    runs = []
    for folder, sweep, points in opened:
        reader = StatusReader(folder, points)
        statuses = reader.read()
        reader.save_index()
        if len(opened) > 1:
            name = folder.name if names.count(folder.name) == 1 else str(folder.path)
            statuses = [status_with_run_name(status, name) for status in statuses]
        runs.append((folder, sweep, statuses))
    return runs


def status_with_run_name(status: PointStatus, name: str) -> PointStatus:
    """Return the status with an additional swept key ``run``, whose value is ``name``."""
    point = replace(status.point, swept={"run": name, **status.point.swept})
    return replace(status, point=point)


def open_run(path: Path) -> tuple[RunFolder, Sweep, list[Point]]:
    """Open a run folder; return it with its sweep and points.

    Raises:
        InputError: the path is not a run folder, or its frozen spec is invalid.
    """
    run = RunFolder(path.resolve())
    if not run.spec.is_file():
        raise InputError(
            f"{path}: not a run folder (it has no sweep.yaml); pass the path of a run folder"
        )
    sweep, points = load_points(run.spec)
    return run, sweep, points
