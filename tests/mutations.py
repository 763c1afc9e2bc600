"""Mutation tests: change single lines of flexhpc, and check that a test fails.

Usage: python -m tests.mutations [--faults] [NAME ...]

Works on a copy of the checkout. Prints for each mutation the first test that fails, or with
--faults the first failure of `make test-faults`. Exit status 1: a mutation was not detected.
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
    """A change of one line.

    Attributes:
        file: below flexhpc/; original, replacement: the text.
        tests: files of tests that must detect the change.
        faults: kinds of faults that must detect it, with --faults.
    """

    name: str
    file: str
    original: str
    replacement: str
    tests: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


MUTATIONS = (
    Mutation(
        "fsync", "atomic.py", "os.fsync(written.fileno())", "pass", ("tests/test_atomic.py",),
        ("power failure",),
    ),
    Mutation(
        "claim token", "store/claim.py", "current.token == self.record.token", "True",
        ("tests/store",), ("host returns",),
    ),
    Mutation(
        "rank vote", "training/group.py", "return bool(self.all_reduce(votes) > 0)",
        "return stop", ("tests/training/test_group.py",), ("interrupted ranks",),
    ),
    Mutation(
        "censoring", "search/history.py",
        'return "right" if self.smallest_fail is None else "none"', 'return "none"',
        ("tests/search/test_search.py", "tests/search/test_estimands.py"),
    ),
    Mutation(
        "near-equal batches", "training/budget.py",
        "[size + 1] * n_larger + [size] * (count - n_larger)",
        "[batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)",
        ("tests/training",),
    ),
    Mutation(
        "threshold of an explosion", "training/gates.py", "_EXPLOSION = 3.0", "_EXPLOSION = 0.3",
        ("tests/training",),
    ),
    Mutation(
        "mask bit order", "store/bits.py", "return np.packbits(mask)",
        'return np.packbits(mask, bitorder="little")', ("tests/store",),
    ),
    Mutation(
        "id hash", "config/identity.py", "hashlib.sha256(text.encode())",
        "hashlib.sha256(text.lower().encode())", ("tests/config",),
    ),
    Mutation(
        "memory format of gradients", "training/engine.py",
        "parameter.grad = match_memory_format(gradient, parameter) if",
        "parameter.grad = gradient if", ("tests/training/test_group.py",),
    ),
    Mutation(
        "batches moved to the device", "training/loop.py", "order.to(group.device).split(sizes)",
        "order.split(sizes)", ("tests/training/test_stand_in_device.py",),
    ),
    Mutation(
        "mask moved to the CPU", "training/loop.py", "evaluation.correct.cpu().numpy()",
        "evaluation.correct.numpy()", ("tests/training/test_stand_in_device.py",),
    ),
    Mutation(
        "checksum of a point file", "store/checksum.py",
        "if hashlib.sha256(memoryview(content)[USER_BLOCK_SIZE:]).digest() != content[_DIGEST]:",
        "if False:", faults=("damaged point file",),
    ),
    Mutation(
        "checksums of a checkpoint", "training/checkpoint.py",
        "_verify_checksums(content)\n        state", "state", faults=("damaged checkpoint",),
    ),
    Mutation(
        "optimizer state of a checkpoint", "training/loop.py",
        'self.optimizer.load_state_dict(saved["optimizer"])', "pass",
        faults=("killed worker",),
    ),
    Mutation(
        "uncounted child runs", "tracking/sync.py",
        "self._delete_uncounted_children(parent, status.point.id)", "pass",
        faults=("killed tracking process",),
    ),
    Mutation(
        "partial files of killed writers", "store/run_folder.py",
        "return [path for path in parts if", "return [path for path in () if",
        faults=("slow disk",),
    ),
    Mutation(
        "a server that does not respond", "tracking/periodic_sync.py", "except Exception as error:",
        "except KeyError as error:", faults=("tracking server down, broken, slow",),
    ),
    Mutation(
        "no space on the disk", "store/point_file.py",
        "except (OSError, RuntimeError, ValueError, MemoryError) as error:",
        "except KeyError as error:", faults=("full disk",),
    ),
)  # fmt: skip


def detect(mutation: Mutation, copy: Path, with_faults: bool) -> str:
    """Return the first line of output that reports a mutation, or an empty string."""
    detectors = mutation.faults if with_faults else mutation.tests
    if with_faults:
        kinds = [word for kind in detectors for word in ("--kind", kind)]
        command = ["tests.faults", "--minutes", "6", "--until-broken", *kinds]
    else:
        command = ["pytest", "-q", "-x", "-n", "0", *detectors]
    file = copy / "flexhpc" / mutation.file
    text = file.read_text()
    file.write_text(text.replace(mutation.original, mutation.replacement))
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        file.write_text(text)
    lines = [s for s in done.stdout.splitlines() if s.startswith(("FAILED", *detectors))]
    if with_faults:  # a sweep in which no fault occurred is reported as well
        lines = [line for line in lines if "lost=0, duplicates=0, wrong=0" not in line]
    return lines[0] if lines and done.returncode else ""


def main() -> int:
    """Try all mutations, or those with the given names; return the exit status."""
    names = [word for word in sys.argv[1:] if word != "--faults"]
    with_faults = "--faults" in sys.argv[1:]
    mutations = [m for m in MUTATIONS if (m.faults if with_faults else m.tests)]
    undetected = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "flexhpc"
        copy_checkout(copy)
        for mutation in mutations:
            if names and mutation.name not in names:
                continue
            failure = detect(mutation, copy, with_faults)
            undetected += not failure
            print(f"{mutation.name}: {failure or 'NOT DETECTED'}", flush=True)
    return min(undetected, 1)


if __name__ == "__main__":
    sys.exit(main())
