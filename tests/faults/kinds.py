"""The kinds of faults, by name."""

from __future__ import annotations

import errno

from tests.faults import clusters, files, machines, processes, servers
from tests.faults.machines import failing_writes, on_small_disk
from tests.faults.site import Kind

KINDS: dict[str, Kind] = {
    "killed worker": processes.killed_worker,
    "killed everything": processes.killed_everything,
    "killed tracking process": processes.killed_tracking_process,
    "killed rank": processes.killed_rank,
    "interrupted ranks": processes.interrupted_ranks,
    "stopped worker": processes.stopped_worker,
    "ten sweeps, five killed": processes.ten_sweeps,
    "twenty sweeps, half on SLURM": clusters.twenty_sweeps,
    "two versions": processes.two_versions,
    "out of memory": processes.out_of_memory,
    "damaged point file": files.damaged_point_file,
    "damaged checkpoint": files.damaged_checkpoint,
    "NaN in the data": files.nan_in_data,
    "full disk": on_small_disk(lambda i: f"size={140 + 40 * i}k", "size=50m", "No space left"),
    "no inodes": on_small_disk(
        lambda i: f"size=50m,nr_inodes={22 + 3 * i}", "size=50m,nr_inodes=10000", "No space left"
    ),
    "read-only disk": machines.read_only,
    "failing disk": failing_writes(errno.EIO),
    "intermittently full disk": failing_writes(errno.ENOSPC),
    "power failure": machines.power_failure,
    "slow disk": machines.slow_disk,
    "host returns": machines.host_returns,
    "tracking server down, broken, slow": servers.bad_server,
}
