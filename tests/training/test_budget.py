"""Batches of an epoch, and budgets in updates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.config.sections.gates import Gates, GradientGate, PlateauGate
from flexhpc.config.sections.training import Adam, Gd, Sam, Sgd
from flexhpc.training import Callbacks
from flexhpc.training.budget import (
    batch_sizes,
    budget_in_updates,
    epoch_batch_sizes,
    epoch_order,
    extended_budget,
)
from tests.training.helpers import run

NO_PLATEAU = Gates(plateau=PlateauGate(mode="off"))


@given(st.integers(1, 5_000), st.integers(1, 600))
def test_batches_are_few_and_near_equal(n: int, batch_size: int) -> None:
    sizes = batch_sizes(n, batch_size)
    assert sum(sizes) == n
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-n // batch_size)
    assert batch_sizes(n, None) == [n]


@given(st.integers(1, 200), st.integers(0, 2**62), st.integers(0, 1000))
def test_orders_are_permutations_that_depend_on_the_epoch(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, epoch_order(n, seed, epoch))
    if n > 20:
        assert not np.array_equal(order, epoch_order(n, seed, epoch + 1))


def test_small_last_batches_prevent_a_fit() -> None:
    """With batches of 64, n = 66 and n = 130 have a last batch of two samples.

    With such a batch hardly any training run fits, although nearly all fit at n = 100. With
    near-equal batches they fit.
    """
    near_equal = Sgd(
        optimizer="sgd", lr=0.05, momentum=0.9, batch_size=64, epochs=200, schedule="cosine",
        gates=Gates(gradient=GradientGate(mode="off")),
    )  # fmt: skip
    tail = near_equal.model_copy(update={"batches": "tail"})
    assert epoch_batch_sizes(tail, 130) == [64, 64, 2]
    assert epoch_batch_sizes(near_equal, 130) == [44, 43, 43]

    def fits(training: Sgd, n: int) -> int:
        return sum(run(training, n, repeat=repeat).verdict == "fit" for repeat in range(4))

    assert fits(near_equal, 100) >= 3
    assert all(fits(near_equal, n) >= 2 for n in (66, 130, 194))
    assert fits(tail, 100) >= 3
    assert sum(fits(tail, n) for n in (66, 130)) <= 2


@given(st.integers(1, 5_000), st.integers(1, 600), st.integers(1, 10**6))
def test_gradient_evaluations_are_not_exceeded(n: int, batch: int, budget: int) -> None:
    sizes = batch_sizes(n, batch)
    steps = budget_in_updates(Sgd(optimizer="sgd", gradient_evaluations=budget), sizes)
    epochs, rest = divmod(steps, len(sizes))
    used = epochs * n + sum(sizes[:rest])
    assert steps == 1 or used <= budget
    assert used + sizes[rest] > budget


@pytest.mark.parametrize(
    ("key", "budget", "sgd_steps"),
    [("epochs", 50, 500), ("steps", 50, 50), ("gradient_evaluations", 5_000, 500)],
)
def test_sgd_and_full_batch_gd_with_equal_budgets(key: str, budget: int, sgd_steps: int) -> None:
    """100 samples in batches of 10 or 100."""
    options = {"gates": NO_PLATEAU, "lr": 1e-4, key: budget}
    sgd = run(Sgd(optimizer="sgd", batch_size=10, **options), 100)
    gd = run(Gd(optimizer="gd", **options), 100)
    assert (sgd.steps, gd.steps) == (sgd_steps, 50)
    assert (sgd.cost, gd.cost) == (10 * sgd_steps, 5_000)


def test_until_convergence_ends_at_a_plateau() -> None:
    gates = Gates(plateau=PlateauGate(patience=20))
    training = Adam(optimizer="adam", lr=1e-2, until="convergence", gates=gates)
    budgets: list[int] = []
    callbacks = Callbacks(on_progress=lambda progress: budgets.append(progress["epochs"]))
    outcome = run(training, 1_200, callbacks=callbacks)
    assert outcome.verdict == "not_fit"
    assert outcome.metrics["plateau_epochs"] == 20
    assert set(budgets) == {0}


def test_an_improving_training_run_is_extended_up_to_a_cap() -> None:
    base = {"optimizer": "adam", "lr": 2e-3, "epochs": 10, "batch_size": 64}
    assert run(Adam(**base), 200).verdict == "unconverged"
    capped = run(Adam(**base, unconverged="extend", extend_to=3.0), 200)
    assert capped.verdict == "unconverged"
    assert capped.epochs == 30
    assert capped.metrics["extended_to_steps"] == 30 * 4
    extended = run(Adam(**base, unconverged="extend", extend_to=1000.0), 200)
    assert extended.verdict == "fit"
    assert extended.epochs > 30


@given(st.integers(1, 1_000), st.floats(1.01, 50))
def test_a_budget_is_doubled_up_to_its_cap(initial: int, factor: float) -> None:
    training = Adam(optimizer="adam", unconverged="extend", extend_to=factor)
    budget = initial
    while (larger := extended_budget(training, budget, initial)) is not None:
        assert budget < larger <= 2 * budget
        budget = larger
    assert budget == max(initial, int(initial * factor))
    assert extended_budget(Adam(optimizer="adam"), initial, initial) is None


def test_sam_costs_two_gradients_per_update() -> None:
    plain = run(Sgd(optimizer="sgd", epochs=3, gates=NO_PLATEAU), 100)
    sam = run(Sgd(optimizer="sgd", epochs=3, gates=NO_PLATEAU, sam=Sam()), 100)
    assert sam.cost == 2 * plain.cost
    assert sam.steps == plain.steps
    assert budget_in_updates(Sgd(optimizer="sgd", gradient_evaluations=600, sam=Sam()), [100]) == 3
