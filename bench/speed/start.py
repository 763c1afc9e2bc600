"""Seconds from the start of a process to its first update, and the most memory it took.

Usage: python -m bench.speed.start [--rounds 5] [--networks NAME,...]
Each contestant of bench.speed in a process of its own: imports, the network, one batch; then eight
epochs, whose peak of resident memory is told. Wall time and MiB, medians.
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


def one(contestant: str, name: str) -> None:
    """Run in a process of its own: print when the first update was made, and the peak (MiB)."""
    import torch

    from bench.speed.__main__ import made
    from bench.speed.contestants import BATCH, CONTESTANTS, quiet

    quiet(contestant)
    torch.set_num_threads(1)
    network, inputs, labels = made(name)
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
    given = parser.parse_args()
    if given.one:
        one(*given.one)
        return
    from bench.speed.contestants import at_hand

    print("| network | contestant | first update, s | peak, MiB |\n|---|---|---|---|")
    for name in given.networks.split(","):
        taken: dict[str, list[tuple[float, float]]] = {who: [] for who in at_hand()}
        for _ in range(given.rounds):
            for who, some in taken.items():
                began = time.time()
                command = [sys.executable, "-m", "bench.speed.start", "--one", who, name]
                first, peak = json.loads(subprocess.check_output(command, text=True))
                some.append((first - began, peak))
        for who, some in taken.items():
            seconds, peaks = zip(*some, strict=True)
            print(
                f"| {name} | {who} | {statistics.median(seconds):.2f} | "
                f"{statistics.median(peaks):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
