"""Print the table of docs/recipe.md: how much each choice of a recipe changes an EMC.

Usage: python -m bench.recipe RUN... [--markdown PAGE]
The RUNs are those of sweeps/recipe.yaml and sweeps/recipe_mup.yaml, or of any sweep whose points
each differ in one choice from the first point of the same model family and data set. With
--markdown, the table also replaces the one between the lines ``BEGIN`` and ``END`` of PAGE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.recipe.tables import markdown, study
from flexhpc.errors import InputError
from flexhpc.store.status import StatusReader, open_run

BEGIN = "<!-- bench.recipe begins -->"
END = "<!-- bench.recipe ends -->"


def in_page(page: str, table: str) -> str:
    """Return a page with its table replaced.

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
        opened = [open_run(run) for run in arguments.runs]
        results = study([s for run, _, points in opened for s in StatusReader(run, points).read()])
        table = markdown(results)
        if arguments.markdown:
            page = in_page(arguments.markdown.read_text(), table)
            arguments.markdown.write_text(page)
    except (InputError, ValueError, OSError) as error:
        sys.exit(str(error))
    print(table, end="")
    for name in results.waiting:
        print(f"not measured yet: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
