"""Compare flexhpc's training loop with a minimal hand-written loop.

Usage: python -m bench.speed.loop_overhead [--rounds 15] [--bound 0.55]
Each round trains the MLP 64 of bench.speed with both loops. Prints the median, the lowest and the
highest ratio of their rates (samples per second of CPU time), and exits with status 1 if the median
is below the bound.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from bench.common import median_text
from bench.speed.__main__ import measure_rate
from bench.speed.loops import BATCH, LOOPS, RATE

NETWORK, EPOCHS = "MLP 64", 40


@torch.no_grad()
def minimal(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """Train an MLP by manual backprop and fused Adam updates only."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    gradients = [torch.zeros_like(p) for p in parameters]
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    step, flat = torch.zeros(()), inputs.flatten(1)
    targets, batch = -torch.eye(10) / BATCH, flat.new_empty((BATCH, flat.shape[1]))
    for _ in range(epochs):
        for ids in torch.randperm(len(labels)).split(BATCH):
            output, layer_inputs = torch.index_select(flat, 0, ids, out=batch), []
            for layer in layers:
                layer_inputs.append(output)
                output = torch.addmm(layer.bias, output, layer.weight.t())
                output = output.relu_() if layer is not layers[-1] else output
            log_probabilities = output.log_softmax(1)
            gradient = torch.ops.aten._log_softmax_backward_data(
                targets[labels[ids]], log_probabilities, 1, torch.float32
            )
            for i in reversed(range(len(layers))):
                torch.mm(gradient.t(), layer_inputs[i], out=gradients[2 * i])
                torch.sum(gradient, 0, out=gradients[2 * i + 1])
                if i:
                    gradient = gradient.mm(layers[i].weight)
                    gradient = torch.ops.aten.threshold_backward(gradient, layer_inputs[i], 0)
            step += 1
            torch._fused_adam_(
                parameters, gradients, means, squares, [], [step] * len(parameters), lr=RATE,
                beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip


def summary(ratios: Sequence[float], bound: float) -> tuple[str, int]:
    """Return the text to print and the exit status."""
    line = (
        f"flexhpc trains {NETWORK} at {median_text(ratios)} of the rate of a minimal loop; "
        f"the bound is {bound}"
    )
    return line, int(statistics.median(ratios) < bound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bound", type=float, default=0.55)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ratios = []
    for _ in range(options.rounds):
        rate = measure_rate(LOOPS["flexhpc"], NETWORK, EPOCHS)
        ratios.append(rate / measure_rate(minimal, NETWORK, EPOCHS))
    line, status = summary(ratios, options.bound)
    print(line)
    return status


if __name__ == "__main__":
    sys.exit(main())
