"""What torch's compiler (inductor) would gain: gradients of a batch, compiled and as they are.

Usage: python -m bench.speed.compiled [--networks NAME,...] [--rounds 5]
Needs a C++ compiler. Told are the seconds until the first compiled gradient is there, with nothing
kept from earlier times, and how often more gradients the compiled network gives per second of CPU
than the network by autograd, and than flexhpc takes (by formulas, with channels beside each other
where that is quicker). Medians with lowest and highest; one thread; two minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.speed.__main__ import made
from bench.speed.contestants import BATCH
from flexhpc.training import Group, ProbeData
from flexhpc.training.network import Network

NETWORKS = "MLP 8,MLP 64,CNN 8,CNN 32,ResNet 4,ViT 48"


def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return what is differentiated."""
    return functional.cross_entropy(network(inputs), labels)


def by_autograd(name: str, of: Callable[..., Tensor]) -> Callable[[], object]:
    """Return what takes the gradient of a loss over one batch."""
    network, inputs, labels = made(name)

    def gradient() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        of(network, inputs[:BATCH], labels[:BATCH]).backward()

    return gradient


def by_flexhpc(name: str) -> Callable[[], object]:
    """Return what takes it as a probe does."""
    network, inputs, labels = made(name)
    data = ProbeData(inputs=inputs, labels=labels, init_seed=0, order_seed=0)
    probe = Network(
        network, data, Group(torch.device("cpu")), shards=None, precision="fp32", in_chunks=False,
        label_smoothing=0.0, elementwise=True, running=False,
    )  # fmt: skip
    ids = torch.arange(BATCH)
    return lambda: probe.gradient(ids)


def rate(gradient: Callable[[], object], times: int) -> float:
    """Return gradients per second of CPU."""
    began = time.process_time()
    for _ in range(times):
        gradient()
    return times / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| network | to compile, s | over autograd | over flexhpc's gradient |\n|---|---|---|---|"
    )
    for name in given.networks.split(","):
        torch.compiler.reset()
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            began = time.perf_counter()
            compiled = by_autograd(name, torch.compile(loss, dynamic=False))
            compiled()
            took = time.perf_counter() - began
            ways = (compiled, by_autograd(name, loss), by_flexhpc(name))
            times = max(5, round(rate(ways[1], 5)))
            turns = [[rate(way, times) for way in ways] for _ in range(given.rounds)]
        cells = []
        for other in (1, 2):
            ratios = [turn[0] / turn[other] for turn in turns]
            middle = statistics.median(ratios)
            cells.append(f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"| {name} | {took:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
