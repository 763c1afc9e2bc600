"""Worker: claim and measure points one after the other, until none is left."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, TextIO

from flexhpc.config import Point, load_points
from flexhpc.errors import Interrupted, NoData, PeerLost, PointError, one_line_message
from flexhpc.measuring.point import measure, stop_other_ranks, train_with_rank_0
from flexhpc.measuring.pool import ProbePool
from flexhpc.measuring.probe import choose_device
from flexhpc.search import probes_per_round
from flexhpc.store import (
    HEARTBEAT_TIMEOUT,
    Claim,
    RunFolder,
    acquire_claim,
    read_claim,
    read_point_file,
)
from flexhpc.store.status import is_done
from flexhpc.training import Callbacks, Group
from flexhpc.versions import SOURCE, image_name, python_version, source_hash
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import EXIT_PEER_LOST, EXIT_REQUEUE, StopRequest, exit_without_cleanup
from flexhpc.worker.task import PROBES_AT_ONCE, WORKER_GPU, TaskFile
from flexhpc.worker.watchdog import Watchdog

_EXIT_WRONG_VERSION = 78
_RETRY_EVERY = 2.0


def run_task(task: TaskFile, environment: Environment, stop: StopRequest) -> int:
    """Measure points until none is left or a stop is requested.

    A failed point is recorded with one message and skipped. In a job with several processes, rank 0
    claims points, and the other ranks only take part in training.

    Returns:
        The number of points that failed; 0 on all ranks except rank 0.

    Raises:
        SystemExit: with status ``EXIT_REQUEUE`` if the task must be requeued
            (:meth:`Worker.must_requeue`); with another status if the run folder cannot be written,
            or if the version of Python, or the version or source code of flexhpc, differs from that
            of the submitting process.
    """
    _check_versions(task)
    if (gpu := os.environ.get(WORKER_GPU)) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # must be set before CUDA is initialised
    device = choose_device(task.threads, environment.local_rank)
    try:
        group = Group.init_process_group(
            device,
            environment.rank,
            environment.world_size,
            host=environment.host,
            token=environment.token,
        )
        points = cached_points(task.spec)
        if (selection := task.selection) is not None:
            points = [
                point.with_precise_search() if selection[point.id] else point
                for point in points
                if point.id in selection
            ]
        by_id = {point.id: point for point in points}
        if group.rank > 0:
            train_with_rank_0(by_id, group, stop.is_set)
            _destroy_group(group, 0)
            return 0
        ids = task.points_of_task(environment.index)
        assigned = points if ids is None else [by_id[point_id] for point_id in ids]
        with contextlib.closing(Worker(task, environment, stop, group)) as worker:
            worker.measure_points(assigned)
        stop_other_ranks(group)
        requeue = worker.must_requeue(assigned)
        _destroy_group(group, EXIT_REQUEUE if requeue else 0)
    except PeerLost as error:
        _exit_immediately(f"a process of this job died: {error}")
    except PointError as error:
        if environment.world_size > 1:
            _exit_immediately(str(error), 1)
        _log(str(error), sys.stderr)
        raise SystemExit(1) from None
    if requeue:
        _log(f"stopped: {stop.reason}")
        raise SystemExit(EXIT_REQUEUE)
    return worker.failed_count


@lru_cache(maxsize=1)
def cached_points(spec: str) -> list[Point]:
    """Return the points of the frozen spec of a launch.

    The result is cached. The fork server calls this function before it forks, so that its workers
    do not expand the spec again.

    Args:
        spec: path of the frozen spec.
    """
    return load_points(Path(spec))[1]


def _check_versions(task: TaskFile) -> None:
    python, flexhpc = python_version(), version("flexhpc")
    expected = os.environ.get(SOURCE, source_hash())
    if expected != source_hash():
        problem = (
            f"this job was submitted by flexhpc with source hash {expected}, but image "
            f"{image_name()} has source hash {source_hash()}; build the image again "
            "(docs/containers.md)"
        )
    elif (python, flexhpc) != (task.python, task.flexhpc):
        problem = (
            f"this job was submitted by Python {task.python} with flexhpc {task.flexhpc}, but "
            f"{platform.node()} has Python {python} with flexhpc {flexhpc}; use the same versions"
        )
    else:
        return
    print(problem, file=sys.stderr)
    raise SystemExit(_EXIT_WRONG_VERSION)


def _destroy_group(group: Group, exit_status: int) -> None:
    """Destroy the process group; if it has several processes, skip interpreter shutdown at exit.

    All processes of the group must call this function. Threads of torch's process group may
    outlive the group for a moment. If such a thread woke up during interpreter shutdown, the
    process would abort ("terminate called without an active exception") after all work is done,
    and its task would be requeued.
    """
    group.destroy()
    if group.size > 1:
        atexit.register(exit_without_cleanup, exit_status)


def _exit_immediately(reason: str, status: int = EXIT_PEER_LOST) -> NoReturn:
    """Exit without clean-up, because clean-up would wait for lost peers.

    A claim of this process keeps the state ``running``, so that the next process that claims the
    point counts a death.
    """
    _log(reason, sys.stderr)
    os._exit(status)


class Worker:
    """Claims and measures points. In a job with several processes, only rank 0 has a ``Worker``.

    Args:
        task: content of the task file.
        environment: distributed environment of this process.
        stop: request that stops the worker before all points are measured.
        group: process group whose processes train each probe together.
        on_progress: called with the progress of a training run after every epoch; see
            :class:`Callbacks`.
        verbose: whether to print one line per measured or failed point.
    """

    def __init__(
        self, task: TaskFile, environment: Environment, stop: StopRequest, group: Group,
        on_progress: Callable[[dict[str, Any]], None] = lambda _: None, *, verbose: bool = True,
    ) -> None:  # fmt: skip
        self.task, self.environment, self.stop, self.group = task, environment, stop, group
        self.on_progress, self.verbose = on_progress, verbose
        self.run = RunFolder(Path(task.run))
        self.watchdog = Watchdog(task, environment, stop)
        self.failed_count = 0
        self._data_errors: dict[str, str] = {}
        self._probes_at_once = int(os.environ.get(PROBES_AT_ONCE, task.probes_at_once))
        self._pool: ProbePool | None = None

    def close(self) -> None:
        """Stop the watchdog and the pool of probe processes."""
        self.watchdog.close()
        if self._pool is not None:
            self._pool.close()

    def measure_points(self, points: list[Point]) -> None:
        """Measure every point that no other process is measuring.

        The points of an array task belong to this task only. However, a process on a node that
        SLURM considers failed may still hold a claim on one of these points. Therefore an array
        task tries again to claim such points until a claim without heartbeats would have expired.
        If the other process still sends heartbeats, the task does not wait longer.
        """
        deadline = time.monotonic() + HEARTBEAT_TIMEOUT + 2 * self.task.heartbeat_every
        while points and not self.stop.is_set():
            points = [point for point in points if not self._measure_unless_claimed(point)]
            if self.task.points is None or time.monotonic() >= deadline:
                return
            if points:
                time.sleep(_RETRY_EVERY)

    def must_requeue(self, points: list[Point]) -> bool:
        """Return whether this is an array task that was stopped before its points were finished.

        Return False if the task was cancelled.
        """
        return (
            self.task.points is not None
            and self.stop.is_set()
            and not self.watchdog.cancelled
            and not all(self._is_finished(point) for point in points)
        )

    def _is_finished(self, point: Point) -> bool:
        """Return whether a point has been measured, or has failed in this launch."""
        if _is_measured(self.run, point):
            return True
        claim = read_claim(self.run.claim_file(point.id))
        return claim is not None and claim.state == "failed" and claim.launch == self.task.launch

    def _measure_unless_claimed(self, point: Point) -> bool:
        """Measure a point, unless it is finished or claimed, or a stop was requested.

        Failures are recorded in the claim.

        Returns:
            False if the point was skipped because another process holds its claim; True otherwise.
        """
        if self.stop.is_set() or self._is_finished(point):
            return True
        claim = self._claim(point)
        if claim is None:
            return False
        # From now on, the claim counts the deaths.
        self.environment.failures_file.unlink(missing_ok=True)
        self.watchdog.set_claim(claim)
        # The key contains the seed, because synthetic data depends on it.
        data_key = f"{point.seed} {point.data.model_dump_json()}"
        try:
            if claim.record.deaths > self.task.retries:
                raise PointError(
                    f"its worker died {claim.record.deaths} times without any progress "
                    "(killed, or out of memory?)"
                )
            if (reason := self._data_errors.get(data_key)) is not None:
                raise PointError(reason)  # do not repeat a failed download for every point
            if not _is_measured(self.run, point):
                self._measure(point, claim)
        except Interrupted:
            if not self.watchdog.claim_lost.is_set():
                self.stop.set("another process of this job received a stop request")
            self._release(claim, "stopped")
        except PointError as error:
            if isinstance(error, NoData):
                self._data_errors.setdefault(data_key, str(error))
            self._print(f"{point.id} {point.label}: {error}", sys.stderr)
            self._release(claim, "failed", str(error))
        except PeerLost:
            raise
        except (Exception, SystemExit) as error:  # user code may call sys.exit
            traceback.print_exc()
            self._release(claim, "failed", f"{type(error).__name__}: {one_line_message(error)}")
            if self.group.size > 1:
                _exit_immediately(
                    "exiting, because other processes of this job might wait for this one forever"
                )
        else:
            self._release(claim, "done")
        return True

    def _claim(self, point: Point) -> Claim | None:
        """Claim a point; return None if another process holds its claim.

        Raises:
            PointError: the run folder cannot be written.
        """
        try:
            return acquire_claim(
                self.run.claim_file(point.id),
                self.run.lock,
                launch=self.task.launch,
                job=self.environment.job,
                log=self.environment.log,
                last_save_time=self._last_save_time(point),
                was_preempted=self._was_preempted(point),
            )
        except OSError as error:
            message = f"{error.filename or self.run.path}: {error.strerror}"
            raise PointError(f"the run folder cannot be written: {message}") from None

    def _was_preempted(self, point: Point) -> bool:
        """Return whether this task was preempted, or lost its node, while it held a point's claim.

        Such an end of a worker does not count as a death. Preemption and node failures also kill
        the batch script, so in these cases the script records no exit status.
        """
        previous = read_claim(self.run.claim_file(point.id))
        if self.task.points is None or previous is None or previous.job != self.environment.job:
            return False
        return not self.environment.failures_file.exists()

    def _last_save_time(self, point: Point) -> float:
        """Return the time at which progress on a point was last saved (seconds since the epoch).

        Return 0 if no progress was saved.
        """
        times = [0.0]
        for path in (self.run.point_file(point.id), *self.run.checkpoints(point.id)):
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times)

    def _measure(self, point: Point, claim: Claim) -> None:
        callbacks = Callbacks(
            should_stop=self.watchdog.should_stop,
            owns_claim=claim.is_held,
            on_progress=self._report_progress,
            checkpoint_every=self.task.checkpoint_every,
        )
        estimate = measure(point, self.run, self.group, callbacks, self._pool_for(point))
        self._print(f"{point.id} {point.label}: emc {estimate.emc}, censored: {estimate.censored}")

    def _print(self, text: str, stream: TextIO | None = None) -> None:
        if self.verbose:
            _log(text, stream)

    def _report_progress(self, state: dict[str, Any]) -> None:
        self.watchdog.progress = state
        self.on_progress(state)

    def _pool_for(self, point: Point) -> ProbePool | None:
        """Return the pool of probe processes; None if probes run one at a time."""
        if self._probes_at_once == 1 or self.group.size > 1 or probes_per_round(point.search) == 1:
            return None
        if self._pool is None:
            self._pool = ProbePool(
                self._probes_at_once, self.task.threads, checkpoint_every=self.task.checkpoint_every
            )
        return self._pool

    def _release(self, claim: Claim, state: Any, message: str = "") -> None:
        """Release a claim, store the state of the point in the claim file, and count failures.

        Heartbeats are stopped first, because a later heartbeat would reset the state to
        ``running``.
        """
        if state == "failed":
            self.failed_count += 1
        self.watchdog.set_claim(None)
        try:
            claim.release(state, message)
        except OSError as error:
            _log(f"the claim cannot be released: {error}")


def _log(text: str, stream: TextIO | None = None) -> None:
    """Print a line to the log; ignore write errors, because they must not stop a measurement."""
    with contextlib.suppress(OSError):
        print(text, file=stream or sys.stdout, flush=True)


def _is_measured(run: RunFolder, point: Point) -> bool:
    """Return whether the measurement of a point is complete.

    Return False if the point file is corrupt, so that :func:`measure` reads it and reports the
    error.
    """
    try:
        record = read_point_file(run.point_file(point.id))
    except PointError:
        return False
    return record is not None and is_done(point, record)
