"""Measure the generalization of a point's model: retrain it and evaluate it on the test set."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.config import Point, Training
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.gates import CurvatureGate, GradientGate
from flexhpc.config.sections.training import BUDGETS
from flexhpc.data import Samples, TestSet, load_test_set
from flexhpc.errors import PointError
from flexhpc.measuring.probe import logits_of, run_training
from flexhpc.search import Probe
from flexhpc.seeds import derive_seed
from flexhpc.training import Callbacks, Group

_BINS = 15


def evaluation_size(config: Evaluate, samples: Samples) -> int:
    """Return the number of training samples of an evaluation; ``data.n_max`` does not limit it.

    Raises:
        PointError: the data set has fewer samples than ``evaluate.n``.
    """
    available = len(samples.pool)
    if config.n is not None and config.n > available:
        raise PointError(
            f"evaluate.n: {config.n} is more than the {available} training samples of "
            f"{samples.source.name}; use fewer, or set full: true instead of n"
        )
    return config.n or available


def evaluation_training(config: Evaluate, training: Training) -> Training:
    """Return the training settings of an evaluation, derived from the settings of the probes.

    If ``evaluate`` sets a budget, it replaces the budget of the probes, even if one budget is in
    epochs and the other in steps. It is not extended, and a cosine schedule spans all of it. With a
    constant learning rate, training may stop before the end of the budget, at a plateau. The
    gradient and curvature gates are off, because their metrics would not be used.
    """
    gates_off = {"gradient": GradientGate(mode="off"), "curvature": CurvatureGate(mode="off")}
    changed: dict[str, Any] = {"gates": training.gates.model_copy(update=gates_off)}
    if config.steps is not None or config.epochs is not None:
        budget = {"steps": config.steps, "epochs": config.epochs}
        changed |= {**dict.fromkeys(BUDGETS), **budget, "unconverged": "report"}
    return training.model_copy(update=changed)


def evaluate(
    point: Point, samples: Samples, stage: int, checkpoint: Path | None, group: Group,
    callbacks: Callbacks,
) -> dict[str, Any]:  # fmt: skip
    """Train a point's model as its ``evaluate`` section specifies, and evaluate it on the test set.

    The training run does not continue a probe. Like a probe, it stops as soon as all samples are
    fitted. Its subset is drawn independently of the subsets of the probes. If ``evaluate.n`` is
    increased, the new subset contains the previous subset.

    Args:
        point: the point, with an ``evaluate`` section.
        samples: data of the point.
        stage: number of times that the budget of the probes is doubled; has no effect if
            ``evaluate`` sets a budget.
        checkpoint: path of the training checkpoint; None for no checkpoint.
        group: process group that trains the model; every process must call this function.
        callbacks: see :class:`Callbacks`.

    Returns:
        A mapping with the keys ``asked`` (number of samples and budget that ``evaluate`` sets),
        ``n`` and ``n_test`` (numbers of training and test samples), ``verdict``, ``interpolated``
        (whether every training sample is fitted), ``train_accuracy``, ``test_accuracy``, ``gap``
        (train accuracy minus test accuracy), ``test_loss`` (mean cross-entropy),
        ``calibration_error`` (see :func:`calibration_error`), ``epochs``, ``cost`` (sample passes)
        and ``seconds``.

    Raises:
        PointError: the data set has no test set, or has fewer samples than ``evaluate.n``.
    """
    config = point.evaluate
    assert config is not None
    assert isinstance(point.training, Training)  # checked with the spec
    n = evaluation_size(config, samples)
    test = load_test_set(point.data, point.seed)
    evaluated_point = replace(point, training=evaluation_training(config, point.training))
    measure_generalization = partial(metrics_on_test_set, test=test, device=group.device)
    callbacks = replace(callbacks, on_train_end=measure_generalization, checkpoint=checkpoint)
    outcome, _, _ = run_training(
        evaluated_point, samples, Probe(n, 0, stage=stage), group, callbacks,
        key_suffix=f" evaluate {json.dumps(config.settings)}",
        subset_seed=derive_seed(point.seed, "evaluation"),
    )  # fmt: skip
    accuracy = 1 - outcome.n_errors / n
    test_metrics = {key: outcome.metrics[key] for key in ("test_accuracy", "test_loss")}
    return {
        "asked": config.settings,
        "n": n,
        "n_test": len(test.labels),
        "verdict": outcome.verdict,
        "interpolated": outcome.n_errors == 0,
        "train_accuracy": accuracy,
        **test_metrics,
        "gap": accuracy - test_metrics["test_accuracy"],
        "calibration_error": outcome.metrics["calibration_error"],
        "epochs": outcome.epochs,
        "cost": outcome.cost,
        "seconds": outcome.seconds,
    }


def metrics_on_test_set(
    network: nn.Module, test: TestSet, device: torch.device
) -> dict[str, float]:
    """Return a dict with ``test_accuracy``, ``test_loss`` and ``calibration_error``.

    The network is set to eval mode. If any logit of a sample is not finite, the sample counts as
    misclassified.
    """
    scores = logits_of(network, test, np.arange(len(test.labels)), device)
    labels = torch.from_numpy(test.labels)
    correct = scores.argmax(dim=1) == labels
    return {
        "test_accuracy": float((correct & scores.isfinite().all(dim=1)).double().mean()),
        "test_loss": float(functional.cross_entropy(scores, labels)),
        "calibration_error": calibration_error(scores.softmax(dim=1), labels),
    }


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).

    The samples are divided by confidence into 15 bins of equal width. The error is the mean over
    the bins of abs(accuracy - confidence), weighted by the number of samples in each bin.

    Args:
        probabilities: predicted probabilities, float (m, classes).
        labels: true classes, int64 (m,).

    Returns:
        The error in [0, 1]; nan if any probability is not finite.
    """
    if not probabilities.isfinite().all():
        return math.nan
    confidence, predicted = probabilities.max(dim=1)
    correct = (predicted == labels).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    differences = torch.zeros(_BINS, dtype=torch.float64)
    differences.index_add_(0, bins, confidence.double() - correct)
    return float(differences.abs().sum() / len(labels))
