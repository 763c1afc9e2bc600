"""Run sweeps with random faults for a fixed time: `make test-faults`.

The output begins with the seed, which reproduces the choice of faults but not the moments at which
they occur, and ends with a table. Exit status 1: a probe was lost, duplicated or wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import sys
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests import reaper
from tests.faults.kinds import KINDS
from tests.faults.site import Outcome, Site, Unavailable, expected

_REPEATED = ("killed worker",) * 5  # a sweep with many kills takes little time
_ON_SLURM = "twenty sweeps, half on SLURM"  # one at a time


def main() -> int:
    """Run all kinds in turn until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(2**31)))
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--jobs", type=int, default=3, help="kinds at once: they mostly wait")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first failure")
    arguments = parser.parse_args()
    reaper.start()
    print(f"seed {arguments.seed}", flush=True)
    expected()
    end = time.monotonic() + 60 * arguments.minutes
    outcomes: dict[str, list[Outcome]] = {}
    schedule = enumerate(itertools.cycle(arguments.kind or [*KINDS, *_REPEATED]))
    upcoming = next(schedule)
    with ProcessPoolExecutor(arguments.jobs, initializer=_exit_with_parent) as pool:
        running: dict[Future[Outcome | str], tuple[int, str]] = {}
        broken = False
        while running or (time.monotonic() < end and not broken):
            while len(running) < arguments.jobs and time.monotonic() < end and not broken:
                number, kind = upcoming
                if kind == _ON_SLURM and any(k == _ON_SLURM for _, k in running.values()):
                    break
                upcoming = next(schedule)
                running[pool.submit(run_kind, kind, [arguments.seed, number])] = number, kind
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                (number, kind), outcome = running.pop(done), done.result()
                if isinstance(outcome, str):
                    print(f"{kind}: skipped, {outcome}", flush=True)
                    continue
                outcomes.setdefault(kind, []).append(outcome)
                if not outcome.passed:
                    print(f"{kind}, number {number}: {outcome}", flush=True)
                broken |= arguments.until_broken and outcome.broken
    print(table(outcomes))
    return 0 if all(outcome.passed for of_kind in outcomes.values() for outcome in of_kind) else 1


def _exit_with_parent() -> None:
    """Let Linux kill this process when its parent exits; the reaper cannot find it."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def run_kind(kind: str, seed: list[int]) -> Outcome | str:
    """Run one kind of fault; return its outcome, or the reason why this machine cannot have it."""
    with TemporaryDirectory(prefix="flexhpc-faults-", ignore_cleanup_errors=True) as folder:
        site = Site(Path(folder), np.random.default_rng(seed))
        try:
            return KINDS[kind].fault(site, KINDS[kind].count)
        except Unavailable as error:
            return str(error)
        except Exception:  # the other kinds continue
            site.kill_sweeps()
            return Outcome(wrong=1, messages=[traceback.format_exc()])


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """Return the outcomes by kind, as Markdown."""
    keys = ("faults", "survived", "lost", "duplicates", "wrong")
    counts = {
        kind: [len(of_kind), *(sum(getattr(outcome, key) for outcome in of_kind) for key in keys)]
        for kind, of_kind in outcomes.items()
    }
    total = [sum(row[i] for row in counts.values()) for i in range(len(keys) + 1)]
    rows = [[name, *map(str, row)] for name, row in [*counts.items(), ("all", total)]]
    lines = [["kind", "sweeps", *keys], ["---"] * (len(keys) + 2), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
