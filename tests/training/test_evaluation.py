"""Curves of batches, evaluations, and counts of forgetting events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.config.sections.gates import Gates, PlateauGate
from flexhpc.config.sections.model import Cnn, Mlp, Model
from flexhpc.config.sections.training import Adam, Gd, Sam, Sgd, Training
from flexhpc.models import build
from flexhpc.training import Callbacks, loop
from flexhpc.training import evaluation as evaluation_module
from flexhpc.training.budget import epoch_batch_sizes, epoch_order
from flexhpc.training.epoch_metrics import SUSPECTS, EpochMetrics, Forgetting
from flexhpc.training.evaluation import Evaluation, Evaluator
from flexhpc.training.optimizers import perturb_weights, restore_weights
from tests.training.helpers import SMALL, probe_data, resume, run, same

N, EPOCHS = 90, 12
ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=150)
SHORT = ADAM.model_copy(update={"epochs": EPOCHS, "precision": "fp64"})
EVALUATED = SHORT.model_copy(update={"curves": "evaluation"})
SAM = SHORT.model_copy(update={"sam": Sam(rho=0.2)})
GD = Gd(optimizer="gd", lr=0.5, epochs=EPOCHS, precision="fp64")
CNN = Cnn(family="cnn", width=4, depth=2)
TINY = Mlp(family="mlp", width=2, depth=1)
COUNTING = Callbacks(forgetting=True)
CPU = torch.device("cpu")


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """Return a list to which every evaluation of all samples is added."""
    results: list[Evaluation] = []
    original = Evaluator.evaluate

    def evaluate(self: Evaluator) -> Evaluation:
        results.append(original(self))
        return results[-1]

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    return results


@pytest.mark.parametrize("model", [SMALL, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize(
    "training", [ADAM, Sgd(optimizer="sgd", epochs=150), Gd(optimizer="gd", lr=0.5, epochs=150)]
)
def test_a_fit_is_detected_in_the_same_epoch_with_both_curves(
    training: Training, model: Model, evaluations: list[Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer evaluations of all samples than epochs."""
    monkeypatch.setattr(evaluation_module, "_ALWAYS_ALL", 10)
    batches = run(training.model_copy(update={"curves": "batches"}), 40, model=model)
    count = len(evaluations)
    evaluated = run(training.model_copy(update={"curves": "evaluation"}), 40, model=model)
    for key in ("verdict", "epochs", "steps", "cost", "n_errors", "loss"):
        assert getattr(batches, key) == getattr(evaluated, key), key
    np.testing.assert_array_equal(batches.fitted, evaluated.fitted)
    assert count < len(evaluations) - count


def plain_loop(training: Training, model: Model, n: int) -> tuple[list[float], list[int], list]:
    """Return loss and errors of every epoch and the forgetting events of every sample."""
    data = probe_data(n)
    torch.manual_seed(data.init_seed)
    net = build(model, (1, 8, 8), 10).double()
    weights = list(net.parameters())
    update: torch.optim.Optimizer = torch.optim.Adam(weights, lr=1e-2)
    if isinstance(training, Gd):
        update = torch.optim.SGD(weights, lr=0.5, momentum=training.momentum)
    was_correct, events = [False] * n, [-1] * n
    losses, errors = [0.0] * EPOCHS, [0] * EPOCHS

    def evaluate(epoch: int, ids: Tensor) -> None:
        logits, labels = net(data.inputs[ids].double()), data.labels[ids]
        losses[epoch] += functional.cross_entropy(logits, labels, reduction="sum").item() / n
        correct = logits.argmax(1) == labels
        errors[epoch] += int((~correct).sum())
        for sample, is_correct in zip(ids.tolist(), correct.tolist(), strict=True):
            if is_correct:
                events[sample] = max(events[sample], 0)
            elif was_correct[sample]:
                events[sample] += 1
            was_correct[sample] = is_correct

    for epoch in range(EPOCHS):
        order = torch.from_numpy(epoch_order(n, data.order_seed, epoch))
        for ids in order.split(epoch_batch_sizes(training, n)):
            if training.curves == "batches":
                evaluate(epoch, ids)
            loss_gradient(net, data.inputs[ids], data.labels[ids])
            if training.sam is not None:
                previous = perturb_weights(weights, training.sam.rho)
                loss_gradient(net, data.inputs[ids], data.labels[ids])
                restore_weights(weights, previous)
            update.step()
        if training.curves == "evaluation":
            evaluate(epoch, torch.arange(n))
    return losses, errors, events


