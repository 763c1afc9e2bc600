"""Measure a worker's imports and optimizer steps with and without torch's wrappers; print JSON.

Usage: python bench/worker_start.py
Prints medians: CPU seconds of imports in a new process, with the garbage collector disabled (as in
a worker) and enabled; microseconds per optimizer step, on one thread.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from flexhpc.config.sections.training import Sgd, Training
from flexhpc.config.variants import variants
from flexhpc.training.optimizers import make_optimizer

ROUNDS, STEPS, RATE = 5, 500, 1e-3
MODULES = ("torch", "flexhpc.worker.worker", "torch._dynamo", "timm", "mlflow.tracking")
QUICKLY = "from flexhpc.imports import imports_without_gc\nwith imports_without_gc(): import "
TORCHS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD,
}  # fmt: skip


def cpu_seconds(code: str) -> float:
    """Return the CPU time of a new Python process that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@torch.no_grad()
def microseconds(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
    """Return the time of one step of an optimizer on a network of two small layers."""
    parameters = [nn.Parameter(torch.zeros(s)) for s in ((8, 784), (8,), (10, 8), (10,))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = make(parameters)
    start = time.perf_counter()
    for _ in range(STEPS):
        optimizer.step()
    return 1e6 * (time.perf_counter() - start) / STEPS


def steps(name: str) -> dict[str, float]:
    """Measure flexhpc's optimizer and torch's in turns; return the medians."""
    training = variants("training")[name].model_validate({"optimizer": name, "lr": RATE})
    assert isinstance(training, Training)
    more: dict[str, Any] = {"momentum": training.momentum} if isinstance(training, Sgd) else {}
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        ours.append(microseconds(lambda p: make_optimizer(training, p)))
        theirs.append(microseconds(lambda p: TORCHS[name](p, lr=RATE, fused=True, **more)))
    return {"ours": statistics.median(ours), "torch": statistics.median(theirs)}


def main() -> None:
    torch.set_num_threads(1)
    ways = {"gc disabled": QUICKLY, "gc enabled": "import "}
    times: dict[str, dict[str, list[float]]] = {n: {way: [] for way in ways} for n in MODULES}
    for _ in range(ROUNDS):
        for name in MODULES:
            for way, code in ways.items():
                times[name][way].append(cpu_seconds(code + name))
    imports = {
        name: {way: statistics.median(seconds) for way, seconds in measured.items()}
        for name, measured in times.items()
    }
    optimizers = {name: steps(name) for name in TORCHS}
    print(json.dumps({"bench": "worker_start", "imports": imports, "steps": optimizers}, indent=1))


if __name__ == "__main__":
    main()
