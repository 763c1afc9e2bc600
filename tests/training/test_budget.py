"""Every budget in updates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flexhpc.config.sections.gates import Gates, PlateauGate
from flexhpc.config.sections.training import Adam, Gd, Sam, Sgd
from flexhpc.training import Callbacks
from flexhpc.training.batches import batch_sizes
from flexhpc.training.budget import extended, updates
from tests.training.helpers import run

NO_PLATEAU = Gates(plateau=PlateauGate(mode="off"))


@given(st.integers(1, 5_000), st.integers(1, 600), st.integers(1, 10**6))
def test_a_budget_in_gradient_evaluations_is_kept(n: int, batch: int, allowed: int) -> None:
    sizes = batch_sizes(n, batch)
    training = Sgd(optimizer="sgd", gradient_evaluations=allowed)
    steps = updates(training, sizes)
    epochs, rest = divmod(steps, len(sizes))
    used = epochs * n + sum(sizes[:rest])
    following = sizes[rest]
    assert steps == 1 or used <= allowed
    assert used + following > allowed


def test_sgd_and_full_batch_gd_compare_in_each_sense() -> None:
    """At equal epochs or gradient evaluations SGD makes more updates, at equal steps GD costs more.

    50 epochs of 100 samples in batches of 10, against the whole batch.
    """
    never = {"gates": NO_PLATEAU, "lr": 1e-4}
    by = {
        "epochs": {"epochs": 50},
        "steps": {"steps": 50},
        "gradients": {"gradient_evaluations": 5_000},
    }
    sgd = {k: run(Sgd(optimizer="sgd", batch_size=10, **v, **never), 100) for k, v in by.items()}
    gd = {k: run(Gd(optimizer="gd", **v, **never), 100) for k, v in by.items()}
    assert (sgd["epochs"].steps, gd["epochs"].steps) == (500, 50)
    assert sgd["epochs"].cost == gd["epochs"].cost == 5_000
    assert (sgd["steps"].cost, gd["steps"].cost) == (500, 5_000)
    assert (sgd["gradients"].steps, gd["gradients"].steps) == (500, 50)


def test_until_convergence_ends_at_the_plateau_only() -> None:
    gates = Gates(plateau=PlateauGate(patience=20))
    training = Adam(optimizer="adam", lr=1e-2, until="convergence", gates=gates)
    seen: list[int] = []
    outcome = run(
        training, 1_200, callbacks=Callbacks(on_progress=lambda found: seen.append(found["epochs"]))
    )
    assert outcome.verdict == "not_fit"
    assert outcome.readings["plateau_epochs"] == 20
    assert set(seen) == {0}


def test_a_probe_that_still_improves_gets_a_larger_budget_up_to_a_cap() -> None:
    base = {"optimizer": "adam", "lr": 2e-3, "epochs": 10, "batch_size": 64}
    short = run(Adam(**base), 200)
    assert short.verdict == "unconverged"
    capped = run(Adam(**base, unconverged="extend", extend_to=3.0), 200)
    assert capped.verdict == "unconverged"
    assert capped.epochs == 30
    assert capped.readings["extended_to_steps"] == 30 * 4
    long = run(Adam(**base, unconverged="extend", extend_to=1000.0), 200)
    assert long.verdict == "fit"
    assert long.epochs > 30


@given(st.integers(1, 1_000), st.floats(1.01, 50))
def test_a_budget_doubles_to_its_cap(first: int, factor: float) -> None:
    training = Adam(optimizer="adam", unconverged="extend", extend_to=factor)
    allowed, seen = first, [first]
    while (more := extended(training, allowed, first)) is not None:
        assert allowed < more <= 2 * allowed
        allowed = more
        seen.append(more)
    assert allowed == max(first, int(first * factor))
    assert extended(Adam(optimizer="adam"), first, first) is None


def test_sharpness_aware_minimization_costs_two_gradients() -> None:
    plain = run(Sgd(optimizer="sgd", epochs=3, gates=NO_PLATEAU), 100)
    sam = run(Sgd(optimizer="sgd", epochs=3, gates=NO_PLATEAU, sam=Sam()), 100)
    assert sam.cost == 2 * plain.cost
    assert sam.steps == plain.steps
    assert updates(Sgd(optimizer="sgd", gradient_evaluations=600, sam=Sam()), [100]) == 3
