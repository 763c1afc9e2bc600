"""Measure the time from the start of a process to its first update, and its peak memory.

Usage: python -m bench.speed.start [--rounds 5] [--networks NAME,...]
Runs each contestant of bench.speed in a separate process. The time includes imports, building the
network and one batch; the peak resident memory is over eight epochs. Prints medians of wall times
(seconds) and MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

EPOCHS = 8


def run_contestant(contestant: str, name: str) -> None:
    """Train in this process; print the time of the first update and the peak memory (MiB)."""
    import torch

    from bench.speed.__main__ import untrained
    from bench.speed.contestants import BATCH, CONTESTANTS, silence

    silence(contestant)
    torch.set_num_threads(1)
    network, inputs, labels = untrained(name)
    CONTESTANTS[contestant](network, inputs[:BATCH], labels[:BATCH], 1)
    first = time.time()
    CONTESTANTS[contestant](network, inputs, labels, EPOCHS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([first, peak]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", default="MLP 64,CNN 32")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_contestant(*arguments.one)
        return
    from bench.speed.contestants import available

    print("| network | contestant | first update, s | peak, MiB |\n|---|---|---|---|")
    for name in arguments.networks.split(","):
        taken: dict[str, list[tuple[float, float]]] = {who: [] for who in available()}
        for _ in range(arguments.rounds):
            for who, measurements in taken.items():
                start = time.time()
                command = [sys.executable, "-m", "bench.speed.start", "--one", who, name]
                first, peak = json.loads(subprocess.check_output(command, text=True))
                measurements.append((first - start, peak))
        for who, measurements in taken.items():
            seconds, peaks = zip(*measurements, strict=True)
            print(
                f"| {name} | {who} | {statistics.median(seconds):.2f} | "
                f"{statistics.median(peaks):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
