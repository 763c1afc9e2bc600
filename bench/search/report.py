"""Format the results of bench.search as the tables of docs/search.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench.common import markdown_head, markdown_row
from bench.search.worlds import HELD_OUT, MODELS, TUNED_ON

Results = dict[str, dict[str, Any]]


def markdown(results: Results) -> str:
    tables = [
        _targets_table(results), _accuracy_table(results), _variants_table(results),
        _single_runs_table(results),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"


def world_label(name: str) -> str:
    """Append "(tuned on)" or "(held out)" to the name of a recorded model."""
    if name in TUNED_ON:
        return f"{name} (tuned on)"
    return f"{name} (held out)" if name in HELD_OUT else name


def _targets_table(results: Results) -> list[str]:
    lapsing = [name for name in results if "lapses" in name and not name.endswith(" 0%")]
    lapsing_most = [name for name in results if name.endswith(" 5%")]
    steady = [name for name in results if name not in lapsing]

    def max_ratio(*budgets: str) -> Callable[[str], float]:
        return lambda name: max(
            results[name]["variants"]["bayes"]["budgets"][k]["ratio"] for k in budgets
        )

    def at_tolerance(key: str) -> Callable[[str], float]:
        return lambda name: abs(results[name]["variants"]["bayes"]["tolerance"][key])

    def milliseconds(name: str) -> float:
        return float(results[name]["variants"]["bayes"]["ms"])

    return [
        markdown_head(["target", "worlds that reach the target", "median and worst value"]),
        _target_row("recorded models and curves without lapses: RMSE at most 1.05 times the RMSE "
                    "of 1, 2 and 4 bisections at equal cost", steady, max_ratio("1", "2", "4"),
                    maximum=1.05),
        _target_row("recorded models and curves without lapses: RMSE at most 0.5 times the RMSE "
                    "of 2 bisections at equal cost", steady, max_ratio("2"), maximum=0.5),
        _target_row("lapses of 5 %: RMSE at most 0.2 times the RMSE of 1, 2 and 4 bisections at "
                    "equal cost", lapsing_most, max_ratio("1", "2", "4"), maximum=0.2),
        _target_row("coverage at least 0.87", results, at_tolerance("coverage"), minimum=0.87),
        _target_row("coverage at most 0.93", results, at_tolerance("coverage"), maximum=0.93),
        _target_row("recorded models and curves without lapses: bias below 1 %", steady,
                    at_tolerance("bias"), maximum=0.01),
        _target_row("lapses of 2 and 5 %: bias below 2 %", lapsing, at_tolerance("bias"),
                    maximum=0.02),
        _target_row("cost of an interval within 10 % at most 0.4 times the cost of bisections with "
                    "the same RMSE", results, at_tolerance("of_bisections"), maximum=0.4),
        _target_row("at most 20 ms per decision, without cached state", results, milliseconds,
                    maximum=20),
    ]  # fmt: skip


def _target_row(
    target: str, names: Iterable[str], value: Callable[[str], float], *,
    maximum: float | None = None, minimum: float | None = None,
) -> str:  # fmt: skip
    values = [value(name) for name in names]
    reached = sum(
        (maximum is None or v <= maximum) and (minimum is None or v >= minimum) for v in values
    )
    worst = max(values) if minimum is None else min(values)
    return markdown_row(
        [target, f"{reached} of {len(values)}", f"{np.median(values):.2g}, {worst:.2g}"]
    )


def _accuracy_table(results: Results) -> list[str]:
    columns = [
        "world", "RMSE / RMSE of 1, 2, 4 bisections at equal cost",
        "interval within 10 %: cost (probes)", "cost / cost of bisections with this RMSE", "bias",
        "coverage",
    ]  # fmt: skip
    lines = [markdown_head(columns)]
    for name, world in results.items():
        bayes = world["variants"]["bayes"]
        end = bayes["tolerance"]
        ratios = ", ".join(f"{bayes['budgets'][k]['ratio']:.2f}" for k in ("1", "2", "4"))
        cells = [
            world_label(name), ratios, f"{end['cost']:.1f} ({end['rounds']:.0f})",
            f"{end['of_bisections']:.2f}", f"{end['bias']:+.1%}", f"{end['coverage']:.2f}",
        ]  # fmt: skip
        lines.append(markdown_row(cells))
    return lines


def _variants_table(results: Results) -> list[str]:
    columns = [
        "variant, on recorded models", "interval within 10 %: median cost", "time",
        "cost / cost of bisections", "coverage", "ms per decision",
    ]  # fmt: skip
    lines = [markdown_head(columns)]
    worlds = [world for name, world in results.items() if name in MODELS]
    for variant in worlds[0]["variants"]:
        ends = [world["variants"][variant]["tolerance"] for world in worlds]
        cost, elapsed, of_bisections = (
            np.median([end[key] for end in ends]) for key in ("cost", "time", "of_bisections")
        )
        coverages = [end["coverage"] for end in ends]
        milliseconds = np.median([world["variants"][variant]["ms"] for world in worlds])
        cells = [
            variant, f"{cost:.1f}", f"{elapsed:.1f}", f"{of_bisections:.2f}",
            f"{min(coverages):.2f} to {max(coverages):.2f}", f"{milliseconds:.0f}",
        ]  # fmt: skip
        lines.append(markdown_row(cells))
    return lines


def _single_runs_table(results: Results) -> list[str]:
    growths = list(next(iter(results.values()))["growth"])
    columns = ["world", "bisection: cost, RMSE", *(f"growth {g}: cost, bias" for g in growths)]
    lines = [markdown_head(columns)]
    for name, world in results.items():
        bisection = world["bisection"]["1"]
        cells = [
            f"{row['cost']:.1f}, {np.expm1(row['bias']):+.0%}" for row in world["growth"].values()
        ]
        bisection_cell = f"{bisection['cost']:.1f}, {bisection['rmse']:.2f}"
        lines.append(markdown_row([name, bisection_cell, *cells]))
    return lines
