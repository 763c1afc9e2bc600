"""Status of points, merged with the state of the SLURM queue."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flexhpc.launch.slurm.arrays import array_records, reasons_for_waiting, records_by_cluster
from flexhpc.launch.slurm.commands import Slurm, SlurmUnavailable
from flexhpc.store import RunFolder
from flexhpc.store.status import PointStatus

_QUERY_EVERY = 5.0


def mark_queued(statuses: Sequence[PointStatus], queued: Mapping[str, str]) -> list[PointStatus]:
    """Return the statuses, with state ``queued`` for waiting and stopped points in the queue.

    Args:
        statuses: status of each point.
        queued: mapping from the id of each point in the queue to the reason why the point waits.
    """
    return [
        replace(status, state="queued", message=queued[status.point.id])
        if status.state in ("waiting", "stopped") and status.point.id in queued
        else status
        for status in statuses
    ]


class QueueStatus:
    """Queue status of a run, from all clusters to which the run was submitted.

    If the run was not submitted to any cluster, no SLURM command is called.

    Attributes:
        unavailable: error message if a cluster did not respond, otherwise an empty string.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.unavailable = ""
        self._queued: dict[str, str] = {}
        self._polled = -1e9

    def add_queue_state(self, statuses: Sequence[PointStatus]) -> list[PointStatus]:
        """Return the statuses, with state ``queued`` for waiting and stopped points in any queue.

        The clusters are queried at most once every 5 s.
        """
        idle = any(status.state in ("waiting", "stopped") for status in statuses)
        if idle and time.monotonic() - self._polled >= _QUERY_EVERY:
            self._queued, self.unavailable = {}, ""
            for conf, records in records_by_cluster(array_records(self.run)).items():
                try:
                    queue = Slurm(conf).query_queue()
                except SlurmUnavailable as error:
                    self.unavailable = f"SLURM does not respond: {error}"
                    continue
                records = [record.with_job_id_from(queue) for record in records]
                self._queued |= reasons_for_waiting(records, queue)
            self._polled = time.monotonic()
        return mark_queued(statuses, self._queued)
