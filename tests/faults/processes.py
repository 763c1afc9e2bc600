"""Faults of processes: killed, stopped, out of memory, or there more than once."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import psutil

from tests.archives import copy_checkout
from tests.faults.site import Outcome, Site, end


def killed_worker(site: Site, times: int) -> Outcome:
    """SIGKILL a worker in the middle of a probe; the sweep replaces it."""
    sweep = site.start()
    for _ in range(times):
        if not site.wait(sweep, site.working):
            break
        site.somewhere(0.4)
        for pid in site.working()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
                site.outcome.tried += 1
        site.note_probes()
    site.must_end_well(sweep)
    return site.conclude()


def killed_everything(site: Site, times: int) -> Outcome:
    """SIGKILL the sweep, its workers and its follower at once; the command is repeated."""
    for _ in range(times):
        sweep = site.start()
        site.wait(sweep, site.working)
        site.somewhere(1.0)
        site.outcome.tried += sweep.poll() is None
        end(sweep)
        site.note_probes()
    return site.conclude()


def killed_follower(site: Site, times: int) -> Outcome:
    """SIGKILL what keeps MLflow up to date; the next command brings the rest in, each once.

    At some moment, and the last time just when it has logged a probe and not yet counted it.
    """
    site.profile()
    for number in range(times):
        site.begin_anew()
        sweep = site.start()

        def followers(sweep: subprocess.Popen[str] = sweep) -> list[psutil.Process]:
            children = psutil.Process(sweep.pid).children() if sweep.poll() is None else []
            return [one for one in children if _is_follower(one)]

        site.wait(sweep, lambda: followers() and (site.run / "mlflow.db").exists())
        if number < times - 1:
            site.somewhere(2.0)
        else:
            site.wait(sweep, lambda: _half_logged(site.run / "mlflow.db"))
        before = site.outcome.tried
        with contextlib.suppress(psutil.Error):  # it has ended
            for follower in followers():
                alive = follower.status() != psutil.STATUS_ZOMBIE
                follower.kill()
                site.outcome.tried += alive
        said = site.must_end_well(sweep)
        if site.outcome.tried > before and "warning: what keeps MLflow up to date died" not in said:
            site.outcome.wrong += 1
            site.outcome.said.append(said[-300:])
    site.conclude()
    site.tracked_once()
    return site.outcome


def _is_follower(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it ends just now
        return "flexhpc.tracking.follow" in process.cmdline()
    return False


def _half_logged(database: Path) -> bool:
    """Return whether MLflow holds a probe that its point does not count."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(
        sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    ) as opened:  # fmt: skip
        ((there, counted),) = opened.execute(
            "select sum(key = 'flexhpc.probe'),"
            " sum(case key when 'flexhpc.probes_logged' then cast(value as integer) end) from tags"
        )
        return int(there or 0) > int(counted or 0)
    return False


def killed_rank(site: Site, times: int) -> Outcome:
    """SIGKILL one of two processes that train a probe together."""
    site.profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    sweep = site.start()
    for _ in range(times):
        if not site.wait(sweep, site.working):
            break
        site.somewhere(1.0)
        if ranks := _ranks(sweep):
            with contextlib.suppress(psutil.Error):
                ranks[int(site.rng.integers(len(ranks)))].kill()
                site.outcome.tried += 1
        site.note_probes()
    site.must_end_well(sweep)
    return site.conclude()


def interrupted_ranks(site: Site, times: int) -> Outcome:
    """Ctrl-C while two processes train a probe together: both stop at the same step, and go on."""
    site.profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    for _ in range(times):
        sweep = site.start()
        site.wait(sweep, site.working)
        site.somewhere(1.0)
        site.outcome.tried += sweep.poll() is None
        ranks = _ranks(sweep)
        sweep.send_signal(signal.SIGINT)
        site.must_end_well(sweep, 0, 130)
        if left := [rank for rank in ranks if rank.is_running()]:
            site.outcome.wrong += 1
            site.outcome.said.append(f"{len(left)} processes wait for each other for ever")
            for rank in left:
                rank.kill()
        site.note_probes()
    return site.conclude()


def _ranks(sweep: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that train for a sweep."""
    servers = psutil.Process(sweep.pid).children() if sweep.poll() is None else []
    return [rank for server in servers for rank in server.children()]


def stopped_worker(site: Site, times: int) -> Outcome:
    """SIGSTOP a worker for a while: it holds its claim, nobody else may write."""
    sweep = site.start()
    for _ in range(times):
        if not site.wait(sweep, site.working):
            break
        for pid in site.working()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 19)
                site.outcome.tried += 1
                site.somewhere(1.0)
                os.kill(pid, 18)
    site.must_end_well(sweep)
    return site.conclude()


def two_sweeps(site: Site, times: int) -> Outcome:
    """Two commands for one run at once, one of which is killed."""
    for _ in range(times):
        first, second = site.start(), site.start()
        site.wait(first, site.working)
        site.somewhere(1.0)
        site.outcome.tried += 1
        end(first)
        site.must_end_well(second)
        site.note_probes()
    return site.conclude()


def many_sweeps(site: Site, times: int) -> Outcome:
    """Ten commands for one run at once, half of which are killed, one after the other."""
    for _ in range(times):
        sweeps = [site.start() for _ in range(10)]
        site.wait(sweeps[-1], site.working)
        for sweep in sweeps[::2]:
            site.somewhere(2.0)
            site.outcome.tried += sweep.poll() is None
            end(sweep)
            site.note_probes()
        for sweep in sweeps[1::2]:
            site.must_end_well(sweep)
        site.note_probes()
    return site.conclude()


def another_version(site: Site, times: int) -> Outcome:
    """Two commands for one run at once, one of them of another source of flexhpc."""
    other = site.folder / "other"
    copy_checkout(other)
    with (other / "flexhpc" / "errors.py").open("a") as source:
        source.write("# another version\n")
    for _ in range(times):
        sweeps = [site.start(), site.start(PYTHONPATH=str(other))]
        site.wait(sweeps[0], site.working)
        site.outcome.tried += 1
        for sweep in sweeps:
            site.must_end_well(sweep)
        site.note_probes()
    return site.conclude()


def out_of_memory(site: Site, times: int) -> Outcome:
    """A worker can have no more memory than it has: its point fails in a line, and is repeated."""
    for _ in range(times):
        sweep = site.start()
        if not site.wait(sweep, site.working):
            break
        site.somewhere(0.4)
        for pid in site.working()[:1]:
            with contextlib.suppress(psutil.Error):
                worker = psutil.Process(pid)
                worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms,) * 2)
                site.outcome.tried += 1
        said = site.must_end_well(sweep, 0, 1)
        if sweep.returncode and "memory" not in said and "its worker died" not in said:
            site.outcome.wrong += 1
            site.outcome.said.append(said[-300:])
        site.note_probes()
    return site.conclude()
