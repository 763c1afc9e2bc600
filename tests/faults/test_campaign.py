"""Some faults; `make test-faults` has them and more kinds, for longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FULL
from tests.faults.kinds import KINDS
from tests.faults.site import Site, Unavailable, leave_out

SHORT = (
    "killed worker", "killed everything", "damaged checkpoint", "full disk", "failing disk",
    "read-only disk", "tracking server down, broken, slow",
)  # fmt: skip
"""What CI has; the others resemble these or tests elsewhere."""
FEW = {"killed worker": 4, "killed rank": 2, "stopped worker": 2}
"""Faults in one sweep; of the others, 1."""


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS if FULL else SHORT)
def test_nothing_is_lost_doubled_or_wrong(kind: str, tmp_path: Path) -> None:
    site = Site(tmp_path, np.random.default_rng())
    try:
        outcome = KINDS[kind](site, FEW.get(kind, 1))
    except Unavailable as error:
        leave_out(error)
    assert not outcome.broken, outcome
    assert outcome.survived == 1
    assert outcome.tried, "no fault struck"
