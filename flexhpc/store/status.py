"""Where every point of a run stands, read from its files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flexhpc.config import Point, Sweep, checked
from flexhpc.errors import InputError, PointError
from flexhpc.search import Bracket, Estimate, ProbeResult, estimate_so_far, history_of
from flexhpc.store import PointRecord, RunFolder, read, read_claim
from flexhpc.store.point_file import corrupt

PointState = Literal["done", "running", "stopped", "queued", "waiting", "failed"]


@dataclass(frozen=True, kw_only=True)
class PointStatus:
    """Where one point stands.

    Attributes:
        state: done; running (a living process measures it); stopped (begun, nobody is at it);
            queued (a cluster's job is about to come to it); waiting; failed.
        record: its file's content, None before the first probe.
        estimate: final, or so far; None before the first probe.
        progress: of the probe in hand.
        launch: the launch that last touched it; token: the claim through which it did.
        attempts: how often somebody began or went on with it; deaths: how often a worker of that
            launch died over it; job: the job that last touched it.
        message: why it failed, or what it waits for; log: where to read more.
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
        """Largest n that fitted and smallest that failed, so far."""
        return self.estimate.bracket if self.estimate else Bracket()

    @property
    def probes(self) -> int:
        """Number of finished probes."""
        return len(self.record.probes) if self.record else 0

    @property
    def history(self) -> list[ProbeResult]:
        """The finished probes that the estimate rests on: those of the best values of tuned keys.

        All of them before the first estimate.
        """
        if self.record is None:
            return []
        history = history_of(self.record.probes, self.point.training)
        best = None if self.estimate is None else self.estimate.arm
        return [result for result in history if best is None or result.arm == best]

    @property
    def cost(self) -> int:
        """Sample passes of the finished probes."""
        return sum(probe.cost for probe in self.record.probes) if self.record else 0


class StatusReader:
    """The points of a run, and where they stand; unchanged files are not read again."""

    def __init__(self, run: RunFolder, points: Sequence[Point]) -> None:
        self.run, self.points = run, list(points)
        self._seen: dict[str, tuple[tuple[int, int], PointStatus]] = {}

    def read(self) -> list[PointStatus]:
        """Return the status of every point, in the order of the sweep."""
        begun = self.run.begun()
        return [
            self._status(point) if point.id in begun else PointStatus(point=point, state="waiting")
            for point in self.points
        ]

    def _status(self, point: Point) -> PointStatus:
        stored = self._stored(point)
        path = self.run.claim(point.id)
        claim = None if stored.state == "done" else read_claim(path)
        if claim is None:
            return stored
        state: PointState = stored.state
        if claim.live(path):
            state = "running"
        elif claim.state == "failed":
            state = "failed"
        elif claim.state in ("running", "stopped"):
            state = "stopped"
        return PointStatus(
            point=point,
            state=state,
            record=stored.record,
            estimate=stored.estimate,
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

    def _stored(self, point: Point) -> PointStatus:
        """What the point's file says, whoever is at work on it."""
        path = self.run.point(point.id)
        try:
            stat = path.stat()
        except OSError:
            return PointStatus(point=point, state="waiting")
        key = (stat.st_mtime_ns, stat.st_ino)
        if point.id in self._seen and self._seen[point.id][0] == key:
            return self._seen[point.id][1]
        before = self._seen[point.id][1].record if point.id in self._seen else None
        status = _of_record(point, path, before)
        if status.state == "done" and (claim := read_claim(self.run.claim(point.id))):
            status = replace(
                status, attempts=claim.attempts, job=claim.job, host=claim.host.split(":")[0]
            )
        self._seen[point.id] = (key, status)
        return status


def _of_record(point: Point, path: Path, before: PointRecord | None) -> PointStatus:
    try:
        record = read(path, before)
    except PointError as error:
        return PointStatus(point=point, state="failed", message=str(error))
    if record is None:
        return PointStatus(point=point, state="waiting")
    arms = {probe.arm for probe in record.probes} | {(record.estimate or {}).get("arm", 0)}
    if max(arms) >= len(point.arms):
        problem = f"a probe has arm {max(arms)}, the point has {len(point.arms)}"
        return PointStatus(point=point, state="failed", message=str(corrupt(path, problem)))
    record = record.seen_by(point.evaluation)
    history = history_of(record.probes, point.training)
    n_limit = record.header.n_limit
    if record.estimate is not None:
        state: PointState = "done" if record.done(point.evaluation) else "stopped"
        estimate = Estimate.of(record.estimate)
        return PointStatus(point=point, state=state, record=record, estimate=estimate)
    return PointStatus(
        point=point,
        state="stopped" if history else "waiting",
        record=record,
        estimate=estimate_so_far(point.search, n_limit, history, point.coordinates),
    )


def read_runs(paths: Sequence[Path]) -> list[tuple[RunFolder, Sweep, list[PointStatus]]]:
    """Read runs; the points of several are told apart by ``run`` among what was swept.

    Raises:
        InputError: one is no run folder, or its frozen spec is damaged.
    """
    opened = [open_run(path) for path in paths]
    names = [folder.name for folder, _, _ in opened]
    read = []
    for folder, sweep, points in opened:
        statuses = StatusReader(folder, points).read()
        if len(opened) > 1:
            name = folder.name if names.count(folder.name) == 1 else str(folder.path)
            statuses = [of_run(status, name) for status in statuses]
        read.append((folder, sweep, statuses))
    return read


def of_run(status: PointStatus, name: str) -> PointStatus:
    """Return a point as one of several runs: the run's name is among what tells it from others."""
    point = replace(status.point, swept={"run": name, **status.point.swept})
    return replace(status, point=point)


def open_run(path: Path) -> tuple[RunFolder, Sweep, list[Point]]:
    """Open a run folder.

    Raises:
        InputError: it is not a run folder, or its frozen spec is damaged.
    """
    run = RunFolder(path.resolve())
    if not run.spec.is_file():
        raise InputError(f"{path}: not a run folder (it has no sweep.yaml); runs lie in runs/NAME")
    sweep, points = checked(run.spec)
    return run, sweep, points
