"""Posterior predictive check of flexhpc's search against the fits of plain training loops."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy.special import xlogy

from flexhpc.config import Point, load_points
from flexhpc.data import load_samples
from flexhpc.measuring.probe import run_probe
from flexhpc.search import Estimate, ProbeResult, next_probes
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import TAILS, Quantiles
from flexhpc.store import to_history
from flexhpc.training import Callbacks, Group
from tests.archives import unpack
from tests.reference.data import CIFAR10, TABLES
from tests.reference.recipes import Count, Recipe

Floats = NDArray[np.float64]
TOLERANCE = 0.2
"""Half-width of the interval at which the search ends."""
_DRAWS = 4_000
_UNKNOWN = -1
"""Number of missed samples if only the verdict is known."""
_MIN_PROBABILITY = 1e-9
"""Probabilities are clipped to this and one minus this."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Result of flexhpc for a recipe.

    Attributes:
        estimate: the EMC and its interval.
        curve: posterior of the fit curve.
        n_limit: largest available n (samples).
    """

    estimate: Estimate
    curve: FitCurve
    n_limit: int


def measure(recipe: Recipe) -> SearchResult:
    """Measure the EMC of a recipe with the default search."""
    with _point(recipe) as point:
        samples = load_samples(point.data, point.seed)
        group = Group(torch.device("cpu"))
        history: list[ProbeResult] = []
        limit, arms = samples.n_limit, point.arm_coordinates
        while not isinstance(step := next_probes(point.search, limit, history, arms), Estimate):
            for probe in step:
                record = run_probe(point, samples, probe, None, group, Callbacks())
                history += to_history([record], point.training)
    return SearchResult(estimate=step, curve=posterior(history, limit), n_limit=limit)


@contextmanager
def _point(recipe: Recipe) -> Iterator[Point]:
    """Yield the point of a recipe; its data exist within the context."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed = {key: dict(section) for key, section in recipe.sections.items()}
        source = fixed["data"]["source"]
        if source == "image_folder":
            unpack(CIFAR10, folder)
            fixed["data"]["root"] = str(folder / CIFAR10.name.removesuffix(".tar.xz"))
        elif source in ("covtype", "adult", "credit"):
            fixed["data"]["root"] = str(TABLES)
        fixed["search"] = {"policy": "bayes", "tolerance": TOLERANCE}
        spec = folder / "spec.yaml"
        spec.write_text(yaml.safe_dump({"name": recipe.name, "fixed": fixed}))
        _, (point,) = load_points(spec)
        yield point


def fit_curve_of(counts: Sequence[Count], n_limit: int) -> FitCurve:
    """Return the posterior of the fit curve from counts of fits only."""
    history = [
        ProbeResult(
            n=count.n, repeat=repeat, verdict="fit" if repeat < count.fitted else "not_fit",
            n_errors=_UNKNOWN, cost=count.n,
        )
        for count in counts for repeat in range(count.total)
    ]  # fmt: skip
    return posterior(history, n_limit)


def n50(curve: FitCurve) -> Quantiles:
    """Return the lower bound, median and upper bound of the interval of n50 (samples)."""
    return curve.quantiles(curve.n_at_fit_probability(0.5), TAILS)


def p_value(curve: FitCurve, counts: Sequence[Count], seed: int = 0) -> float:
    """Return the probability that counts drawn from the curve deviate at least as much as these.

    A posterior predictive check (Gelman, Meng and Stern 1996): for each curve of the posterior, the
    deviance of the counts is compared with the deviance of binomial counts drawn from the curve.
    """
    rng = np.random.default_rng(seed)
    cells = curve.resample(_DRAWS, curve.threshold)
    n = np.array([count.n for count in counts], np.float64)
    total = np.array([count.total for count in counts])
    fitted = np.array([count.fitted for count in counts])
    chance = np.clip(cells.fit_probability(n), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    simulated = rng.binomial(total, chance)
    deviance = _deviance(fitted, total, chance)
    return float(np.mean(_deviance(simulated, total, chance) >= deviance))


def _deviance(fitted: NDArray[np.int64], total: NDArray[np.int64], chance: Floats) -> Floats:
    """Return the deviance of counts (..., number of n), summed over n."""
    failed = total - fitted
    terms = xlogy(fitted, fitted / (total * chance)) + xlogy(
        failed, failed / (total * (1 - chance))
    )
    return np.asarray(2 * terms.sum(axis=-1))
