"""What each thing that makes a step quick gains: flexhpc as it is over flexhpc without it.

Usage: python -m bench.speed.tricks [--rounds 9] [--device cpu]
Ratios of samples per second of CPU time within a round, medians with lowest and highest; one
thread. Ten minutes. On a GPU, where time is what the clock says, those that matter there.
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
        ("CNN 8", "CNN 32", "ResNet 4", "ResNet 8", "EfficientNet 8"),
    ),
    "new memory not filled": (
        lambda: patch.object(loop, "_deterministic", filling), BATCHES, ("MLP 8", "CNN 8"),
    ),
}  # fmt: skip
"""What takes each away, whose curves it concerns, and on which networks it is measured."""
ON_GPU: dict[str, tuple[Without, str, tuple[str, ...]]] = {
    "updates recorded": (
        lambda: patch.object(loop, "recorder", lambda _: None), BATCHES,
        ("MLP 8", "MLP 512", "CNN 8", "ResNet 4", "ViT 48"),
    ),
}  # fmt: skip
"""The same of a GPU."""


def gains(
    which: tuple[Without, str, tuple[str, ...]], name: str, rounds: int, device: str
) -> list[float]:
    """Return, for each round, the rate with one of these over that without."""
    without, who, _ = which
    contestant = CONTESTANTS[who]
    epochs = max(16, round(0.5 * timed(contestant, name, 2, device) / N))
    with without():
        timed(contestant, name, 2, device)  # what it imports
    found = []
    for _ in range(rounds):
        rate = timed(contestant, name, epochs, device)
        with without():
            found.append(rate / timed(contestant, name, epochs, device))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| with over without | network | times as quick |\n|---|---|---|")
    for trick, which in (TRICKS if given.device == "cpu" else ON_GPU).items():
        for name in which[2]:
            some = gains(which, name, given.rounds, given.device)
            spread = f"{min(some):.2f} to {max(some):.2f}"
            print(f"| {trick} | {name} | {statistics.median(some):.2f} ({spread}) |", flush=True)


if __name__ == "__main__":
    main()
