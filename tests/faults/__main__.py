"""Faults at random, for as long as is given: `make test-faults`.

Prints its seed first, which repeats the choice of faults (not the moments at which they strike),
and a table at the end. Exits with 1 if anything was lost, doubled or wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests import reaper
from tests.faults.kinds import KINDS
from tests.faults.site import Outcome, Site, Unavailable, expected

TIMES = {
    "killed worker": 12, "stopped worker": 6, "killed rank": 3, "interrupted ranks": 3,
    "ten sweeps, five killed": 1, "another version beside": 1, "slow disk": 1,
    "host comes back": 1, "killed node of SLURM": 1,
}  # fmt: skip
"""Faults in one sweep; of the others, 2."""


def main() -> int:
    """Run every kind in turn until the time is over; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--seed", type=int, default=int(np.random.default_rng().integers(2**31)))
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--until-broken", action="store_true", help="end where anything is wrong")
    asked = parser.parse_args()
    reaper.start()
    print(f"seed {asked.seed}", flush=True)
    expected()
    end = time.monotonic() + 60 * asked.minutes
    found: dict[str, list[Outcome]] = {}
    rng = np.random.default_rng(asked.seed)
    round_ = 0
    while time.monotonic() < end:
        for kind in asked.kind or KINDS:
            if time.monotonic() > end:
                break
            with TemporaryDirectory(prefix="flexhpc-faults-") as folder:
                site = Site(Path(folder), rng)
                try:
                    outcome = KINDS[kind](site, TIMES.get(kind, 2))
                except Unavailable as error:
                    print(f"{kind}: left out, {error}", flush=True)
                    continue
            found.setdefault(kind, []).append(outcome)
            if not outcome.fine:
                print(f"{kind}, round {round_}: {outcome}", flush=True)
                if asked.until_broken and outcome.broken:
                    return 1
        round_ += 1
    print(table(found))
    return 0 if all(one.fine for some in found.values() for one in some) else 1


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
