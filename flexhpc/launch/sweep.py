"""Run a sweep on any backend: start workers, show progress, log to MLflow, stop on signals."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flexhpc.atomic import FolderWatch, file_lock, write_atomic
from flexhpc.errors import InputError, PointError
from flexhpc.launch.backend import Backend
from flexhpc.launch.local import LocalBackend
from flexhpc.launch.plan import missing_data, planned_arrays
from flexhpc.launch.prepare import STOP_FILE, PreparedRun, write_run_folder
from flexhpc.launch.profile import LocalProfile, SlurmProfile
from flexhpc.launch.progress_view import ProgressView
from flexhpc.launch.scheduler import Scheduler
from flexhpc.launch.slurm.backend import SlurmBackend
from flexhpc.launch.slurm.container import task_container
from flexhpc.launch.slurm.queue_status import QueueStatus, mark_queued
from flexhpc.launch.slurm.script import batch_script
from flexhpc.launch.slurm.submit import new_record
from flexhpc.launch.tracking_process import tracking_process
from flexhpc.store.status import PointStatus, StatusReader
from flexhpc.tracking.state import is_synced
from flexhpc.versions import python_version
from flexhpc.worker.task import TASK_FILE, ProcessIdentity, TaskFile

if TYPE_CHECKING:
    from flexhpc.analysis.decision import Decision

_POLL_EVERY = 0.5
_STOP_WITHIN = 120.0
_CLUSTER_HEARTBEAT_EVERY = 5.0


class _StopSignals:
    """Handles SIGINT (Ctrl-C) and SIGTERM within a ``with`` block.

    Attributes:
        count: number of signals received.
        raises: whether a signal also raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.count = 0
        self.raises = False

    def __enter__(self) -> _StopSignals:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        self.count += 1
        if self.raises:
            raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Result of :func:`run_sweep`.

    Attributes:
        statuses: status of every point.
        decisions: state of the comparisons with the key ``decide``, which determine when the sweep
            ends.
        interrupted: whether a stop was requested.
        jobs_continue: whether jobs of the sweep continue on the cluster after this process ends.
    """

    statuses: list[PointStatus]
    decisions: Sequence[Decision] = ()
    interrupted: bool = False
    jobs_continue: bool = False


_LAUNCHES: Counter[str] = Counter()


def new_launch_id() -> str:
    """Return a new, unique launch id: time, process id and, if necessary, a counter."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    _LAUNCHES[stamp] += 1
    return stamp if _LAUNCHES[stamp] == 1 else f"{stamp}-{_LAUNCHES[stamp]}"


def write_launch(
    prepared: PreparedRun,
    profile: LocalProfile | SlurmProfile,
    launch: str,
    image: str | None,
    *,
    detach: bool,
    selection: dict[str, bool] | None = None,
) -> TaskFile:
    """Create the run folder; write the frozen spec and the task file of a launch.

    Args:
        image: container image of the workers, ``NAME@DIGEST``; None without a container.
        detach: whether the workers outlive this process.
        selection: see :class:`TaskFile`.

    Returns:
        The content of the task file.

    Raises:
        InputError: the run folder cannot be written.
    """
    write_run_folder(prepared, launch, image)
    folder = prepared.run.jobs / launch
    cluster = isinstance(profile, SlurmProfile)
    task = TaskFile(
        run=str(prepared.run.path),
        spec=str(folder / "sweep.yaml"),
        launch=launch,
        stop=str(folder / STOP_FILE),
        python=python_version(),
        flexhpc=version("flexhpc"),
        owner=None if detach or cluster else ProcessIdentity.of_pid(os.getpid()),
        threads=profile.cpus_per_process,
        probes_at_once=profile.probes_at_once or 1,
        retries=profile.retries,
        checkpoint_every=profile.checkpoint_every,
        heartbeat_every=_CLUSTER_HEARTBEAT_EVERY if cluster else 1.0,
        selection=selection,
        stop_before=profile.stop_before_or_default if isinstance(profile, SlurmProfile) else 0.0,
    )
    write_atomic(Path(task.spec), prepared.frozen_spec)
    task.write(folder / TASK_FILE)
    return task


def make_backend(
    prepared: PreparedRun,
    profile: LocalProfile | SlurmProfile,
    launch: str,
    interrupted: Callable[[], bool] = lambda: False,
) -> Backend:
    """Return the backend that runs the workers of a launch.

    Args:
        interrupted: function that returns whether the user has requested a stop.

    Raises:
        InputError: SLURM, or the container, cannot be used from this machine.
    """
    folder = prepared.run.jobs / launch
    if isinstance(profile, SlurmProfile):
        container = task_container(profile, prepared)
        return SlurmBackend(prepared.run, folder, profile, container, interrupted)
    return LocalBackend(folder, profile)


