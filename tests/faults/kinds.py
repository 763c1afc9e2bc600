"""The kinds of faults: what befalls a sweep, and how it is helped afterwards."""

from __future__ import annotations

import errno

from tests.faults.clusters import twenty_sweeps
from tests.faults.files import damaged_checkpoint, damaged_point_file, nan_in_data
from tests.faults.machines import (
    failing_writes,
    host_comes_back,
    on_small_disk,
    power_failure,
    read_only,
    slow_disk,
)
from tests.faults.processes import (
    another_version,
    interrupted_ranks,
    killed_everything,
    killed_follower,
    killed_rank,
    killed_worker,
    many_sweeps,
    out_of_memory,
    stopped_worker,
)
from tests.faults.servers import bad_server
from tests.faults.site import Kind

KINDS: dict[str, Kind] = {
    "killed worker": killed_worker,
    "killed everything": killed_everything,
    "killed follower": killed_follower,
    "killed rank": killed_rank,
    "interrupted ranks": interrupted_ranks,
    "stopped worker": stopped_worker,
    "ten sweeps, five killed": many_sweeps,
    "twenty sweeps, half on SLURM": twenty_sweeps,
    "another version beside": another_version,
    "out of memory": out_of_memory,
    "damaged point file": damaged_point_file,
    "damaged checkpoint": damaged_checkpoint,
    "NaN in the data": nan_in_data,
    "full disk": on_small_disk(lambda i: f"size={140 + 40 * i}k", "size=50m", "No space left"),
    "no inodes": on_small_disk(
        lambda i: f"size=50m,nr_inodes={22 + 3 * i}", "size=50m,nr_inodes=10000", "No space left"
    ),
    "read-only disk": read_only,
    "failing disk": failing_writes(errno.EIO),
    "disk full now and then": failing_writes(errno.ENOSPC),
    "power failure": power_failure,
    "slow disk": slow_disk,
    "host comes back": host_comes_back,
    "tracking server down, broken, slow": bad_server,
}
