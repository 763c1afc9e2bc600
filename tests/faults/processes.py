"""Faults of processes: killed, stopped, out of memory, or there more than once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil

from tests.archives import copy_checkout
from tests.barrier import alive
from tests.faults.site import Outcome, Site
from tests.sweeps import end, running


def killed_worker(site: Site, times: int) -> Outcome:
    """SIGKILL a worker in the middle of a probe; the sweep replaces it."""
    sweep = site.start()
    for _ in range(times):
        site.strike(sweep, signal.SIGKILL)
        site.note_probes()
    site.must_end_well(sweep)
    return site.conclude()


def killed_everything(site: Site, times: int) -> Outcome:
    """SIGKILL the sweep, its workers and its follower at once; the command is repeated."""
    for _ in range(times):
        sweep = site.start()
        site.outcome.tried += bool(site.hold(sweep))
        end(sweep)
        site.note_probes()
    return site.conclude()


def killed_follower(site: Site, times: int) -> Outcome:
    """SIGKILL the process that writes to MLflow; the next command logs the rest, each once."""
    site.profile()
    for _ in range(times):
        site.begin_anew()
        sweep = site.start()

        def followers(sweep: subprocess.Popen[str] = sweep) -> list[psutil.Process]:
            children = psutil.Process(sweep.pid).children() if sweep.poll() is None else []
            return [one for one in children if _is_follower(one)]

        site.hold(sweep)
        site.wait(sweep, lambda: followers() and (site.run / "mlflow.db").exists())
        before = site.outcome.tried
        with contextlib.suppress(psutil.Error):  # it has ended
            for follower in followers():
                alive = follower.status() != psutil.STATUS_ZOMBIE
                follower.kill()
                site.outcome.tried += alive
        output = site.must_end_well(sweep)
        died = "warning: the MLflow process died" in output
        site.must_say(died or site.outcome.tried == before, output)
    site.conclude()
    site.tracked_once()
    return site.outcome


def _is_follower(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it ends just now
        return "flexhpc.tracking.follow" in process.cmdline()
    return False


def killed_rank(site: Site, times: int) -> Outcome:
    """SIGKILL one of two processes that train a probe together."""
    site.profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    sweep = site.start()
    for _ in range(times):
        if ranks := site.hold(sweep, processes=2):
            os.kill(int(site.rng.choice(ranks)), signal.SIGKILL)
            site.outcome.tried += 1
        site.barrier.open()  # or the other one would not notice
        site.note_probes()
    site.must_end_well(sweep)
    return site.conclude()


def interrupted_ranks(site: Site, times: int) -> Outcome:
    """Ctrl-C while two processes train a probe together: both stop at the same step, and go on."""
    site.profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    for _ in range(times):
        sweep = site.start()
        ranks = site.hold(sweep, processes=2)
        site.outcome.tried += bool(ranks)
        sweep.send_signal(signal.SIGINT)
        site.must_end_well(sweep, 0, 130)
        if left := [rank for rank in ranks if alive(rank)]:
            site.wrong(f"{len(left)} processes wait for each other for ever")
            for rank in left:
                os.kill(rank, signal.SIGKILL)
        site.note_probes()
    return site.conclude()


def stopped_worker(site: Site, times: int) -> Outcome:
    """SIGSTOP a worker for a while: it holds its claim, nobody else may write."""
    sweep = site.start()
    for _ in range(times):
        for pid in site.strike(sweep, signal.SIGSTOP):
            site.barrier.hold(int(site.rng.integers(1, 100)))
            site.wait(  # the other workers train, if there are any
                sweep, lambda: site.barrier.waiting() or len(running(site.run)) < 2
            )
            os.kill(pid, signal.SIGCONT)
    site.must_end_well(sweep)
    return site.conclude()


def many_sweeps(site: Site, times: int) -> Outcome:
    """Ten commands for one run at once, half of which are killed, one after the other."""
    for _ in range(times):
        for sweep in kill_in_turn(site, [site.start() for _ in range(10)], 2):
            site.must_end_well(sweep)
        site.note_probes()
    return site.conclude()


def kill_in_turn(
    site: Site, sweeps: list[subprocess.Popen[str]], every: int
) -> list[subprocess.Popen[str]]:
    """Kill every second (third, ...) of some sweeps for one run; return the others."""
    for sweep in sweeps[::every]:
        site.hold(sweeps[-1])
        site.outcome.tried += sweep.poll() is None
        end(sweep)
        site.note_probes()
    return [sweep for number, sweep in enumerate(sweeps) if number % every]


def another_version(site: Site, times: int) -> Outcome:
    """Two commands for one run at once, one of them of another source of flexhpc."""
    other = site.folder / "other"
    copy_checkout(other)
    with (other / "flexhpc" / "errors.py").open("a") as source:
        source.write("# another version\n")
    for _ in range(times):
        sweeps = [site.start(), site.start(PYTHONPATH=str(other))]
        site.outcome.tried += bool(site.hold(sweeps[0]))
        for sweep in sweeps:
            site.must_end_well(sweep)
        site.note_probes()
    return site.conclude()


def out_of_memory(site: Site, times: int) -> Outcome:
    """A worker can have no more memory than it has: its point fails in a line, and is repeated."""
    for _ in range(times):
        sweep = site.start()
        for pid in site.hold(sweep)[:1]:
            worker = psutil.Process(pid)
            worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms,) * 2)
            site.outcome.tried += 1
        output = site.must_end_well(sweep, 0, 1)
        said = "memory" in output or "its worker died" in output
        site.must_say(said or not sweep.returncode, output)
        site.note_probes()
    return site.conclude()
