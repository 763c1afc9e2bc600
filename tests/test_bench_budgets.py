"""Recorded training runs: their outcome at smaller budgets."""

from __future__ import annotations

from dataclasses import replace

import torch

from bench.search.budgets.record import MODELS, VERDICTS, outcome_at_budget, with_largest_budget
from flexhpc.config import Point, Training, load_points
from flexhpc.data import load_samples
from flexhpc.measuring.probe import run_training
from flexhpc.search import Probe
from flexhpc.training import Callbacks, Group, Outcome


def test_a_long_training_run_gives_the_outcomes_of_smaller_budgets() -> None:
    _, (point,) = load_points(MODELS / "mlp_relu.yaml")
    samples = load_samples(point.data, point.seed)
    group = Group(torch.device("cpu"))

    def train(point: Point, training: Training) -> Outcome:
        changed = replace(point, training=training)
        return run_training(changed, samples, Probe(70, 0), group, Callbacks())[0]

    for steps in (60, 120, 240):
        training = point.training.model_copy(update={"steps": steps})
        long = train(point, with_largest_budget(training.model_copy(update={"steps": 60})))
        short = train(point, training)
        verdict, updates, missed = outcome_at_budget(training, 70, long, steps)
        assert (VERDICTS[verdict] == "fit") == (short.verdict == "fit")
        assert updates == short.steps
        assert (missed == 0) == (short.n_errors == 0)
    assert long.verdict == "fit"
