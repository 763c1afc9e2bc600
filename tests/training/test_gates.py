"""Convergence gates, SAM, label smoothing and gradient clipping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from flexhpc.config.sections.gates import Gates, PlateauGate, StabilityGate
from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Adam, Gd, Sam, Sgd
from flexhpc.training import Outcome
from flexhpc.training.gates import Plateau, is_unstable, patience_in_updates
from tests.training.helpers import SMALL, build_seeded, probe_data, run, run_with_model

SHORT = {"optimizer": "adam", "lr": 3e-3, "epochs": 8, "batch_size": 64}
TINY = Mlp(family="mlp", width=4, depth=1, activation="tanh")


def short_run(**gates: object) -> Outcome:
    """Train with a budget at whose end the loss still improves."""
    return run(Adam(**SHORT, gates=Gates(**gates)), 200, model=TINY)


def test_default_gates_do_not_reject() -> None:
    outcome = short_run()
    assert (outcome.verdict, outcome.rejected) == ("unconverged", False)
    assert outcome.metrics["touched_plateau"] == 1
    assert outcome.metrics["touched_gradient"] in (0, 1)
    assert "min_ritz" not in outcome.metrics
    assert "touched_curvature" not in outcome.metrics


def test_the_plateau_gate_rejects_improving_training_runs() -> None:
    outcome = short_run(plateau="reject")
    assert (outcome.verdict, outcome.rejected) == ("unconverged", True)
    fitting = run(Adam(optimizer="adam", lr=1e-2, gates=Gates(plateau="reject")), 30)
    assert (fitting.verdict, fitting.rejected) == ("fit", False)
    assert not any(name.startswith("touched") for name in fitting.metrics)


def test_the_gradient_gate_compares_with_the_initial_norm() -> None:
    reported = short_run(gradient="report")
    ratio = reported.metrics["gradient_norm"] / reported.metrics["gradient_norm_start"]
    data = probe_data(200)
    network = build_seeded(TINY, seed=data.init_seed)
    functional.cross_entropy(network(data.inputs), data.labels).backward()
    norm = torch.cat([p.grad.reshape(-1) for p in network.parameters()]).norm()
    assert reported.metrics["gradient_norm_start"] == pytest.approx(float(norm), rel=1e-4)
    assert 0 < ratio < 1
    for tolerance, rejected in ((ratio * 0.99, True), (min(ratio * 1.01, 0.999), False)):
        gate = {"mode": "reject", "tolerance": tolerance}
        outcome = short_run(gradient=gate, plateau="off")
        assert outcome.rejected is rejected
        assert outcome.verdict == ("unconverged" if rejected else "not_fit")
        assert outcome.metrics["touched_gradient"] == rejected


@pytest.mark.parametrize("mode", ["report", "reject"])
def test_the_curvature_gate_detects_saddles(mode: str) -> None:
    outcome = short_run(curvature={"mode": mode, "products": 400})
    metrics = outcome.metrics
    assert metrics["min_ritz"] < 0 < metrics["max_ritz"]
    assert 0 < metrics["hessian_products"] <= 400
    negative = metrics["min_ritz"] < -1e-3 * metrics["max_ritz"]
    assert metrics["touched_curvature"] == negative == 1
    assert outcome.rejected is (mode == "reject")
    assert outcome.verdict == ("saddle" if mode == "reject" else "unconverged")


def test_a_linear_network_has_no_saddle() -> None:
    """Its loss is convex."""
    linear = Mlp(family="mlp", width=1, depth=0)
    gates = Gates(curvature={"mode": "reject", "products": 700})
    outcome = run(Adam(**SHORT, gates=gates), 400, model=linear)
    assert outcome.verdict == "unconverged"
    assert outcome.metrics["touched_curvature"] == 0
    assert outcome.metrics["min_ritz"] > -1e-9


def test_gates_do_not_affect_training() -> None:
    without = short_run(gradient="off")
    curvature = short_run(curvature="report")
    np.testing.assert_array_equal(without.loss_curve, curvature.loss_curve)
    np.testing.assert_array_equal(without.fitted, curvature.fitted)


@pytest.mark.parametrize(
    "options", [{"sam": Sam(rho=0.2)}, {"label_smoothing": 0.2}, {"clip_norm": 1e-3}], ids=str
)
def test_an_update_follows_its_formula(options: dict[str, Any]) -> None:
    """SAM, label smoothing, and clipping of all gradients as one vector, in float64."""
    data = probe_data(50)
    inputs, labels = data.inputs.double(), data.labels
    network = build_seeded(SMALL, seed=data.init_seed).double()
    parameters = list(network.parameters())
    before = [p.detach().clone() for p in parameters]
    plain = functional.cross_entropy(network(inputs), labels).item()
    smooth = torch.full((50, 10), options.get("label_smoothing", 0) / 10, dtype=torch.float64)
    smooth[torch.arange(50), labels] += 1 - options.get("label_smoothing", 0)

    def gradients() -> tuple[torch.Tensor, ...]:
        loss = -(smooth * network(inputs).log_softmax(dim=1)).sum(dim=1).mean()
        return torch.autograd.grad(loss, parameters)

    expected = gradients()
    norm = torch.sqrt(sum(g.square().sum() for g in expected))
    if "sam" in options:
        with torch.no_grad():
            for p, g in zip(parameters, expected, strict=True):
                p += 0.2 * g / norm
        expected = gradients()
    if "clip_norm" in options:
        expected = tuple(1e-3 * g / (norm + 1e-6) for g in expected)  # as torch does
    gd = Gd(optimizer="gd", lr=0.3, epochs=1, precision="fp64", **options)
    _, trained = run_with_model(gd, 50)
    for weight, start, g in zip(trained.parameters(), before, expected, strict=True):
        torch.testing.assert_close(weight.detach(), start - 0.3 * g, rtol=1e-9, atol=1e-12)
    unmoved = run(gd.model_copy(update={"lr": 1e-12}), 50)
    assert unmoved.loss == pytest.approx(plain, rel=1e-9), "without label smoothing"


def test_sam_updates_running_statistics_once() -> None:
    model = Mlp(family="mlp", width=6, depth=1, norm="batch")
    buffers = []
    for sam in (None, Sam(rho=5.0)):
        _, trained = run_with_model(Sgd(optimizer="sgd", lr=1e-9, epochs=1, sam=sam), 50, model)
        buffers.append([b.clone() for b in trained.buffers() if b.is_floating_point()])
    for plain, sam in zip(*buffers, strict=True):
        torch.testing.assert_close(plain, sam)


def test_a_loss_that_rises_again_is_unstable() -> None:
    """Full-batch GD with a large learning rate; the CPU determines which losses explode."""
    training = Gd(optimizer="gd", lr=0.5, momentum=0.9, steps=1000)
    model = Mlp(family="mlp", width=16, depth=2)
    outcomes = [run(training, 362, model=model, repeat=repeat) for repeat in range(4)]
    unstable_repeats = [i for i, outcome in enumerate(outcomes) if outcome.verdict == "unstable"]
    assert len(unstable_repeats) >= 2
    for outcome in (outcomes[i] for i in unstable_repeats):
        start, losses = outcome.metrics["loss_start"], outcome.loss_curve
        assert not outcome.rejected
        assert outcome.metrics["touched_stability"] == 1
        assert outcome.metrics["loss_best"] == pytest.approx(losses.min(), rel=1e-6)
        assert losses.min() < 0.75 * start
        increase = losses[losses.argmin() :].max() - losses.min()
        assert increase > StabilityGate().given_back * (start - losses.min())
    for mode, verdicts in (("off", ("not_fit", "unconverged")), ("reject", ("unstable",))):
        gated = training.model_copy(update={"gates": Gates(stability=mode)})
        outcome = run(gated, 362, model=model, repeat=unstable_repeats[0])
        assert outcome.verdict in verdicts
        assert outcome.rejected is (mode == "reject")


@pytest.mark.parametrize(
    ("start", "losses", "expected"),
    [
        (2.3, [2.0, 1.0, 0.5, 0.4], False),
        (2.3, [2.0, 0.3, 0.39, 0.42, 0.4, 0.39, 0.4], False),
        (2.3, [2.0, 0.3, 1.0, 1.1, 1.0, 1.2, 1.0], True),
        (2.3, [2.0, 0.3, 1.0, 1.1, 1.0, 0.35, 1.0], False),
        (2.3, [2.35, 2.5, 2.4, 2.4, 2.4, 2.4, 2.4], True),
        (2.3, [2.0, 0.5, 3.2, 1.0, 0.6, 0.55, 0.52, 0.51, 0.51], True),
        (2.3, [2.29, 2.28, 2.4, 2.28, 2.28, 2.28, 2.28], False),
        (2.3, [0.002, 0.03, 0.03, 0.03, 0.03, 0.03], False),
        (2.3, [0.001, 2.3, 2.3, 2.3, 2.3, 2.3], True),
    ],
)
def test_losses_that_rise_or_explode_are_unstable(
    start: float, losses: list[float], expected: bool
) -> None:
    assert is_unstable(StabilityGate(), start, losses) is expected


def test_patience_is_in_updates() -> None:
    """And not in epochs, since an epoch of full-batch GD is one update."""
    gate = PlateauGate()
    assert patience_in_updates(gate, None, 7) == 1000
    assert patience_in_updates(gate, 300, 1) == 150
    assert patience_in_updates(gate, 3000, 8) == patience_in_updates(gate, 3000, 1) == 1000
    assert patience_in_updates(gate, 50_000, 8) == 10_000
    assert patience_in_updates(PlateauGate(patience=50), 3000, 8) == 400
    few, many = Plateau(tolerance=1e-3), Plateau(tolerance=1e-3)
    for _ in range(8):
        few.update(1.0, 5, 1)
    many.update(1.0, 5, 8)
    many.update(1.0, 5, 8)
    assert (few.epochs, few.updates) == (7, 7)
    assert (many.epochs, many.updates) == (1, 8)
    many.update(0.5, 5, 8)
    assert (many.epochs, many.updates) == (0, 0)
