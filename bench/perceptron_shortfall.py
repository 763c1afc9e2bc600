"""Print EMC / 2 d of a trained linear network by budget, as JSON, and plot it (docs/figures.md).

Usage: python bench/perceptron_shortfall.py [RUN [PLOT]]
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

from matplotlib.figure import Figure

from flexhpc.store.status import StatusReader, open_run

SPEC = Path(__file__).parent.parent / "sweeps" / "perceptron.yaml"
COLOURS = ("#0072B2", "#D55E00", "#009E73")


def rows(run: Path) -> list[dict[str, float]]:
    """Return d, budget and EMC of every point that is not censored."""
    folder, _, points = open_run(run)
    return [
        {
            "dims": status.point.swept["data.dims"],
            "epochs": status.point.swept["training.epochs"],
            "emc": status.estimate.emc,
            "emc_lo": status.estimate.emc_lo,
            "emc_hi": status.estimate.emc_hi or 0,
            "emc_over_2d": status.estimate.emc / (2 * status.point.swept["data.dims"]),
        }
        for status in StatusReader(folder, points).read()
        if status.estimate is not None and status.estimate.censored == "none"
    ]


def plot(results: Sequence[dict[str, float]], path: Path) -> None:
    """Draw EMC / 2 d against the budget, a curve per d."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for colour, dims in zip(COLOURS, sorted({row["dims"] for row in results}), strict=False):
        curve = sorted((r for r in results if r["dims"] == dims), key=lambda r: r["epochs"])
        middle = [r["emc_over_2d"] for r in curve]
        ends = [
            [(r["emc"] - r["emc_lo"]) / (2 * dims) for r in curve],
            [(r["emc_hi"] - r["emc"]) / (2 * dims) for r in curve],
        ]
        budgets = [r["epochs"] for r in curve]
        axes.errorbar(
            budgets, middle, yerr=ends, color=colour, marker="o", capsize=2, label=f"d = {dims:g}"
        )
    axes.axhline(1, color="0.6", linestyle="--", linewidth=1)
    axes.axhspan(0.9, 1.1, color="0.95", zorder=0)
    axes.set(xscale="log", xlabel="budget (full-batch updates)", ylabel="EMC / 2 d")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            run = Path(sys.argv[1])
        else:
            run = Path(folder) / "perceptron"
            flexhpc = Path(sys.executable).parent / "flexhpc"
            command = [str(flexhpc), "sweep", str(SPEC), "--runs", folder]
            subprocess.run(command, check=True, stdout=sys.stderr)
        results = rows(run)
        print(json.dumps({"bench": "perceptron_shortfall", "rows": results}, indent=1))
        if len(sys.argv) > 2:
            plot(results, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
