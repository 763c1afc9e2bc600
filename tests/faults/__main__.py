"""Faults at random, for as long as is given: `make test-faults`.

Prints its seed first, which repeats the choice of faults (not the moments at which they strike),
and a table at the end. Exits with 1 if anything was lost, doubled or wrong.
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

TIMES = {
    "killed worker": 30, "stopped worker": 6, "killed rank": 6, "interrupted ranks": 3,
    "killed everything": 4, "ten sweeps, five killed": 1, "another version beside": 1,
    "slow disk": 1, "host comes back": 1, "twenty sweeps, half on SLURM": 1,
}  # fmt: skip
"""Faults in one sweep; of the others, 2."""
_AGAIN = ("killed worker",) * 5  # most of a round's kills, in little of its time
_ON_SLURM = "twenty sweeps, half on SLURM"  # one at a time


def main() -> int:
    """Try every kind in turn until the time is over; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(2**31)))
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--jobs", type=int, default=3, help="kinds at once: they mostly wait")
    parser.add_argument("--until-broken", action="store_true", help="end where anything is wrong")
    asked = parser.parse_args()
    reaper.start()
    print(f"seed {asked.seed}", flush=True)
    expected()
    end = time.monotonic() + 60 * asked.minutes
    found: dict[str, list[Outcome]] = {}
    turns = enumerate(itertools.cycle(asked.kind or [*KINDS, *_AGAIN]))
    turn = next(turns)
    with ProcessPoolExecutor(asked.jobs, initializer=_end_with_parent) as pool:
        running: dict[Future[Outcome | str], tuple[int, str]] = {}
        broken = False
        while running or (time.monotonic() < end and not broken):
            while len(running) < asked.jobs and time.monotonic() < end and not broken:
                number, kind = turn
                if kind == _ON_SLURM and any(k == _ON_SLURM for _, k in running.values()):
                    break
                turn = next(turns)
                running[pool.submit(tried, kind, [asked.seed, number])] = number, kind
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                (number, kind), outcome = running.pop(done), done.result()
                if isinstance(outcome, str):
                    print(f"{kind}: left out, {outcome}", flush=True)
                    continue
                found.setdefault(kind, []).append(outcome)
                if not outcome.fine:
                    print(f"{kind}, turn {number}: {outcome}", flush=True)
                broken |= asked.until_broken and outcome.broken
    print(table(found))
    return 0 if all(one.fine for some in found.values() for one in some) else 1


def _end_with_parent() -> None:
    """Have Linux kill this process when its parent is no more: its environment has no mark."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def tried(kind: str, seed: list[int]) -> Outcome | str:
    """Try a kind of fault; returns what came of it, or why it cannot be tried here."""
    with TemporaryDirectory(prefix="flexhpc-faults-", ignore_cleanup_errors=True) as folder:
        site = Site(Path(folder), np.random.default_rng(seed))
        try:
            return KINDS[kind](site, TIMES.get(kind, 2))
        except Unavailable as error:
            return str(error)
        except Exception:  # a kind that does not work ends neither the others nor their table
            site.end_all()
            return Outcome(wrong=1, messages=[traceback.format_exc()])


def table(found: dict[str, list[Outcome]]) -> str:
    """Return the outcomes by kind, as Markdown."""
    keys = ("tried", "survived", "lost", "doubled", "wrong")
    rows = [
        [kind, str(len(some)), *(str(sum(getattr(one, key) for one in some)) for key in keys)]
        for kind, some in found.items()
    ]
    sums = [str(sum(int(row[i]) for row in rows)) for i in range(1, len(keys) + 2)]
    lines = [["fault", "sweeps", *keys], ["---"] * (len(keys) + 2), *rows, ["all", *sums]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
