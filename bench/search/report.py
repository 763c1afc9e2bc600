"""The figures of bench.search as tables and as one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.search.tables import JUDGED_ON, TUNED_ON

COLOURS = {"bayes": "#0072B2", "to the end": "#009E73", "verdicts only": "#D55E00"}
Found = dict[str, dict[str, Any]]


def markdown(found: Found) -> str:
    """Return the tables of docs/search.md."""
    return "\n".join([_main(found), "", _variants(found), "", _plain(found), ""])


def _main(found: Found) -> str:
    rows = [
        "| world | RMSE / that of bisections at the cost of 1, 2, 4 | interval within 10 %: cost"
        " (probes) | of bisections to that RMSE | bias | coverage | false stops | saved |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, world in found.items():
        row = world["bayes"]
        end = row["tolerance"]
        ratios = ", ".join(f"{row['budgets'][k]['ratio']:.2f}" for k in ("1", "2", "4"))
        reached = "" if end["reached"] > 0.95 else f", {end['reached']:.0%} reach it"
        rows.append(
            f"| {_mark(name)} | {ratios} | {end['cost']:.1f} ({end['probes']:.0f}{reached}) | "
            f"{end['of_bisections']:.2f} | {end['bias']:+.1%} | {end['coverage']:.2f} | "
            f"{row['false_stops']:.1%} | {row['saved']:.0%} |"
        )
    return "\n".join(rows)


def _variants(found: Found) -> str:
    variants = [
        v for v in next(iter(found.values())) if v in (*COLOURS, "neighbours", "four at once")
    ]
    rows = [
        "| variant | cost to within 10 %, median over worlds | of bisections |"
        " coverage | ms per round |",
        "|---|---|---|---|---|",
    ]
    for variant in variants:
        ends = [world[variant]["tolerance"] for world in found.values()]
        middle = {k: np.median([e[k] for e in ends]) for k in ("cost", "of_bisections")}
        cover = [e["coverage"] for e in ends]
        slow = np.median([world[variant]["ms_per_round"] for world in found.values()])
        rows.append(
            f"| {variant} | {middle['cost']:.1f} | "
            f"{middle['of_bisections']:.2f} | {min(cover):.2f} to {max(cover):.2f} | {slow:.0f} |"
        )
    return "\n".join(rows)


def _plain(found: Found) -> str:
    growth = [key for key in next(iter(found.values())) if key.startswith("growth")]
    rows = [
        "| world | bisection: cost, RMSE | "
        + " | ".join(f"{g}: cost, bias" for g in growth)
        + " |",
        "|---|---|" + "---|" * len(growth),
    ]
    for name, world in found.items():
        one = world["bisection"]["1"]
        cells = [f"{world[g]['cost']:.1f}, {world[g]['bias']:+.0%}" for g in growth]
        rows.append(
            f"| {name} | {one['cost']:.1f}, {one['rmse']:.2f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(rows)


def _mark(name: str) -> str:
    if name in TUNED_ON:
        return f"{name} (tuned on)"
    return f"{name} (judged on)" if name in JUDGED_ON else name


def plot(found: Found, path: Path) -> None:
    """Draw RMSE against cost, a panel per world."""
    figure = Figure(figsize=(13, 2.6 * -(-len(found) // 4)), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(-(-len(found) // 4), 4))).ravel()
    for panel, (name, world) in zip(panels, found.items(), strict=False):
        for variant, colour in COLOURS.items():
            cost, rmse = zip(*world[variant]["curve"], strict=True)
            panel.plot(cost, rmse, color=colour, marker=".", label=variant)
        some = world["bisection"].values()
        price = world["bisection"]["1"]["cost"]
        panel.plot(
            [s["cost"] / price for s in some], [s["rmse"] for s in some], color="0.5",
            linestyle="--", marker="s", markersize=4, label="median of bisections",
        )  # fmt: skip
        panel.set(xscale="log", yscale="log", title=_mark(name))
        panel.title.set_fontsize(9)
        panel.set_xlabel("cost, in bisections", fontsize=8)
        panel.set_ylabel("RMSE of log EMC", fontsize=8)
        panel.grid(True, which="major", color="0.92")
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)
