"""Measure the speedup of each optimization of the training loop (docs/performance.md).

Usage: python -m bench.speed.optimizations [--rounds 9]
Prints the rate with an optimization divided by the rate without it: median, lowest and highest
value. Rates are samples per second of CPU time, on one thread. Takes ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from bench.common import markdown_head, markdown_row, median_text
from bench.speed.__main__ import PARTLY_TRAINED, N, measure_rate
from bench.speed.loops import LOOPS, TrainingLoop
from flexhpc.training import evaluation, loop, optimizers
from flexhpc.training.device_inputs import DeviceInputs

Disable = Callable[[], AbstractContextManager[object]]
BATCHES, EVALUATION = "flexhpc", "flexhpc, curves by evaluation"


@contextlib.contextmanager
def deterministic_with_fill() -> Iterator[None]:
    """Enable torch's deterministic mode, which by default fills new memory."""
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode("default")


def _new_batch(self: DeviceInputs, ids: torch.Tensor) -> torch.Tensor:
    return self[ids]


OPTIMIZATIONS: dict[str, tuple[Disable, str, tuple[str, ...]]] = {
    "manual backprop": (
        lambda: patch.object(loop, "mlp_layers", lambda *_: None),
        BATCHES, ("MLP 8", "MLP 64", "MLP 512", "tabular MLP 64"),
    ),
    "the optimizer's kernel alone": (
        lambda: patch.object(optimizers, "_ADAM", torch.optim.Adam), BATCHES, ("MLP 8", "CNN 8"),
    ),
    "batches copied into the same memory": (
        lambda: patch.object(DeviceInputs, "batch", _new_batch), BATCHES, ("MLP 8", "CNN 8"),
    ),
    "evaluation of 128 samples at once": (
        lambda: patch.object(evaluation, "_FORWARD_CHUNK", 4096), EVALUATION, ("CNN 8", "CNN 32"),
    ),
    "channels_last": (
        lambda: patch.object(loop, "use_channels_last", lambda *_: None), BATCHES,
        ("CNN 8", "CNN 32", "ResNet 4", "ResNet 8", "EfficientNet 8"),
    ),
    "new memory not filled": (
        lambda: patch.object(loop, "_use_deterministic_algorithms", deterministic_with_fill),
        BATCHES, ("MLP 8", "CNN 8"),
    ),
    "frozen part computed once": (
        lambda: patch.object(loop, "split_off_frozen_part", lambda *_: None), BATCHES,
        PARTLY_TRAINED,
    ),
}  # fmt: skip
"""For each optimization: how to disable it, the loop and the networks to measure."""


def speedups(
    disable: Disable, training_loop: TrainingLoop, network: str, rounds: int
) -> list[float]:
    """Return the rate with an optimization over the rate without it, for each round."""
    epochs = max(16, round(0.5 * measure_rate(training_loop, network, 2) / N))
    if network in PARTLY_TRAINED:
        epochs = 64  # the frozen part is computed once for each training run
    with disable():
        measure_rate(training_loop, network, 2)  # imports
    ratios = []
    for _ in range(rounds):
        rate = measure_rate(training_loop, network, epochs)
        with disable():
            ratios.append(rate / measure_rate(training_loop, network, epochs))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(markdown_head(["optimization", "network", "speedup"]))
    for name, (disable, loop_name, networks) in OPTIMIZATIONS.items():
        for network in networks:
            ratios = speedups(disable, LOOPS[loop_name], network, arguments.rounds)
            print(markdown_row([name, network, median_text(ratios)]), flush=True)


if __name__ == "__main__":
    main()
