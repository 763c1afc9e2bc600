"""Cancel a run: stop its local workers, and cancel its jobs on clusters."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from flexhpc.launch.prepare import STOP_FILE
from flexhpc.launch.slurm.arrays import array_records, records_by_cluster, tasks_in_queue
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
    started = time.monotonic()
    removed = 0
    while True:
        statuses = reader.read()
        running = sum(status.state == "running" for status in statuses)
        measured = {status.point.id for status in statuses if status.state == "done"}
        elapsed = time.monotonic() - started
        pending, remaining, unavailable = _cancel_jobs(
            run, measured, pending_only=elapsed <= _FORCE_AFTER
        )
        removed += pending
        if not running and not remaining:
            break
        if elapsed > _TIMEOUT:
            state = f"{running} points and {remaining} array tasks may still be running"
            reason = f" ({unavailable})" if unavailable else ""
            return f"stop requested, but {state} after {_TIMEOUT:.0f} s{reason}", False
        time.sleep(0.3 if not remaining else 1.0)
    removed_text = f", {removed} tasks removed from the queue" if removed else ""
    return f"{count} points stopped{removed_text}; finished probes are kept", True


def _cancel_jobs(run: RunFolder, measured: set[str], *, pending_only: bool) -> tuple[int, int, str]:
    """Cancel the tasks of all array jobs of a run, on all clusters.

    Each call reads the array records again, because a sweep can submit more arrays meanwhile. An
    array is skipped if all its points are measured, because its cluster may no longer exist.

    Args:
        measured: ids of the points whose measurement has finished.
        pending_only: whether to cancel only pending tasks, not running tasks.

    Returns:
        The number of pending tasks, which are removed from the queue; the number of tasks that may
        still be running; and an error message if a cluster does not respond, otherwise an empty
        string.
    """
    pending, remaining, unavailable = 0, 0, ""
    unfinished = [
        record
        for record in array_records(run)
        if not measured.issuperset(itertools.chain(*record.points_by_task()))
    ]
    for conf, records in records_by_cluster(unfinished).items():
        slurm = Slurm(conf)
        try:
            queue = slurm.query_queue()
            queued = [r.with_job_id_from(queue) for r in records if any(tasks_in_queue(r, queue))]
            slurm.cancel([str(record.job) for record in queued], pending_only=pending_only)
        except SlurmUnavailable as error:
            unavailable = f"SLURM does not respond: {error}"
            remaining += sum(record.tasks for record in records)
            continue
        tasks = [task for record in queued for _, task in tasks_in_queue(record, queue)]
        pending += sum(task.state == "PENDING" for task in tasks)
        remaining += sum(task.state != "PENDING" for task in tasks)
    return pending, remaining, unavailable
