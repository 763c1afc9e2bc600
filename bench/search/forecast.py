"""The forecast behind giving probes up (flexhpc/search/hopeless.py): make its numbers.

A logistic regression of "fits within its budget" on what a training has missed so far, at every
look of every recorded training, each model weighing the same. What it is worth is judged on models
that it was not made from: ``without(name)`` leaves one out.

Usage: python -m bench.search.forecast
Prints the coefficients as JSON, and per model those that were made without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from bench.search.tables import MODELS, Floats, Table
from flexhpc.search.hopeless import FIRST, LOOKS, features

PENALTY = 1.0


def _rows(table: Table) -> tuple[list[Floats], list[bool]]:
    """Return the features at every look before a training's end, and whether it fitted."""
    rows, fits = [], []
    data = table.data
    for n, fit, looks, errors in zip(
        data["n"], data["verdict"] == "fit", data["looks"], data["errors"], strict=True
    ):
        missed = errors[: looks - 1 if fit else looks].astype(np.float64)
        for look in range(FIRST, min(len(missed), LOOKS - 1) + 1):
            rows.append(features(missed, int(n), look))
            fits.append(bool(fit))
    return rows, fits


def regression(names: Sequence[str]) -> Floats:
    """Return the coefficients of a forecast made from some models."""
    found = [_rows(Table(name)) for name in names]
    x = np.array([row for rows, _ in found for row in rows])[:, 1:]
    fits = [fit for _, some in found for fit in some]
    weight = np.concatenate([np.full(len(some), 1 / len(some)) for _, some in found])
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=PENALTY, max_iter=5000)
    model.fit((x - mean) / deviation, fits, sample_weight=weight * len(weight) / len(names))
    slopes = model.coef_[0] / deviation
    return np.array([model.intercept_[0] - slopes @ mean, *slopes])


def without(name: str) -> Floats:
    """Return the coefficients of a forecast that never saw one model."""
    return regression([other for other in MODELS if other != name])


def main() -> None:
    found = {"all": regression(MODELS), **{name: without(name) for name in MODELS}}
    print(json.dumps({name: row.round(3).tolist() for name, row in found.items()}, indent=1))


if __name__ == "__main__":
    main()
