"""Faults of a cluster."""

from __future__ import annotations

from tests.faults.processes import kill_in_turn
from tests.faults.site import Outcome, Site, Unavailable
from tests.slurm.conftest import no_slurm, running_cluster


def twenty_sweeps(site: Site, faults: int) -> Outcome:
    """Start twenty sweeps of one run at once, half of them on SLURM; kill seven in turn."""
    if reason := no_slurm():
        raise Unavailable(reason)
    with running_cluster("faults", 4) as cluster:
        slurm = cluster.profile(site.folder, processes_per_node=1, checkpoint_every=0.1, retries=9)
        slurm_profile = slurm.rename(site.folder / "slurm.yaml")
        site.write_profile("tracking_uri: none", workers=1)
        for _ in range(faults):
            sweeps = [
                cluster.sweep(site.spec, slurm_profile) if number % 2 else site.start()
                for number in range(20)
            ]
            for sweep in kill_in_turn(site, sweeps, 3):
                site.finish(sweep)
            site.check_probes()
        return site.resume_and_compare()
