"""Run the tests of whole sweeps at other speeds and in random order: `make test-speeds`.

Usage: python -m tests.speeds [--repeat 1] [--only NAME] [-- PYTEST OPTIONS]

Detects tests that wait for a time instead of at a barrier (tests/barrier.py), which pass on some
machines only. Each run prints the seed of its order. Exit status 1: a test failed in a run.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from contextlib import ExitStack

BUDGET, ORDER = "FLEXHPC_TEST_BUDGET", "FLEXHPC_TEST_ORDER"
"""Environment variables: divisor of all budgets in specs, and seed of the order of tests."""
SELECTED = "(sweeps or slurm or faults) and not slow and not container"
BUSY_LOOP = "while True: pass"

RUNS: dict[str, tuple[dict[str, str], int, str]] = {
    "budgets divided by 10": ({BUDGET: "10"}, 0, f"{SELECTED} and not full_budget"),
    "four busy processes": ({}, 4, SELECTED),
    "random order": ({ORDER: "seed"}, 0, SELECTED),
}
"""By name: environment variables, number of busy processes, and selection of tests."""


def run(name: str, options: list[str]) -> int:
    """Run the tests once; return the exit status of pytest."""
    variables, busy, selected = RUNS[name]
    seed = secrets.token_hex(4)
    environment = {**os.environ, **{k: v.replace("seed", seed) for k, v in variables.items()}}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "4", "-m", selected, *options]
    print(f"{name} (seed {seed})", flush=True)
    started = time.monotonic()
    with ExitStack() as stack:
        for _ in range(busy):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY_LOOP]))
            stack.callback(process.kill)
        status = subprocess.run(command, env=environment, check=False).returncode
    print(f"{name}: status {status} after {time.monotonic() - started:.0f} s", flush=True)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, help="number of repetitions")
    parser.add_argument("--only", action="append", choices=RUNS)
    parser.add_argument("options", nargs="*", help="passed to pytest")
    arguments = parser.parse_args()
    statuses = [
        run(name, arguments.options)
        for _ in range(arguments.repeat)
        for name in arguments.only or RUNS
    ]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
