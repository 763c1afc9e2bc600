"""Rebuild docs/findings.md from the stored records, or store those of finished runs.

python -m bench.findings
python -m bench.findings --keep runs/finding_activations
python -m bench.findings --again runs/mine finding_activations  # other seeds: do they agree?
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.findings.again import agreement
from bench.findings.page import RECORDS, write
from bench.findings.records import keep

_PAGE = Path(__file__).parents[2] / "docs" / "findings.md"


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description="Rebuild docs/findings.md, or store records.")
    parser.add_argument("--keep", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--page", type=Path, default=_PAGE)
    parser.add_argument("--again", nargs=2, metavar=("RUN", "RECORD"))
    arguments = parser.parse_args()
    if arguments.again:
        run, record = arguments.again
        print(*agreement(Path(run), RECORDS / f"{record}.json.xz"), sep="\n")
        return
    for run in arguments.keep:
        print(keep(run, RECORDS))
    if not arguments.keep:
        write(arguments.page)
        print(arguments.page)


if __name__ == "__main__":
    main()
