"""Plot the RMSE of log EMC as a function of the cost, one panel per world of bench.search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.search.report import Results, world_label
from flexhpc.analysis.figures.chart import COLOURS, Chart, chart, layer

_BISECTIONS = "median of bisections"


def plot(results: Results, path: Path) -> None:
    data: list[dict[str, Any]] = []
    for name, world in results.items():
        unit = world["bisection"]["1"]["cost"]
        bisections = [(row["cost"] / unit, row["rmse"]) for row in world["bisection"].values()]
        curves = {"bayes": world["variants"]["bayes"]["curve"], _BISECTIONS: bisections}
        data += [
            {"facet": world_label(name), "variant": variant, "cost": cost, "rmse": rmse}
            for variant, curve in curves.items()
            for cost, rmse in curve
        ]
    colours = {"bayes": COLOURS[0], _BISECTIONS: "#888"}
    encoding = {
        "x": {"field": "cost", "type": "quantitative", "scale": {"type": "log", "nice": False},
              "axis": {"title": "cost, in bisections", "values": [1, 2, 4, 8], "format": "~g"}},
        "y": {"field": "rmse", "type": "quantitative", "scale": {"type": "log", "nice": False},
              "axis": {"title": "RMSE of log EMC", "format": "~g", "tickCount": 5}},
        "color": {"field": "variant", "type": "nominal",
                  "legend": {"title": None, "orient": "top"},
                  "scale": {"domain": list(colours), "range": list(colours.values())}},
        "order": {"field": "cost"},
    }  # fmt: skip
    lines = layer({"type": "line", "point": True, "strokeWidth": 1.5}, encoding)
    facets = [world_label(name) for name in results]
    spec = chart([lines], width=240, height=160, data=data, facets=facets)
    Chart({**spec, "columns": 4, "background": "white"}).save(path)
