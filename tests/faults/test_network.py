"""A sweep connects only to its own processes and to the configured tracking server."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from tests.faults.machines import faulty
from tests.faults.site import Site, Unavailable, skip

pytestmark = pytest.mark.faults
LOCAL = {"127.0.0.1", "::ffff:127.0.0.1", "::1", "localhost", socket.gethostname()}
SERVER = "tracking.invalid"


@pytest.mark.parametrize(
    ("profile", "workers", "required", "allowed"),
    [
        ("processes_per_node: 2", 1, "127.0.0.1", LOCAL),
        (f"tracking_uri: http://{SERVER}:5000", 2, SERVER, {*LOCAL, SERVER}),
    ],
    ids=["ranks and a local database", "tracking server"],
)
def test_a_sweep_connects_only_to_its_processes_and_its_tracking_server(
    profile: str, workers: int, required: str, allowed: set[str], tmp_path: Path
) -> None:
    """The addresses and names that the sweep, its workers and its tracking process request."""
    site = Site(tmp_path, np.random.default_rng())
    site.write_profile(profile, workers=workers)
    calls = tmp_path / "calls"
    try:
        environment = faulty(site, CALLS=str(calls))
    except Unavailable as error:
        skip(error)
    site.finish_with_status(site.start(**environment))
    assert not site.outcome.broken, site.outcome
    requested = set(calls.read_text().split())
    assert required in requested, "calls are not recorded"
    assert requested <= allowed
