"""Measure the submission of 1,000 points to SLURM by flexhpc, hydra and submitit.

Usage: python -m bench.slurm_submit
Counts the calls to sbatch, and measures the time until all jobs are in the queue and the time of
`flexhpc status`. The jobs are held, so none starts. Starts a separate devcluster (Debian, as root),
and installs hydra into a temporary environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import FLEXHPC

REPOSITORY = Path(__file__).resolve().parent.parent
DEVCLUSTER = REPOSITORY / "hpc" / "devcluster"
ROOT = "/var/lib/flexhpc-bench"
POINTS, ROUNDS = 1_000, 3

SPEC = f"""\
name: bench
fixed:
  data: {{source: digits}}
  model: {{family: mlp, width: 4}}
  training: {{optimizer: adam}}
grid:
  seed: [{", ".join(map(str, range(POINTS)))}]
"""
PROFILE = "cluster: slurm\ntracking_uri: none\nsbatch: {hold: true}\n"
HYDRA_APP = """\
import hydra

@hydra.main(version_base=None, config_path=None)
def main(config):
    return 0

main()
"""
MAP_ARRAY = f"""\
import submitit
executor = submitit.SlurmExecutor("logs")
executor.update_parameters(additional_parameters={{"hold": True}}, array_parallelism={POINTS})
executor.map_array(abs, range({POINTS}))
"""
COUNTING_SBATCH = '#!/bin/sh\necho >> {count}\nexec {sbatch} "$@"\n'


@contextlib.contextmanager
def devcluster() -> Iterator[dict[str, str]]:
    """Start a separate devcluster; yield the environment for SLURM's commands."""
    settings = {**os.environ, "DEVCLUSTER_ROOT": ROOT, "PORT": "18000"}
    subprocess.run([str(DEVCLUSTER / "up.sh"), "--quiet"], env=settings, check=True)
    try:
        yield {**os.environ, "SLURM_CONF": f"{ROOT}/etc/slurm.conf"}
    finally:
        subprocess.run([str(DEVCLUSTER / "down.sh"), "--wipe"], env=settings, check=True)


def queue_length(environment: dict[str, str]) -> int:
    """Return the number of array tasks in the queue."""
    done = subprocess.run(
        ["squeue", "--noheader", "--array"], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return len(done.stdout.splitlines())


def submit(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run a command until all points are queued; return seconds and number of sbatch calls."""
    tools, count = folder / "bin", folder / "calls"
    tools.mkdir(parents=True)
    counter = tools / "sbatch"
    counter.write_text(COUNTING_SBATCH.format(count=count, sbatch=shutil.which("sbatch")))
    counter.chmod(0o755)
    with_counter = {**environment, "PATH": f"{tools}:{environment['PATH']}"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=with_counter, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    while queue_length(environment) < POINTS:
        if process.poll() not in (None, 0):
            assert process.stderr is not None
            raise RuntimeError(process.stderr.read())
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if command[0] == FLEXHPC:
        process.wait()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return {"seconds": seconds, "sbatch_calls": len(count.read_text().splitlines())}


def cancel_all(environment: dict[str, str]) -> None:
    """Cancel all jobs and wait until the queue is empty."""
    subprocess.run(["scancel", "--user=root"], env=environment, check=True)
    while queue_length(environment):
        time.sleep(0.1)


def measure_status(folder: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [FLEXHPC, "status", "runs/bench", "--json"], cwd=folder, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    states = [row["state"] for row in json.loads(done.stdout)]
    assert states == ["queued"] * POINTS, states[:3]
    return time.perf_counter() - start


def install_hydra(folder: Path) -> Path | None:
    """Install hydra into a virtual environment; return its Python, or None if pip fails."""
    python = folder / "hydra" / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder / "hydra")], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "hydra-core==1.3.8",
             "hydra-submitit-launcher==1.2.0", "submitit==1.5.4"],
            check=True, capture_output=True,
        )  # fmt: skip
    except subprocess.CalledProcessError:
        return None
    return python


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, devcluster() as environment:
        folder = Path(scratch)
        (folder / "spec.yaml").write_text(SPEC)
        (folder / "profile.yaml").write_text(PROFILE)
        (folder / "app.py").write_text(HYDRA_APP)
        (folder / "map_array.py").write_text(MAP_ARRAY)
        commands = {
            "flexhpc": [
                FLEXHPC, "sweep", str(folder / "spec.yaml"), "--profile",
                str(folder / "profile.yaml"), "--detach",
            ],
            "submitit map_array": [sys.executable, str(folder / "map_array.py")],
        }  # fmt: skip
        if python := install_hydra(folder):
            commands["hydra submitit launcher"] = [
                str(python), str(folder / "app.py"), "--multirun", f"+seed=range({POINTS})",
                "hydra/launcher=submitit_slurm", "+hydra.launcher.additional_parameters.hold=true",
                f"hydra.launcher.array_parallelism={POINTS}",
            ]  # fmt: skip
        measurements: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        for number in range(ROUNDS):
            for name, command in commands.items():
                work = folder / f"{number}-{name.split()[0]}"
                result = submit(command, work, environment)
                if name == "flexhpc":
                    result["status_seconds"] = measure_status(work, environment)
                measurements[name].append(result)
                cancel_all(environment)
    rows = []
    for name, runs in measurements.items():
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"tool": name, "points": POINTS, **medians})
    print(json.dumps({"bench": "slurm_submit", "rounds": ROUNDS, "runs": rows}, indent=1))


if __name__ == "__main__":
    main()