def loss_gradient(net: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    net.zero_grad()
    functional.cross_entropy(net(inputs.double()), labels).backward()


@pytest.mark.parametrize(
    ("training", "model", "n"),
    [
        (SHORT, SMALL, N), (SHORT, CNN, N), (EVALUATED, SMALL, N), (SAM, SMALL, N),
        (GD, SMALL, 1100),
    ],
    ids=["mlp", "cnn", "evaluated", "sam", "chunks"],
)  # fmt: skip
def test_curves_and_counts_equal_those_of_a_plain_loop(
    training: Training, model: Model, n: int
) -> None:
    outcome = run(training, n, model=model, callbacks=COUNTING)
    losses, errors, events = plain_loop(training, model, n)
    np.testing.assert_allclose(outcome.loss_curve, losses, rtol=1e-6)
    np.testing.assert_array_equal(outcome.error_curve, errors)
    np.testing.assert_array_equal(outcome.forgotten, events)
    assert max(events) > 0
    if n > N:
        assert min(events) == -1, "some samples are never correct"


@pytest.mark.parametrize(
    "training",
    [
        ADAM.model_copy(update={"epochs": 23}),
        ADAM.model_copy(update={"epochs": 1000, "gates": Gates(plateau=PlateauGate(patience=50))}),
        ADAM.model_copy(update={"epochs": 20, "unconverged": "extend", "extend_to": 2.0}),
    ],
    ids=["budget", "plateau", "extended"],
)
def test_a_failed_training_ends_with_an_evaluation(
    training: Training, evaluations: list[Evaluation]
) -> None:
    outcome = run(training, 800, model=TINY)
    assert outcome.verdict in ("not_fit", "unconverged")
    assert outcome.n_errors == evaluations[-1].errors == (~outcome.fitted).sum() > 0
    assert outcome.loss == evaluations[-1].loss
    assert len(evaluations) < outcome.epochs


def test_metrics_do_not_depend_on_an_interruption() -> None:
    torch.manual_seed(0)
    batches = [
        (torch.randn(700, 10), torch.randint(10, (700,)), torch.arange(700)) for _ in range(23)
    ]
    whole, first = EpochMetrics(CPU), EpochMetrics(CPU)
    for batch in batches:
        whole.add(*batch)
    expected = whole.read(23 * 700)
    for stop in (1, 10, 13):
        for batch in batches[:stop]:
            first.add(*batch)
        second = EpochMetrics(CPU)
        second.load(first.state())
        for batch in batches[stop:]:
            second.add(*batch)
        assert second.read(23 * 700) == expected
        first.read(700)
    wrong = batches[-1][0].argmax(1) != batches[-1][1]
    assert whole.recently_missed().tolist() == wrong.nonzero().flatten()[-SUSPECTS:].tolist()
    assert expected[1] == sum(int((x.argmax(1) != y).sum()) for x, y, _ in batches)


def test_errors_of_a_partial_epoch_are_scaled_to_all_samples() -> None:
    outcome = run(ADAM.model_copy(update={"epochs": None, "steps": 13}), 200, model=TINY)
    assert outcome.epochs == 2
    assert outcome.error_curve[1] > 100, "six batches of seven missed most of theirs"


def test_divergence_in_the_last_update_is_detected() -> None:
    """The losses of the batches are finite, that of the evaluation is not."""
    gd = Gd(optimizer="gd", lr=1e6, weight_decay=1e6, epochs=1, curves="batches")
    outcome = run(gd, 150, model=Cnn(family="cnn", width=4, depth=4))
    assert np.isfinite(outcome.loss_curve).all()
    assert (outcome.verdict, np.isfinite(outcome.loss)) == ("diverged", False)


def test_forgetting_events_by_hand() -> None:
    forgetting = Forgetting(4, CPU)
    ids = torch.tensor([3, 1, 0])
    for wrong in ([1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]):
        forgetting.update(ids, torch.tensor(wrong, dtype=torch.bool))
    assert forgetting.events().tolist() == [2, 1, -1, -1]


def test_a_sequence_is_missed_if_any_token_is_wrong() -> None:
    forgetting = Forgetting(2, CPU)
    metrics = EpochMetrics(CPU, prompt=1, forgetting=forgetting)
    labels = torch.tensor([[5, 1, 2], [5, 1, 2]])
    for tokens in ([[0, 1, 2], [5, 1, 0]], [[5, 1, 1], [0, 1, 2]]):
        logits = functional.one_hot(torch.tensor(tokens), 6).float().transpose(1, 2)
        metrics.add(logits, labels, torch.arange(2))
        assert metrics.read(2)[1] == 1
    assert forgetting.events().tolist() == [1, 0]


@pytest.mark.parametrize("training", [SHORT, SAM, EVALUATED], ids=["adam", "sam", "evaluated"])
def test_counting_has_no_effect_and_is_resumed(training: Training, tmp_path: Path) -> None:
    plain, counted = run(training, N), run(training, N, callbacks=COUNTING)
    assert plain.forgotten is None
    np.testing.assert_array_equal(plain.fitted, counted.fitted)
    assert (plain.loss, plain.steps) == (counted.loss, counted.steps)
    same(resume(training, N, [17], tmp_path / "c", counting=(True, True)), counted)


@pytest.mark.parametrize("training", [SHORT, EVALUATED], ids=["batches", "evaluated"])
def test_a_checkpoint_without_counts_is_resumed_without(training: Training, tmp_path: Path) -> None:
    resumed = resume(training, N, [17], tmp_path / "c", counting=(False, True))
    same(resumed, run(training, N))


def test_counts_with_autograd_and_in_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    manual = run(SHORT, N, callbacks=COUNTING)
    shards = run(SHORT.model_copy(update={"shards": 4}), N, callbacks=COUNTING)
    np.testing.assert_array_equal(manual.forgotten, shards.forgotten)
    monkeypatch.setattr(loop, "mlp_layers", lambda *_: None)
    same(run(SHORT, N, callbacks=COUNTING), manual)
