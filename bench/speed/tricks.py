"""What each thing that makes a step quick gains: flexhpc as it is over flexhpc without it.

Usage: python -m bench.speed.tricks [--rounds 9]
Ratios of samples per second of CPU time within a round, medians with lowest and highest; one
thread. Ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from bench.speed.__main__ import N, timed
from bench.speed.contestants import CONTESTANTS
from flexhpc.training import loop, network, optimizers
from flexhpc.training.resident import Resident

Without = Callable[[], AbstractContextManager[object]]
BATCHES, LOOKS = "flexhpc", "flexhpc, curves of looks"


@contextlib.contextmanager
def filling() -> Iterator[None]:
    """torch's deterministic mode as it comes, which fills new memory."""
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode("default")


def _fresh(self: Resident, ids: torch.Tensor) -> torch.Tensor:
    return self[ids]


TRICKS: dict[str, tuple[Without, str, tuple[str, ...]]] = {
    "gradients by formulas": (
        lambda: patch.object(network, "chain", lambda *_: None),
        BATCHES, ("MLP 8", "MLP 64", "MLP 512", "tabular MLP 64", "CNN 8", "CNN 32"),
    ),
    "the optimizer's kernel alone": (
        lambda: patch.object(optimizers, "_ADAM", torch.optim.Adam), BATCHES, ("MLP 8", "CNN 8"),
    ),
    "batches copied to one place": (
        lambda: patch.object(Resident, "batch", _fresh), BATCHES, ("MLP 8", "CNN 8"),
    ),
    "looks 128 at a time": (
        lambda: patch.object(network, "_FORWARD_AT_ONCE", 4096), LOOKS, ("CNN 8", "CNN 32"),
    ),
    "channels beside each other": (
        lambda: patch.object(network, "lay_out", lambda *_: None), BATCHES,
        ("ResNet 4", "ResNet 8", "EfficientNet 8"),
    ),
    "new memory not filled": (
        lambda: patch.object(loop, "_deterministic", filling), BATCHES, ("MLP 8", "CNN 8"),
    ),
}  # fmt: skip
"""What takes each away, whose curves it concerns, and on which networks it is measured."""


def gains(trick: str, name: str, rounds: int, seconds: float = 0.5) -> list[float]:
    """Return, for each round, the rate with it over that without."""
    without, who, _ = TRICKS[trick]
    contestant = CONTESTANTS[who]
    epochs = max(16, round(seconds * timed(contestant, name, 2) / N))
    with without():
        timed(contestant, name, 2)  # what it imports
    found = []
    for _ in range(rounds):
        rate = timed(contestant, name, epochs)
        with without():
            found.append(rate / timed(contestant, name, epochs))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| with over without | network | times as quick |\n|---|---|---|")
    for trick, (_, _, names) in TRICKS.items():
        for name in names:
            some = gains(trick, name, rounds)
            spread = f"{min(some):.2f} to {max(some):.2f}"
            print(f"| {trick} | {name} | {statistics.median(some):.2f} ({spread}) |", flush=True)


if __name__ == "__main__":
    main()
