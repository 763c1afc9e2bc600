"""Sweeps with random faults; `make test-faults` runs all kinds, and for longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FULL
from tests.faults.kinds import KINDS
from tests.faults.site import Site, Unavailable, skip

SHORT = (
    "killed worker", "killed everything", "damaged checkpoint", "full disk", "failing disk",
    "read-only disk", "tracking server down, broken, slow",
)  # fmt: skip
"""Kinds that CI runs; the others are similar to these or to other tests."""
FAULTS_PER_SWEEP = {"killed worker": 4, "killed rank": 2, "stopped worker": 2}
"""By kind; 1 for the others."""


@pytest.mark.full_budget
@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS if FULL else SHORT)
def test_faults_do_not_affect_results(kind: str, tmp_path: Path) -> None:
    site = Site(tmp_path, np.random.default_rng())
    try:
        outcome = KINDS[kind](site, FAULTS_PER_SWEEP.get(kind, 1))
    except Unavailable as error:
        skip(error)
    assert not outcome.broken, outcome
    assert outcome.survived == 1
    assert outcome.faults, "no fault occurred"
