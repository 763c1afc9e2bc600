"""Backend that runs a sweep as array jobs on a SLURM cluster."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flexhpc.atomic import file_lock
from flexhpc.errors import InputError, PointError
from flexhpc.launch.backend import Backend
from flexhpc.launch.profile import SlurmProfile
from flexhpc.launch.slurm.arrays import (
    array_records,
    divide_into_arrays,
    reasons_for_waiting,
    tasks_in_queue,
)
from flexhpc.launch.slurm.commands import Queue, Slurm, SlurmUnavailable, SubmissionRejected
from flexhpc.launch.slurm.container import TaskContainer
from flexhpc.launch.slurm.script import batch_script, write_task_pickle
from flexhpc.launch.slurm.submit import new_record, submit_array
from flexhpc.store import RunFolder
from flexhpc.worker.environment import write_secret
from flexhpc.worker.task import TASK_FILE, TaskFile

_POLL_EVERY = 3.0
_TASKS_PER_SECOND = 500
_BETWEEN_SUBMISSIONS = 10.0
_RELEASES, _BETWEEN_RELEASES = 5, 20.0
_LIMIT_ERRORS = ("limit", "Limit", "QOSMax", "AssocMax")
"""Substrings of sbatch error messages that indicate a limit on the number of submitted jobs."""


class SlurmBackend(Backend):
    """Submits array jobs and monitors all array jobs of a run, including jobs of earlier launches.

    Results and job records are read from the run folder. SLURM's queue is used only to find the
    points that are queued or running. While the SLURM controller does not respond, the last known
    state of the queue is used.

    Args:
        run: the run folder.
        launch: folder of this launch; contains the task file.
        container: container in which the tasks run; None to run them without a container.
        interrupted: function that returns whether the user has requested a stop; called between
            submissions and while the controller does not respond.

    Raises:
        InputError: SLURM or the container cannot be used on this machine, a task would use another
            version of Python or flexhpc than this process, or the path of the run contains ``%``.
        PointError: the SLURM controller does not respond.
    """

    is_local = False
    max_assignments = 2

    def __init__(
        self,
        run: RunFolder,
        launch: Path,
        profile: SlurmProfile,
        container: TaskContainer | None,
        interrupted: Callable[[], bool],
    ) -> None:
        self.run, self.launch, self.profile, self.container = run, launch, profile, container
        self.interrupted = interrupted
        self.image = container.image.identity if container else None
        if "%" in str(run.path):
            raise InputError(f"{run.path}: SLURM expands % in paths; use a path without %")
        self.slurm = Slurm.with_conf(profile.slurm_conf)
        self.slurm.check_available()
        try:
            self.slurm.query_queue()
        except SlurmUnavailable as error:
            raise PointError(
                f"SLURM does not respond: {error}; no points were submitted; run the same command "
                "again to submit them"
            ) from None
        if container is not None:
            container.check_versions(self.slurm)
        elif profile.python is not None:
            advice = "install the same versions"
            self.slurm.check_python(profile.python, "python", advice, must_start=False)
        self.records = array_records(run)
        self._queue: Queue | None = None
        self.queued: dict[str, str] = {}
        self._released: dict[str, tuple[int, float]] = {}
        self._polled = self._submitted = -1e9

    def poll(self) -> None:
        """Query the queue at most every 3 s, and less often if it contains many tasks."""
        pause = max(_POLL_EVERY, len(self._queue.tasks) / _TASKS_PER_SECOND if self._queue else 0)
        if time.monotonic() - self._polled >= pause:
            self._polled = time.monotonic()
            try:
                self._query_queue()
                self.warning = ""
            except SlurmUnavailable as error:
                self.warning = f"SLURM does not respond: {error}"

    def _query_queue(self) -> Queue:
        self._queue = queue = self.slurm.query_queue()
        self.records = [record.with_job_id_from(queue) for record in array_records(self.run)]
        self._release_held_tasks(queue)
        self.queued = reasons_for_waiting(self.records, queue)
        return queue

    def _release_held_tasks(self, queue: Queue) -> None:
        """Release tasks that SLURM holds because they could not be launched on a node.

        SLURM holds such a task indefinitely after one failure, even if the node was only down or
        busy for a moment. Each task is released at most 5 times, at least 20 s apart, because the
        failure may be permanent.
        """
        now = time.monotonic()
        for record in self.records:
            for index, task in tasks_in_queue(record, queue):
                name = f"{record.job}_{index}"
                count, last = self._released.get(name, (0, -1e9))
                launch_failed = task.reason.replace("_", " ").startswith("launch failed")
                if launch_failed and count < _RELEASES and now - last > _BETWEEN_RELEASES:
                    self._released[name] = (count + 1, now)
                    with contextlib.suppress(SlurmUnavailable):
                        self.slurm.release(name)

    def has_worker_for(self, point_id: str) -> bool:
        """Return whether a task for this point is in the queue; True before the first query."""
        return self._queue is None or point_id in self.queued

    def has_workers(self) -> bool:
        """Return whether any task is queued or running; True before the first query."""
        return self._queue is None or bool(self.queued)

    def summary(self) -> str:
        """Return the number of tasks that this launch has submitted and their job ids, as text."""
        submitted = [r for r in self.records if r.folder.parent == self.launch and r.job]
        tasks = sum(record.tasks for record in submitted)
        jobs = ", ".join(str(record.job) for record in submitted)
        return f"{tasks} tasks submitted as job {jobs}" if submitted else "nothing to submit"

    def start_workers(self, points: Sequence[str]) -> bool:
        """Submit array jobs that measure points, at most once every 10 s.

        The profile key ``throttle`` limits the number of tasks that run concurrently. A lock
        in the run folder lets only one sweep submit at a time. The queue is read again while the
        lock is held, so that points submitted by another sweep are skipped.

        Args:
            points: ids of the points.

        Returns:
            True if all points are now in the queue; False if the caller should retry later.

        Raises:
            InputError: SLURM rejects the job, and no other job of the run is in the queue.
        """
        if self.warning or time.monotonic() - self._submitted < _BETWEEN_SUBMISSIONS:
            return False
        try:
            with file_lock(self.run.jobs / ".submit.lock"):
                queue = self._query_queue()
                return self._submit([point for point in points if point not in self.queued], queue)
        except SlurmUnavailable as error:
            self.warning = f"SLURM does not respond: {error}"
            return False
        except SubmissionRejected as error:
            if not self.queued:
                message = f"SLURM rejected the job: {error}"
                if any(text in str(error) for text in _LIMIT_ERRORS):
                    message += "; if you reached a limit on submitted jobs, set max_array"
                    message += " in the profile"
                raise InputError(message) from None
            self.warning = f"SLURM accepts no further jobs at the moment: {error}"
            return False
        finally:
            self._submitted, self._polled = time.monotonic(), -1e9

    def _submit(self, points: Sequence[str], queue: Queue) -> bool:
        """Submit array jobs for all points; return whether all were submitted.

        Points are left over if the throttle is reached or a stop was requested.
        """
        throttle = self.profile.throttle
        if throttle is not None:
            throttle -= sum(r.throttle for r in self.records if any(tasks_in_queue(r, queue)))
            if throttle < 1:
                return False
        task = TaskFile.read(self.launch / TASK_FILE)
        stop = Path(task.stop)
        limit = self.slurm.max_array_size()
        max_array = min(limit, self.profile.max_array or limit)
        per_task = self.profile.points_per_task
        arrays = divide_into_arrays(
            points, per_task=per_task, max_array=max_array, throttle=throttle
        )
        number = len(list(self.launch.glob("array-*")))
        jobs: list[str | None] = []
        for offset, array in enumerate(arrays):
            if stop.exists() or self.interrupted():
                return False
            folder = self.launch / f"array-{number + offset:03d}"
            array_task = replace(task, points=array.points, per_task=per_task)
            array_task.write(folder / TASK_FILE)
            write_task_pickle(folder, folder / TASK_FILE)
            write_secret(folder)
            if self.container is not None:
                self.container.write_script(folder)
            record = new_record(folder, array, self.run.name, self.slurm.conf)
            record.write()
            after = None if array.predecessor is None else jobs[array.predecessor]
            # The batch script can depend on the job id of an earlier array.
            script = batch_script(record, self.profile, stop, after, self.container)
            try:
                record = submit_array(self.slurm, record, script, self.interrupted)
            except SubmissionRejected:
                shutil.rmtree(folder)
                raise
            self.records.append(record)
            jobs.append(record.job)
            self.queued |= dict.fromkeys(array.points, "submitted")
        return True

    def log_path(self, point_id: str) -> str:
        """Return the log path of the newest task for this point, or an empty string."""
        for record in reversed(self.records):
            for index, points in enumerate(record.points_by_task() if record.job else []):
                if point_id in points:
                    return str(record.folder / f"{record.job}_{index}_0_log.err")  # of rank 0
        return ""
