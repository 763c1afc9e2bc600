"""Count fits with full batches and a tail, and with near-equal batches (table of docs/concepts.md).

Usage: python bench/tail_batch.py
Prints JSON.
"""

from __future__ import annotations

import json
from functools import partial

import torch

from flexhpc.config.sections.data import Digits
from flexhpc.config.sections.gates import Gates, GradientGate
from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Sgd
from flexhpc.data import draw_subset, load_samples
from flexhpc.models import build
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Callbacks, ProbeData, train

SIZES = (66, 100, 120, 130, 150, 170, 194)
SEEDS = 8
MODEL = Mlp(family="mlp", width=16, depth=2, activation="tanh")
TRAINING = Sgd(
    optimizer="sgd", lr=0.05, momentum=0.9, batch_size=64, epochs=200, schedule="cosine",
    gates=Gates(gradient=GradientGate(mode="off")),
)  # fmt: skip


def fits(n: int, training: Sgd) -> int:
    """Return the number of training runs at ``n`` that fit."""
    samples = load_samples(Digits(source="digits", labels="random"), seed=0)
    count = 0
    for repeat in range(SEEDS):
        seeds = ProbeSeeds.of(0, n, repeat, nested=False)
        ids = draw_subset(samples.pool, n, seeds.subset)
        data = ProbeData(
            inputs=torch.from_numpy(samples.standardised(ids)),
            labels=torch.from_numpy(samples.labels[ids]),
            init_seed=seeds.init,
            order_seed=seeds.order,
        )
        outcome = train(training, partial(build, MODEL, (1, 8, 8), 10), data, Callbacks())
        count += outcome.verdict == "fit"
    return count


def main() -> None:
    torch.set_num_threads(1)
    rows = {}
    for name, batches in (("plain", "tail"), ("near_equal", "near_equal")):
        training = TRAINING.model_copy(update={"batches": batches})
        rows[name] = [fits(n, training) for n in SIZES]
    print(json.dumps({"bench": "tail_batch", "n": SIZES, "of": SEEDS, **rows}, indent=1))


if __name__ == "__main__":
    main()
