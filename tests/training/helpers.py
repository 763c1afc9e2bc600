"""Trainings on digits, small enough to run many."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from flexhpc.config.sections.data import Digits
from flexhpc.config.sections.model import Mlp, Model
from flexhpc.config.sections.training import Training
from flexhpc.data import draw_subset, load_samples
from flexhpc.models import build
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Callbacks, Outcome, ProbeData, train

SMALL = Mlp(family="mlp", width=16, depth=2, activation="tanh")


def probe_data(n: int, repeat: int = 0, labels: str = "random") -> ProbeData:
    samples = load_samples(Digits(source="digits", labels=labels), seed=0)
    seeds = ProbeSeeds.of(0, n, repeat, nested=False)
    ids = draw_subset(samples.pool, n, seeds.subset)
    return ProbeData(
        inputs=torch.from_numpy(samples.standardised(ids)),
        labels=torch.from_numpy(samples.labels[ids]),
        init_seed=seeds.init,
        order_seed=seeds.order,
    )


def run(
    training: Training,
    n: int,
    *,
    model: Model = SMALL,
    repeat: int = 0,
    labels: str = "random",
    callbacks: Callbacks | None = None,
) -> Outcome:
    make = partial(build, model, (1, 8, 8), 10)
    return train(training, make, probe_data(n, repeat, labels), callbacks or Callbacks())


def run_and_keep(
    training: Training, n: int, model: Model = SMALL
) -> tuple[Outcome, torch.nn.Module]:
    """Train as :func:`run` does; also return the trained model."""
    kept: list[torch.nn.Module] = []

    def keep(trained: torch.nn.Module) -> dict[str, float]:
        kept.append(trained)
        return {}

    outcome = run(training, n, model=model, callbacks=Callbacks(on_train_end=keep))
    return outcome, kept[0]


def same(first: Outcome, second: Outcome) -> None:
    """Assert that two outcomes are bitwise equal, but for the time they took."""
    for key, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, key))
        elif key != "seconds":
            assert value == getattr(second, key), key
