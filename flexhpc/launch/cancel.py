"""Cancel a run: stop its local workers, and cancel its jobs on clusters."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from flexhpc.launch.prepare import STOP_FILE
from flexhpc.launch.slurm.arrays import (
    ArrayRecord,
    array_records,
    records_by_cluster,
    tasks_in_queue,
)
from flexhpc.launch.slurm.commands import Slurm, SlurmUnavailable
from flexhpc.store import RunFolder
from flexhpc.store.status import StatusReader, open_run

_TIMEOUT = 90.0  # seconds
_FORCE_AFTER = 60.0  # seconds


def cancel_run(path: Path) -> tuple[str, bool]:
    """Ask all workers of a run to stop, and wait up to 90 s until they have stopped.

    Pending tasks are removed from the queue immediately. Running tasks save the current probe and
    exit; tasks that are still running after 60 s are cancelled with scancel.

    Returns:
        A one-line summary, and whether all workers have stopped.
    """
    run, _, points = open_run(path)
    reader = StatusReader(run, [point.with_precise_search() for point in points])
    count = sum(status.state == "running" for status in reader.read())
    for folder in run.jobs.glob("*/"):
        (folder / STOP_FILE).touch()
    jobs = _ArrayJobs(run)
    started = time.monotonic()
    while True:
        statuses = reader.read()
        running = sum(status.state == "running" for status in statuses)
        measured = {status.point.id for status in statuses if status.state == "done"}
        elapsed = time.monotonic() - started
        remaining = jobs.cancel(measured, pending_only=elapsed <= _FORCE_AFTER)
        if not running and not remaining:
            break
        if elapsed > _TIMEOUT:
            state = f"{running} points and {remaining} array tasks may still be running"
            reason = f" ({jobs.unavailable})" if jobs.unavailable else ""
            return f"stop requested, but {state} after {_TIMEOUT:.0f} s{reason}", False
        time.sleep(0.3 if not remaining else 1.0)
    removed = f", {jobs.removed} tasks removed from the queue" if jobs.removed else ""
    return f"{count} points stopped{removed}; finished probes are kept", True


class _ArrayJobs:
    """Cancels the array jobs of a run on all clusters.

    Attributes:
        removed: number of pending tasks that were removed from the queue so far.
        unavailable: error message if a cluster did not respond in the last call of :meth:`cancel`;
            otherwise empty.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.removed = 0
        self.unavailable = ""

    def cancel(self, measured: set[str], *, pending_only: bool) -> int:
        """Cancel the tasks of all arrays; return the number of tasks that may still be running.

        Each call reads the array records again, because a sweep can submit more arrays meanwhile.
        An array is skipped if all its points are measured, because its cluster may no longer exist.

        Args:
            measured: ids of the points whose measurement has finished.
            pending_only: whether to cancel only pending tasks, not running tasks.
        """
        remaining = 0
        self.unavailable = ""
        unfinished = [
            record
            for record in array_records(self.run)
            if not measured.issuperset(itertools.chain(*record.points_by_task()))
        ]
        for conf, records in records_by_cluster(unfinished).items():
            try:
                remaining += self._cancel_on_cluster(Slurm(conf), records, pending_only)
            except SlurmUnavailable as error:
                self.unavailable = f"SLURM does not respond: {error}"
                remaining += sum(record.tasks for record in records)
        return remaining

    def _cancel_on_cluster(
        self, slurm: Slurm, records: list[ArrayRecord], pending_only: bool
    ) -> int:
        """Cancel tasks of the arrays; return how many tasks in the queue were not pending."""
        queue = slurm.query_queue()
        records = [record.with_job_id_from(queue) for record in records]
        tasks_by_job = {
            record.job: [task for _, task in tasks_in_queue(record, queue)]
            for record in records
            if record.job
        }
        if jobs := [job for job, tasks in tasks_by_job.items() if job and tasks]:
            slurm.cancel(jobs, pending_only=pending_only)
        tasks = list(itertools.chain(*tasks_by_job.values()))
        pending = sum(task.state == "PENDING" for task in tasks)
        self.removed += pending
        return len(tasks) - pending
