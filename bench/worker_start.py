"""Measure the time of a worker's imports and of optimizer steps; print JSON.

Usage: python -m bench.worker_start
Prints medians: CPU seconds of imports in a new process, with the garbage collector disabled (as in
a worker) and enabled; microseconds per optimizer step on one thread, with the optimizers of flexhpc
(without torch's wrappers) and of torch.
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
IMPORT_CODE = {
    "disabled": "from flexhpc import imports\nwith imports.imports_without_gc(): import ",
    "enabled": "import ",
}
"""Beginning of the code that imports a module, by the state of the garbage collector."""
TORCH_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD,
}  # fmt: skip


def cpu_seconds(code: str) -> float:
    """Return the CPU time of a new Python process that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@torch.no_grad()
def step_microseconds(constructor: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
    """Return the time of one step of an optimizer for two small layers (microseconds)."""
    parameters = [nn.Parameter(torch.zeros(s)) for s in ((8, 784), (8,), (10, 8), (10,))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = constructor(parameters)
    start = time.perf_counter()
    for _ in range(STEPS):
        optimizer.step()
    return 1e6 * (time.perf_counter() - start) / STEPS


def steps(name: str) -> dict[str, float]:
    """Return the median time of a step of the optimizers of flexhpc and torch (microseconds)."""
    training = variants("training")[name].model_validate({"optimizer": name, "lr": RATE})
    assert isinstance(training, Training)
    options: dict[str, Any] = {"lr": RATE, "fused": True}
    if isinstance(training, Sgd):
        options["momentum"] = training.momentum
    times: dict[str, list[float]] = {"flexhpc": [], "torch": []}
    for _ in range(ROUNDS):
        times["flexhpc"].append(step_microseconds(lambda p: make_optimizer(training, p)))
        times["torch"].append(step_microseconds(lambda p: TORCH_OPTIMIZERS[name](p, **options)))
    return {library: statistics.median(values) for library, values in times.items()}


def main() -> None:
    torch.set_num_threads(1)
    times: dict[tuple[str, str], list[float]] = {
        (module, gc): [] for module in MODULES for gc in IMPORT_CODE
    }
    for _ in range(ROUNDS):
        for (module, gc), seconds in times.items():
            seconds.append(cpu_seconds(IMPORT_CODE[gc] + module))
    imports = {
        f"{module}, gc {gc}": statistics.median(seconds) for (module, gc), seconds in times.items()
    }
    optimizers = {name: steps(name) for name in TORCH_OPTIMIZERS}
    print(json.dumps({"bench": "worker_start", "imports": imports, "steps": optimizers}, indent=1))


if __name__ == "__main__":
    main()
