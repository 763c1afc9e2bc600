"""The kinds of faults, by name."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from tests.faults import files, machines, processes, servers
from tests.faults.machines import failing_writes, on_small_disk
from tests.faults.site import Fault


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        fault: causes faults in sweeps of a site, and compares the results.
        count: number of faults per sweep in `make test-faults`.
        count_in_test: number of faults per sweep in the tests.
        in_ci: whether CI runs the kind; the others are similar to these or to other tests.
    """

    fault: Fault
    count: int = 2
    count_in_test: int = 1
    in_ci: bool = False


KINDS = {
    "killed worker": Kind(processes.killed_worker, 30, 4, in_ci=True),
    "killed everything": Kind(processes.killed_everything, 4, in_ci=True),
    "killed tracking process": Kind(processes.killed_tracking_process),
    "killed rank": Kind(processes.killed_rank, 6, 2),
    "interrupted ranks": Kind(processes.interrupted_ranks, 3),
    "stopped worker": Kind(processes.stopped_worker, 6, 2),
    "ten sweeps, five killed": Kind(processes.ten_sweeps, 1),
    "twenty sweeps, half on SLURM": Kind(processes.twenty_sweeps, 1),
    "two versions": Kind(processes.two_versions, 1),
    "out of memory": Kind(processes.out_of_memory),
    "damaged point file": Kind(files.damaged_point_file),
    "damaged checkpoint": Kind(files.damaged_checkpoint, in_ci=True),
    "NaN in the data": Kind(files.nan_in_data),
    "full disk": Kind(
        on_small_disk(lambda i: f"size={140 + 40 * i}k", "size=50m", "No space left"), in_ci=True
    ),
    "no inodes": Kind(
        on_small_disk(
            lambda i: f"size=50m,nr_inodes={22 + 3 * i}", "size=50m,nr_inodes=10000",
            "No space left",
        )
    ),
    "read-only disk": Kind(machines.read_only, in_ci=True),
    "failing disk": Kind(failing_writes(errno.EIO), in_ci=True),
    "intermittently full disk": Kind(failing_writes(errno.ENOSPC)),
    "power failure": Kind(machines.power_failure),
    "slow disk": Kind(machines.slow_disk, 1),
    "host returns": Kind(machines.host_returns, 1),
    "tracking server down, broken, slow": Kind(servers.bad_server, in_ci=True),
}  # fmt: skip
