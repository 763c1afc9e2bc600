"""Whom a sweep speaks to: itself, and the tracking server that it is told of."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from tests.faults.machines import faulty
from tests.faults.site import Site, Unavailable, leave_out

pytestmark = pytest.mark.faults
AT_HOME = {"127.0.0.1", "::ffff:127.0.0.1", "::1", "localhost", socket.gethostname()}


def calls(folder: Path, *profile: str, workers: int) -> set[str]:
    """Return the addresses and names that a sweep, its workers and its follower asked for."""
    site = Site(folder, np.random.default_rng())
    site.profile(*profile, workers=workers)
    heard = folder / "calls"
    try:
        environment = faulty(site, CALLS=str(heard))
    except Unavailable as error:
        leave_out(error)
    site.must_end_well(site.start(**environment))
    assert not site.outcome.broken, site.outcome
    return set(heard.read_text().split()) if heard.exists() else set()


def test_a_sweep_speaks_to_nobody_elsewhere(tmp_path: Path) -> None:
    """With processes that meet on this machine, and MLflow's database in the run folder."""
    found = calls(tmp_path, "processes_per_node: 2", workers=1)
    assert "127.0.0.1" in found, "the processes' own calls are heard"
    assert found <= AT_HOME


def test_it_speaks_to_the_tracking_server_it_is_told_of(tmp_path: Path) -> None:
    server = "tracking.invalid"
    found = calls(tmp_path, f"tracking_uri: http://{server}:5000", workers=2)
    assert server in found
    assert found - {server} <= AT_HOME
