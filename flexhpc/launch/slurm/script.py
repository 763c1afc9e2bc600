"""The batch script of an array job, written by submitit's SLURM executor.

submitit contributes the parameters, the srun line, the log files and the pickle that a task starts
from. Around that stands what it leaves out: the queueing again is done here, on the host, for the
one task that wants it, so it needs no scontrol inside a container.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission

from flexhpc.launch.profile import SlurmProfile, option
from flexhpc.worker.entry import Task
from flexhpc.worker.place import ENDS
from flexhpc.worker.signals import ALONE, RESTART

PICKLE = "task.pkl"
_FOR_EVER = 10**9
_STOPS = 10
"""How often in a row a task may be stopped before it has claimed a point."""


class _Executor(submitit.SlurmExecutor):
    """submitit's, asked for text only: it can be had where SLURM is not installed."""

    @classmethod
    def affinity(cls) -> int:
        return 1

    def text(self, tasks: int) -> str:
        """Return the script of an array of so many tasks."""
        self.parameters["map_count"] = tasks
        command = self._submitit_command_str
        return str(self._make_submission_file_text(command, uid="")) + "\n"


def batch_script(
    folder: Path, profile: SlurmProfile, *, name: str, tasks: int, throttle: int,
    stop: Path, after: str | None, python: str,
) -> str:  # fmt: skip
    """Return the text that sbatch gets.

    Args:
        folder: of this array: submitit's files, the pickle, the logs.
        profile: what to ask of the cluster.
        name: job name.
        tasks: number of tasks; throttle: how many may run at the same time.
        stop: when this file exists, no task is queued again.
        after: id of the job that must have ended before this one starts.
        python: what starts Python in a task, as shell.
    """
    executor = _Executor(folder, python=python)
    cpus = profile.cpus_per_task
    given: dict[str, Any] = {
        "job_name": name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "time": profile.time_limit,
        "nodes": profile.nodes,
        "ntasks_per_node": profile.processes_per_node,
        "cpus_per_task": cpus,
        "gpus_per_node": profile.gpus_per_node or None,
        "mem": None if profile.mem_gb is None else f"{math.ceil(profile.mem_gb * 1024)}M",
        "signal_delay_s": round(profile.notice),
        "array_parallelism": throttle,
        "dependency": None if after is None else f"afterany:{after}",
        "wckey": None,
        "setup": [*profile.setup, *_before(folder, profile)],
        "teardown": _after(profile, stop),
        # A task left behind by a dead one would wait for it; since SLURM 22.05 srun does not
        # take the number of CPUs from the job.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        "additional_parameters": {
            "requeue": True,
            **{option(key): value for key, value in profile.sbatch.items() if value is not False},
        },
    }
    executor.update_parameters(**given)
    return executor.text(tasks)


def write_pickle(folder: Path, task: Path) -> None:
    """Write what every task of an array starts from: a pickle that carries one path."""
    folder.mkdir(parents=True, exist_ok=True)
    delayed = DelayedSubmission(Task(str(task)))
    delayed.set_timeout(_FOR_EVER, 0)
    delayed.dump(folder / PICKLE)


def _before(folder: Path, profile: SlurmProfile) -> list[str]:
    """Lines before srun: the end of the allocation, and submitit's pickle for this task.

    Every task copies the array's one pickle to where submitit looks for it, so that a submission
    that was cut off after sbatch has left nothing out. A half-written result of an attempt that
    was killed would make submitit fail (submitit#1617).
    """
    limit = profile.time_limit
    return [
        *([f"export {ENDS}=$(( $(date +%s) + {limit * 60} ))"] if limit is not None else []),
        "set +e",  # of a setup line: the script must live to queue its task again
        "export SLURM_EXPORT_ENV=ALL",  # of sbatch --export: srun must hand on what follows
        'me="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
        f'mine={shlex.quote(str(folder))}/"$me"',
        f'cp "${{mine%/*}}"/{PICKLE} "$mine".new && mv "$mine".new "$mine"_submitted.pkl',
        'rm -f "$mine"_*.save_tmp',
    ]


def _after(profile: SlurmProfile, stop: Path) -> list[str]:
    """Lines after srun: queue this one task again if it stopped with work left, or was killed.

    Bad ends are written down until the task has claimed a point; a task that never gets there is
    not queued again for ever.
    """
    return [
        "status=$?",
        "again=no",
        f"if [ $status -eq {RESTART} ] || [ $status -eq {ALONE} ] || [ $status -ge 128 ]; then",
        '  echo $status >> "$mine".setbacks',
        f"  most={profile.retries}",
        f"  if [ $status -eq {RESTART} ]; then most={_STOPS}; fi",
        '  [ "$(wc -l < "$mine".setbacks)" -gt $most ] || again=yes',
        f'  [ "${{SLURM_RESTART_COUNT:-0}}" -lt {profile.restarts} ] || again=no',
        "fi",
        f"if [ $again = yes ] && [ ! -e {shlex.quote(str(stop))} ]; then",
        '  echo "flexhpc: task $me ended with $status, queueing it again"',
        "  for pause in 1 2 4 8 15 30 60 60 60 60; do",
        '    scontrol requeue "$me" && sleep 60',
        "    sleep $pause",
        "  done",
        "fi",
        "exit $status",
    ]
