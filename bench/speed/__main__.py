"""Compare the training speed of flexhpc with that of other training loops.

Usage: python -m bench.speed [--networks NAME,...] [--rounds 5] [--seconds 2] [--threads 1]
           [--device cpu] [--json FILE]
Measures the samples trained on per second of CPU time (of wall time with several threads),
including the accuracy over all samples after every epoch, for flexhpc with both values of
`training.curves`. Contestants take turns in every round. The table shows medians, and the ratio of
flexhpc to each contestant in the same round: median, lowest and highest. Lightning, Accelerate and
skorch are included if they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from bench.speed.contestants import Contestant, available, silence
from flexhpc.config.sections.model import Network
from flexhpc.config.variants import variants
from flexhpc.models import build
from flexhpc.models.families import Shape

N, CLASSES, MIN_EPOCHS = 512, 10, 32
GREY, COLOUR, TABLE = (1, 28, 28), (3, 32, 32), (54,)
NETWORKS: dict[str, tuple[Shape, dict[str, object]]] = {
    "MLP 8": (GREY, {"family": "mlp", "width": 8, "depth": 2}),
    "MLP 64": (GREY, {"family": "mlp", "width": 64, "depth": 2}),
    "MLP 512": (GREY, {"family": "mlp", "width": 512, "depth": 2}),
    "CNN 8": (GREY, {"family": "cnn", "width": 8, "depth": 3}),
    "CNN 32": (COLOUR, {"family": "cnn", "width": 32, "depth": 3}),
    "ResNet 4": (GREY, {"family": "resnet", "width": 4, "depth": 2}),
    "ViT 48": (GREY, {"family": "vit", "width": 48, "depth": 4, "patch": 7}),
    "tabular MLP 64": (TABLE, {"family": "mlp", "width": 64, "depth": 2}),
    "ResNet 8": (GREY, {"family": "resnet", "width": 8, "depth": 2}),
    "EfficientNet 8": (GREY, {"family": "efficientnet", "width": 8, "depth": 2}),
}
OPTIONAL = ("ResNet 8", "EfficientNet 8")
"""Slow networks, measured only if named in ``--networks``."""
Rates = dict[str, list[float]]


def untrained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return an untrained network of :data:`NETWORKS` and random samples for it.

    Two equal samples have different labels, so that no training run ends early with a fit.
    """
    shape, section = NETWORKS[name]
    torch.manual_seed(0)
    model = variants("model")[str(section["family"])].model_validate(section)
    assert isinstance(model, Network)
    inputs, labels = torch.randn(N, *shape), torch.randint(CLASSES, (N,))
    inputs[1], labels[1] = inputs[0], (labels[0] + 1) % CLASSES
    return build(model, shape, CLASSES), inputs, labels


def timed(
    contestant: Contestant, name: str, epochs: int, device: str = "cpu",
    clock: Callable[[], float] | None = None,
) -> float:  # fmt: skip
    """Return the samples per second of one training run.

    Args:
        clock: returns seconds; default: CPU time with one thread on the CPU, else wall time.
    """
    network, inputs, labels = untrained(name)
    network.to(device)
    by_cpu = device == "cpu" and torch.get_num_threads() == 1
    clock = clock or (time.process_time if by_cpu else time.perf_counter)
    start = clock()
    contestant(network, inputs, labels, epochs)
    if device != "cpu":
        torch.accelerator.synchronize()
    return N * epochs / (clock() - start)


def measured(
    name: str, contestants: dict[str, Contestant], rounds: int, seconds: float, device: str = "cpu"
) -> Rates:
    """Measure the contestants in turns.

    Args:
        seconds: approximate length of a training run. It has at least ``MIN_EPOCHS`` epochs, as
            most probes do, because flexhpc also computes the metrics of its convergence gates.
    """
    trial = {who: timed(c, name, 2, device) for who, c in contestants.items()}
    epochs = {who: max(MIN_EPOCHS, round(seconds * rate / N)) for who, rate in trial.items()}
    rates: Rates = {who: [] for who in contestants}
    for _ in range(rounds):
        for who, contestant in contestants.items():
            rates[who].append(timed(contestant, name, epochs[who], device))
    return rates


def row(name: str, rates: Rates) -> str:
    """Return a row of the table."""
    own = rates["flexhpc"]
    cells = [f"{statistics.median(own) / 1e3:.1f}k"]
    for who, theirs in rates.items():
        if who != "flexhpc":
            ratios = [mine / other for mine, other in zip(own, theirs, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            cells.append(f"{statistics.median(ratios):.2f} ({spread})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    usual = ",".join(name for name in NETWORKS if name not in OPTIONAL)
    parser.add_argument("--networks", default=usual)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or xpu (wall time)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    contestants = available()
    silence(*contestants)
    others = [f"over {who}" for who in contestants if who != "flexhpc"]
    print(f"| network | flexhpc, samples/s | {' | '.join(others)} |\n|{'---|' * (len(others) + 2)}")
    rates = {}
    for name in options.networks.split(","):
        rates[name] = measured(name, contestants, options.rounds, options.seconds, options.device)
        print(row(name, rates[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rates, indent=1))


if __name__ == "__main__":
    main()
