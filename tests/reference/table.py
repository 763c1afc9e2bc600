"""Print the plain loops' EMCs beside flexhpc's, as Markdown.

Usage: python -m tests.reference.table [RECIPE ...]
Measures each recipe by flexhpc's default search: a quarter of an hour on a core.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flexhpc.measuring.probe import choose_device
from tests.reference.agreement import Found, by_counts, n50, p_value, search
from tests.reference.data import needed
from tests.reference.recipes import Count, Recipe, counts_of, recipes

HEAD = (
    "| recipe | fits at n, plain loop | n50 of these counts | flexhpc | probes | p |\n"
    "|---|---|---|---|---|---|"
)


def row(recipe: Recipe, counts: Sequence[Count], found: Found) -> str:
    """Return a recipe's line: both EMCs with their 90 % intervals, and the check's p."""
    told = ", ".join(f"{c.n}: {c.fitted}/{c.of}" for c in counts)
    lower, middle, upper = n50(by_counts(counts, found.n_limit))
    estimate = found.estimate
    ours = f"{estimate.emc} [{estimate.emc_lo}, {estimate.emc_hi}]"
    cells = [
        recipe.name,
        told,
        f"{middle:.0f} [{lower:.0f}, {upper:.0f}]",
        ours if estimate.censored == "none" else f"{ours} {estimate.censored}-censored",
        str(estimate.probes),
        f"{p_value(found.curve, counts):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    choose_device(threads=1)
    print(HEAD, flush=True)
    for name in sys.argv[1:] or recipes():
        recipe = recipes()[name]
        place = needed(recipe.words["data"])
        if place is not None and not place.exists():
            print(f"{name}: left out, there is no {place}", file=sys.stderr, flush=True)
            continue
        print(row(recipe, counts_of(recipe), search(recipe)), flush=True)


if __name__ == "__main__":
    main()
