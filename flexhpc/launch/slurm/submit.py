"""Submit each array exactly once.

sbatch may fail after the job was accepted, for example if the reply times out. Therefore each
submission has a unique job name, which is recorded before sbatch is called. After a failure, the
queue is searched for this name before the submission is retried.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

from flexhpc.atomic import write_atomic
from flexhpc.launch.slurm.arrays import ArrayRecord, PlannedArray
from flexhpc.launch.slurm.commands import Slurm, SlurmUnavailable, SubmissionRejected

SCRIPT = "array.sh"
_PAUSES = (1, 2, 4, 8, 15, 15, 15)


def new_record(folder: Path, array: PlannedArray, run_name: str, conf: str | None) -> ArrayRecord:
    """Create the record of an array that is not submitted yet, with a unique job name.

    Args:
        conf: path of the cluster's slurm.conf; None for the system default.
    """
    return ArrayRecord(
        folder=folder,
        name=f"flexhpc-{run_name[:40]}-{uuid.uuid4().hex[:10]}",
        tasks=array.tasks,
        throttle=array.throttle,
        job=None,
        slurm_conf=conf,
    )


def submit_array(
    slurm: Slurm, record: ArrayRecord, script: str, interrupted: Callable[[], bool]
) -> ArrayRecord:
    """Submit an array; while the controller does not respond, retry for about one minute.

    Args:
        script: text of the batch script.
        interrupted: function that returns whether the user has requested a stop; if so, the
            submission is not retried.

    Returns:
        The record with the job id.

    Raises:
        SubmissionRejected: SLURM rejected the job.
        SlurmUnavailable: the controller does not respond. The job may have been accepted; its name
            then appears in the queue.
    """
    path = record.folder / SCRIPT
    write_atomic(path, script)
    unavailable: SlurmUnavailable | None = None
    for pause in _PAUSES:
        try:
            if unavailable is not None:  # submit again only if the job is not in the queue
                record = record.with_job_id_from(slurm.query_queue())
            return record if record.job else record.store_job_id(slurm.submit(path))
        except SubmissionRejected:
            if (submitted := record.with_job_id_from(slurm.query_queue())).job is not None:
                return submitted
            raise
        except SlurmUnavailable as error:
            unavailable = error
        if interrupted():
            break
        time.sleep(pause)
    raise unavailable or SlurmUnavailable("")
