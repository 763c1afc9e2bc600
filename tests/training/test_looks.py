"""Curves of an epoch's own batches, and looks that end with the first miss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from flexhpc.config.sections.gates import Gates, PlateauGate
from flexhpc.config.sections.model import Cnn, Mlp, Model
from flexhpc.config.sections.training import Adam, Gd, Sgd, Training
from flexhpc.models import build
from flexhpc.training import evaluation as evaluation_module
from flexhpc.training.batches import epoch_order, sizes_of
from flexhpc.training.epoch_metrics import SUSPECTS, EpochMetrics
from flexhpc.training.evaluation import Evaluation, Evaluator
from tests.training.helpers import SMALL, probe_data, run

ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=150, curves="batches")
CNN = Cnn(family="cnn", width=4, depth=2)
TINY = Mlp(family="mlp", width=2, depth=1)


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """Every evaluation of all samples that a training makes."""
    taken: list[Evaluation] = []
    whole = Evaluator.evaluate

    def evaluate(self: Evaluator) -> Evaluation:
        taken.append(whole(self))
        return taken[-1]

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    return taken


@pytest.mark.parametrize("model", [SMALL, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize(
    "training", [ADAM, Sgd(optimizer="sgd", epochs=150), Gd(optimizer="gd", lr=0.5, epochs=150)]
)
def test_the_first_fit_is_found_where_every_look_finds_it(
    training: Training, model: Model, evaluations: list[Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights, so the same mask; with fewer looks at all samples than epochs."""
    monkeypatch.setattr(evaluation_module, "_FEW", 10)
    n = 40
    close = run(training.model_copy(update={"curves": "batches"}), n, model=model)
    taken = len(evaluations)
    every = run(training.model_copy(update={"curves": "looks"}), n, model=model)
    for key in ("verdict", "epochs", "steps", "cost", "n_errors", "loss"):
        assert getattr(close, key) == getattr(every, key), key
    np.testing.assert_array_equal(close.fitted, every.fitted)
    assert taken < len(evaluations) - taken


def test_the_curves_are_those_of_the_batches() -> None:
    """Each before its own update, against a plain loop."""
    training = ADAM.model_copy(update={"epochs": 6, "precision": "fp64"})
    outcome = run(training, 70)
    data = probe_data(70)
    torch.manual_seed(data.init_seed)
    network = build(SMALL, (1, 8, 8), 10).double()
    update = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses, errors = [], []
    for epoch in range(6):
        order = torch.from_numpy(epoch_order(70, data.order_seed, epoch))
        loss_sum, missed = 0.0, 0
        for ids in order.split(sizes_of(training, 70)):
            logits = network(data.inputs[ids].double())
            loss = functional.cross_entropy(logits, data.labels[ids])
            loss_sum += loss.item() * len(ids)
            missed += int((logits.argmax(1) != data.labels[ids]).sum())
            update.zero_grad()
            loss.backward()
            update.step()
        losses.append(loss_sum / 70)
        errors.append(missed)
    np.testing.assert_allclose(outcome.loss_curve, losses, rtol=1e-6)
    np.testing.assert_array_equal(outcome.error_curve, errors)


@pytest.mark.parametrize(
    "training",
    [
        ADAM.model_copy(update={"epochs": 23}),
        ADAM.model_copy(update={"epochs": 1000, "gates": Gates(plateau=PlateauGate(patience=50))}),
        ADAM.model_copy(update={"epochs": 20, "unconverged": "extend", "extend_to": 2.0}),
    ],
    ids=["budget", "plateau", "extended"],
)
def test_there_is_a_look_wherever_training_may_end(
    training: Training, evaluations: list[Evaluation]
) -> None:
    outcome = run(training, 800, model=TINY)
    assert outcome.verdict in ("not_fit", "unconverged")
    assert outcome.n_errors == evaluations[-1].errors == (~outcome.fitted).sum() > 0
    assert outcome.loss == evaluations[-1].loss
    assert len(evaluations) < outcome.epochs


def test_running_sums_do_not_depend_on_where_an_epoch_was_interrupted() -> None:
    torch.manual_seed(0)
    batches = [
        (torch.randn(700, 10), torch.randint(10, (700,)), torch.arange(700)) for _ in range(23)
    ]
    straight, first = (EpochMetrics(torch.device("cpu")) for _ in range(2))
    for batch in batches:
        straight.add(*batch)
    expected = straight.read(23 * 700)
    for stop in (1, 10, 13):
        for batch in batches[:stop]:
            first.add(*batch)
        second = EpochMetrics(torch.device("cpu"))
        second.load(first.state())
        for batch in batches[stop:]:
            second.add(*batch)
        assert second.read(23 * 700) == expected
        first.read(700)
    fitted = batches[-1][0].argmax(1) == batches[-1][1]
    assert len(straight.missed_late()) == SUSPECTS
    assert straight.missed_late().tolist() == (~fitted).nonzero().flatten()[-SUSPECTS:].tolist()
    missed = sum(int((x.argmax(1) != y).sum()) for x, y, _ in batches)
    assert expected[1] == missed


def test_a_budget_that_ends_within_an_epoch_misses_no_fewer() -> None:
    outcome = run(ADAM.model_copy(update={"epochs": None, "steps": 13}), 200, model=TINY)
    assert outcome.epochs == 2
    assert outcome.error_curve[1] > 100, "six batches of seven missed most of theirs"


def test_weights_that_break_in_the_last_update_have_diverged() -> None:
    """The losses of the batches were finite; the look is not."""
    gd = Gd(optimizer="gd", lr=1e6, weight_decay=1e6, epochs=1, curves="batches")
    broken = run(gd, 150, model=Cnn(family="cnn", width=4, depth=4))
    assert np.isfinite(broken.loss_curve).all()
    assert (broken.verdict, np.isfinite(broken.loss)) == ("diverged", False)
