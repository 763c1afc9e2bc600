"""Does flexhpc's search say what the plain loops counted? A posterior predictive check."""

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

from flexhpc.config import Point, checked
from flexhpc.data import load_samples
from flexhpc.measuring.probe import run_probe
from flexhpc.search import Estimate, ProbeResult, advance, history_of
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import TAILS, Quantiles
from flexhpc.training import Callbacks, Group
from tests.archives import unpack
from tests.reference.data import CIFAR10, TABLES
from tests.reference.recipes import Count, Recipe

Floats = NDArray[np.float64]
TOLERANCE = 0.2
"""Of the search: half the width of the interval at which it ends."""
_DRAWS = 4_000
_UNKNOWN = -1
"""Samples missed, where only the verdict is known."""
_SURE = 1e-9
"""No curve is taken to be surer of a verdict than this."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What flexhpc says of a recipe.

    Attributes:
        estimate: the EMC and its interval.
        history: the probes behind it.
        curve: the posterior that they make.
        n_limit: the largest n there is (samples).
    """

    estimate: Estimate
    history: Sequence[ProbeResult]
    curve: FitCurve
    n_limit: int


def search(recipe: Recipe) -> Found:
    """Measure a recipe by the default search."""
    with _point(recipe) as point:
        samples = load_samples(point.data, point.seed)
        group = Group(torch.device("cpu"))
        history: list[ProbeResult] = []
        limit, arms = samples.n_limit, point.coordinates
        while not isinstance(step := advance(point.search, limit, history, arms), Estimate):
            for probe in step.probes:
                ended = run_probe(point, samples, probe, None, group, Callbacks())
                history += history_of([ended], point.training)
    return Found(
        estimate=step,
        history=history,
        curve=posterior(history, samples.n_limit),
        n_limit=samples.n_limit,
    )


@contextmanager
def _point(recipe: Recipe) -> Iterator[Point]:
    """Check the recipe as a sweep spec of one point; its data is there as long as this is open."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed = {key: dict(words) for key, words in recipe.words.items()}
        source = fixed["data"]["source"]
        if source == "image_folder":
            unpack(CIFAR10, folder)
            fixed["data"]["root"] = str(folder / CIFAR10.name.removesuffix(".tar.xz"))
        elif source in ("covtype", "adult", "credit"):
            fixed["data"]["root"] = str(TABLES)
        fixed["search"] = {"policy": "bayes", "tolerance": TOLERANCE}
        spec = folder / "spec.yaml"
        spec.write_text(yaml.safe_dump({"name": recipe.name, "fixed": fixed}))
        _, (point,) = checked(spec)
        yield point


def by_counts(counts: Sequence[Count], n_limit: int) -> FitCurve:
    """Return the posterior of the fit curve that follows from counts of fits alone."""
    history = [
        ProbeResult(
            n=count.n,
            repeat=repeat,
            verdict="fit" if repeat < count.fitted else "not_fit",
            n_errors=_UNKNOWN,
            cost=count.n,
        )
        for count in counts
        for repeat in range(count.of)
    ]
    return posterior(history, n_limit)


def n50(curve: FitCurve) -> Quantiles:
    """Return the lower end, the middle and the upper end of n50's interval (samples)."""
    return curve.quantiles(curve.level_set(0.5), TAILS)


def p_value(curve: FitCurve, counts: Sequence[Count], seed: int = 0) -> float:
    """Return how often counts that follow the curve stray from it as far as the given ones.

    A posterior predictive check (Gelman, Meng and Stern 1996): the deviance of the counts under
    each curve that the posterior holds likely, against that of binomial counts drawn from it.
    """
    rng = np.random.default_rng(seed)
    cells = curve.thin(_DRAWS, curve.threshold)
    n = np.array([count.n for count in counts], np.float64)
    of = np.array([count.of for count in counts])
    fitted = np.array([count.fitted for count in counts])
    chance = np.clip(cells.chance(n), _SURE, 1 - _SURE)
    drawn = rng.binomial(of, chance)
    return float(np.mean(_deviance(drawn, of, chance) >= _deviance(fitted, of, chance)))


def _deviance(fitted: NDArray[np.int64], of: NDArray[np.int64], chance: Floats) -> Floats:
    """Return the deviance of counts (..., n's), summed over the n's."""
    failed = of - fitted
    terms = xlogy(fitted, fitted / (of * chance)) + xlogy(failed, failed / (of * (1 - chance)))
    return np.asarray(2 * terms.sum(axis=-1))
