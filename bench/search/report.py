"""Format the results of bench.search as the tables of docs/search.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench.search.tables import JUDGED_ON, MODELS, TUNED_ON

Results = dict[str, dict[str, Any]]


def markdown(results: Results) -> str:
    return (
        "\n\n".join([_targets(results), _main(results), _variants(results), _plain(results)]) + "\n"
    )


def mark(name: str) -> str:
    """Append "(tuned on)" or "(judged on)" to the name of a recorded model."""
    if name in TUNED_ON:
        return f"{name} (tuned on)"
    return f"{name} (judged on)" if name in JUDGED_ON else name


def _targets(results: Results) -> str:
    lapsing = [name for name in results if "lapses" in name and not name.endswith(" 0%")]
    heavy = [name for name in results if name.endswith(" 5%")]
    steady = [name for name in results if name not in lapsing]

    def ratios(*budgets: str) -> Callable[[str], float]:
        return lambda name: max(
            results[name]["variants"]["bayes"]["budgets"][k]["ratio"] for k in budgets
        )

    def end(key: str) -> Callable[[str], float]:
        return lambda name: abs(results[name]["variants"]["bayes"]["tolerance"][key])

    def overall(key: str) -> Callable[[str], float]:
        return lambda name: float(results[name]["variants"]["bayes"][key])

    rows = [
        "| target | worlds that reach it | median and worst value |",
        "|---|---|---|",
        _row("recorded models and curves without lapses: RMSE at most 1.05 times that of 1, 2 and "
             "4 bisections, at their cost", steady, ratios("1", "2", "4"), most=1.05),
        _row("the same worlds: RMSE at most 0.5 times that of 2 bisections, at their cost",
             steady, ratios("2"), most=0.5),
        _row("lapses of 5 %: RMSE at most 0.2 times that of 1, 2 and 4 bisections, at their cost",
             heavy, ratios("1", "2", "4"), most=0.2),
        _row("coverage at least 0.87", results, end("coverage"), least=0.87),
        _row("coverage at most 0.93", results, end("coverage"), most=0.93),
        _row("recorded models and curves without lapses: bias below 1 %", steady, end("bias"),
             most=0.01),
        _row("lapses of 2 and 5 %: bias below 2 %", lapsing, end("bias"), most=0.02),
        _row("cost of an interval within 10 % at most 0.4 times that of bisections with the same "
             "RMSE", results, end("of_bisections"), most=0.4),
        _row("at most 20 ms per decision, without cached state", results, overall("ms"), most=20),
    ]  # fmt: skip
    return "\n".join(rows)


def _row(
    target: str, names: Iterable[str], value: Callable[[str], float], *,
    most: float | None = None, least: float | None = None,
) -> str:  # fmt: skip
    values = [value(name) for name in names]
    reached = sum((most is None or v <= most) and (least is None or v >= least) for v in values)
    worst = max(values) if least is None else min(values)
    return f"| {target} | {reached} of {len(values)} | {np.median(values):.2g}, {worst:.2g} |"


def _main(results: Results) -> str:
    rows = [
        "| world | RMSE / RMSE of 1, 2, 4 bisections, at their cost | interval within 10 %: cost "
        "(probes) | cost / cost of bisections with this RMSE | bias | coverage |",
        "|---|---|---|---|---|---|",
    ]
    for name, world in results.items():
        row = world["variants"]["bayes"]
        end = row["tolerance"]
        ratios = ", ".join(f"{row['budgets'][k]['ratio']:.2f}" for k in ("1", "2", "4"))
        rows.append(
            f"| {mark(name)} | {ratios} | {end['cost']:.1f} ({end['rounds']:.0f}) | "
            f"{end['of_bisections']:.2f} | {end['bias']:+.1%} | {end['coverage']:.2f} |"
        )
    return "\n".join(rows)


def _variants(results: Results) -> str:
    worlds = [world for name, world in results.items() if name in MODELS]
    rows = [
        "| variant, on recorded models | interval within 10 %: median cost | time | "
        "cost / cost of bisections | coverage | ms per decision |",
        "|---|---|---|---|---|---|",
    ]
    for variant in worlds[0]["variants"]:
        ends = [world["variants"][variant]["tolerance"] for world in worlds]
        cost, passed, part = (
            np.median([end[key] for end in ends]) for key in ("cost", "time", "of_bisections")
        )
        cover = [end["coverage"] for end in ends]
        slow = np.median([world["variants"][variant]["ms"] for world in worlds])
        rows.append(
            f"| {variant} | {cost:.1f} | {passed:.1f} | {part:.2f} | "
            f"{min(cover):.2f} to {max(cover):.2f} | {slow:.0f} |"
        )
    return "\n".join(rows)


def _plain(results: Results) -> str:
    growth = list(next(iter(results.values()))["growth"])
    rows = [
        "| world | bisection: cost, RMSE | "
        + " | ".join(f"growth {g}: cost, bias" for g in growth)
        + " |",
        "|---|---|" + "---|" * len(growth),
    ]
    for name, world in results.items():
        single = world["bisection"]["1"]
        cells = [
            f"{world['growth'][g]['cost']:.1f}, {np.expm1(world['growth'][g]['bias']):+.0%}"
            for g in growth
        ]
        rows.append(
            f"| {name} | {single['cost']:.1f}, {single['rmse']:.2f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(rows)
