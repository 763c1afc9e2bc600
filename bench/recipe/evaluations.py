"""Print the table of docs/recipe.md that shows P(fit) by the frequency of evaluations.

Usage: python -m bench.recipe.evaluations [--trainings 60]
Trains the MLP of docs/recipe.md on digits with random labels, at n near its EMC and always to the
end of the budget. Takes three minutes on two free cores.
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

from bench.common import markdown_head, markdown_row

SIZES = {"adam": (140, 165, 190), "adam, cosine": (110, 125, 145), "sgd": (170, 200, 235)}
STEPS, BATCH, WIDTH = 1000, 64, 12
FREQUENCIES = ("every update", "every epoch", "every 10 epochs", "only at the end")


def fits(procedure: str, n: int, seed: int) -> list[bool]:
    """Train once; return, for each of ``FREQUENCIES``, whether an evaluation has no errors."""
    torch.manual_seed(seed)
    inputs = torch.tensor(load_digits().data, dtype=torch.float32)
    inputs = (inputs - inputs.mean()) / inputs.std()
    subset = inputs[torch.randperm(len(inputs))[:n]]
    labels = torch.randint(10, (n,))
    network = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
    optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=6e-3)
    if procedure == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    schedule = None
    if procedure.endswith("cosine"):
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    all_correct: list[bool] = []
    epoch_ends: list[int] = []
    while len(all_correct) < STEPS:
        for batch in torch.randperm(n).tensor_split(-(-n // BATCH))[: STEPS - len(all_correct)]:
            loss = functional.cross_entropy(network(subset[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            with torch.no_grad():
                all_correct.append(bool((network(subset).argmax(dim=1) == labels).all()))
        epoch_ends.append(len(all_correct) - 1)
    at_epochs = [all_correct[step] for step in epoch_ends]
    return [any(all_correct), any(at_epochs), any(at_epochs[9::10]), all_correct[-1]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainings", type=int, default=60)
    count = parser.parse_args().trainings
    print(markdown_head(["optimizer", "n", *FREQUENCIES]))
    with ProcessPoolExecutor(2) as pool:
        for procedure, sizes in SIZES.items():
            for n in sizes:
                outcomes = list(pool.map(partial(fits, procedure, n), range(count), chunksize=4))
                shares = [sum(fit) / count for fit in zip(*outcomes, strict=True)]
                print(markdown_row([procedure, str(n), *(f"{share:.2f}" for share in shares)]))


if __name__ == "__main__":
    main()
