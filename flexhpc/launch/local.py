"""Workers on this machine, forked by a process that has imported what they need."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flexhpc.launch.fork_server import ForkServer, OrderedWorker
from flexhpc.launch.machine import visible_gpus
from flexhpc.launch.profile import LocalProfile
from flexhpc.versions import image
from flexhpc.worker.orders import Order
from flexhpc.worker.task import PROBES_AT_ONCE, WORKER_GPU


class LocalBackend:
    """Workers of one launch; each takes whatever point of the run is free.

    Args:
        folder: of the launch: logs, and the task.
        profile: how many workers, of how many processes.
    """

    shared = True
    ours = True
    patience = 5
    """Once is no reason to give a point up: another sweep may have held every point."""

    def __init__(self, folder: Path, profile: LocalProfile) -> None:
        self.folder, self.profile = folder, profile
        self.image = image()
        self._workers: list[OrderedWorker] = []
        self._started = 0

    def poll(self) -> None:
        """Find out which workers run."""
        for server in {worker.server for worker in self._workers}:
            server.poll()
            server.copy_errors()

    def covers(self, point_id: str) -> bool:
        """Any worker comes to any point."""
        return self.running()

    def running(self) -> bool:
        """Return whether a worker runs."""
        return any(worker.runs() for worker in self._workers)

    def crashed(self) -> bool:
        """Return whether one of the last workers did not end well."""
        return any(not worker.runs() and not worker.ended_well() for worker in self._workers)

    def start(self, points: Sequence[str]) -> bool:
        """Start workers."""
        count, at_once = self.profile.spread(len(points))
        processes = self.profile.processes_per_node
        each = processes * at_once
        gpus = visible_gpus()
        server = ForkServer.of_this_process()
        self._workers = []
        for number in range(count):
            ids = [gpus[(number * each + i) % len(gpus)] for i in range(each)] if gpus else []
            told = {PROBES_AT_ONCE: str(at_once)}
            if ids:  # an empty CUDA_VISIBLE_DEVICES would also hide GPUs of AMD, and those of WSL
                told[WORKER_GPU] = ",".join(dict.fromkeys(ids))
            self._started += 1
            order = Order(
                worker=str(self.folder / f"worker-{self._started}"),
                task=str(self.folder / "task.json"),
                processes=processes,
                environment={**os.environ, **told},
                cwd=str(Path.cwd()),
            )
            self._workers.append(server.start(order))
        return True

    def waiting(self) -> Mapping[str, str]:
        """Nothing queues on this machine."""
        return {}

    def log(self, point_id: str) -> str:
        """Return the folder of all logs: which worker died over a point is not known."""
        return str(self.folder)

    def note(self) -> str:
        """Nothing to say."""
        return ""

    def summary(self) -> str:
        """Return how many workers were started."""
        return f"{len(self._workers)} workers started"
