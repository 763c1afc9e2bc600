"""Submits arrays so that none is lost and none is there twice.

sbatch may fail after the job was accepted (a time-out on the way back). So every submission has a
name of its own, written down before it is tried; after a failure the queue is asked for that name
before anything is tried again.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flexhpc.atomic import write_atomic
from flexhpc.launch.profile import SlurmProfile
from flexhpc.launch.slurm.arrays import TASK_FILE, ArrayRecord
from flexhpc.launch.slurm.commands import NoAnswer, Refused, Slurm
from flexhpc.launch.slurm.container import TaskContainer
from flexhpc.launch.slurm.layout import Chunk
from flexhpc.launch.slurm.script import batch_script, write_pickle
from flexhpc.worker.place import write_secret
from flexhpc.worker.task import TaskFile

SCRIPT = "array.sh"
_PAUSES = (1, 2, 4, 8, 15, 15, 15)


def job_name(run: str) -> str:
    """Return a name for one submission of a run."""
    return f"flexhpc-{run[:40]}-{uuid.uuid4().hex[:10]}"


def write_array(
    folder: Path,
    chunk: Chunk,
    profile: SlurmProfile,
    task: TaskFile,
    run: str,
    conf: str | None,
    container: TaskContainer | None,
) -> ArrayRecord:
    """Write all that an array needs, but for the script: that depends on what came before it."""
    replace(task, points=chunk.points, per_task=profile.points_per_task).write(folder / TASK_FILE)
    write_pickle(folder, folder / TASK_FILE)
    write_secret(folder)
    if container is not None:
        container.write(folder)
    record = ArrayRecord(
        folder=folder,
        name=job_name(run),
        tasks=chunk.tasks,
        throttle=chunk.throttle,
        job=None,
        slurm_conf=conf,
    )
    record.write()
    return record


def script_of(
    record: ArrayRecord,
    profile: SlurmProfile,
    stop: Path,
    after: str | None,
    container: TaskContainer | None,
) -> str:
    """Return the script of an array; its tasks run ``inside``, or with the Python we have here."""
    here = profile.python or shlex.quote(sys.executable)
    return batch_script(
        record.folder,
        profile,
        name=record.name,
        tasks=record.tasks,
        throttle=record.throttle,
        stop=stop,
        after=after,
        python=here if container is None else container.command(record.folder),
    )


def submit_array(
    slurm: Slurm, record: ArrayRecord, script: str, cancelled: Callable[[], bool] = lambda: False
) -> ArrayRecord:
    """Submit an array; keeps trying for a minute while the controller does not answer.

    Raises:
        Refused: SLURM does not want it.
        NoAnswer: the controller is silent; the record's name tells later whether it was accepted.
    """
    path = record.folder / SCRIPT
    write_atomic(path, script)
    silent: NoAnswer | None = None
    for pause in _PAUSES:
        # Try again only once the queue is known not to hold it already.
        try:
            if silent is not None:
                record = record.adopted(slurm.queue())
            return record if record.job else record.accepted(slurm.submit(path))
        except Refused:
            if (known := record.adopted(slurm.queue())).job is not None:
                return known
            raise
        except NoAnswer as error:
            silent = error
        if cancelled():
            break
        time.sleep(pause)
    raise silent or NoAnswer("")


def dry_run(
    chunks: Sequence[Chunk],
    launch: Path,
    profile: SlurmProfile,
    task: TaskFile,
    run: str,
    container: TaskContainer | None,
) -> list[str]:
    """Return the scripts that would be submitted, and how they get inside; nothing is written.

    A name and the ids of jobs to wait for are only known when it is done.
    """
    scripts = [] if container is None else [container.script()]
    for number, chunk in enumerate(chunks):
        record = ArrayRecord(
            folder=launch / f"array-{number:03d}",
            name=job_name(run),
            tasks=chunk.tasks,
            throttle=chunk.throttle,
            job=None,
            slurm_conf=profile.slurm_conf,
        )
        after = None if chunk.after is None else f"JOB_OF_ARRAY_{chunk.after:03d}"
        scripts.append(script_of(record, profile, Path(task.stop), after, container))
    return scripts