def batch_scripts(prepared: PreparedRun, profile: SlurmProfile) -> list[str]:
    """Return the batch scripts that a launch would submit now; nothing is written or submitted.

    With a container, the first item is the script that starts the container. The names of the jobs,
    and the ids of the jobs on which an array depends, are placeholders.
    """
    run = prepared.run
    statuses = QueueStatus(run).add_queue_state(StatusReader(run, prepared.points).read())
    todo = [s.point.id for s in statuses if s.state not in ("done", "running", "queued")]
    arrays = planned_arrays(profile, todo)
    container = task_container(profile, prepared)
    folder = run.jobs / new_launch_id()
    scripts = [] if container is None else [container.script_text()]
    for number, array in enumerate(arrays):
        array_folder = folder / f"array-{number:03d}"
        record = new_record(array_folder, array, run.name, profile.slurm_conf)
        after = None if array.predecessor is None else f"JOB_OF_ARRAY_{array.predecessor:03d}"
        scripts.append(batch_script(record, profile, folder / STOP_FILE, after, container))
    return scripts


def start_detached_workers(prepared: PreparedRun, profile: LocalProfile | SlurmProfile) -> str:
    """Start workers that outlive this process; return a one-line description of them.

    Raises:
        InputError: a local sweep finds the data set of none of its points.
        PointError: no worker was started for some of the points.
    """
    launch = new_launch_id()
    statuses = StatusReader(prepared.run, prepared.points).read()
    _check_data(statuses, profile)
    backend = make_backend(prepared, profile, launch)
    write_launch(prepared, profile, launch, backend.image, detach=True)
    backend.poll()
    todo = [status for status in statuses if status.state != "done"]
    scheduler = Scheduler(backend)
    scheduler.assign_points(todo)
    unassigned = scheduler.points_without_worker(todo)
    if unassigned or backend.warning:
        reason = backend.warning or "throttle reached"
        raise PointError(
            f"{backend.summary()}; {len(unassigned) or len(todo)} points were not submitted "
            f"({reason}); run the same command again to submit them"
        )
    return backend.summary()


def run_sweep(
    prepared: PreparedRun,
    profile: LocalProfile | SlurmProfile,
    console: Console,
    report: Callable[[list[PointStatus]], None] = lambda _: None,
) -> SweepResult:
    """Measure every point that is not measured yet, and show the progress.

    Args:
        report: called to write the report when the sweep ends without an interruption. Tracking is
            still active, so that the report is also logged to MLflow. During this call, SIGINT and
            SIGTERM raise KeyboardInterrupt, which ``report`` must handle.

    Raises:
        InputError: a local sweep finds the data set of none of its points.
        PointError: the run folder was moved or removed during the sweep.
    """
    run, launch = prepared.run, new_launch_id()
    with contextlib.suppress(OSError), file_lock(run.lock):
        for path in run.temporary_claim_files():  # left behind by killed processes
            path.unlink(missing_ok=True)
    reader = StatusReader(run, prepared.points)
    decisions, selection = _select_points(reader, prepared, profile, launch)
    statuses = reader.read()
    finished = not selection and all(status.state == "done" for status in statuses)
    uri = profile.tracking_uri
    tracked = uri == "none" or is_synced(run, uri, statuses)
    if finished and prepared.is_unchanged and tracked:
        report(statuses)
        return SweepResult(statuses=statuses, decisions=decisions)
    _check_data(statuses, profile)
    with _StopSignals() as signals:
        backend = make_backend(prepared, profile, launch, lambda: bool(signals.count))
        task = write_launch(
            prepared, profile, launch, backend.image, detach=False, selection=selection
        )
        stop_file = Path(task.stop)
        with tracking_process(task, uri, lambda: signals.count):
            with ProgressView(console, run.name) as view:
                scheduler = Scheduler(backend)
                has_started, folder = False, FolderWatch(stop_file.parent)
                finished_ids: set[str] = set()  # includes failed points that another sweep retries
                while not (signals.count or stop_file.exists()):
                    if folder.check_removed():
                        _stop_workers(backend, reader, view, signals, stop_file)
                        raise PointError(
                            f"{run.path} was moved or removed during the sweep; move it back and "
                            "run the same command to resume"
                        )
                    if folder.missing_count:
                        time.sleep(_POLL_EVERY)
                        continue
                    round_started = time.monotonic()
                    backend.poll()
                    statuses = mark_queued(reader.read(), backend.queued)
                    has_started |= any(s.state == "running" or s.launch == launch for s in statuses)
                    note = _note(backend, statuses, launch, has_started=has_started)
                    displayed = [_reset_earlier_failure(s, launch) for s in statuses]
                    view.update(displayed, note, decisions)
                    finished_ids |= {s.point.id for s in displayed if s.state in ("done", "failed")}
                    ids = {s.point.id for s in statuses} if selection is None else set(selection)
                    ids -= finished_ids
                    todo = [s for s in statuses if s.point.id in ids]
                    if not todo and selection:
                        decisions, selection = _select_points(reader, prepared, profile, launch)
                        finished_ids.difference_update(selection or ())
                        replace(task, selection=selection).write(stop_file.with_name(TASK_FILE))
                        continue
                    if not todo or not scheduler.assign_points(todo):
                        break
                    # Reading the status of many points is slow; limit the load on the file system.
                    time.sleep(max(_POLL_EVERY, 3 * (time.monotonic() - round_started)))
                interrupted = bool(signals.count) or stop_file.exists()
                if interrupted and backend.is_local:
                    _stop_workers(backend, reader, view, signals, stop_file)
                    statuses = reader.read()
            reader.save_index()
            if not interrupted:
                signals.raises = True
                report(statuses)
                signals.raises = False
    return SweepResult(
        statuses=[_add_log_path(status, backend, launch) for status in statuses],
        decisions=decisions,
        interrupted=interrupted,
        jobs_continue=interrupted and not backend.is_local and not stop_file.exists(),
    )


