"""Print the EMCs of the plain loops and of flexhpc as Markdown.

Usage: python -m tests.reference.table [RECIPE ...]
Takes a quarter of an hour on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flexhpc.measuring.probe import choose_device
from tests.reference.agreement import SearchResult, fit_curve_of, measure, n50, p_value
from tests.reference.data import missing_path
from tests.reference.recipes import Count, Recipe, counts_of, recipes

TABLE_HEAD = (
    "| recipe | plain loop: fits at each n | plain loop: n50 "
    "| flexhpc: EMC | flexhpc: probes | p |\n"
    "|---|---|---|---|---|---|"
)


def format_row(recipe: Recipe, counts: Sequence[Count], result: SearchResult) -> str:
    """Return the row of a recipe: both EMCs with their 90 % intervals, and the p value."""
    fits = ", ".join(f"{c.n}: {c.fitted}/{c.total}" for c in counts)
    lower, middle, upper = n50(fit_curve_of(counts, result.n_limit))
    estimate = result.estimate
    interval = f"{estimate.emc} [{estimate.emc_lo}, {estimate.emc_hi}]"
    cells = [
        recipe.name,
        fits,
        f"{middle:.0f} [{lower:.0f}, {upper:.0f}]",
        interval if estimate.censored == "none" else f"{interval} {estimate.censored}-censored",
        str(estimate.probes),
        f"{p_value(result.curve, counts):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    choose_device(threads=1)
    print(TABLE_HEAD, flush=True)
    for name in sys.argv[1:] or recipes():
        recipe = recipes()[name]
        if path := missing_path(recipe.sections["data"]):
            print(f"{name}: skipped, {path} not found", file=sys.stderr, flush=True)
            continue
        print(format_row(recipe, counts_of(recipe), measure(recipe)), flush=True)


if __name__ == "__main__":
    main()
