"""Generate the batch script of an array job with submitit's SLURM executor.

submitit writes the sbatch options, the srun line, the log paths and the pickle from which a task
starts. This module adds commands that requeue one task of the array. These commands run outside the
container, so scontrol is not needed inside it.
"""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission

from flexhpc.launch.profile import SlurmProfile, normalise_option_name
from flexhpc.launch.slurm.arrays import ArrayRecord
from flexhpc.launch.slurm.container import TaskContainer
from flexhpc.worker.entry import ArrayTask
from flexhpc.worker.environment import DEADLINE
from flexhpc.worker.signals import EXIT_PEER_LOST, EXIT_REQUEUE

PICKLE = "task.pkl"
_NO_TIMEOUT = 10**9
_MAX_STOPS = 10
"""Maximum number of consecutive requeues of a task that stops before it claims a point."""


class _Executor(submitit.SlurmExecutor):
    """submitit's SLURM executor, used only to generate batch scripts; SLURM is not needed."""

    @classmethod
    def affinity(cls) -> int:
        return 1

    def script_text(self, task_count: int) -> str:
        """Return the batch script of an array with ``task_count`` tasks."""
        self.parameters["map_count"] = task_count
        command = self._submitit_command_str
        return str(self._make_submission_file_text(command, uid="")) + "\n"


def batch_script(
    record: ArrayRecord,
    profile: SlurmProfile,
    stop_file: Path,
    previous_job: str | None,
    container: TaskContainer | None,
) -> str:
    """Return the text of the batch script for sbatch.

    With a container, tasks use the Python inside the container. Without one, they use the Python of
    the profile or, if the profile sets none, the Python of this process.

    Args:
        record: record of the array; ``record.folder`` contains submitit's files, the pickle and the
            logs.
        stop_file: path of the stop file; tasks are not requeued once this file exists.
        previous_job: id of the job that must end before the array starts, or None.
    """
    python = profile.python or shlex.quote(sys.executable)
    if container is not None:
        python = container.python_command(record.folder)
    executor = _Executor(record.folder, python=f"{python} -P")
    cpus = profile.cpus_per_process * (profile.probes_at_once or 1)
    options = {
        normalise_option_name(key): value
        for key, value in profile.sbatch.items()
        if value is not False
    }
    executor.update_parameters(
        job_name=record.name,
        partition=profile.partition,
        account=profile.account,
        qos=profile.qos,
        constraint=profile.constraint,
        time=profile.time_limit,
        nodes=profile.nodes,
        ntasks_per_node=profile.processes_per_node,
        cpus_per_task=cpus,
        gpus_per_node=profile.gpus_per_node or None,
        mem=None if profile.mem_gb is None else f"{math.ceil(profile.mem_gb * 1024)}M",
        signal_delay_s=round(profile.stop_before_or_default),
        array_parallelism=record.throttle,
        dependency=None if previous_job is None else f"afterany:{previous_job}",
        wckey=None,
        setup=[*profile.setup, *_lines_before_srun(record.folder, profile)],
        teardown=_lines_after_srun(profile, stop_file),
        # Without --kill-on-bad-exit, the other processes would wait for a killed process.
        # Since SLURM 22.05, srun does not inherit --cpus-per-task from the job.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        additional_parameters={"requeue": True, **options},
    )
    return executor.script_text(record.tasks)


def write_task_pickle(folder: Path, task_file: Path) -> None:
    """Write the pickle from which the tasks of an array start; it contains the task file's path."""
    delayed = DelayedSubmission(ArrayTask(str(task_file)))
    delayed.set_timeout(_NO_TIMEOUT, 0)
    delayed.dump(folder / PICKLE)


def _lines_before_srun(folder: Path, profile: SlurmProfile) -> list[str]:
    """Return the lines before srun in the batch script, which set the deadline and copy the pickle.

    submitit expects the pickle at a path that contains the job id. The task itself copies it there,
    because the launcher could be interrupted between sbatch and the copy. Partial results of a
    killed attempt are removed, because they would make submitit fail (submitit#1617).
    """
    limit = profile.time_limit
    return [
        *([f"export {DEADLINE}=$(( $(date +%s) + {limit * 60} ))"] if limit is not None else []),
        "set +e",  # a setup line may have set -e, which would prevent the requeue
        "export SLURM_EXPORT_ENV=ALL",  # undo sbatch --export: srun must pass on the variables
        'array_task="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
        f'log_prefix={shlex.quote(str(folder))}/"$array_task"',
        f'cp {shlex.quote(str(folder / PICKLE))} "$log_prefix".new'
        ' && mv "$log_prefix".new "$log_prefix"_submitted.pkl',
        'rm -f "$log_prefix"_*.save_tmp',
    ]


def _lines_after_srun(profile: SlurmProfile, stop_file: Path) -> list[str]:
    """Return the lines after srun in the batch script, which requeue the task if necessary.

    The task is requeued if it has points left, was killed, or lost the connection between its
    processes. In these cases, its exit status is appended to a file, which the task removes when it
    claims a point. If the file has too many lines, the task is not requeued, because a task that
    never claims a point would otherwise be requeued forever.
    """
    return [
        "status=$?",
        "requeue=no",
        f"if [ $status -eq {EXIT_REQUEUE} ] || [ $status -eq {EXIT_PEER_LOST} ]"
        " || [ $status -ge 128 ]; then",
        '  echo $status >> "$log_prefix".failures',
        f"  max_failures={profile.retries}",
        f"  if [ $status -eq {EXIT_REQUEUE} ]; then max_failures={_MAX_STOPS}; fi",
        '  [ "$(wc -l < "$log_prefix".failures)" -gt $max_failures ] || requeue=yes',
        f'  [ "${{SLURM_RESTART_COUNT:-0}}" -lt {profile.restarts} ] || requeue=no',
        "fi",
        f"if [ $requeue = yes ] && [ ! -e {shlex.quote(str(stop_file))} ]; then",
        '  echo "flexhpc: task $array_task exited with status $status; requeueing it"',
        "  for pause in 1 2 4 8 15 30 60 60 60 60; do",
        '    scontrol requeue "$array_task" && sleep 60',
        "    sleep $pause",
        "  done",
        "fi",
        "exit $status",
    ]
