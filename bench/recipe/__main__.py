"""Print the table of docs/recipe.md: how much each choice of a recipe changes an EMC.

Usage: python -m bench.recipe RUN... [--markdown PAGE]
RUN: run folder of sweeps/recipe.yaml, of sweeps/recipe_mup.yaml, or of any sweep in which each
point differs in one choice from the first point of the same model family and data set. With
--markdown, the table is also written into PAGE, between the lines ``BEGIN`` and ``END``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.recipe.tables import markdown, study
from flexhpc.api.runs import load
from flexhpc.errors import InputError

BEGIN = "<!-- bench.recipe begins -->"
END = "<!-- bench.recipe ends -->"


def replace_table(page: str, table: str) -> str:
    """Return the text of a page with the table between BEGIN and END replaced.

    Raises:
        InputError: The page does not contain each of BEGIN and END once, in this order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise InputError(f"the page must contain the line {BEGIN} once, followed by {END}")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--markdown", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    try:
        results = study([measurement for run in arguments.runs for measurement in load(run)])
        table = markdown(results)
        if arguments.markdown:
            page = arguments.markdown.read_text()
            arguments.markdown.write_text(replace_table(page, table))
    except (InputError, ValueError, OSError) as error:
        sys.exit(str(error))
    print(table, end="")
    for name in results.unfinished:
        print(f"not measured yet: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
