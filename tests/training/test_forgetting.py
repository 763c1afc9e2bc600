"""How often samples are forgotten: against a plain loop, stopped in between, of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from flexhpc.errors import Interrupted
from flexhpc.models import build
from flexhpc.spec.sections.model import Cnn, Model
from flexhpc.spec.sections.training import Adam, Sam, Training
from flexhpc.training import Hooks, network
from flexhpc.training.batches import epoch_order, sizes_of
from tests.training.helpers import SMALL, probe_data, run, same

N, EPOCHS = 90, 12
ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=EPOCHS, curves="batches")
COUNTING = Hooks(forgetting=True)


def plain_loop(model: Model) -> np.ndarray:
    """Count, sample by sample, a miss where the presentation before was right."""
    data = probe_data(N)
    torch.manual_seed(data.init_seed)
    net = build(model, (1, 8, 8), 10).double()
    update = torch.optim.Adam(net.parameters(), lr=1e-2)
    was_right = [False] * N
    events = np.zeros(N, np.int32)
    for epoch in range(EPOCHS):
        order = torch.from_numpy(epoch_order(N, data.order_seed, epoch))
        for ids in order.split(sizes_of(ADAM, N)):
            logits = net(data.inputs[ids].double())
            for sample, guess in zip(ids.tolist(), logits.argmax(1).tolist(), strict=True):
                right = guess == int(data.labels[sample])
                events[sample] += was_right[sample] and not right
                was_right[sample] = right
            update.zero_grad()
            functional.cross_entropy(logits, data.labels[ids]).backward()
            update.step()
    return events


@pytest.mark.parametrize("model", [SMALL, Cnn(family="cnn", width=4, depth=2)], ids=["mlp", "cnn"])
def test_the_counts_are_those_of_a_plain_loop(model: Model) -> None:
    training = ADAM.model_copy(update={"precision": "fp64"})
    counted = run(training, N, model=model, hooks=COUNTING).forgotten
    assert counted is not None
    np.testing.assert_array_equal(counted, plain_loop(model))
    assert counted.sum() > 5


def test_with_looks_they_are_counted_from_look_to_look() -> None:
    training = ADAM.model_copy(update={"curves": "looks"})
    counted = run(training, N, hooks=COUNTING).forgotten
    assert counted is not None
    assert counted.sum() > 0


@pytest.mark.parametrize("training", [ADAM, ADAM.model_copy(update={"sam": Sam()})])
def test_counting_changes_nothing_and_survives_a_stop(training: Training, tmp_path: Path) -> None:
    plain, counted = run(training, N), run(training, N, hooks=COUNTING)
    assert plain.forgotten is None
    np.testing.assert_array_equal(plain.fitted, counted.fitted)
    assert (plain.loss, plain.steps) == (counted.loss, counted.steps)
    asked = iter(range(10**6))
    hooks = Hooks(
        stopping=lambda: next(asked) == 16, checkpoint=tmp_path / "c", key="k", forgetting=True
    )
    with pytest.raises(Interrupted):
        run(training, N, hooks=hooks)
    same(
        run(training, N, hooks=Hooks(checkpoint=tmp_path / "c", key="k", forgetting=True)), counted
    )


def test_formulas_and_graphs_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    by_formulas = run(ADAM, N, hooks=COUNTING)
    monkeypatch.setattr(network, "perceptron", lambda _: None)
    same(run(ADAM, N, hooks=COUNTING), by_formulas)


def test_shards_count_what_one_pass_does() -> None:
    whole = run(ADAM.model_copy(update={"precision": "fp64"}), N, hooks=COUNTING)
    parts = run(ADAM.model_copy(update={"precision": "fp64", "shards": 4}), N, hooks=COUNTING)
    np.testing.assert_array_equal(whole.forgotten, parts.forgotten)
