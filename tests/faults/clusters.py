"""Faults of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.barrier import wait_for
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


def _profiles(site: Site, cluster: Cluster) -> Path:
    """Write the profile of sweeps here; return that of sweeps on the cluster."""
    slurm = cluster.profile(site.folder, processes_per_node=1, checkpoint_every=0.1, retries=9)
    on_slurm = slurm.rename(site.folder / "slurm.yaml")
    site.profile("tracking_uri: none", workers=1)
    return on_slurm


def twenty_sweeps(site: Site, times: int) -> Outcome:
    """Twenty commands for one run at once, half of them on SLURM; seven are killed in turn."""
    with a_cluster() as cluster:
        on_slurm = _profiles(site, cluster)
        for _ in range(times):
            sweeps = [
                cluster.sweep(site.spec, on_slurm) if number % 2 else site.start()
                for number in range(20)
            ]
            for sweep in kill_in_turn(site, sweeps, 3):
                site.finish(sweep)
            site.note_probes()
        return site.conclude()


def killed_node(site: Site, times: int) -> Outcome:
    """A node of SLURM dies with all that runs there, while a sweep here shares the run."""
    with a_cluster() as cluster:
        on_slurm = _profiles(site, cluster)
        for _ in range(times):
            sweeps = [cluster.sweep(site.spec, on_slurm), site.start()]
            site.hold(sweeps[0])
            for node in {job[3] for job in cluster.queue() if job[2] == "RUNNING"}:
                cluster.kill_node(node)
                site.outcome.tried += 1
                wait_for(lambda node=node: "down" in cluster.nodes()[node], cluster.nodes)
                cluster.up()
                break
            for sweep in sweeps:
                site.finish(sweep)
            site.note_probes()
            if site.outcome.tried == 0:
                site.begin_anew()
        return site.conclude()
