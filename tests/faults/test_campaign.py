"""Sweeps with random faults; `make test-faults` runs all kinds, and for longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FULL
from tests.faults.kinds import KINDS
from tests.faults.site import Site, Unavailable, skip


@pytest.mark.full_budget
@pytest.mark.faults
@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if FULL or kind.in_ci])
def test_faults_do_not_affect_results(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    site = Site(tmp_path, np.random.default_rng())
    try:
        outcome = kind.fault(site, kind.count_in_test)
    except Unavailable as error:
        skip(error)
    assert not outcome.broken, outcome
    assert outcome.survived == 1
    assert outcome.faults, "no fault occurred"
