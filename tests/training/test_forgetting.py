"""How often samples are forgotten: against a plain loop, stopped in between, of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.config.sections.model import Cnn, Model
from flexhpc.config.sections.training import Adam, Gd, Sam, Training
from flexhpc.errors import Interrupted
from flexhpc.models import build
from flexhpc.training import Callbacks, checkpoint, loop
from flexhpc.training.batches import epoch_order, sizes_of
from flexhpc.training.epoch_metrics import EpochMetrics
from flexhpc.training.forgetting import Forgetting
from flexhpc.training.optimizers import perturb_weights, restore_weights
from tests.training.helpers import SMALL, probe_data, run, same

N, EPOCHS = 90, 12
ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=EPOCHS, precision="fp64")
LOOKS = ADAM.model_copy(update={"curves": "looks"})
SAM = ADAM.model_copy(update={"sam": Sam(rho=0.2)})
GD = Gd(optimizer="gd", lr=0.5, epochs=EPOCHS, precision="fp64")
CNN = Cnn(family="cnn", width=4, depth=2)
COUNTING = Callbacks(forgetting=True)


def plain_loop(training: Training, model: Model, n: int) -> np.ndarray:
    """Count, sample by sample, a miss where the presentation (or look) before was right."""
    data = probe_data(n)
    torch.manual_seed(data.init_seed)
    net = build(model, (1, 8, 8), 10).double()
    weights = list(net.parameters())
    update: torch.optim.Optimizer = torch.optim.Adam(weights, lr=1e-2)
    if isinstance(training, Gd):
        update = torch.optim.SGD(weights, lr=0.5, momentum=training.momentum)
    was_right, events = [False] * n, [-1] * n

    def saw(ids: Tensor, logits: Tensor) -> None:
        for sample, guess in zip(ids.tolist(), logits.argmax(1).tolist(), strict=True):
            right = guess == int(data.labels[sample])
            if right:
                events[sample] = max(events[sample], 0)
            elif was_right[sample]:
                events[sample] += 1
            was_right[sample] = right

    for epoch in range(EPOCHS):
        order = torch.from_numpy(epoch_order(n, data.order_seed, epoch))
        for ids in order.split(sizes_of(training, n)):
            if training.curves == "batches":
                saw(ids, net(data.inputs[ids].double()))
            loss_gradient(net, data.inputs[ids], data.labels[ids])
            if training.sam is not None:
                kept = perturb_weights(weights, training.sam.rho)
                loss_gradient(net, data.inputs[ids], data.labels[ids])
                restore_weights(weights, kept)
            update.step()
        if training.curves == "looks":
            saw(torch.arange(n), net(data.inputs.double()))
    return np.array(events)


def loss_gradient(net: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    net.zero_grad()
    functional.cross_entropy(net(inputs.double()), labels).backward()


@pytest.mark.parametrize(
    ("training", "model", "n"),
    [(ADAM, SMALL, N), (ADAM, CNN, N), (LOOKS, SMALL, N), (SAM, SMALL, N), (GD, SMALL, 1100)],
    ids=["mlp", "cnn", "looks", "sam", "chunks"],
)
def test_the_counts_are_those_of_a_plain_loop(training: Training, model: Model, n: int) -> None:
    counted = run(training, n, model=model, callbacks=COUNTING).forgotten
    assert counted is not None
    np.testing.assert_array_equal(counted, plain_loop(training, model, n))
    assert counted.max() > 0
    if n > N:
        assert counted.min() == -1, "some are never right"


def test_who_was_never_right_forgets_nothing() -> None:
    seen = Forgetting(4, torch.device("cpu"))
    ids = torch.tensor([3, 1, 0])
    for wrong in ([1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]):
        seen.saw(ids, torch.tensor(wrong, dtype=torch.bool))
    assert seen.events().tolist() == [2, 1, -1, -1]


def test_sequences_are_right_or_missed_as_a_whole() -> None:
    """By the rule of the curves: what was missed in an epoch is what was missed in it here."""
    counts = Forgetting(2, torch.device("cpu"))
    metrics = EpochMetrics(torch.device("cpu"), prompt=1, forgetting=counts)
    labels = torch.tensor([[5, 1, 2], [5, 1, 2]])
    for tokens in ([[0, 1, 2], [5, 1, 0]], [[5, 1, 1], [0, 1, 2]]):
        logits = functional.one_hot(torch.tensor(tokens), 6).float().transpose(1, 2)
        metrics.add(logits, labels, torch.arange(2))
        assert metrics.read(2)[1] == 1
    assert counts.events().tolist() == [1, 0]


@pytest.mark.parametrize("training", [ADAM, SAM, LOOKS], ids=["adam", "sam", "looks"])
def test_counting_changes_nothing_and_survives_a_stop(training: Training, tmp_path: Path) -> None:
    plain, counted = run(training, N), run(training, N, callbacks=COUNTING)
    assert plain.forgotten is None
    np.testing.assert_array_equal(plain.fitted, counted.fitted)
    assert (plain.loss, plain.steps) == (counted.loss, counted.steps)
    stop(training, tmp_path / "c", counting=True)
    resumed = run(
        training, N, callbacks=Callbacks(checkpoint=tmp_path / "c", key="k", forgetting=True)
    )
    same(resumed, counted)


def stop(training: Training, path: Path, *, counting: bool) -> None:
    asked = iter(range(10**6))
    callbacks = Callbacks(
        should_stop=lambda: next(asked) == 16, checkpoint=path, key="k", forgetting=counting
    )  # fmt: skip
    with pytest.raises(Interrupted):
        run(training, N, callbacks=callbacks)


@pytest.mark.parametrize("training", [ADAM, LOOKS], ids=["batches", "looks"])
def test_a_checkpoint_without_counts_goes_on_without(training: Training, tmp_path: Path) -> None:
    stop(training, tmp_path / "c", counting=False)
    assert "forgetting" not in (checkpoint.load(tmp_path / "c", "k") or {"forgetting": 0})
    resumed = run(
        training, N, callbacks=Callbacks(checkpoint=tmp_path / "c", key="k", forgetting=True)
    )
    same(resumed, run(training, N))


def test_formulas_and_graphs_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    by_formulas = run(ADAM, N, callbacks=COUNTING)
    monkeypatch.setattr(loop, "mlp_layers", lambda *_: None)
    same(run(ADAM, N, callbacks=COUNTING), by_formulas)


def test_shards_count_what_one_pass_does() -> None:
    whole = run(ADAM, N, callbacks=COUNTING)
    parts = run(ADAM.model_copy(update={"shards": 4}), N, callbacks=COUNTING)
    np.testing.assert_array_equal(whole.forgotten, parts.forgotten)
