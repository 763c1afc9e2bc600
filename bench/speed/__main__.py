"""Compare the training speed of flexhpc with other training loops (docs/performance.md).

Usage: python -m bench.speed [--networks NAME,...] [--rounds 5] [--seconds 2] [--threads 1]
           [--device cpu] [--json FILE]
Measures training samples per second of CPU time (wall time with several threads or a GPU). Each
loop also computes the accuracy over all samples after every epoch. flexhpc is measured with both
values of `training.curves`. Each round measures every loop once. The table shows the median rate of
flexhpc, and its ratio to each other loop in the same round: median, lowest and highest. Lightning
and Accelerate are included if they are installed.
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

from bench.common import markdown_head, markdown_row, median_text
from bench.speed.loops import TrainingLoop, installed_loops, silence
from flexhpc.config.sections.model import (
    Adapter,
    Cnn,
    Efficientnet,
    Lora,
    Mlp,
    Network,
    Resnet,
    Timm,
    Vit,
)
from flexhpc.models import build
from flexhpc.models.families import Shape

N, CLASSES, MIN_EPOCHS = 512, 10, 32
GREY, COLOUR, LARGE, TABLE = (1, 28, 28), (3, 32, 32), (3, 64, 64), (54,)
LITE0 = "timm:efficientnet_lite0"
LAST_BLOCK = Adapter(lora=Lora(rank=4, targets=["blocks.6.0.conv_pwl"]))
NETWORKS: dict[str, tuple[Shape, Network]] = {
    "MLP 8": (GREY, Mlp(family="mlp", width=8, depth=2)),
    "MLP 64": (GREY, Mlp(family="mlp", width=64, depth=2)),
    "MLP 512": (GREY, Mlp(family="mlp", width=512, depth=2)),
    "CNN 8": (GREY, Cnn(family="cnn", width=8, depth=3)),
    "CNN 32": (COLOUR, Cnn(family="cnn", width=32, depth=3)),
    "ResNet 4": (GREY, Resnet(family="resnet", width=4, depth=2)),
    "ViT 48": (GREY, Vit(family="vit", width=48, depth=4, patch=7)),
    "tabular MLP 64": (TABLE, Mlp(family="mlp", width=64, depth=2)),
    "ResNet 8": (GREY, Resnet(family="resnet", width=8, depth=2)),
    "EfficientNet 8": (GREY, Efficientnet(family="efficientnet", width=8, depth=2)),
    "EfficientNet-Lite0, head": (LARGE, Timm(family=LITE0, adapt="head")),
    "EfficientNet-Lite0, LoRA in the last block": (LARGE, Timm(family=LITE0, adapt=LAST_BLOCK)),
}
PARTLY_TRAINED = tuple(name for name, (_, model) in NETWORKS.items() if model.adapt is not None)
SLOW = ("ResNet 8", "EfficientNet 8", *PARTLY_TRAINED)
"""Networks that are measured only if named in ``--networks``."""
Rates = dict[str, list[float]]


def untrained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return an untrained network of :data:`NETWORKS` and random samples for it.

    Two equal samples have different labels, so that no training run ends early with a fit.
    """
    shape, model = NETWORKS[name]
    torch.manual_seed(0)
    inputs, labels = torch.randn(N, *shape), torch.randint(CLASSES, (N,))
    inputs[1], labels[1] = inputs[0], (labels[0] + 1) % CLASSES
    return build(model, shape, CLASSES), inputs, labels


def measure_rate(
    loop: TrainingLoop, network_name: str, epochs: int, device: str = "cpu",
    clock: Callable[[], float] | None = None,
) -> float:  # fmt: skip
    """Return the samples per second of one training run.

    Args:
        clock: returns seconds; default: CPU time with one thread on the CPU, else wall time.
    """
    network, inputs, labels = untrained(network_name)
    network.to(device)
    single_threaded = device == "cpu" and torch.get_num_threads() == 1
    clock = clock or (time.process_time if single_threaded else time.perf_counter)
    start = clock()
    loop(network, inputs, labels, epochs)
    if device != "cpu":
        torch.accelerator.synchronize()
    return N * epochs / (clock() - start)


def measure_rates(
    network_name: str, loops: dict[str, TrainingLoop], rounds: int, seconds: float, device: str
) -> Rates:
    """Measure every loop once per round.

    Args:
        seconds: approximate duration of a training run. Each training run has at least
            ``MIN_EPOCHS`` epochs, like most probes, because flexhpc also computes the metrics of
            its convergence gates once per training run.
    """
    epochs = {
        name: max(MIN_EPOCHS, round(seconds * measure_rate(loop, network_name, 2, device) / N))
        for name, loop in loops.items()
    }
    rates: Rates = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            rates[name].append(measure_rate(loop, network_name, epochs[name], device))
    return rates


def row(network_name: str, rates: Rates) -> str:
    flexhpc = rates["flexhpc"]
    cells = [network_name, f"{statistics.median(flexhpc) / 1e3:.1f}k"]
    for name, others in rates.items():
        if name != "flexhpc":
            cells.append(median_text([a / b for a, b in zip(flexhpc, others, strict=True)]))
    return markdown_row(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ",".join(name for name in NETWORKS if name not in SLOW)
    parser.add_argument("--networks", default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or xpu (wall time)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loops = installed_loops()
    silence(*loops)
    others = [f"over {name}" for name in loops if name != "flexhpc"]
    print(markdown_head(["network", "flexhpc, samples/s", *others]))
    rates = {}
    for name in options.networks.split(","):
        rates[name] = measure_rates(name, loops, options.rounds, options.seconds, options.device)
        print(row(name, rates[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rates, indent=1))


if __name__ == "__main__":
    main()
