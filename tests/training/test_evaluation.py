"""Loss and error curves, evaluations, and counts of forgetting events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.config.sections.model import Cnn, Mlp, Model
from flexhpc.config.sections.training import Adam, Gd, Sam, Sgd, Training
from flexhpc.training import Callbacks
from flexhpc.training.budget import epoch_batch_sizes, epoch_order
from flexhpc.training.epoch_metrics import EpochMetrics, ForgettingCounter
from flexhpc.training.optimizers import perturb_weights, restore_weights
from tests.training.helpers import (
    CPU,
    SMALL,
    assert_outcomes_equal,
    build_seeded,
    probe_data,
    resume,
    run,
    run_with_model,
)

N, EPOCHS = 90, 12
ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=150)
SHORT = ADAM.model_copy(update={"epochs": EPOCHS, "precision": "fp64"})
EVALUATED = SHORT.model_copy(update={"curves": "evaluation"})
SAM = SHORT.model_copy(update={"sam": Sam(rho=0.2)})
GD = Gd(optimizer="gd", lr=0.5, epochs=EPOCHS, precision="fp64")
CNN = Cnn(family="cnn", width=4, depth=2)
TINY = Mlp(family="mlp", width=2, depth=1)
COUNT_FORGETTING = Callbacks(forgetting=True)


@pytest.mark.parametrize("model", [SMALL, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize(
    "training",
    [ADAM, Sgd(optimizer="sgd", epochs=150), Gd(optimizer="gd", momentum=0.9, epochs=150)],
)
def test_both_curves_detect_a_fit_in_the_same_epoch(training: Training, model: Model) -> None:
    batches, evaluated = (
        run(training.model_copy(update={"curves": curves}), 200, model=model, labels="original")
        for curves in ("batches", "evaluation")
    )
    assert batches.verdict == "fit"
    for key in ("verdict", "epochs", "steps", "cost", "n_errors", "loss"):
        assert getattr(batches, key) == getattr(evaluated, key), key
    np.testing.assert_array_equal(batches.fitted, evaluated.fitted)


def plain_loop(training: Training, model: Model, n: int) -> tuple[list[float], list[int], list]:
    """Return loss and errors of every epoch and the forgetting events of every sample."""
    data = probe_data(n)
    net = build_seeded(model, seed=data.init_seed).double()
    weights = list(net.parameters())
    optimizer: torch.optim.Optimizer = torch.optim.Adam(weights, lr=1e-2)
    if isinstance(training, Gd):
        optimizer = torch.optim.SGD(weights, lr=0.5, momentum=training.momentum)
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
            optimizer.step()
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
        (GD, SMALL, 1100), (SHORT.model_copy(update={"shards": 4}), SMALL, N),
    ],
    ids=["mlp", "cnn", "evaluated", "sam", "chunks", "shards"],
)  # fmt: skip
def test_curves_and_counts_equal_a_plain_loop(training: Training, model: Model, n: int) -> None:
    outcome = run(training, n, model=model, callbacks=COUNT_FORGETTING)
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
        ADAM.model_copy(update={"epochs": 20, "unconverged": "extend", "extend_to": 2.0}),
    ],
    ids=["budget", "extended"],
)
def test_a_training_run_that_does_not_fit_ends_with_an_evaluation(training: Training) -> None:
    outcome, model = run_with_model(training, 800, TINY)
    assert outcome.verdict in ("not_fit", "unconverged")
    data = probe_data(800)
    with torch.no_grad():
        logits = model(data.inputs)
    np.testing.assert_array_equal(outcome.fitted, logits.argmax(1) == data.labels)
    assert outcome.n_errors == (~outcome.fitted).sum() > 0
    assert outcome.loss == pytest.approx(float(functional.cross_entropy(logits, data.labels)))


def test_metrics_of_an_epoch_do_not_depend_on_an_interruption() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(700, 10), torch.randint(10, (700,)), torch.arange(700))] * 13
    whole, first, second = EpochMetrics(CPU), EpochMetrics(CPU), EpochMetrics(CPU)
    for number, batch in enumerate(batches):
        whole.add(*batch)
        if number == 11:
            second.load_state_dict(first.state_dict())
        (first if number < 11 else second).add(*batch)
    logits, labels, _ = batches[0]
    expected = whole.read_and_reset(13 * 700)
    assert expected[1] == 13 * int((logits.argmax(1) != labels).sum())
    assert second.read_and_reset(13 * 700) == expected


def test_errors_of_a_partial_epoch_are_scaled_to_all_samples() -> None:
    outcome = run(ADAM.model_copy(update={"epochs": None, "steps": 13}), 200, model=TINY)
    assert outcome.epochs == 2
    assert outcome.error_curve[1] > 100, "errors of six of seven batches"


def test_divergence_in_the_last_update_is_detected() -> None:
    """The losses of the batches are finite, but not the loss of the evaluation."""
    gd = Gd(optimizer="gd", lr=1e6, weight_decay=1e6, epochs=1, curves="batches")
    outcome = run(gd, 150, model=Cnn(family="cnn", width=4, depth=4))
    assert np.isfinite(outcome.loss_curve).all()
    assert (outcome.verdict, np.isfinite(outcome.loss)) == ("diverged", False)


def test_a_sequence_is_missed_if_any_token_is_wrong() -> None:
    forgetting = ForgettingCounter(2, CPU)
    metrics = EpochMetrics(CPU, prompt=1, forgetting=forgetting)
    labels = torch.tensor([[5, 1, 2], [5, 1, 2]])
    for tokens in ([[0, 1, 2], [5, 1, 0]], [[5, 1, 1], [0, 1, 2]]):
        logits = functional.one_hot(torch.tensor(tokens), 6).float().transpose(1, 2)
        metrics.add(logits, labels, torch.arange(2))
        assert metrics.read_and_reset(2)[1] == 1
    assert forgetting.events().tolist() == [1, 0]


@pytest.mark.parametrize("training", [SHORT, SAM, EVALUATED], ids=["adam", "sam", "evaluated"])
def test_counting_has_no_effect_and_is_resumed(training: Training, tmp_path: Path) -> None:
    plain, counted = run(training, N), run(training, N, callbacks=COUNT_FORGETTING)
    assert plain.forgotten is None
    np.testing.assert_array_equal(plain.fitted, counted.fitted)
    assert (plain.loss, plain.steps) == (counted.loss, counted.steps)
    assert_outcomes_equal(resume(training, N, [17], tmp_path / "c", counting=(True, True)), counted)
    assert_outcomes_equal(
        resume(training, N, [17], tmp_path / "without", counting=(False, True)), plain
    )
