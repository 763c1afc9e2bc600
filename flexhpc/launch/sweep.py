"""Run a sweep on any backend: start workers, show progress, track, and stop on signals."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flexhpc.atomic import FolderWatch, write_atomic
from flexhpc.errors import PointError
from flexhpc.launch.backend import Backend
from flexhpc.launch.follower import tracking
from flexhpc.launch.live import View
from flexhpc.launch.local import LocalBackend
from flexhpc.launch.machine import available_cores
from flexhpc.launch.plan import planned_arrays
from flexhpc.launch.prepare import Prepared, clear_claims, open_folder
from flexhpc.launch.profile import LocalProfile, SlurmProfile
from flexhpc.launch.scheduler import Scheduler
from flexhpc.launch.slurm.backend import SlurmBackend
from flexhpc.launch.slurm.container import container_of
from flexhpc.launch.slurm.queue_status import QueueStatus, mark_queued
from flexhpc.launch.slurm.submit import dry_run
from flexhpc.store.status import PointStatus, StatusReader
from flexhpc.tracking.state import up_to_date
from flexhpc.versions import python_version
from flexhpc.worker.task import TASK_FILE, Owner, TaskFile

if TYPE_CHECKING:
    from flexhpc.analysis.decision import Decision

_POLL_EVERY = 0.5
_EXHAUSTED = object()
_STOP_WITHIN = 120.0
_CLUSTER_BEAT = 5.0


class _StopSignals:
    """Handler of SIGINT (Ctrl-C) and SIGTERM; counts the stop requests of the user.

    Attributes:
        count: number of signals received.
        raises: whether a signal also raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.count = 0
        self.raises = False

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.raises:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _stop_signals() -> Iterator[_StopSignals]:
    signals = _StopSignals()
    previous = {n: signal.signal(n, signals) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Result of :func:`follow`.

    Attributes:
        statuses: status of every point.
        decisions: state of the comparisons that decide when the sweep ends.
        interrupted: whether a stop was requested.
        jobs_continue: whether jobs of the sweep continue on the cluster.
    """

    statuses: list[PointStatus]
    decisions: Sequence[Decision] = ()
    interrupted: bool = False
    jobs_continue: bool = False


_LAUNCHES: Counter[str] = Counter()


def launch_id() -> str:
    """Return a new, unique launch id: time, process id and, if necessary, a counter."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    _LAUNCHES[stamp] += 1
    return stamp if _LAUNCHES[stamp] == 1 else f"{stamp}-{_LAUNCHES[stamp]}"


def write_launch(
    prepared: Prepared,
    profile: LocalProfile | SlurmProfile,
    launch: str,
    image: str | None,
    *,
    detach: bool,
    wanted: dict[str, bool] | None = None,
) -> TaskFile:
    """Create the run folder, write the frozen spec and the task file of a launch; return the task.

    Args:
        prepared: the spec and its run folder.
        profile: where and how to run.
        launch: id of the launch.
        image: container image of the workers; None without a container.
        detach: whether the workers outlive this process.
        wanted: see :class:`TaskFile`.

    Raises:
        InputError: the run folder cannot be written.
    """
    open_folder(prepared, launch, image)
    task = replace(make_task(prepared, profile, launch, detach=detach), wanted=wanted)
    write_atomic(Path(task.spec), prepared.frozen)
    task.write(prepared.run.jobs / launch / TASK_FILE)
    return task


def make_task(
    prepared: Prepared, profile: LocalProfile | SlurmProfile, launch: str, *, detach: bool
) -> TaskFile:
    """Return the task file of a launch, which configures its workers, without writing it."""
    folder = prepared.run.jobs / launch
    cluster = isinstance(profile, SlurmProfile)
    return TaskFile(
        run=str(prepared.run.path),
        spec=str(folder / "sweep.yaml"),
        launch=launch,
        stop=str(folder / "stop"),
        python=python_version(),
        flexhpc=version("flexhpc"),
        owner=None if detach or cluster else Owner.of(os.getpid()),
        threads=profile.cpus_per_process,
        probes_at_once=profile.probes_at_once or 1,
        retries=profile.retries,
        checkpoint_every=profile.checkpoint_every,
        beat=_CLUSTER_BEAT if cluster else 1.0,
        stop_before=profile.notice if isinstance(profile, SlurmProfile) else 0.0,
    )


def make_backend(
    prepared: Prepared,
    profile: LocalProfile | SlurmProfile,
    launch: str,
    interrupted: Callable[[], bool] = lambda: False,
) -> Backend:
    """Return the backend that runs the workers of a launch.

    Args:
        prepared: the spec and its run folder.
        profile: where and how to run.
        launch: id of the launch.
        interrupted: returns whether the user requested a stop.

    Raises:
        InputError: SLURM, or the container, cannot be used from this machine.
    """
    folder = prepared.run.jobs / launch
    if isinstance(profile, SlurmProfile):
        container = container_of(profile, prepared.points, prepared.run.path)
        return SlurmBackend(prepared.run, folder, profile, container, interrupted)
    return LocalBackend(folder, profile)


def batch_scripts(prepared: Prepared, profile: SlurmProfile) -> list[str]:
    """Return the batch scripts of the remaining points; nothing is written or submitted."""
    launch = launch_id()
    statuses = QueueStatus(prepared.run).merge(StatusReader(prepared.run, prepared.points).read())
    todo = [s.point.id for s in statuses if s.state not in ("done", "running", "queued")]
    task = make_task(prepared, profile, launch, detach=True)
    return dry_run(
        planned_arrays(profile, todo),
        prepared.run.jobs / launch,
        profile,
        task,
        prepared.run.name,
        container_of(profile, prepared.points, prepared.run.path),
    )


def start_detached(prepared: Prepared, profile: LocalProfile | SlurmProfile) -> str:
    """Start workers that outlive this process; return a one-line description of them.

    Raises:
        PointError: no worker was started for some of the points.
    """
    launch = launch_id()
    backend = make_backend(prepared, profile, launch)
    write_launch(prepared, profile, launch, backend.image, detach=True)
    backend.poll()
    todo = [s for s in StatusReader(prepared.run, prepared.points).read() if s.state != "done"]
    Scheduler(backend).assign_points(todo)
    uncovered = [s for s in todo if s.state != "running" and not backend.covers(s.point.id)]
    if uncovered or backend.note():
        reason = backend.note() or "throttle reached"
        raise PointError(
            f"{backend.summary()}; {len(uncovered) or len(todo)} points not submitted ({reason}); "
            "run the same command again to submit them"
        )
    return backend.summary()


def follow(
    prepared: Prepared,
    profile: LocalProfile | SlurmProfile,
    console: Console,
    report: Callable[[list[PointStatus]], None] = lambda _: None,
    meanwhile: Iterable[None] = (),
) -> SweepResult:
    """Measure every point that is not measured yet, and show the progress.

    Args:
        prepared: the spec and its run folder.
        profile: where and how to run.
        console: console on which the live table is shown.
        report: called when all points are finished, to write the report. Tracking is still active,
            so that the report is also logged to MLflow. SIGINT and SIGTERM raise KeyboardInterrupt
            in this function, which must handle it.
        meanwhile: background work; each item is one short step. One step runs after each poll if a
            core of this machine is idle.

    Raises:
        PointError: the run folder was moved or removed during the sweep.
    """
    run, launch = prepared.run, launch_id()
    if run.path.exists():
        clear_claims(run)
    reader = StatusReader(run, prepared.points)
    decisions, wanted = _next_round(reader, prepared, profile, launch)
    statuses = reader.read()
    finished = not wanted and all(status.state == "done" for status in statuses)
    uri = profile.tracking_uri
    tracked = uri == "none" or up_to_date(run, uri, statuses)
    if finished and prepared.again and tracked:
        report(statuses)
        return SweepResult(statuses=statuses, decisions=decisions)
    with _stop_signals() as signals:
        backend = make_backend(prepared, profile, launch, lambda: bool(signals.count))
        task = write_launch(prepared, profile, launch, backend.image, detach=False, wanted=wanted)
        stop_file = Path(task.stop)
        with tracking(task, uri, lambda: signals.count):
            with View(console, run.name) as view:
                scheduler = Scheduler(backend)
                working, folder = False, FolderWatch(stop_file.parent)
                background, more_steps = iter(meanwhile), True
                settled: set[str] = set()  # includes failed points that another sweep retries
                while not (signals.count or stop_file.exists()):
                    if folder.removed():
                        _stop_workers(backend, reader, view, signals, stop_file)
                        raise PointError(
                            f"{run.path} was moved or removed during the sweep; move it back and "
                            "run the same command to resume"
                        )
                    if folder.missing:
                        time.sleep(_POLL_EVERY)
                        continue
                    round_started = time.monotonic()
                    backend.poll()
                    statuses = mark_queued(reader.read(), backend.waiting())
                    working |= any(s.state == "running" or s.launch == launch for s in statuses)
                    note = backend.note() or _other_sweeps_note(statuses, backend, launch)
                    if backend.ours and not working:
                        note = note or "starting workers ..."
                    shown = [_retried_as_waiting(s, launch) for s in statuses]
                    view.update(shown, note, decisions)
                    settled |= {s.point.id for s in statuses if _finished(s, launch)}
                    ids = {s.point.id for s in statuses} if wanted is None else wanted.keys()
                    todo = [s for s in statuses if s.point.id in ids - settled]
                    if not todo and wanted:
                        decisions, wanted = _next_round(reader, prepared, profile, launch)
                        settled.difference_update(wanted or ())
                        replace(task, wanted=wanted).write(stop_file.with_name(TASK_FILE))
                        continue
                    if not todo or not scheduler.assign_points(todo):
                        break
                    idle_core = _cores_in_use(statuses, profile) < available_cores()
                    if working and more_steps and idle_core:
                        more_steps = next(background, _EXHAUSTED) is not _EXHAUSTED
                    # Reading the status of many points is slow; limit the load on the file system.
                    time.sleep(max(_POLL_EVERY, 3 * (time.monotonic() - round_started)))
                interrupted = bool(signals.count) or stop_file.exists()
                if interrupted and backend.ours:
                    _stop_workers(backend, reader, view, signals, stop_file)
                    statuses = reader.read()
            if not interrupted:
                signals.raises = True
                report(statuses)
                signals.raises = False
    return SweepResult(
        statuses=[_with_log(status, backend, launch) for status in statuses],
        decisions=decisions,
        interrupted=interrupted,
        jobs_continue=interrupted and not backend.ours and not stop_file.exists(),
    )


def _next_round(
    reader: StatusReader, prepared: Prepared, profile: LocalProfile | SlurmProfile, launch: str
) -> tuple[list[Decision], dict[str, bool] | None]:
    """Return the state of the comparisons and the points that they need; see ``TaskFile.wanted``.

    If the profile has a throttle, a later round is filled up to it with points of the round after.
    From then on, the reader reads the status of the points with the precision that is needed.
    """
    requests, points = [c for c in prepared.compare if c.decide], prepared.points
    if not requests:
        return [], None
    from flexhpc.analysis.decision import decide  # takes a third of a second

    slots = (profile.throttle or 0) if isinstance(profile, SlurmProfile) else 0
    reader.request(points)
    statuses = [_retried_as_waiting(status, launch) for status in reader.read_all()]
    decisions = [decide(statuses, compare) for compare in requests]
    wanted: dict[str, bool] = {}
    for decision in decisions:
        for status in decision.next_points:
            wanted[status.point.id] = wanted.get(status.point.id, False) or decision.precise
    for status in statuses:
        if status.state != "failed" and status.lacks_evaluation:
            wanted.setdefault(status.point.id, False)
    for status in (status for decision in decisions for status in decision.later_points):
        if len(wanted) < slots:
            wanted.setdefault(status.point.id, True)
    needed = [replace(p, optional=p.optional and p.id not in wanted) for p in points]
    reader.request([point.precise() if wanted.get(point.id) else point for point in needed])
    return decisions, wanted


def _cores_in_use(statuses: Sequence[PointStatus], profile: LocalProfile | SlurmProfile) -> int:
    """Return an upper bound on the cores of this machine that training uses now."""
    if isinstance(profile, SlurmProfile):
        return 0
    _, at_once = profile.spread(max(1, sum(status.state != "done" for status in statuses)))
    per_point = profile.processes_per_node * at_once * profile.cpus_per_process
    return per_point * sum(status.state == "running" for status in statuses)


def _stop_workers(
    backend: Backend, reader: StatusReader, view: View, signals: _StopSignals, stop_file: Path
) -> None:
    """Ask the workers to save and exit; wait up to 120 s, or until a second signal."""
    with contextlib.suppress(OSError):
        stop_file.touch()
    end = time.monotonic() + _STOP_WITHIN
    backend.poll()
    while backend.has_workers() and time.monotonic() < end and signals.count < 2:
        view.update(reader.read(), note="stopping: saving the probes in progress ...")
        time.sleep(_POLL_EVERY / 2)
        backend.poll()


def _with_log(status: PointStatus, backend: Backend, launch: str) -> PointStatus:
    if status.state == "done" or (status.log and status.launch == launch):
        return status
    return replace(status, log=backend.log(status.point.id) or status.log)


def _finished(status: PointStatus, launch: str) -> bool:
    return status.state == "done" or (status.state == "failed" and status.launch == launch)


def _retried_as_waiting(status: PointStatus, launch: str) -> PointStatus:
    """Mark a point that failed in an earlier launch as waiting, since it is retried."""
    tried = status.state != "failed" or status.launch == launch
    return status if tried else replace(status, state="waiting", message="")


def _other_sweeps_note(statuses: Sequence[PointStatus], backend: Backend, launch: str) -> str:
    elsewhere = sum(s.state == "running" and s.launch != launch for s in statuses)
    return f"points measured by another sweep: {elsewhere}" if elsewhere and backend.shared else ""
