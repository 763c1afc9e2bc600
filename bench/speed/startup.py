"""Measure the time from the start of a process to its first update, and its peak memory.

Usage: python -m bench.speed.startup [--rounds 5] [--networks NAME,...]
Runs each loop of bench.speed in a separate process. The time includes imports, building the network
and one batch. The peak resident memory includes eight epochs. Prints medians of the wall time
(seconds) and the memory (MiB).
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


def run_loop(loop: str, network_name: str) -> None:
    """Train in this process; print the time of the first update and the peak memory (MiB)."""
    import torch

    from bench.speed.__main__ import untrained
    from bench.speed.loops import BATCH, LOOPS, silence

    silence(loop)
    torch.set_num_threads(1)
    network, inputs, labels = untrained(network_name)
    LOOPS[loop](network, inputs[:BATCH], labels[:BATCH], 1)
    first_update = time.time()
    LOOPS[loop](network, inputs, labels, EPOCHS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([first_update, peak]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", default="MLP 64,CNN 32")
    parser.add_argument("--loop", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        run_loop(*arguments.loop)
        return
    from bench.common import markdown_head, markdown_row
    from bench.speed.loops import installed_loops

    print(markdown_head(["network", "loop", "first update, s", "peak, MiB"]))
    for network in arguments.networks.split(","):
        measurements: dict[str, list[tuple[float, float]]] = {
            loop: [] for loop in installed_loops()
        }
        for _ in range(arguments.rounds):
            for loop, results in measurements.items():
                start = time.time()
                command = [sys.executable, "-m", "bench.speed.startup", "--loop", loop, network]
                first_update, peak = json.loads(subprocess.check_output(command, text=True))
                results.append((first_update - start, peak))
        for loop, results in measurements.items():
            seconds, peaks = (statistics.median(column) for column in zip(*results, strict=True))
            print(markdown_row([network, loop, f"{seconds:.2f}", f"{peaks:.0f}"]), flush=True)


if __name__ == "__main__":
    main()
