"""What it does to P(fit) how often a training is looked at: the table of docs/recipe.md.

Usage: python -m bench.recipe.looks [--trainings 60]
The MLP of docs/recipe.md on digits with random labels, trained to the end of its budget whatever it
fits on the way, near its EMC. Three minutes on two free cores.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

SIZES = {"adam": (140, 165, 190), "adam, cosine": (110, 125, 145), "sgd": (170, 200, 235)}
STEPS, BATCH, WIDTH = 1000, 64, 12
LOOKS = ("every update", "every epoch", "every 10 epochs", "the end alone")


def fits(procedure: str, n: int, seed: int) -> list[bool]:
    """Train once; return whether all samples were right at one of the looks, for each of LOOKS."""
    torch.manual_seed(seed)
    inputs = torch.tensor(load_digits().data, dtype=torch.float32)
    inputs = (inputs - inputs.mean()) / inputs.std()
    chosen = inputs[torch.randperm(len(inputs))[:n]]
    labels = torch.randint(10, (n,))
    net = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
    update: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), lr=6e-3)
    if procedure == "sgd":
        update = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    schedule = None
    if procedure.endswith("cosine"):
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(update, T_max=STEPS)
    right: list[bool] = []
    epoch_ends: list[int] = []
    while len(right) < STEPS:
        for batch in torch.randperm(n).tensor_split(-(-n // BATCH))[: STEPS - len(right)]:
            loss = functional.cross_entropy(net(chosen[batch]), labels[batch])
            update.zero_grad()
            loss.backward()
            update.step()
            if schedule is not None:
                schedule.step()
            with torch.no_grad():
                right.append(bool((net(chosen).argmax(dim=1) == labels).all()))
        epoch_ends.append(len(right) - 1)
    at_epochs = [right[step] for step in epoch_ends]
    return [any(right), any(at_epochs), any(at_epochs[9::10]), right[-1]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainings", type=int, default=60)
    count = parser.parse_args().trainings
    print(f"| trained by | n | {' | '.join(LOOKS)} |")
    print("|---|---" + "|---" * len(LOOKS) + "|")
    with ProcessPoolExecutor(2) as pool:
        for procedure, sizes in SIZES.items():
            for n in sizes:
                outcomes = list(pool.map(partial(fits, procedure, n), range(count), chunksize=4))
                shares = [sum(some) / count for some in zip(*outcomes, strict=True)]
                print(f"| {procedure} | {n} | {' | '.join(f'{s:.2f}' for s in shares)} |")


if __name__ == "__main__":
    main()
