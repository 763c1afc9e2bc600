"""How well a point's model generalizes when it is trained on the full training set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flexhpc.data import Samples, TestSet, load_test
from flexhpc.probe import Wanted, Watch, run_training
from flexhpc.spec import Point
from flexhpc.training import Group

_AT_ONCE = 512
_BINS = 15


def evaluate(
    point: Point, samples: Samples, checkpoint: Path | None, group: Group, watch: Watch
) -> dict[str, Any]:
    """Train a point's model on every sample that it may have (``n_max`` or not), and test it.

    The training is that of a probe: it ends as soon as all samples are fitted.

    Args:
        point: what to train and how; samples: its data.
        checkpoint: where the training's state in progress lives.
        group: the processes that train it; each calls this.
        watch: the outside.

    Returns:
        n and n_test (samples), verdict, train_accuracy, test_accuracy, gap (train minus test),
        test_loss (mean cross-entropy), calibration_error (see :func:`calibration_error`), epochs,
        cost (sample passes), seconds.

    Raises:
        PointError: the data has no test set.
    """
    test = load_test(point.data, point.seed)

    def trained(network: nn.Module) -> dict[str, float]:
        return tested(network, test, group.device)

    n = len(samples.pool)
    wanted = Wanted(n=n, repeat=0, name=" full", trained=trained)
    outcome, _, _ = run_training(point, samples, wanted, checkpoint, group, watch)
    accuracy = 1 - outcome.n_errors / n
    found = {key: outcome.readings[key] for key in ("test_accuracy", "test_loss")}
    return {
        "n": n,
        "n_test": len(test.labels),
        "verdict": outcome.verdict,
        "train_accuracy": accuracy,
        **found,
        "gap": accuracy - found["test_accuracy"],
        "calibration_error": outcome.readings["calibration_error"],
        "epochs": outcome.epochs,
        "cost": outcome.cost,
        "seconds": outcome.seconds,
    }


def tested(network: nn.Module, test: TestSet, device: torch.device) -> dict[str, float]:
    """Return accuracy, loss and calibration error of a network on a test set, in eval mode."""
    network.eval()
    kind = next(network.parameters()).dtype
    logits = []
    with torch.no_grad():
        for ids in np.array_split(np.arange(len(test.labels)), -(-len(test.labels) // _AT_ONCE)):
            inputs = torch.from_numpy(test.standardised(ids)).to(device, kind)
            logits.append(network(inputs).double().cpu())
    scores, labels = torch.cat(logits), torch.from_numpy(test.labels)
    right = scores.argmax(dim=1) == labels
    return {
        "test_accuracy": float((right & scores.isfinite().all(dim=1)).double().mean()),
        "test_loss": float(functional.cross_entropy(scores, labels)),
        "calibration_error": calibration_error(scores.softmax(dim=1), labels),
    }


def calibration_error(chances: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3).

    The mean distance of confidence and accuracy over 15 bins of equal width, by their samples.

    Args:
        chances: predicted probabilities, (m, classes); labels: int64 (m,).

    Returns:
        nan where a probability is not a number.
    """
    if not chances.isfinite().all():
        return math.nan
    confidence, predicted = chances.max(dim=1)
    right = (predicted == labels).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    apart = torch.zeros(_BINS, dtype=torch.float64)
    apart.index_add_(0, bins, confidence.double() - right)
    return float(apart.abs().sum() / len(labels))
