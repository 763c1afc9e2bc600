"""Rebuild docs/findings*.md from the stored records, or store the records of finished runs.

python -m bench.findings
python -m bench.findings --keep runs/finding_activations
python -m bench.findings --replicate runs/mine finding_activations  # compare other seeds
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.findings.page import RECORDS, write_pages
from bench.findings.records import save_records
from bench.findings.replication import agreement

_DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuild docs/findings*.md, or store records.")
    parser.add_argument("--keep", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--replicate", nargs=2, metavar=("RUN", "RECORD"))
    arguments = parser.parse_args()
    if arguments.replicate:
        run, record = arguments.replicate
        print(*agreement(Path(run), RECORDS / f"{record}.json.xz"), sep="\n")
        return
    for run in arguments.keep:
        print(save_records(run, RECORDS))
    if not arguments.keep:
        write_pages(_DOCS)


if __name__ == "__main__":
    main()
