"""Cancel a run: stop its local workers, and cancel its jobs on clusters."""

from __future__ import annotations

import time
from pathlib import Path

from flexhpc.launch.slurm.arrays import ArrayRecord, array_records, tasks_in_queue
from flexhpc.launch.slurm.commands import Slurm, SlurmUnavailable
from flexhpc.store import RunFolder
from flexhpc.store.status import StatusReader, open_run

_WITHIN = 90.0
_GRACE = 60.0


def cancel_run(path: Path) -> tuple[str, bool]:
    """Ask all workers of a run to stop; wait up to 90 s until no point is running or queued.

    Pending tasks are removed from the queue immediately. Running tasks save the current probe and
    exit; tasks that are still in the queue after 60 s are cancelled with scancel.

    Returns:
        A one-line summary, and whether all workers have stopped.
    """
    run, _, points = open_run(path)
    reader = StatusReader(run, [point.precise() for point in points])
    count = sum(status.state == "running" for status in reader.read())
    for folder in run.jobs.glob("*/"):
        (folder / "stop").touch()
    jobs = _Jobs(run)
    started = time.monotonic()
    while True:
        statuses = reader.read()
        running = sum(status.state == "running" for status in statuses)
        waited = time.monotonic() - started
        measured = {status.point.id for status in statuses if status.state == "done"}
        remaining = jobs.end(measured, everything=waited > _GRACE)
        if not running and not remaining:
            break
        if waited > _WITHIN:
            state = f"{running} points are still running and {remaining} tasks still queued"
            reason = f" ({jobs.unavailable})" if jobs.unavailable else ""
            return f"stop requested, but {state} after {_WITHIN:.0f} s{reason}", False
        time.sleep(0.3 if not remaining else 1.0)
    queue = f", {jobs.removed} tasks removed from the queue" if jobs.removed else ""
    return f"{count} points stopped{queue}; finished probes are kept", True


class _Jobs:
    """The array jobs of a run that may still be in the queue.

    Attributes:
        removed: number of pending tasks that were removed from the queue so far.
        unavailable: why the last query of a cluster failed; empty if all succeeded.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.removed = 0
        self.unavailable = ""

    def end(self, measured: set[str], *, everything: bool) -> int:
        """Cancel the pending tasks, or all tasks; return how many may still be running.

        The records are read again on each call, because a sweep may submit more arrays meanwhile.
        An array is skipped if all its points are measured: its cluster may no longer exist.

        Args:
            measured: ids of the points that are done.
            everything: whether to cancel running tasks as well.
        """
        remaining = 0
        self.unavailable = ""
        records = [
            record
            for record in array_records(self.run)
            if not measured.issuperset(
                point for points in record.points_by_task() for point in points
            )
        ]
        for conf in dict.fromkeys(record.slurm_conf for record in records):
            cluster_records = [record for record in records if record.slurm_conf == conf]
            try:
                remaining += self._end(Slurm(conf), cluster_records, everything)
            except SlurmUnavailable as error:
                self.unavailable = f"SLURM does not respond: {error}"
                remaining += sum(record.tasks for record in cluster_records)
        return remaining

    def _end(self, slurm: Slurm, records: list[ArrayRecord], everything: bool) -> int:
        queue = slurm.queue()
        records = [record.find_job_id(queue) for record in records]
        queued = {r.job: [task for _, task in tasks_in_queue(r, queue)] for r in records if r.job}
        busy = [job for job, tasks in queued.items() if tasks and job]
        if busy:
            slurm.cancel(busy, pending_only=not everything)
        pending = [t for tasks in queued.values() for t in tasks if t.state == "PENDING"]
        self.removed += len(pending)
        return sum(len(tasks) for tasks in queued.values()) - len(pending)
