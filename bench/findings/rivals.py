"""Measure other predictors of generalization on the evaluated networks of the stored records.

python -m bench.findings.rivals  # trains the networks again; about 8 minutes on one CPU core

The predictors are written to rivals.json in the folder of the records.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.findings.page import RECORDS, RIVALS
from bench.findings.records import load_records
from flexhpc.analysis.generalization import interpolating_evaluation, model_name
from flexhpc.atomic import write_atomic
from flexhpc.config.sections.model import Network
from flexhpc.config.sections.training import Training
from flexhpc.data import load_samples
from flexhpc.measuring.evaluation import evaluation_training
from flexhpc.measuring.probe import run_training
from flexhpc.models import build
from flexhpc.search import Probe
from flexhpc.seeds import derive_seed
from flexhpc.store.status import PointStatus
from flexhpc.training import Callbacks, Group
from flexhpc.training.curvature import hessian_ritz
from flexhpc.training.group import Partition

_FINDINGS = ("finding_generalization", "finding_generalization_600")
_HESSIAN_PRODUCTS = 30


def predictors(
    network: nn.Module, initial: nn.Module, inputs: Tensor, labels: Tensor
) -> dict[str, float]:
    """Return natural logarithms of the margins, norms and sharpness of a trained network.

    The margin of a sample is the logit of its class minus the largest other logit. Divided by the
    norm of its gradient with respect to the inputs, it estimates the distance of the sample from
    the decision boundary (Elsayed et al. 2018, arXiv 1803.05598). The norm of the parameters, their
    distance from the initial parameters, and the sharpness are among the measures that Jiang et
    al. 2020 (arXiv 1912.02178) compare. The sharpness is the largest eigenvalue of the Hessian of
    the mean cross-entropy; it is estimated with Lanczos' method.

    Args:
        network: the trained network, which fits all samples.
        initial: the network before training.
        inputs, labels: the training samples, (n, ...) and int64 (n,).
    """
    inputs = inputs.clone().requires_grad_()
    logits = network.eval()(inputs)
    own = nn.functional.one_hot(labels, logits.shape[1]).bool()
    margins = logits[own] - logits.masked_fill(own, -math.inf).amax(dim=1)
    (gradients,) = torch.autograd.grad(margins.sum(), inputs)
    distances = margins / gradients.flatten(1).norm(dim=1)
    after, before = (
        torch.cat([p.detach().flatten() for p in each.parameters()]) for each in (network, initial)
    )
    sharpness = hessian_ritz(
        network, inputs.detach(), labels, Partition(Group(labels.device), None),
        max_products=_HESSIAN_PRODUCTS, seed=0,
    ).max  # fmt: skip
    values = {
        "log(median margin)": margins.detach().median(),
        "log(median distance from the decision boundary)": distances.detach().median(),
        "log(norm of the parameters)": after.norm(),
        "log(distance from the initial parameters)": (after - before).norm(),
        "log(sharpness)": sharpness,
    }
    return {name: round(math.log(float(value)), 4) for name, value in values.items()}


def _predictors_of(status: PointStatus) -> dict[str, float]:
    """Train the evaluated network of a point again, and return its predictors."""
    estimate, config = status.estimate, status.point.evaluate
    assert estimate is not None
    assert config is not None
    assert config.n is not None
    point = status.point.at_arm(estimate.arm)
    assert isinstance(point.training, Training)
    point = replace(point, training=evaluation_training(config, point.training))
    samples = load_samples(point.data, point.seed)
    networks: list[nn.Module] = []

    def keep_network(trained: nn.Module) -> dict[str, float]:
        networks.append(trained)
        return {}

    outcome, subset, seeds = run_training(
        point, samples, Probe(config.n, 0, stage=estimate.stage), Group(torch.device("cpu")),
        Callbacks(on_train_end=keep_network), subset_seed=derive_seed(point.seed, "evaluation"),
    )  # fmt: skip
    if outcome.n_errors:
        raise SystemExit(f"{point.label}: missed {outcome.n_errors} of {config.n} samples")
    assert isinstance(point.model, Network)
    torch.manual_seed(seeds.init)
    initial = build(point.model, samples.shape, samples.classes)
    inputs = torch.from_numpy(samples.select_inputs(subset))
    return predictors(networks[0], initial, inputs, torch.from_numpy(samples.labels[subset]))


def main() -> None:
    torch.set_num_threads(1)
    measured: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for finding in _FINDINGS:
            statuses, _ = load_records(RECORDS / f"{finding}.json.xz", Path(scratch))
            for status in statuses:
                if status.point.data.labels == "original" and interpolating_evaluation(status):
                    name = model_name(status.point)
                    measured.setdefault(finding, {})[name] = _predictors_of(status)
                    print(finding, name, flush=True)
    write_atomic(RIVALS, json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
