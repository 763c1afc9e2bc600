"""Print the tables of docs/optimizers.md as JSON: fits by optimizer, and the cost of curvature.

Usage: python -m bench.optimizers
Uses 1,000 digits with random labels, one thread and one seed.
"""

from __future__ import annotations

import json
import statistics
import time
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from flexhpc.config.sections.data import Digits
from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Training
from flexhpc.config.variants import variants
from flexhpc.data import draw_subset, load_samples
from flexhpc.models import build
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Callbacks, Group, ProbeData, train
from flexhpc.training.curvature import hessian_ritz
from flexhpc.training.group import Partition

SIZE = 1_000
CPU = Partition(Group(torch.device("cpu")))
RATES = {
    "adam": [1e-3], "soap": [3e-3], "muon": [0.02], "shampoo": [0.1, 0.3, 1.0],
}  # fmt: skip
FIT_MODEL = Mlp(family="mlp", width=64, depth=2)
CURVATURE_MODEL = Mlp(family="mlp", width=200, depth=2)


def random_digits() -> ProbeData:
    digits = load_samples(Digits(source="digits", labels="random"), seed=0)
    seeds = ProbeSeeds.derive(0, SIZE, 0, nested=False)
    ids = draw_subset(digits.pool, SIZE, seeds.subset)
    return ProbeData(
        inputs=torch.from_numpy(digits.select_inputs(ids)),
        labels=torch.from_numpy(digits.labels[ids]),
        init_seed=seeds.init,
        order_seed=seeds.order,
    )


def measure_fit(optimizer: str, lr: float, data: ProbeData) -> dict[str, Any]:
    """Train until all samples are fitted, for at most 500 epochs."""
    section = variants("training")[optimizer]
    training = section.model_validate({"optimizer": optimizer, "lr": lr, "epochs": 500})
    assert isinstance(training, Training)
    make = partial(build, FIT_MODEL, (1, 8, 8), 10)
    # Warm-up: the first training imports the optimizer's library.
    train(training.model_copy(update={"epochs": 1}), make, data, Callbacks())
    outcome = train(training, make, data, Callbacks())
    return {
        "optimizer": optimizer, "lr": lr, "missed": outcome.n_errors, "epochs": outcome.epochs,
        "ms_per_update": 1e3 * outcome.seconds / outcome.steps,
    }  # fmt: skip


def measure_curvature(steps: int, products: int, data: ProbeData) -> dict[str, Any]:
    """Compute the ends of the Hessian's spectrum after ``steps`` full-batch updates of Adam.

    Args:
        products: maximum number of Hessian-vector products.
    """
    torch.manual_seed(data.init_seed)
    network = build(CURVATURE_MODEL, (1, 8, 8), 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    gradients, loss = [], torch.zeros(())
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(data.inputs), data.labels)
        loss.backward()
        gradients.append(time.perf_counter() - start)
        if len(gradients) <= steps:
            optimizer.step()
    start = time.perf_counter()
    spectrum = hessian_ritz(network, data.inputs, data.labels, CPU, products, seed=0)
    seconds = time.perf_counter() - start
    return {
        "steps": steps, "loss": float(loss.detach()), "products": spectrum.products,
        "smallest": spectrum.min, "residual": spectrum.residual_min, "largest": spectrum.max,
        "ms_per_product": 1e3 * seconds / spectrum.products,
        "ms_per_gradient": 1e3 * statistics.median(gradients),
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    data = random_digits()
    results = {
        "bench": "optimizers",
        "fits": [measure_fit(name, lr, data) for name, rates in RATES.items() for lr in rates],
        "curvature": [
            measure_curvature(steps, products, data)
            for steps, products in ((0, 16), (0, 1_000), (150, 64), (150, 1_000))
        ],
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