def _check_data(statuses: Sequence[PointStatus], profile: LocalProfile | SlurmProfile) -> None:
    """Check that a local sweep finds the data set of at least one of its points.

    Missing image sets are downloaded. On SLURM, data sets may exist only on the compute nodes.

    Raises:
        InputError: no data set is found, and a point is not measured yet.
    """
    if isinstance(profile, SlurmProfile) or all(status.state == "done" for status in statuses):
        return
    missing = missing_data([status.point for status in statuses])
    if len(missing) == len(statuses):
        raise InputError(dict.fromkeys(missing.values()))


def _select_points(
    reader: StatusReader, prepared: PreparedRun, profile: LocalProfile | SlurmProfile, launch: str
) -> tuple[list[Decision], dict[str, bool] | None]:
    """Select the points to measure next, if an entry of ``compare`` sets ``decide``.

    If the next round needs fewer points than the throttle of the profile, points of the following
    round are added until their number reaches the throttle. The points are also selected in
    ``reader``.

    Returns:
        The state of each such entry of ``compare``, and the selected points in the format of
        ``TaskFile.selection``; None instead of the points if no entry sets ``decide``.
    """
    requests = [c for c in prepared.compare if c.decide]
    if not requests:
        return [], None
    from flexhpc.analysis.decision import decide  # takes a tenth of a second

    slots = (profile.throttle or 0) if isinstance(profile, SlurmProfile) else 0
    reader.select_points({})
    statuses = [_reset_earlier_failure(status, launch) for status in reader.read_all()]
    decisions = [decide(statuses, compare) for compare in requests]
    selection: dict[str, bool] = {}
    for decision in decisions:
        for status in decision.next_points:
            point_id = status.point.id
            selection[point_id] = selection.get(point_id, False) or decision.next_is_precise
    for status in statuses:
        if status.state != "failed" and status.lacks_evaluation:
            selection.setdefault(status.point.id, False)
    for status in (status for decision in decisions for status in decision.later_points):
        if len(selection) < slots:
            selection.setdefault(status.point.id, True)
    reader.select_points(selection)
    return decisions, selection


def _stop_workers(
    backend: Backend,
    reader: StatusReader,
    view: ProgressView,
    signals: _StopSignals,
    stop_file: Path,
) -> None:
    """Ask the workers to save their state and exit; wait up to 120 s, or until a second signal."""
    with contextlib.suppress(OSError):
        stop_file.touch()
    end = time.monotonic() + _STOP_WITHIN
    backend.poll()
    while backend.has_workers() and time.monotonic() < end and signals.count < 2:
        view.update(reader.read(), note="stopping: saving the probes in progress ...")
        time.sleep(_POLL_EVERY / 2)
        backend.poll()


def _add_log_path(status: PointStatus, backend: Backend, launch: str) -> PointStatus:
    """Return the status with the log path of this launch; unchanged if the point is measured."""
    if status.state == "done" or (status.log and status.launch == launch):
        return status
    return replace(status, log=backend.log_path(status.point.id) or status.log)


def _reset_earlier_failure(status: PointStatus, launch: str) -> PointStatus:
    """Return the status, with the state ``waiting`` if the point failed in an earlier launch."""
    tried = status.state != "failed" or status.launch == launch
    return status if tried else replace(status, state="waiting", message="")


def _note(
    backend: Backend, statuses: Sequence[PointStatus], launch: str, *, has_started: bool
) -> str:
    if backend.warning or not backend.is_local:
        return backend.warning
    if elsewhere := sum(s.state == "running" and s.launch != launch for s in statuses):
        return f"points in progress in another sweep: {elsewhere}"
    return "" if has_started else "starting workers ..."
