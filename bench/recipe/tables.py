"""The table of docs/recipe.md: a row per choice, a column per network and data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.common import markdown_head, markdown_row
from bench.recipe.choices import choice, network
from flexhpc.analysis.text import duration_text, emc_text
from flexhpc.api.runs import Comparison, Measurement, compare
from flexhpc.search import Estimate

FAMILIES = {"mlp": "MLP", "cnn": "CNN", "vit": "ViT"}
SOURCES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
NetworkKey = tuple[str, str]
"""Model family and data set."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The effect of every choice on the EMC of every network.

    Attributes:
        bases: base point of each network.
        ratios: EMC of each finished point / EMC of its base point, by choice and network.
        unfinished: descriptions of the points that are not finished.
        finished: all finished points.
    """

    bases: dict[NetworkKey, Measurement] = field(default_factory=dict)
    ratios: dict[str, dict[NetworkKey, Comparison]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    finished: list[Measurement] = field(default_factory=list)


def study(measurements: Sequence[Measurement]) -> Study:
    """Compare every point with the first point of the same network and data set.

    Raises:
        ValueError: A point differs from its base in more than one choice.
    """
    results = Study()
    for measurement in measurements:
        point = measurement.status.point
        key = network(point)
        base = results.bases.setdefault(key, measurement)
        label = "base" if measurement is base else choice(point, base.status.point)
        row = results.ratios.setdefault(label, {}) if measurement is not base else {}
        if measurement.status.state != "done":
            results.unfinished.append(f"{' '.join(key)}: {label}")
            continue
        results.finished.append(measurement)
        if measurement is not base and base.status.state == "done":
            row[key] = ratio(measurement, base)
    return results


def ratio(measurement: Measurement, base: Measurement) -> Comparison:
    """Return the EMC of a point divided by the EMC of its base point.

    If an EMC is censored, the bound does not depend on the prior, unlike the bound of ``compare``.
    """
    comparison = compare(measurement, base)
    if comparison.low is not None and comparison.high is not None:
        return comparison
    lower, upper = _bounds(measurement.estimate)
    base_lower, base_upper = _bounds(base.estimate)
    low = None if comparison.low is None else lower / base_upper
    high = None if comparison.high is None else upper / base_lower
    return replace(comparison, low=low, high=high)


def _bounds(estimate: Estimate) -> tuple[float, float]:
    if estimate.censored == "right":
        return estimate.emc, math.inf
    if estimate.censored == "left":
        return 0.0, estimate.smallest_fail or 1
    return estimate.emc_lo, estimate.emc_hi or math.inf


def markdown(results: Study) -> str:
    """Format the table and the cost; ratios are bold if their interval excludes 1."""
    networks = [f"{FAMILIES.get(f, f)}, {SOURCES.get(s, s)}" for f, s in results.bases]
    emcs = [
        emc_text(base.estimate) if base.status.state == "done" else ""
        for base in results.bases.values()
    ]
    lines = [
        markdown_head(["choice", *networks]),
        markdown_row(["none: EMC of the base recipe", *emcs]),
    ]
    for label, ratios in results.ratios.items():
        cells = [_cell(ratios[key]) if key in ratios else "" for key in results.bases]
        lines.append(markdown_row([label, *cells]))
    return "\n".join([*lines, "", cost_text(results)]) + "\n"


def cost_text(results: Study) -> str:
    """State how many intervals exclude 1, and the number and cost of the training runs."""
    records = [measurement.status.record for measurement in results.finished]
    probes = [probe for record in records if record is not None for probe in record.probes]
    ratios = [ratio for row in results.ratios.values() for ratio in row.values()]
    return (
        f"{sum(map(excludes_one, ratios))} of {len(ratios)} intervals exclude 1. "
        f"The {len(results.finished)} points took {len(probes):,} training runs, "
        f"{sum(probe.cost for probe in probes) / 1e6:.0f} million sample passes and "
        f"{duration_text(sum(probe.seconds for probe in probes))} of training on one thread."
    )


def excludes_one(comparison: Comparison) -> bool:
    low, high = comparison.low, comparison.high
    return (low is not None and low > 1) or (high is not None and high < 1)


def ratio_text(comparison: Comparison) -> str:
    """Format a ratio: ``1.42 [1.20, 1.71]``, ``>= 3.10``, ``<= 0.04`` or ``unknown``."""
    low, high = comparison.low, comparison.high
    if low is not None and high is not None:
        return f"{_ratio_number(comparison.ratio)} [{_ratio_number(low)}, {_ratio_number(high)}]"
    if low is not None:
        return f">= {_ratio_number(low)}"
    return "unknown" if high is None else f"<= {_ratio_number(high)}"


def _cell(comparison: Comparison) -> str:
    text = ratio_text(comparison)
    return f"**{text}**" if excludes_one(comparison) else text


def _ratio_number(value: float) -> str:
    """Format a ratio with two decimals, or with two significant digits below 0.1."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
