"""Record the updates at which training runs fit, up to 32 times the budget of a search.

Usage: python -m bench.search.budgets.record [MODEL ...]
Takes several hours of one core; if interrupted, the same command resumes.

Each model is a spec next to this file, with a constant learning rate; ``training.steps`` is the
budget of its search. A training run with a smaller budget is then the beginning of one with a
larger budget, so one recorded training run gives verdict, updates and missed samples at every
budget. Writes one file per model.
"""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.search.record import FIRST_REPEAT, pilot_emc
from flexhpc.config import Training, load_points
from flexhpc.config.sections.gates import Gates, GradientGate, PlateauGate
from flexhpc.data import load_samples
from flexhpc.measuring.probe import choose_device, run_probe
from flexhpc.search import Probe
from flexhpc.store import ProbeRecord
from flexhpc.training import Callbacks, Group, Outcome
from flexhpc.training.budget import epoch_batch_sizes
from flexhpc.training.gates import Plateau, is_unstable, patience_in_updates

MODELS = Path(__file__).parent
DOUBLINGS = np.arange(-5, 6)
"""log2(recorded budget / budget of the search)."""
REPEATS, MORE_REPEATS = 16, 32
WIDE_CURVES = ("mlp_narrow", "original")
"""Models with wide fit curves, which need ``MORE_REPEATS`` training runs at each n."""
SIZES = 12
RANGE = 4.0
"""Recorded n lie between EMC / RANGE and EMC * RANGE, where a pilot search gives the EMC."""
START_DIVISORS = (24, 15, 9.6, 6.2)
"""Training runs are also recorded at the EMC divided by these numbers, where searches start."""
VERDICTS = ("fit", "not_fit", "unconverged", "unstable", "diverged")


def with_largest_budget(training: Training) -> Training:
    """Return training settings with the largest recorded budget and without early stopping."""
    assert training.steps is not None
    factor = 2 ** int(DOUBLINGS.max())
    gates = Gates(plateau=PlateauGate(mode="off"), gradient=GradientGate(mode="off"))
    return training.model_copy(update={"steps": factor * training.steps, "gates": gates})


def outcome_at_budget(
    training: Training, n: int, probe: ProbeRecord | Outcome, budget: int
) -> tuple[int, int, int]:
    """Return the outcome that a recorded training run would have with a smaller budget (updates).

    Returns:
        Index of the verdict in ``VERDICTS``, number of updates, number of missed samples.
    """
    updates_per_epoch = len(epoch_batch_sizes(training, n))
    if probe.verdict == "fit" and probe.steps <= budget:
        return VERDICTS.index("fit"), probe.steps, 0
    gate, plateau = training.gates.plateau, Plateau(tolerance=training.gates.plateau.tolerance)
    epochs, steps, at_plateau = 0, 0, False
    while steps < budget and not at_plateau:
        updates = min(updates_per_epoch, budget - steps)
        epoch = min(epochs, len(probe.loss_curve) - 1)
        loss = float(probe.loss_curve[epoch])
        if not np.isfinite(loss):
            return VERDICTS.index("diverged"), steps + updates, n
        plateau.update(loss, int(probe.error_curve[epoch]), updates)
        epochs, steps = epochs + 1, steps + updates
        at_plateau = plateau.updates >= patience_in_updates(gate, budget, updates_per_epoch)
    losses = [float(loss) for loss in probe.loss_curve[:epochs]]
    start = max(probe.metrics.get("loss_start", losses[0]), losses[0])
    failure = "not_fit" if at_plateau else "unconverged"
    if is_unstable(training.gates.stability, start, losses):
        failure = "unstable"
    missed = max(int(probe.error_curve[min(epochs, len(probe.error_curve)) - 1]), 1)
    return VERDICTS.index(failure), steps, missed


def record(name: str) -> None:
    """Record the missing training runs of a model; write the file after each pass over all n."""
    group = Group(choose_device(threads=1))
    _, (point,) = load_points(MODELS / f"{name}.yaml")
    samples = load_samples(point.data, point.seed)
    training = point.training
    assert isinstance(training, Training)
    assert training.steps is not None
    path = MODELS / f"{name}.npz"
    rows: list[list[int]] = []
    if path.exists():
        with np.load(path) as file:
            emc, rows = int(file["pilot"]), file["rows"].tolist()
    else:
        emc = max(pilot_emc(point, samples, group), 4)
    sizes = np.geomspace(emc / RANGE, emc * RANGE, SIZES)
    sizes = np.concatenate((emc / np.array(START_DIVISORS), sizes))
    sizes = np.unique(sizes.round().astype(int))
    sizes = sizes[(sizes >= 2) & (sizes <= samples.n_limit)]
    recorded = {(n, repeat) for n, repeat, *_ in rows}
    repeats = MORE_REPEATS if name in WIDE_CURVES else REPEATS
    tasks = [(int(n), repeat) for repeat in range(repeats) for n in sizes]
    longest = with_largest_budget(training)
    longest_point = replace(
        point, training=longest, arms=tuple(replace(arm, training=longest) for arm in point.arms)
    )
    budgets = [int(training.steps * 2.0**doublings) for doublings in DOUBLINGS]
    for n, repeat in tasks:
        if (n, repeat) in recorded:
            continue
        probe = Probe(n, FIRST_REPEAT + repeat)
        result = run_probe(longest_point, samples, probe, None, group, Callbacks())
        outcomes = [outcome_at_budget(training, n, result, budget) for budget in budgets]
        rows.append([n, repeat, *(value for outcome in outcomes for value in outcome)])
        if len(rows) % len(sizes) == 0 or len(rows) == len(tasks):
            _write(path, emc, training.steps, rows)
            print(f"{name}: {len(rows)} of {len(tasks)}", flush=True)


def _write(path: Path, pilot: int, steps: int, rows: list[list[int]]) -> None:
    """Replace a file. Rows: n, repeat; verdict, updates and missed samples at each budget."""
    new = path.with_suffix(".new.npz")
    np.savez_compressed(
        new, pilot=np.int64(pilot), budget=np.int64(steps), rows=np.array(rows, np.int64)
    )
    assert zipfile.is_zipfile(new)
    new.replace(path)


if __name__ == "__main__":
    for model in sys.argv[1:] or sorted(path.stem for path in MODELS.glob("*.yaml")):
        record(model)
