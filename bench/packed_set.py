"""Measure opening time, memory and read speed of a packed set of a million images; print JSON.

Usage: python -m bench.packed_set
The images have 32x32 pixels. Writes 3 GB to a temporary folder in the current folder.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from flexhpc.config.sections.data import ImageSet
from flexhpc.data import Samples, load_samples
from flexhpc.data.dataset import Source, Split
from flexhpc.data.packed import verify_packed, write_packed

SIZE, BLOCK = 1_000_000, 10_000
SHAPE = (3, 32, 32)
PROCESSES, DRAWS, SUBSET = 4, 40, 5_000


def images() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(SIZE // BLOCK):
        yield rng.integers(0, 256, (BLOCK, *SHAPE), dtype=np.uint8)


def write(path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 10, SIZE)
    split = Split(labels=labels, shape=SHAPE, dtype=np.dtype(np.uint8), blocks=images)
    write_packed(Source(name="bench", classes=10, train=split), {"source": "cifar5m"}, path)


def load(path: Path) -> Samples:
    return load_samples(ImageSet(source="cifar5m", root=str(path)), seed=0)


def seconds_of(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def read(path: Path, seed: int) -> dict[str, float]:
    """Draw random subsets as probes do; return speed and memory.

    Before memory is measured, waits for a line on standard input, so that all concurrent readers
    have read the file and share its pages.
    """
    rng = np.random.default_rng(seed)
    opening = seconds_of(load, path)
    samples = load(path)
    start = time.perf_counter()
    for _ in range(DRAWS):
        samples.select_inputs(np.sort(rng.choice(SIZE, SUBSET, replace=False)))
    seconds = time.perf_counter() - start
    print("read", flush=True)
    sys.stdin.readline()
    memory = psutil.Process().memory_full_info()
    print("measured", flush=True)
    sys.stdin.readline()
    return {
        "opening_ms": 1e3 * opening,
        "samples_per_second": DRAWS * SUBSET / seconds,
        "pss_mb": memory.pss / 1e6,
        "private_mb": memory.uss / 1e6,
    }


def read_concurrently(path: Path, processes: int) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "bench.packed_set", "read", str(path)]
    readers = [
        subprocess.Popen([*command, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
        for seed in range(processes)
    ]  # fmt: skip
    for _ in ("read", "measured"):  # all readers hold the data while memory is measured
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline()
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("continue\n")
            reader.stdin.flush()
    return [json.loads(reader.communicate()[0]) for reader in readers]


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "million.packed"
        writing = seconds_of(write, path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        checking = seconds_of(verify_packed, path)
        (single,) = read_concurrently(path, 1)
        readers = read_concurrently(path, PROCESSES)
        medians = {
            f"{key}_each": statistics.median(reader[key] for reader in readers)
            for key in ("opening_ms", "pss_mb", "private_mb")
        }
        results = {
            "bench": "packed_set", "samples": SIZE, "gigabytes": path.stat().st_size / 1e9,
            "cores": os.cpu_count(), "writing_seconds": writing, "writing_peak_mb": peak,
            "checking_seconds": checking, "single": single, "processes": PROCESSES, **medians,
            "samples_per_second_together": sum(r["samples_per_second"] for r in readers),
        }  # fmt: skip
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        print(json.dumps(read(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
