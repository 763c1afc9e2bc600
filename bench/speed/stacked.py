"""What training several networks of one shape in one operation would gain.

Usage: python -m bench.speed.stacked [--rounds 5] [--seconds 1]
A stack of MLPs as batched products, gradients by formulas, one fused Adam for all of them; each
network on samples of its own, its misses counted from its batches and nothing else done. Samples
per second of CPU time, one thread, over those of flexhpc, which trains one network after the other:
a stack of one shows what the rest of a probe takes, which stacks would need as well. A minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import torch
from torch import Tensor

from bench.speed.__main__ import CLASSES, LEAST, NETWORKS, N, timed
from bench.speed.contestants import CONTESTANTS

STACKS = (1, 2, 4, 8, 16)
PERCEPTRONS = ("MLP 8", "MLP 64", "MLP 512", "tabular MLP 64")
BATCH = 128


class Stack:
    """MLPs with ReLU, side by side.

    Args:
        sizes: units of each layer, inputs and classes included; networks: how many.
    """

    def __init__(self, sizes: list[int], networks: int) -> None:
        shapes = list(itertools.pairwise(sizes))
        self.weights = [torch.randn(networks, i, o) / i**0.5 for i, o in shapes]
        self.biases = [torch.zeros(networks, 1, o) for _, o in shapes]
        self.parameters = [*self.weights, *self.biases]
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros(()) for _ in self.parameters]

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Make one update of each network; return the samples missed before it.

        Args:
            inputs: (networks, batch, features); labels: int64 (networks, batch).
        """
        given = [inputs]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            given.append(torch.baddbmm(bias, given[-1], weight).relu_())
        logits = torch.baddbmm(self.biases[-1], given[-1], self.weights[-1])
        missed = (logits.argmax(dim=2) != labels).sum()
        error = logits.softmax(dim=2)
        ones = torch.full((*labels.shape, 1), -1.0)
        error.scatter_add_(2, labels.unsqueeze(2), ones).div_(labels.shape[1])
        weights, biases = [], []
        for layer in reversed(range(len(self.weights))):
            weights.append(torch.bmm(given[layer].transpose(1, 2), error))
            biases.append(error.sum(dim=1, keepdim=True))
            if layer:
                error = torch.bmm(error, self.weights[layer].transpose(1, 2))
                error.mul_(given[layer] > 0)
        torch._fused_adam_(
            self.parameters, [*weights[::-1], *biases[::-1]], self.first, self.second, [],
            self.steps, lr=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False,
            maximize=False,
        )  # fmt: skip
        return missed


def sizes_of(name: str) -> list[int]:
    """Return the units of each layer of an MLP of the table."""
    shape, section = NETWORKS[name]
    width, depth = int(str(section["width"])), int(str(section["depth"]))
    return [torch.Size(shape).numel(), *[width] * depth, CLASSES]


@torch.inference_mode()
def stacked(name: str, networks: int, epochs: int) -> float:
    """Return samples per second of a stack, over all of its networks."""
    sizes = sizes_of(name)
    stack = Stack(sizes, networks)
    inputs = torch.randn(networks * N, sizes[0])
    labels = torch.randint(CLASSES, (networks * N,))
    first = torch.arange(networks).unsqueeze(1) * N
    gathered = torch.empty(networks * BATCH, sizes[0])
    began = time.process_time()
    for _ in range(epochs):
        order = torch.rand(networks, N).argsort(dim=1) + first
        for ids in order.split(BATCH, dim=1):
            rows = ids.flatten()
            torch.index_select(inputs, 0, rows, out=gathered)
            stack.step(gathered.view(networks, BATCH, -1), labels[rows].view(networks, BATCH))
    return networks * N * epochs / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each training, about")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| network | {' | '.join(f'{k} at once' for k in STACKS)} |")
    print(f"|---{'|---' * len(STACKS)}|")
    for name in PERCEPTRONS:
        epochs = max(LEAST, round(args.seconds * timed(CONTESTANTS["flexhpc"], name, LEAST) / N))
        ratios: dict[int, list[float]] = {k: [] for k in STACKS}
        for _ in range(args.rounds):
            alone = timed(CONTESTANTS["flexhpc"], name, epochs)
            for k in STACKS:
                ratios[k].append(stacked(name, k, -(-epochs // k)) / alone)
        cells = (
            f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in ratios.values()
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
