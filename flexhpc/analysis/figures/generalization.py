"""Figure of test accuracy against the ratio EMC (original labels) / EMC (random labels)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flexhpc.analysis.figures.chart import (
    ARROW_MARK,
    COLOURS,
    HORIZONTAL_ARROWS,
    ReportFigure,
    Spec,
    chart,
    colour_encoding,
    layer,
    log_domain,
    log_encoding,
    tooltip,
)
from flexhpc.analysis.generalization import label_pairs
from flexhpc.store.status import PointStatus


def generalization_figure(statuses: Sequence[PointStatus]) -> Spec | None:
    """Plot one point for each pair from :func:`label_pairs`; return None without pairs."""
    rows: list[dict[str, Any]] = [
        {
            "model": pair.name, "family": pair.family, "bound": pair.bound,
            "ratio": math.exp(pair.log_ratio), "test accuracy": round(pair.test_accuracy, 4),
        }
        for pair in label_pairs(statuses)
    ]  # fmt: skip
    if not rows:
        return None
    domain = log_domain([row["ratio"] for row in rows])
    families = list(dict.fromkeys(row["family"] for row in rows))
    colours = {family: COLOURS[i % len(COLOURS)] for i, family in enumerate(families)}
    encoding: Spec = {
        "x": {"field": "ratio",
              **log_encoding("EMC with original labels / EMC with random labels", domain)},
        "y": {"field": "test accuracy", "type": "quantitative",
              "scale": {"zero": False, "padding": 10}},
        "color": colour_encoding("family", colours, {"title": None}),
        "tooltip": tooltip("model", "family", "ratio", "test accuracy", "bound"),
    }  # fmt: skip
    by_family = {
        **encoding,
        "shape": {"field": "family", "type": "nominal", "legend": {"title": None},
                  "scale": {"domain": families}},
    }  # fmt: skip
    dot = {"type": "point", "size": 55, "opacity": 1}
    lower = {**ARROW_MARK, "shape": HORIZONTAL_ARROWS["right"]}
    upper = {**ARROW_MARK, "shape": HORIZONTAL_ARROWS["left"]}
    layers = [
        layer({**dot, "filled": True}, by_family, where="datum.bound === 'none'"),
        layer({**dot, "filled": False}, by_family, where="datum.bound === 'unknown'"),
        layer(lower, encoding, where="datum.bound === 'lower'"),
        layer(upper, encoding, where="datum.bound === 'upper'"),
    ]
    return chart(layers, width=560, height=320, data=rows)


FIGURES = (
    ReportFigure(
        name="generalization",
        title="EMC and generalization",
        caption="One point per model that interpolated the original labels. An arrow marks a bound "
        "of a ratio and points towards the true ratio. An open marker is the ratio of two bounds; "
        "the true ratio may be larger or smaller.",
        draw=generalization_figure,
    ),
)
