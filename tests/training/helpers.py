"""Training runs on digits, small enough to run many."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flexhpc.config.sections.data import Digits
from flexhpc.config.sections.model import Mlp, Model
from flexhpc.config.sections.training import Training
from flexhpc.data import draw_subset, load_samples
from flexhpc.errors import Interrupted
from flexhpc.models import build
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Callbacks, Group, Outcome, ProbeData, train

CPU = torch.device("cpu")
DIGIT = (1, 8, 8)
SMALL = Mlp(family="mlp", width=16, depth=2, activation="tanh")


def sample_shape(model: Model) -> tuple[int, ...]:
    """Return the shape of an image, or of a sequence if the model predicts tokens."""
    return (6,) if model.predicts_tokens else DIGIT


def build_seeded(model: Model, shape: tuple[int, ...] = DIGIT, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(model, shape, 10)


def probe_data(n: int, repeat: int = 0, labels: str = "random") -> ProbeData:
    samples = load_samples(Digits(source="digits", labels=labels), seed=0)
    seeds = ProbeSeeds.derive(0, n, repeat, nested=False)
    ids = draw_subset(samples.pool, n, seeds.subset)
    return ProbeData(
        inputs=torch.from_numpy(samples.select_inputs(ids)),
        labels=torch.from_numpy(samples.labels[ids]),
        init_seed=seeds.init,
        order_seed=seeds.order,
    )


def run(
    training: Training, n: int, *, model: Model = SMALL, repeat: int = 0, labels: str = "random",
    callbacks: Callbacks | None = None, device: torch.device = CPU,
) -> Outcome:  # fmt: skip
    make, data = partial(build, model, DIGIT, 10), probe_data(n, repeat, labels)
    data = replace(data, inputs=data.inputs.to(device), labels=data.labels.to(device))
    return train(training, make, data, callbacks or Callbacks(), Group(device))


def collect_models(models: list[nn.Module]) -> Callbacks:
    """Return callbacks that append the trained model to a list."""

    def on_train_end(trained: nn.Module) -> dict[str, float]:
        models.append(trained)
        return {}

    return Callbacks(on_train_end=on_train_end)


def run_with_model(training: Training, n: int, model: Model = SMALL) -> tuple[Outcome, nn.Module]:
    """Return the outcome of :func:`run` and the trained model."""
    models: list[nn.Module] = []
    outcome = run(training, n, model=model, callbacks=collect_models(models))
    return outcome, models[0]


def resume(
    training: Training, n: int, stops: list[int], path: Path, *, model: Model = SMALL,
    counting: tuple[bool, ...] = (),
) -> Outcome:  # fmt: skip
    """Interrupt a training run after numbers of updates counted from each start; then finish it.

    Fail if an update is repeated, because every start must continue from the checkpoint.

    Args:
        training, n, model: as for :func:`run`.
        stops: number of updates after which each start is interrupted.
        path: of the checkpoint.
        counting: whether each start counts forgetting events; by default none does.
    """
    total = 0
    for i, stop in enumerate([*stops, 10**9]):
        updates = itertools.count(1)
        callbacks = Callbacks(
            should_stop=lambda updates=updates, stop=stop: next(updates) == stop,
            checkpoint=path, key="k", forgetting=bool(counting) and counting[i],
        )  # fmt: skip
        try:
            outcome = run(training, n, model=model, callbacks=callbacks)
        except Interrupted:
            assert path.exists()
            total += stop
        else:
            assert total + next(updates) - 1 == outcome.steps, "a checkpoint was ignored"
            return outcome
    raise AssertionError("the last start is not interrupted")


def assert_outcomes_close(
    first: Outcome, second: Outcome, tolerance: float, metrics_tolerance: float
) -> None:
    """Assert that two outcomes are equal; losses and metrics up to relative tolerances."""
    for key in ("verdict", "n_errors", "epochs", "steps", "cost", "rejected"):
        assert getattr(first, key) == getattr(second, key), key
    for key in ("fitted", "error_curve", "forgotten"):
        np.testing.assert_array_equal(getattr(first, key), getattr(second, key))
    np.testing.assert_allclose(first.loss_curve, second.loss_curve, rtol=tolerance)
    assert first.loss == pytest.approx(second.loss, rel=tolerance, nan_ok=True)
    assert set(first.metrics) == set(second.metrics)
    for key, value in first.metrics.items():
        assert value == pytest.approx(second.metrics[key], rel=metrics_tolerance, nan_ok=True), key


def assert_outcomes_equal(first: Outcome, second: Outcome) -> None:
    """Assert that two outcomes are bitwise equal except for their time."""
    for key, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, key))
        elif key != "seconds":
            assert value == getattr(second, key), key
