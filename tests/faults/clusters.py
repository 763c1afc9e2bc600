"""Faults of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.faults.processes import kill_in_turn
from tests.faults.site import Outcome, Site, Unavailable
from tests.slurm.conftest import Cluster, no_slurm, running_cluster


@contextlib.contextmanager
def a_cluster() -> Iterator[Cluster]:
    """Start the devcluster of this campaign."""
    if reason := no_slurm():
        raise Unavailable(reason)
    with running_cluster("faults", 4) as cluster:
        yield cluster


def twenty_sweeps(site: Site, times: int) -> Outcome:
    """Twenty commands for one run at once, half of them on SLURM; seven are killed in turn."""
    with a_cluster() as cluster:
        slurm = cluster.profile(site.folder, processes_per_node=1, checkpoint_every=0.1, retries=9)
        on_slurm = slurm.rename(site.folder / "slurm.yaml")
        site.profile("tracking_uri: none", workers=1)
        for _ in range(times):
            sweeps = [
                cluster.sweep(site.spec, on_slurm) if number % 2 else site.start()
                for number in range(20)
            ]
            for sweep in kill_in_turn(site, sweeps, 3):
                site.finish(sweep)
            site.note_probes()
        return site.conclude()
