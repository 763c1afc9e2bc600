"""Faults of processes: killed, suspended, out of memory, several sweeps of one run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil

from tests.archives import copy_checkout
from tests.barrier import alive
from tests.faults.site import Outcome, Site, Unavailable
from tests.slurm.conftest import no_slurm, running_cluster
from tests.sweeps import running_points


def killed_worker(site: Site, faults: int) -> Outcome:
    """Kill a worker in the middle of a probe; the sweep replaces it."""
    sweep = site.start()
    for _ in range(faults):
        site.signal_worker(sweep, signal.SIGKILL)
        site.check_probes()
    site.finish_with_status(sweep)
    return site.resume_and_compare()


def killed_everything(site: Site, faults: int) -> Outcome:
    """Kill the sweep, its workers and its tracking process at once; run the command again."""
    for _ in range(faults):
        sweep = site.start()
        site.outcome.faults += bool(site.hold(sweep))
        site.kill(sweep)
    return site.resume_and_compare()


def killed_tracking_process(site: Site, faults: int) -> Outcome:
    """Kill the process that logs to MLflow; the next command logs the rest, each probe once."""
    site.write_profile()
    for _ in range(faults):
        site.remove_run()
        sweep = site.start()

        def tracking_processes(sweep: subprocess.Popen[str] = sweep) -> list[psutil.Process]:
            children = psutil.Process(sweep.pid).children() if sweep.poll() is None else []
            return [child for child in children if _is_tracking_process(child)]

        site.hold(sweep)
        site.wait(sweep, lambda: tracking_processes() and (site.run / "mlflow.db").exists())
        before = site.outcome.faults
        with contextlib.suppress(psutil.Error):  # the process has ended
            for process in tracking_processes():
                is_alive = process.status() != psutil.STATUS_ZOMBIE
                process.kill()
                site.outcome.faults += is_alive
        output = site.finish_with_status(sweep)
        warned = "warning: the MLflow process died" in output
        site.expect(warned or site.outcome.faults == before, output)
    site.resume_and_compare()
    site.check_tracking()
    return site.outcome


def _is_tracking_process(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # the process has ended
        return "flexhpc.tracking.periodic_sync" in process.cmdline()
    return False


def killed_rank(site: Site, faults: int) -> Outcome:
    """Kill one of two processes that train a probe together."""
    site.write_profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    sweep = site.start()
    for _ in range(faults):
        if ranks := site.hold(sweep, processes=2):
            os.kill(int(site.rng.choice(ranks)), signal.SIGKILL)
            site.outcome.faults += 1
        site.barrier.open()  # the peer notices the loss when it communicates
        site.check_probes()
    site.finish_with_status(sweep)
    return site.resume_and_compare()


def interrupted_ranks(site: Site, faults: int) -> Outcome:
    """Press Ctrl-C while two processes train a probe together: both stop at the same step."""
    site.write_profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    for _ in range(faults):
        sweep = site.start()
        ranks = site.hold(sweep, processes=2)
        site.outcome.faults += bool(ranks)
        sweep.send_signal(signal.SIGINT)
        site.finish_with_status(sweep, 0, 130)
        if hanging := [rank for rank in ranks if alive(rank)]:
            site.record_wrong_result(f"{len(hanging)} ranks wait for each other")
            for rank in hanging:
                os.kill(rank, signal.SIGKILL)
    return site.resume_and_compare()


def stopped_worker(site: Site, faults: int) -> Outcome:
    """Suspend a worker: it keeps its claim, and no other worker writes to its point."""
    sweep = site.start()
    for _ in range(faults):
        for pid in site.signal_worker(sweep, signal.SIGSTOP):
            site.barrier.hold(int(site.rng.integers(1, 100)))
            site.wait(  # the other workers, if any, continue
                sweep, lambda: site.barrier.waiting() or len(running_points(site.run)) < 2
            )
            os.kill(pid, signal.SIGCONT)
    site.finish_with_status(sweep)
    return site.resume_and_compare()


def ten_sweeps(site: Site, faults: int) -> Outcome:
    """Start ten sweeps of one run at once; kill half of them in turn."""
    for _ in range(faults):
        for sweep in kill_in_turn(site, [site.start() for _ in range(10)], 2):
            site.finish_with_status(sweep)
    return site.resume_and_compare()


def twenty_sweeps(site: Site, faults: int) -> Outcome:
    """Start twenty sweeps of one run at once, half of them on SLURM; kill seven in turn."""
    if reason := no_slurm():
        raise Unavailable(reason)
    with running_cluster("faults", 4) as cluster:
        slurm = cluster.profile(site.folder, processes_per_node=1, checkpoint_every=0.1, retries=9)
        slurm_profile = slurm.rename(site.folder / "slurm.yaml")
        site.write_profile("tracking_uri: none", workers=1)
        for _ in range(faults):
            sweeps = [
                cluster.sweep(site.spec, slurm_profile) if number % 2 else site.start()
                for number in range(20)
            ]
            for sweep in kill_in_turn(site, sweeps, 3):
                site.finish(sweep)
        return site.resume_and_compare()


def kill_in_turn(
    site: Site, sweeps: list[subprocess.Popen[str]], every: int
) -> list[subprocess.Popen[str]]:
    """Kill the first of every ``every`` sweeps of one run; return the others."""
    for sweep in sweeps[::every]:
        site.hold(sweeps[-1])
        site.outcome.faults += sweep.poll() is None
        site.kill(sweep)
    return [sweep for number, sweep in enumerate(sweeps) if number % every]


def two_versions(site: Site, faults: int) -> Outcome:
    """Start two sweeps of one run at once, with different source code of flexhpc."""
    other = site.folder / "other"
    copy_checkout(other)
    with (other / "flexhpc" / "errors.py").open("a") as source:
        source.write("# changed\n")
    for _ in range(faults):
        sweeps = [site.start(), site.start(PYTHONPATH=str(other))]
        site.outcome.faults += bool(site.hold(sweeps[0]))
        for sweep in sweeps:
            site.finish_with_status(sweep)
    return site.resume_and_compare()


def out_of_memory(site: Site, faults: int) -> Outcome:
    """Limit the memory of a worker: its point fails with one error, or the worker is replaced."""
    for _ in range(faults):
        sweep = site.start()
        for pid in site.hold(sweep)[:1]:
            worker = psutil.Process(pid)
            worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms,) * 2)
            site.outcome.faults += 1
        output = site.finish_with_status(sweep, 0, 1)
        reported = "memory" in output or "its worker died" in output
        site.expect(reported or not sweep.returncode, output)
    return site.resume_and_compare()
