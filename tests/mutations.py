"""Breaks flexhpc on purpose, one line at a time, and asks whether its tests notice.

Usage: python -m tests.mutations [NAME ...]
Works on a copy. Prints for each mutation the first test that fails; exits with 1 if one survives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.archives import copy_checkout


@dataclass(frozen=True)
class Mutation:
    """One wrong line: in a file, ``right`` becomes ``wrong``; ``tests`` are to notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation("fsync", "atomic.py", "os.fsync(written.fileno())", "pass", ("tests/test_atomic.py",)),
    Mutation(
        "claim token", "store/claim.py", "current.token == self.record.token", "True",
        ("tests/store",),
    ),
    Mutation(
        "rank vote", "training/network.py", "return heard and bool(total > 0)", "return vote",
        ("tests/training/test_group.py",),
    ),
    Mutation(
        "censoring", "search/history.py",
        'return "right" if self.smallest_fail is None else "none"', 'return "none"',
        ("tests/search/test_search.py", "tests/search/test_estimands.py"),
    ),
    Mutation(
        "near-equal batches", "training/batches.py",
        "[small + 1] * larger + [small] * (count - larger)",
        "[batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)",
        ("tests/training",),
    ),
    Mutation(
        "margin of an explosion", "training/plateau.py", "_EXPLODED = 3.0", "_EXPLODED = 0.3",
        ("tests/training",),
    ),
    Mutation(
        "mask bit order", "store/bits.py", "return np.packbits(mask)",
        'return np.packbits(mask, bitorder="little")', ("tests/store",),
    ),
    Mutation(
        "id hash", "spec/identity.py", "hashlib.sha256(text.encode())",
        "hashlib.sha256(text.lower().encode())", ("tests/spec",),
    ),
)  # fmt: skip


def noticed(mutation: Mutation, copy: Path) -> str:
    """Return which test fails with it, or nothing."""
    file = copy / "flexhpc" / mutation.file
    text = file.read_text()
    assert text.count(mutation.right) == 1, f"{mutation.name}: the line is not there (once)"
    file.write_text(text.replace(mutation.right, mutation.wrong))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", *mutation.tests], cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        file.write_text(text)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0] if failed else ""


def main() -> int:
    """Try the mutations that are named, or all."""
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "flexhpc"
        copy_checkout(copy)
        for mutation in MUTATIONS:
            if sys.argv[1:] and mutation.name not in sys.argv[1:]:
                continue
            found = noticed(mutation, copy)
            survivors += not found
            print(f"{mutation.name}: {found or 'NOT NOTICED'}", flush=True)
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main())
