"""Measure time and memory of `flexhpc plan` for 1, 10,000 and 100,000 points; print JSON.

Usage: python -m bench.plan_speed
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.common import FLEXHPC

ROUNDS = 3


def spec(points: int) -> str:
    side = min(100, points)
    rates = [f"{0.001 + 1e-6 * i:.6f}" for i in range(points // side**2)]
    numbers = ", ".join(map(str, range(1, side + 1)))
    return (
        "name: bench\nfixed:\n  data: {source: digits}\n  model: {family: mlp, width: 1}\n"
        "  training: {optimizer: adam}\n"
        f"grid:\n  model.width: [{numbers}]\n  seed: [{numbers}]\n"
        f"  training.lr: [{', '.join(rates)}]\n"
    )


def measure(points: int, folder: Path) -> tuple[float, float, int]:
    """Run ``flexhpc plan``; return seconds, peak memory (MB) and the number of points."""
    path = folder / f"{points}.yaml"
    path.write_text(spec(points))
    start = time.perf_counter()
    command = [FLEXHPC, "plan", str(path), "--runs", str(folder / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, output
    return time.perf_counter() - start, usage.ru_maxrss / 1e3, int(output.split()[1])


def main() -> None:
    sizes = (1, 10_000, 100_000)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            runs = [measure(size, Path(folder)) for _ in range(ROUNDS)]
            results[size] = {
                "points": runs[0][2],
                "seconds": statistics.median(run[0] for run in runs),
                "peak_mb": max(run[1] for run in runs),
            }
    startup = results[1]["seconds"]
    for size in sizes[1:]:
        seconds = results[size]["seconds"] - startup
        results[size]["microseconds_per_point"] = 1e6 * seconds / results[size]["points"]
    print(json.dumps({"bench": "plan", "runs": list(results.values())}, indent=1))


if __name__ == "__main__":
    main()
