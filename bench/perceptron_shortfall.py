"""Print EMC / 2 d of a trained linear network by budget, as JSON, and plot it (docs/figures.md).

Usage: python -m bench.perceptron_shortfall [RUN [PLOT]]
RUN: run folder of sweeps/perceptron.yaml; default: run the sweep in a temporary folder. PLOT: image
file to write. Cover (1965): a perceptron in d dimensions fits n random labels with probability 1/2
at n = 2 d.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.common import FLEXHPC, statuses_of
from flexhpc.analysis.figures.chart import COLOURS, Chart, chart, layer

SPEC = Path(__file__).parent.parent / "sweeps" / "perceptron.yaml"


def rows(run: Path) -> list[dict[str, float]]:
    """Return d, budget and EMC of every point that is not censored."""
    results = []
    for status in statuses_of(run):
        estimate, swept = status.estimate, status.point.swept
        if estimate is not None and estimate.censored == "none":
            results.append({
                "dims": swept["data.dims"], "epochs": swept["training.epochs"],
                "emc": estimate.emc, "emc_lo": estimate.emc_lo, "emc_hi": estimate.emc_hi or 0,
                "emc_over_2d": estimate.emc / (2 * swept["data.dims"]),
            })  # fmt: skip
    return results


def plot(results: Sequence[dict[str, float]], path: Path) -> None:
    """Plot EMC / 2 d against the budget, one curve per d."""
    data = [
        {
            "budget": row["epochs"], "d": f"d = {row['dims']:g}",
            **{end: row[end] / (2 * row["dims"]) for end in ("emc", "emc_lo", "emc_hi")},
        }
        for row in sorted(results, key=lambda row: (row["dims"], row["epochs"]))
    ]  # fmt: skip
    x = {"field": "budget", "type": "quantitative", "scale": {"type": "log"},
         "axis": {"title": "budget (full-batch updates)"}}  # fmt: skip
    y = {"field": "emc", "type": "quantitative", "scale": {"zero": False},
         "axis": {"title": "EMC / 2 d"}}  # fmt: skip
    colour = {"field": "d", "type": "nominal", "legend": {"title": None},
              "sort": list(dict.fromkeys(row["d"] for row in data)),
              "scale": {"range": list(COLOURS)}}  # fmt: skip
    band = {"data": {"values": [{"low": 0.9, "one": 1, "high": 1.1}]}}
    layers = [
        {**band, "mark": {"type": "rect", "color": "#8882"},
         "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {**band, "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#888"},
         "encoding": {"y": {**y, "field": "one"}}},
        layer({"type": "line", "point": True}, {"x": x, "y": y, "color": colour}),
        layer({"type": "rule"}, {"x": x, "y": {**y, "field": "emc_lo"}, "y2": {"field": "emc_hi"},
                                 "color": colour}),
    ]  # fmt: skip
    spec = chart(layers, width=560, height=340, data=data)
    Chart({**spec, "background": "white"}).save(path)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            run = Path(sys.argv[1])
        else:
            run = Path(folder) / "perceptron"
            command = [FLEXHPC, "sweep", str(SPEC), "--runs", folder]
            subprocess.run(command, check=True, stdout=sys.stderr)
        results = rows(run)
        print(json.dumps({"bench": "perceptron_shortfall", "rows": results}, indent=1))
        if len(sys.argv) > 2:
            plot(results, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
