"""Some random inputs; `python -m tests.faults.fuzz` tries more."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.conftest import FULL
from tests.faults.fuzz import fuzz

COUNT = 1_000 if FULL else 20


def test_random_input_is_rejected_or_read_correctly(tmp_path: Path) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    for kind, fuzzer in fuzz(tmp_path, np.random.default_rng(seed), COUNT).items():
        assert not fuzzer.broken, f"{kind}, seed {seed}: {fuzzer.broken[0]}"
        assert fuzzer.counts["tried"] >= COUNT
